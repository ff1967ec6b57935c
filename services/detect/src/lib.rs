#![cfg_attr(test, allow(clippy::unwrap_used))]
//! Windowed per-account statistics and rules over Arrow with DataFusion; time is an argument.

mod aggregate;
mod event;
mod problem;
mod varint;
mod window;

pub use event::{EventBatch, EventBatchBuilder, EventColumn, event_columns, event_schema};
pub use problem::{Position, Problem};
pub use window::{WINDOWS, Window};
