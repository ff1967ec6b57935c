#![cfg_attr(test, allow(clippy::unwrap_used))]
//! Windowed per-account statistics and rules over Arrow with DataFusion; time is an argument.
//!
//! [`Statistics`] are declared in SQL, [`Rules`] are SQL predicates over them, both planned once. An [`Engine`] takes
//! events ([`EventBatchBuilder`] makes the batches), keeps for each account the partial states of DataFusion's own
//! aggregate functions in panes of time that all windows share, and gives the rules that hold after each batch.
//!
//! Nothing here does I/O or reads a clock: times are arguments, in milliseconds since 1970 UTC (`_ms`, `i64`).

mod aggregate;
mod engine;
mod event;
mod files;
mod problem;
mod row;
mod rules;
mod sql;
mod statistics;
mod varint;
mod window;

pub use datafusion::DATAFUSION_VERSION;
pub use engine::{
    AccountMatches, Engine, EngineError, EngineLimits, EngineStats, Inspection, LimitInForce, LoadError, Loaded,
    Series, Taken,
};
pub use event::{EventBatch, EventBatchBuilder, EventColumn, event_columns, event_schema};
pub use files::{Source, parse_files};
pub use problem::{Position, Problem};
pub use rules::{DEFAULT_RULES, Limits, Mode, RuleInfo, RuleSettings, Rules};
pub use statistics::{AggregateState, DEFAULT_STATISTICS, StatisticInfo, Statistics};
pub use window::{WINDOWS, Window};
