//! Configuration of the embedded log.

use crate::{Kept, Topic};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tidegate_journal::{Options, Retention, Synchronous};
use tidegate_runtime::{Problems, Validate};

/// Longest time that anything is kept or waited for: a hundred years, in seconds.
const LONGEST_S: u64 = 100 * 365 * 24 * 3_600;
const SMALLEST_TOPIC_BYTES: u64 = 1 << 20;

/// The log of one process, in a directory of this machine.
///
/// ```toml
/// [bus]
/// kind = "embedded"
/// directory = "/var/lib/tidegate/log"
/// partitions = 4
/// synchronous = "full"
/// events_max_age_s = 604800
/// events_max_bytes = 10737418240
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddedConfig {
    /// Where it lies; made when missing.
    pub directory: PathBuf,
    /// Partitions of every topic. Fixed when the log is made: keys would change their partition.
    pub partitions: u32,
    /// What an acknowledged record survives.
    pub synchronous: Durability,
    /// How long events are kept, in seconds. Windows are rebuilt from them.
    pub events_max_age_s: u64,
    /// How long commands are kept, in seconds.
    pub commands_max_age_s: u64,
    /// How long audit records are kept, in seconds.
    pub audit_max_age_s: u64,
    /// Bytes of events at most, over all partitions: the oldest go first. Not set: only their age counts.
    pub events_max_bytes: Option<u64>,
    /// The same of commands.
    pub commands_max_bytes: Option<u64>,
    /// The same of audit records.
    pub audit_max_bytes: Option<u64>,
    /// How long a superseded account state stays, in seconds, for readers that want every change.
    pub compact_lag_s: u64,
    /// How long the deletion of a key can be read, in seconds.
    pub tombstone_s: u64,
    /// Bytes that the file may reach. Beyond them appends fail until there is room. Not set: as the disk allows.
    pub file_max_bytes: Option<u64>,
    /// How often old records are deleted, in milliseconds.
    pub maintain_interval_ms: u64,
}

/// What an acknowledged record survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A power cut.
    #[default]
    Full,
    /// The end of the process, however it ends; the last seconds can be lost in a power cut.
    Normal,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/var/lib/tidegate/log"),
            partitions: 4,
            synchronous: Durability::Full,
            events_max_age_s: default_age_s(Topic::Events),
            commands_max_age_s: default_age_s(Topic::Commands),
            audit_max_age_s: default_age_s(Topic::Audit),
            events_max_bytes: None,
            commands_max_bytes: None,
            audit_max_bytes: None,
            compact_lag_s: 3_600,
            tombstone_s: 7 * 24 * 3_600,
            file_max_bytes: None,
            maintain_interval_ms: 30_000,
        }
    }
}

impl EmbeddedConfig {
    pub(super) fn options(&self) -> Options {
        Options {
            synchronous: match self.synchronous {
                Durability::Full => Synchronous::Full,
                Durability::Normal => Synchronous::Normal,
            },
            file_max_bytes: self.file_max_bytes,
            compact_lag_ms: ms(self.compact_lag_s),
            tombstone_ms: ms(self.tombstone_s),
            ..Options::default()
        }
    }

    pub(super) fn retention(&self, topic: Topic) -> Retention {
        let (max_age_s, max_bytes) = match (topic, topic.kept()) {
            (_, Kept::Compact) => return Retention::Compact,
            (Topic::Events, Kept::Delete { .. }) => (self.events_max_age_s, self.events_max_bytes),
            (Topic::Commands, Kept::Delete { .. }) => (self.commands_max_age_s, self.commands_max_bytes),
            (Topic::Audit, Kept::Delete { .. }) => (self.audit_max_age_s, self.audit_max_bytes),
            (_, Kept::Delete { max_age_ms }) => (max_age_ms.unsigned_abs() / 1_000, None),
        };
        Retention::Delete { max_age_ms: Some(ms(max_age_s)), max_bytes }
    }
}

impl Validate for EmbeddedConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        if self.directory.as_os_str().is_empty() {
            problems.add(path, "directory", "must be set");
        }
        problems.check_range(path, "partitions", self.partitions, 1..=1_024);
        check_ages(path, self.events_max_age_s, self.commands_max_age_s, self.audit_max_age_s, problems);
        problems.check_range(path, "compact_lag_s", self.compact_lag_s, 0..=LONGEST_S);
        problems.check_range(path, "tombstone_s", self.tombstone_s, 0..=LONGEST_S);
        problems.check_range(path, "maintain_interval_ms", self.maintain_interval_ms, 10..=3_600_000);
        for (name, bytes) in [
            ("events_max_bytes", self.events_max_bytes),
            ("commands_max_bytes", self.commands_max_bytes),
            ("audit_max_bytes", self.audit_max_bytes),
            ("file_max_bytes", self.file_max_bytes),
        ] {
            if let Some(bytes) = bytes {
                problems.check_range(path, name, bytes, SMALLEST_TOPIC_BYTES..=i64::MAX as u64);
            }
        }
    }
}

/// The ages that both logs have in their configuration.
pub(crate) fn check_ages(path: &str, events_s: u64, commands_s: u64, audit_s: u64, problems: &mut Problems) {
    for (name, age_s) in
        [("events_max_age_s", events_s), ("commands_max_age_s", commands_s), ("audit_max_age_s", audit_s)]
    {
        problems.check_range(path, name, age_s, 1..=LONGEST_S);
    }
}

/// How long a topic keeps its records when nothing else was said, in seconds.
pub(crate) fn default_age_s(topic: Topic) -> u64 {
    match topic.kept() {
        Kept::Delete { max_age_ms } => max_age_ms.unsigned_abs() / 1_000,
        Kept::Compact => LONGEST_S,
    }
}

/// Seconds in milliseconds.
pub(crate) fn ms(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_topics() {
        let config = EmbeddedConfig::default();
        let mut problems = Problems::default();
        config.validate("bus", &mut problems);
        assert!(problems.is_empty(), "{problems}");
        for topic in Topic::ALL {
            match (topic.kept(), config.retention(topic)) {
                (Kept::Compact, Retention::Compact) => {}
                (Kept::Delete { max_age_ms }, Retention::Delete { max_age_ms: Some(set_ms), max_bytes: None }) => {
                    assert_eq!(max_age_ms, set_ms, "{topic:?}");
                }
                other => panic!("{topic:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn all_problems_are_told() {
        let config = EmbeddedConfig {
            directory: PathBuf::new(),
            partitions: 0,
            events_max_age_s: 0,
            events_max_bytes: Some(5),
            ..EmbeddedConfig::default()
        };
        let mut problems = Problems::default();
        config.validate("bus", &mut problems);
        let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["bus.directory", "bus.partitions", "bus.events_max_age_s", "bus.events_max_bytes"]);
    }
}
