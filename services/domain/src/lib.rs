#![cfg_attr(test, allow(clippy::unwrap_used))]
//! The words of the domain: [`Account`], [`Event`], the account state machine ([`apply`]) and the
//! [`Replica`] of all states that edge and control share.
//!
//! Nothing here does I/O or reads a clock: times are arguments, in milliseconds since 1970 UTC
//! (`_ms`, `i64`). Offsets are those of the log's partitions (`u64`, the first record is 0).

mod account;
mod event;
mod replica;
mod setting;
mod state;
mod timeline;
mod transition;

pub use account::{Account, AccountError, AccountForm, AccountKind};
pub use event::{
    Delivery, DeliveryOutcome, Disposition, Event, EventId, EventKind, Lane, Login, Recipients, Submission,
};
pub use replica::{Applied, Position, Positions, Replica};
pub use setting::{DomainExemption, Setting, SettingKind};
pub use state::{
    AccountState, AsOf, Cause, CleanSlate, ClientSeen, CommandOutcome, Decision, Evidence, Exemption, Lock, Notice,
    QueuedMail, RuleRef, Status, UnlockEvidence,
};
pub use timeline::{Change, Milestone};
pub use transition::{Action, Command, CommandKind, Effect, Input, Match, Sightings, apply};
