//! How a journal is opened, and how long a topic keeps its records.

use crate::error::JournalError;

/// How far a commit must be on its way to the disk before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// Every commit waits for the disk (`fsync`). Nothing acknowledged is lost, not even when the power
    /// fails. Costs one `fsync` a group commit: 0.1 ms on a server's SSD, 10 ms on a spinning disk; with
    /// group commit the throughput suffers little, the latency of a lone append does.
    #[default]
    Full,
    /// Commits wait for the operating system only; the disk is waited for at checkpoints. Nothing
    /// acknowledged is lost when the process is killed; when the power fails, the last commits (up to
    /// some seconds) may be, always a whole suffix of them: the file stays sound.
    Normal,
}

/// How a journal is opened. `Options::default()` suits a server with some gigabytes to spare.
#[derive(Debug, Clone)]
pub struct Options {
    /// Durability against speed.
    pub synchronous: Synchronous,
    /// Batches that may wait for the writer before [`crate::Journal::submit`] answers `QueueFull`.
    pub queue_max_batches: usize,
    /// Bytes of records that may wait for the writer; also the largest batch.
    pub queue_max_bytes: usize,
    /// Records gathered into one transaction, at most (a single larger batch still goes whole).
    pub group_max_records: usize,
    /// Key and value of one record together, at most.
    pub max_record_bytes: usize,
    /// Connections for reading: reads that run at the same time, at most; more wait.
    pub read_connections: usize,
    /// Bytes that the write-ahead log may reach before readers are held up for a moment to empty it.
    /// One large transaction may exceed it for as long as it runs.
    pub wal_max_bytes: u64,
    /// Bytes that the main file may reach; beyond them appends answer `DiskFull`. `None`: as the disk allows.
    pub file_max_bytes: Option<u64>,
    /// Files up to this size are checked whole (`quick_check`) at open, larger ones only after damage was seen.
    pub check_up_to_bytes: u64,
    /// In a compacted topic a superseded record stays for this long after its successor's time, so that
    /// a reader that is less far behind sees every change.
    pub compact_lag_ms: i64,
    /// In a compacted topic an empty value (a tombstone) stays for this long, so that readers learn of it.
    pub tombstone_ms: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            synchronous: Synchronous::Full,
            queue_max_batches: 8_192,
            queue_max_bytes: 64 << 20,
            group_max_records: 4_096,
            max_record_bytes: 16 << 20,
            read_connections: 4,
            wal_max_bytes: 64 << 20,
            file_max_bytes: None,
            check_up_to_bytes: 256 << 20,
            compact_lag_ms: 24 * 3_600_000,
            tombstone_ms: 7 * 24 * 3_600_000,
        }
    }
}

impl Options {
    /// The first option that is out of bounds, if any.
    pub(crate) fn check(&self) -> Result<(), JournalError> {
        let at_least_one = [
            ("queue_max_batches", self.queue_max_batches),
            ("queue_max_bytes", self.queue_max_bytes),
            ("group_max_records", self.group_max_records),
            ("max_record_bytes", self.max_record_bytes),
            ("read_connections", self.read_connections),
        ];
        if let Some((option, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err(JournalError::InvalidOption { option, reason: "must be at least 1" });
        }
        // SQLite's own limit for one row (SQLITE_MAX_LENGTH) is 1 GB.
        if self.max_record_bytes > 512 << 20 {
            return Err(JournalError::InvalidOption { option: "max_record_bytes", reason: "must be at most 512 MiB" });
        }
        if self.compact_lag_ms < 0 {
            return Err(JournalError::InvalidOption { option: "compact_lag_ms", reason: "must not be negative" });
        }
        if self.tombstone_ms < 0 {
            return Err(JournalError::InvalidOption { option: "tombstone_ms", reason: "must not be negative" });
        }
        Ok(())
    }
}

/// What a topic keeps. The kind is fixed when the topic is created, its numbers may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Oldest records go first.
    Delete {
        /// Records older than this go at the next [`crate::Journal::maintain`]. `None`: age does not matter.
        max_age_ms: Option<i64>,
        /// When all partitions together hold more than this (keys, values and
        /// [`crate::RECORD_OVERHEAD_BYTES`] each), the oldest go, right after the commit that went over.
        max_bytes: Option<u64>,
    },
    /// The newest record of each key stays; see `Options::compact_lag_ms` and `Options::tombstone_ms`.
    Compact,
}

impl Retention {
    /// Everything stays until it is trimmed.
    pub const KEEP: Self = Self::Delete { max_age_ms: None, max_bytes: None };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_option_that_is_wrong() {
        assert!(Options::default().check().is_ok());
        let error = Options { read_connections: 0, ..Options::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "journal option read_connections: must be at least 1");
        assert!(Options { tombstone_ms: -1, ..Options::default() }.check().is_err());
    }
}
