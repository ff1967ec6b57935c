//! Tells people of decisions about accounts: mail and webhooks, at least once, with ids that stay the same.
//!
//! A consumer of `accounts`: each new entry of a state's timeline becomes a notification for each of its recipients,
//! written to the topic `notifications` together with the position in `accounts`; from there it is sent, and what came
//! of it is written there, too. See the README beside this crate.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
mod contacts;
mod identity;
mod kind;
mod outbox;
mod reminders;
mod routing;
mod values;

pub use config::NotifyConfig;
pub use kind::Kind;
pub use outbox::{Delivery, Outcome};
