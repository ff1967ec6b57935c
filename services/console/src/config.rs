//! What can be set.

use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tidegate_runtime::config::{Problems, Validate, key};
use tidegate_runtime::tls::{ServerTls, check_listen};

/// The console's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsoleConfig {
    /// Where it is served. Anything but loopback needs `tls`.
    pub listen: SocketAddr,
    /// The server's certificate, for HTTPS. Its `client_ca` is not looked at: browsers show tokens.
    pub tls: Option<ServerTls>,
    /// Names under which browsers may ask for it, beside the address itself, e.g. `tidegate.example.org`. Without any,
    /// and with TLS, every name is taken; without TLS only loopback's own names are.
    pub host_names: Vec<String>,
    /// Most sessions at a time; then the one that is idle longest ends.
    pub max_sessions: usize,
    /// A session that asks for nothing ends after this time, in milliseconds.
    pub session_idle_ms: u64,
    /// A session ends after this time, whatever it does, in milliseconds.
    pub session_max_ms: u64,
    /// Most live streams at a time.
    pub max_live_streams: usize,
    /// Most live streams of one session at a time.
    pub max_live_streams_per_session: usize,
    /// A page is told of changes at most this often, in milliseconds.
    pub live_interval_ms: u64,
    /// What cannot be watched is asked for again this often, in milliseconds.
    pub live_poll_ms: u64,
    /// Most bulk actions that are kept, prepared or running.
    pub max_bulk_actions: usize,
    /// Most connections at a time; those beyond are closed at once.
    pub max_connections: usize,
    /// A call of the API is given up after this time, in milliseconds.
    pub call_timeout_ms: u64,
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7712)),
            tls: None,
            host_names: Vec::new(),
            max_sessions: 1_000,
            session_idle_ms: 30 * 60 * 1_000,
            session_max_ms: 12 * 60 * 60 * 1_000,
            max_live_streams: 256,
            max_live_streams_per_session: 16,
            live_interval_ms: 500,
            live_poll_ms: 2_000,
            max_bulk_actions: 32,
            max_connections: 1_024,
            call_timeout_ms: 30_000,
        }
    }
}

impl ConsoleConfig {
    pub(crate) fn session_idle(&self) -> Duration {
        Duration::from_millis(self.session_idle_ms)
    }

    pub(crate) fn session_max(&self) -> Duration {
        Duration::from_millis(self.session_max_ms)
    }
}

impl Validate for ConsoleConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        check_listen(path, "listen", self.listen, self.tls.as_ref(), problems);
        if let Some(tls) = &self.tls {
            tls.validate(&key(path, "tls"), problems);
        }
        for name in &self.host_names {
            let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            if name.is_empty() || !name.chars().all(allowed) {
                problems.add(path, "host_names", format!("has {name:?}; allowed: names of hosts without a port"));
            }
        }
        problems.check_range(path, "max_sessions", self.max_sessions, 1..=100_000);
        problems.check_range(path, "session_idle_ms", self.session_idle_ms, 10_000..=86_400_000);
        problems.check_range(path, "session_max_ms", self.session_max_ms, self.session_idle_ms..=7 * 86_400_000);
        problems.check_range(path, "max_live_streams", self.max_live_streams, 1..=10_000);
        let most = self.max_live_streams;
        problems.check_range(path, "max_live_streams_per_session", self.max_live_streams_per_session, 1..=most.max(1));
        problems.check_range(path, "live_interval_ms", self.live_interval_ms, 100..=60_000);
        problems.check_range(path, "live_poll_ms", self.live_poll_ms, 500..=600_000);
        problems.check_range(path, "max_bulk_actions", self.max_bulk_actions, 1..=1_000);
        problems.check_range(path, "max_connections", self.max_connections, 8..=100_000);
        problems.check_range(path, "call_timeout_ms", self.call_timeout_ms, 1_000..=600_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed_and_every_problem_is_told() {
        let problems = |config: &ConsoleConfig| {
            let mut problems = Problems::default();
            config.validate("console", &mut problems);
            problems.to_string()
        };
        assert_eq!(problems(&ConsoleConfig::default()), "");
        let text = problems(&ConsoleConfig {
            listen: "0.0.0.0:7712".parse().unwrap(),
            host_names: vec!["a b".into()],
            max_sessions: 0,
            session_idle_ms: 1,
            max_live_streams_per_session: 1_000,
            ..ConsoleConfig::default()
        });
        for key in ["listen", "host_names", "max_sessions", "session_idle_ms", "max_live_streams_per_session"] {
            assert!(text.contains(&format!("console.{key}: ")), "{key} in\n{text}");
        }
    }
}
