//! The gRPC control service: pushes account states to edges and takes admin actions.
//!
//! Each replica of it reads the topic `accounts` whole; none of them writes account state. An admin action becomes
//! a command on the log, and its answer is the state that the account's one writer made of it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accounts;
mod admin;
mod admission;
mod audit_service;
mod command_message;
mod config;
mod core;
mod edge_registry;
mod edge_service;
mod edge_session;
mod edge_timing;
mod enrol_service;
mod error;
mod event_rate;
mod event_service;
mod lock_days;
mod methods;
mod metrics;
mod paging;
mod pushes;
mod replica_feed;
mod service;
mod tails;
mod unlock_evidence;
mod view;
mod waiters;

pub use config::ControlConfig;
pub use error::ControlError;
pub use service::{Api, Service};
pub use tidegate_gate::Gated;
