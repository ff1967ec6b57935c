//! What can be set for traces.

use crate::config::{Problems, Validate, key};
use crate::tls::{ClientTls, check_endpoint};
use serde::{Deserialize, Serialize};

/// Where traces go, and how many. Without an endpoint there are none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TracesConfig {
    /// A collector that takes OTLP over gRPC: `http://host:4317`, or `https://host:4317` with `tls`. None: no traces.
    pub endpoint: Option<String>,
    /// Certificates for the collector.
    pub tls: Option<ClientTls>,
    /// Which share of messages begins a trace, 0 to 1. A decision about an account is always traced.
    pub sample_ratio: f64,
    /// Whether spans name the account. A collector forgets nobody when the history does.
    pub accounts: bool,
    /// Longest wait for the collector's answer, in milliseconds.
    pub timeout_ms: u64,
    /// Most spans in memory; more are dropped and counted.
    pub queue_max_spans: usize,
}

impl Default for TracesConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            tls: None,
            sample_ratio: 0.01,
            accounts: false,
            timeout_ms: 10_000,
            queue_max_spans: 8_192,
        }
    }
}

impl Validate for TracesConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        if let Some(endpoint) = &self.endpoint {
            check_endpoint(path, endpoint, self.tls.is_some(), problems);
        } else if self.tls.is_some() {
            problems.add(path, "tls", "is set, but endpoint is not");
        }
        problems.check_range(path, "sample_ratio", self.sample_ratio, 0.0..=1.0);
        problems.check_range(path, "timeout_ms", self.timeout_ms, 100..=60_000);
        problems.check_range(path, "queue_max_spans", self.queue_max_spans, 16..=1_000_000);
        if let Some(tls) = &self.tls {
            tls.validate(&key(path, "tls"), problems);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_told() {
        let config = TracesConfig {
            endpoint: Some("collector:4317".to_owned()),
            sample_ratio: 1.5,
            timeout_ms: 0,
            queue_max_spans: 1,
            ..TracesConfig::default()
        };
        let mut problems = Problems::default();
        config.validate("traces", &mut problems);
        let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["traces.endpoint", "traces.sample_ratio", "traces.timeout_ms", "traces.queue_max_spans"]);
        let https = TracesConfig { endpoint: Some("https://collector:4317".to_owned()), ..TracesConfig::default() };
        let mut problems = Problems::default();
        https.validate("traces", &mut problems);
        assert!(problems.to_string().contains("must begin with https:// if tls is set"), "{problems}");
        let nan = TracesConfig { sample_ratio: f64::NAN, ..TracesConfig::default() };
        let mut problems = Problems::default();
        nan.validate("traces", &mut problems);
        assert!(problems.to_string().contains("traces.sample_ratio"), "{problems}");
    }
}
