//! Where and how often windows are written down.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidegate_runtime::{Problems, Validate};
use url::Url;

/// Where and how often windows are written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Whether they are. Without, a restart reads a day of events again.
    pub enabled: bool,
    /// A directory (`/var/lib/tidegate/checkpoints`), or the URL of an object store: `file:///...`, `s3://bucket/path`,
    /// `gs://bucket/path`, `az://container/path`. Workers that share partitions share it. Not set: beside the embedded
    /// log; with Kafka, nowhere.
    pub url: Option<String>,
    /// How often the windows of a partition are written, in milliseconds, when they changed.
    pub interval_ms: u64,
    /// Options of the object store, e.g. `aws_region`, over those of the environment (`AWS_...`, `GOOGLE_...`,
    /// `AZURE_...`).
    pub options: BTreeMap<String, String>,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { enabled: true, url: None, interval_ms: 30_000, options: BTreeMap::new() }
    }
}

impl CheckpointConfig {
    /// The URL, if there is one; a path without scheme is a directory.
    ///
    /// # Errors
    /// What is wrong with it and what is allowed.
    pub(super) fn parsed_url(&self) -> Result<Option<Url>, String> {
        self.url.as_deref().map(tidegate_store::parse).transpose()
    }
}

impl Validate for CheckpointConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        problems.check_range(path, "interval_ms", self.interval_ms, 100..=3_600_000);
        if let Err(message) = self.parsed_url() {
            problems.add(path, "url", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(url: &str) -> Vec<String> {
        let config = CheckpointConfig { url: Some(url.to_owned()), ..CheckpointConfig::default() };
        let mut problems = Problems::default();
        config.validate("stream.checkpoints", &mut problems);
        problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect()
    }

    #[test]
    fn what_is_no_store_is_told() {
        assert_eq!(problems("relative/path").len(), 1);
        let told = problems("ftp://host/x");
        assert!(told[0].starts_with("stream.checkpoints.url: names an unknown store `ftp:`; allowed: "), "{told:?}");
    }
}
