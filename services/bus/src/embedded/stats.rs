//! Counters of the embedded log.

use crate::Topic;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_journal::{Journal, Stats, TopicSize};

/// Counters since the log was opened, and levels now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedStats {
    /// What the journal counts: records, bytes, commits, deletions, damage, the sizes of its files.
    pub journal: Stats,
    /// How much each topic holds.
    pub topics: Vec<(Topic, TopicSize)>,
    /// Records given to readers.
    pub read_records: u64,
    /// Readers now.
    pub readers: u64,
    /// Commits refused because the partition had a newer owner.
    pub fenced: u64,
    /// Readers whose position was past the end, and that began at the first record again.
    pub positions_past_end: u64,
    /// Rounds of maintenance that were done.
    pub maintenance_rounds: u64,
    /// Rounds of maintenance that failed; the next tries again.
    pub maintenance_failures: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) read_records: AtomicU64,
    pub(crate) readers: AtomicU64,
    pub(crate) fenced: AtomicU64,
    pub(crate) positions_past_end: AtomicU64,
    pub(crate) maintenance_rounds: AtomicU64,
    pub(crate) maintenance_failures: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self, journal: &Journal) -> EmbeddedStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let size = |topic: Topic| (topic, journal.topic_size(topic.suffix()).unwrap_or_default());
        EmbeddedStats {
            journal: journal.stats(),
            topics: Topic::ALL.into_iter().map(size).collect(),
            read_records: read(&self.read_records),
            readers: read(&self.readers),
            fenced: read(&self.fenced),
            positions_past_end: read(&self.positions_past_end),
            maintenance_rounds: read(&self.maintenance_rounds),
            maintenance_failures: read(&self.maintenance_failures),
        }
    }
}
