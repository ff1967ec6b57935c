//! Configuration of the stream service.

use crate::checkpoint::CheckpointConfig;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tidegate_runtime::{Problems, Validate, config::key};

/// How the stream service works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// Consumer group: the workers of one installation share it.
    pub group: String,
    /// Statistics file (SQL); the shipped one when not set.
    pub statistics: Option<PathBuf>,
    /// Rules file (TOML); the shipped one, which only observes, when not set.
    pub rules: Option<PathBuf>,
    /// Overrides the rules file's `mode`.
    pub mode: Option<RuleMode>,
    /// How often the rules file is looked at for changes, in milliseconds.
    pub reload_interval_ms: u64,
    /// Partitions that this worker owns; empty: its share of all, by the consumer group.
    pub partitions: Vec<u32>,
    /// Most accounts whose windows one partition remembers; beyond, the least recently used are forgotten.
    pub max_accounts: usize,
    /// How often positions are committed when nothing else is, in milliseconds.
    pub commit_interval_ms: u64,
    /// Where and how often windows are written down.
    pub checkpoints: CheckpointConfig,
}

/// Whether rules act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleMode {
    /// They are only counted: what would have happened.
    Observe,
    /// They act.
    Enforce,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            group: "stream".to_owned(),
            statistics: None,
            rules: None,
            mode: None,
            reload_interval_ms: 2_000,
            partitions: Vec::new(),
            max_accounts: 1_000_000,
            commit_interval_ms: 1_000,
            checkpoints: CheckpointConfig::default(),
        }
    }
}

impl Validate for StreamConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        problems.check_set(path, "group", &self.group);
        problems.check_range(path, "reload_interval_ms", self.reload_interval_ms, 100..=3_600_000);
        problems.check_range(path, "max_accounts", self.max_accounts, 1_000..=100_000_000);
        problems.check_range(path, "commit_interval_ms", self.commit_interval_ms, 10..=60_000);
        self.checkpoints.validate(&key(path, "checkpoints"), problems);
    }
}
