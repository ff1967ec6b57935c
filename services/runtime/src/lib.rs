//! What every service process shares: configuration, logs, traces, health and metrics, shutdown, TLS,
//! pauses between attempts, errors on one line, and what systemd is told.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backoff;
pub mod config;
mod error_line;
pub mod http;
pub mod ops;
pub mod shutdown;
pub mod systemd;
pub mod telemetry;
pub mod tls;
pub mod traces;

pub use config::{ConfigError, Problem, Problems, Validate};
pub use error_line::error_line;
pub use ops::{Health, OpsServer};
