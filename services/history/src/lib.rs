//! The history: every event and decision in Delta Lake tables, each record once, and analysts' SQL over them by Arrow
//! Flight SQL.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod columns;
mod config;
mod files;
mod fill;
mod flight;
mod hex;
mod lake;
mod metrics;
mod query;
mod service;
mod sink;
mod tables;
mod threads;
mod upkeep;

pub use columns::{Column, ColumnKind};
pub use config::{HistoryConfig, QueryConfig};
pub use fill::{Filled, Filler, compact};
pub use lake::{Committed, Lake, LakeError, LakeTable};
pub use query::View;
pub use service::{HistoryError, Service};
pub use tables::{DATE, Table};
