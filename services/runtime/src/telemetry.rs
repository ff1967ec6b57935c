//! Structured logs to standard error.

use crate::config::{Problems, Validate};
use serde::{Deserialize, Serialize};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How a process logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// For people or for programs.
    pub format: LogFormat,
    /// Which records, e.g. `info` or `info,tidegate_edge=debug`.
    pub filter: String,
}

/// For whom a process logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Human, filter: "info".to_owned() }
    }
}

impl Validate for LogConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        if let Err(error) = EnvFilter::try_new(&self.filter) {
            problems.add(
                path,
                "filter",
                format!("is {:?}: {error}; allowed: e.g. info or info,tidegate_edge=debug", self.filter),
            );
        }
    }
}

/// Libraries that tell at level info what is of interest to their authors; a filter that names them changes it.
const CHATTY: &str = "buoyant_kernel=warn,delta_kernel=warn,deltalake_core=warn";

/// Begins to log; a second call in one process changes nothing.
pub fn init(config: &LogConfig) {
    let filter = EnvFilter::try_new(format!("{CHATTY},{}", config.filter)).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A subscriber that another part of the process installed stays.
    let _ = match config.format {
        LogFormat::Human => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
