//! Configuration of the server: one file for `serve`, `stream` and `control`.

use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use tidegate_bus::BusConfig;
use tidegate_control::ControlConfig;
use tidegate_runtime::telemetry::LogConfig;
use tidegate_runtime::{Problems, Validate, config::key};
use tidegate_stream::StreamConfig;

/// The server's configuration. `tidegate.toml` beside this crate says every key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Where the topics are: the embedded log, or Kafka.
    pub log: BusConfig,
    /// The stream service.
    #[serde(default)]
    pub stream: StreamConfig,
    /// The control service.
    #[serde(default)]
    pub control: ControlConfig,
    /// Health and metrics.
    #[serde(default)]
    pub ops: OpsConfig,
    /// Logs.
    #[serde(default)]
    pub telemetry: LogConfig,
}

/// Where health and metrics are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpsConfig {
    /// Address of `/healthz`, `/readyz` and `/metrics`; they name no account, so any address may be given.
    pub listen: SocketAddr,
}

impl Default for OpsConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7780)) }
    }
}

impl Validate for ServerConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        self.log.validate(&key(path, "log"), problems);
        self.stream.validate(&key(path, "stream"), problems);
        self.control.validate(&key(path, "control"), problems);
        self.telemetry.validate(&key(path, "telemetry"), problems);
    }
}
