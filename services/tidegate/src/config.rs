//! Configuration of the server: one file for `serve`, `stream`, `control`, `notifier` and `history`.

use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use tidegate_access::AccessConfig;
use tidegate_bus::BusConfig;
use tidegate_console::ConsoleConfig;
use tidegate_control::ControlConfig;
use tidegate_history::HistoryConfig;
use tidegate_notify::NotifyConfig;
use tidegate_runtime::telemetry::LogConfig;
use tidegate_runtime::tls::check_access;
use tidegate_runtime::traces::TracesConfig;
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
    /// The web console, served beside control; none: there is none.
    pub console: Option<ConsoleConfig>,
    /// How callers prove who they are; none: nobody is asked, on loopback addresses only.
    pub access: Option<AccessConfig>,
    /// The notification service; none: nobody is told.
    #[serde(default)]
    pub notify: Option<NotifyConfig>,
    /// The history service.
    #[serde(default)]
    pub history: HistoryConfig,
    /// Health and metrics.
    #[serde(default)]
    pub ops: OpsConfig,
    /// Logs.
    #[serde(default)]
    pub telemetry: LogConfig,
    /// Traces.
    #[serde(default)]
    pub traces: TracesConfig,
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
        check_access(&key(path, "control"), "listen", self.control.listen, self.access.is_some(), problems);
        if let Some(console) = &self.console {
            console.validate(&key(path, "console"), problems);
            check_access(&key(path, "console"), "listen", console.listen, self.access.is_some(), problems);
        }
        if let Some(access) = &self.access {
            access.validate(&key(path, "access"), problems);
        }
        if let Some(notify) = &self.notify {
            notify.validate(&key(path, "notify"), problems);
        }
        self.history.validate(&key(path, "history"), problems);
        check_access(&key(path, "history"), "listen", self.history.listen, self.access.is_some(), problems);
        self.telemetry.validate(&key(path, "telemetry"), problems);
        self.traces.validate(&key(path, "traces"), problems);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use tidegate_runtime::config;

    const REFERENCE: &str = include_str!("../tidegate.toml");

    fn reference(text: &str) -> ServerConfig {
        toml::from_str(text).unwrap()
    }

    /// The keys that `config` writes, and that `text` does not have.
    fn missing(config: &ServerConfig, text: &str) -> Vec<String> {
        let written = toml::to_string(config).unwrap();
        let keys = written.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| format!("{key} = "));
        keys.filter(|key| !text.contains(key.as_str())).collect()
    }

    #[test]
    fn the_reference_shows_every_key_with_its_default() {
        let config: ServerConfig = config::parse(Path::new("tidegate.toml"), REFERENCE).unwrap();
        assert_eq!(config.log, BusConfig::default());
        assert_eq!(config.stream, StreamConfig::default());
        assert_eq!(config.control, ControlConfig::default());
        assert_eq!(config.history, HistoryConfig::default());
        assert_eq!(config.ops, OpsConfig::default());
        assert_eq!(config.telemetry, LogConfig::default());
        assert_eq!(config.traces, TracesConfig::default());
        assert_eq!(missing(&config, REFERENCE), [""; 0]);
    }

    #[test]
    fn its_examples_and_its_kafka_are_taken() {
        let (main, kafka) = REFERENCE.split_once("# On Kafka, ").unwrap();
        let examples = reference(&main.replace("#: ", ""));
        let notify = examples.notify.clone().unwrap();
        let webhook = &notify.webhook[0];
        let shown = ServerConfig { notify: Some(notify.clone()), ..examples.clone() };
        assert_eq!(missing(&shown, REFERENCE), [""; 0]);
        // What is shown is the default, where there is one.
        let defaults = NotifyConfig::default();
        let shown = (&notify.user_changes, &notify.domain_changes, notify.group_window_ms, notify.max_pending);
        let expected =
            (&defaults.user_changes, &defaults.domain_changes, defaults.group_window_ms, defaults.max_pending);
        assert_eq!(shown, expected);
        assert_eq!(
            (notify.max_age_s, notify.max_attempts, notify.reminder_days),
            (defaults.max_age_s, defaults.max_attempts, defaults.reminder_days)
        );
        assert_eq!((webhook.group_window_ms, webhook.max_per_hour, webhook.concurrency), (2_000, 600, 1));
        assert!(examples.control.tls.is_some() && examples.stream.mode.is_some(), "{examples:?}");
        let uncommented: Vec<&str> = kafka.lines().skip(2).map(|line| line.trim_start_matches(['#', ' '])).collect();
        let config = reference(&uncommented.join("\n"));
        assert!(matches!(config.log, BusConfig::Kafka(_)), "{config:?}");
        assert_eq!(missing(&config, REFERENCE), [""; 0]);
    }
}
