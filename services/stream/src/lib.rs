//! Consumes events and commands, keeps the windows, decides, and is the one writer of account states.
//!
//! [`Partition`] is the sans-IO core of one partition, [`Service`] the process around it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod activity;
mod announce;
pub mod checkpoint;
mod checkpointing;
mod config;
mod due;
mod in_force;
mod inspections;
mod metrics;
mod observations;
mod output;
mod partition;
mod rule_files;
mod senders;
mod service;
mod settings;
mod sharing;
mod steps;
mod take_over;
mod worker;

pub use config::StreamConfig;
pub use inspections::InspectionRequest;
pub use observations::Observation;
pub use output::{Counts, Decided, Origin, Output};
pub use partition::{Partition, PartitionError};
pub use rule_files::{RuleFileError, RuleFiles};
pub use service::{Service, StreamError};
pub use settings::DomainExemptions;
