//! The agent beside a mail server: publishes one event for each submission and refuses the mail of locked accounts at
//! once, from memory. No SMTP command ever waits on the network.
//!
//! [`Service::bind`] loads what was held before and listens, [`Service::run`] serves until it is told to end.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod addresses;
mod clock;
pub mod config;
mod control_client;
pub mod enrol;
mod error;
mod gate;
mod hash_key;
mod intake;
mod link;
mod listen;
mod local_cap;
mod metrics;
mod publish;
mod rspamd;
mod service;
mod session;
mod states;
mod steps;
mod upkeep;

pub use addresses::{ADDRESSES_FILE, Addresses};
pub use clock::Clock;
pub use config::EdgeConfig;
pub use error::EdgeError;
pub use service::Service;
pub use states::whole_file as states_file;
