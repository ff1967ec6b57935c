//! What every service process shares: configuration, telemetry, health and metrics, shutdown, TLS,
//! pauses between attempts.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backoff;
pub mod config;
pub mod http;
pub mod ops;
pub mod shutdown;
pub mod telemetry;
pub mod tls;

pub use config::{ConfigError, Problem, Problems, Validate};
pub use ops::{Health, OpsServer};
