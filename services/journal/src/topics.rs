//! The topics as the writer and the readers share them in memory.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::error::JournalError;
use crate::options::Retention;
use crate::record::{Bounds, TopicSize};

/// One topic: its tables' names and its partitions' counters.
pub(crate) struct Topic {
    pub(crate) id: i64,
    pub(crate) name: Arc<str>,
    pub(crate) compact: bool,
    pub(crate) sql: TopicSql,
    pub(crate) dropped_by_bytes: AtomicU64,
    retention: Mutex<Retention>,
    /// Only the writer changes these, and only after the transaction that changed the file.
    partitions: Vec<Mutex<PartitionState>>,
}

/// One partition's row of the table `partitions`; see [`crate::schema`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionState {
    pub(crate) first_offset: u64,
    pub(crate) next_offset: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// The highest time of any record so far; `i64::MIN` before the first.
    pub(crate) high_time_ms: i64,
    /// Superseded records before this record's have been deleted.
    pub(crate) compacted_to: u64,
    /// Tombstones before this offset have been deleted.
    pub(crate) swept_to: u64,
}

impl PartitionState {
    pub(crate) const EMPTY: Self = Self {
        first_offset: 0,
        next_offset: 0,
        records: 0,
        bytes: 0,
        high_time_ms: i64::MIN,
        compacted_to: 0,
        swept_to: 0,
    };

    /// Takes deleted records off the counters.
    pub(crate) fn forget(&mut self, records: u64, bytes: u64) {
        self.records = self.records.saturating_sub(records);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Moves the beginning up.
    pub(crate) fn begin_at(&mut self, first_offset: u64) {
        self.first_offset = self.first_offset.max(first_offset).min(self.next_offset);
        self.compacted_to = self.compacted_to.max(self.first_offset);
        self.swept_to = self.swept_to.max(self.first_offset);
    }
}

/// The statements that name a topic's own tables, made once so that SQLite's cache finds them.
pub(crate) struct TopicSql {
    pub(crate) insert: String,
    pub(crate) read: String,
    pub(crate) oldest: String,
    pub(crate) oldest_time: String,
    pub(crate) delete_through: String,
    pub(crate) delete_superseded: String,
    pub(crate) delete_one: String,
    pub(crate) scan: String,
    pub(crate) high_time_at: String,
    pub(crate) first_at_time: String,
    pub(crate) ends: String,
    pub(crate) count: String,
    pub(crate) key_offset: String,
    pub(crate) put_key: String,
    pub(crate) delete_key: String,
    pub(crate) delete_key_at: String,
    pub(crate) set_aside: String,
}

impl TopicSql {
    fn new(id: i64) -> Self {
        let records = format!("records_{id}");
        let keys = format!("keys_{id}");
        let of_partition = "WHERE partition = ?1";
        Self {
            insert: format!(
                "INSERT INTO {records} (partition, offset, time_ms, high_time_ms, supersedes, key, checksum, value)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
            ),
            read: format!(
                "SELECT offset, time_ms, key, checksum, value FROM {records}
                 {of_partition} AND offset >= ?2 AND offset < ?3 ORDER BY offset LIMIT ?4"
            ),
            oldest: format!(
                "SELECT offset, time_ms, ifnull(length(key), 0) + length(value), key FROM {records}
                 {of_partition} AND offset >= ?2 ORDER BY offset LIMIT ?3"
            ),
            oldest_time: format!("SELECT time_ms FROM {records} {of_partition} ORDER BY offset LIMIT 1"),
            delete_through: format!("DELETE FROM {records} {of_partition} AND offset <= ?2"),
            delete_superseded: format!(
                "DELETE FROM {records} {of_partition} AND offset = ?2 AND key = ?3
                 RETURNING length(key) + length(value)"
            ),
            delete_one: format!("DELETE FROM {records} {of_partition} AND offset = ?2"),
            scan: format!(
                "SELECT offset, time_ms, length(value), supersedes, key FROM {records}
                 {of_partition} AND offset >= ?2 AND offset < ?3 ORDER BY offset LIMIT ?4"
            ),
            high_time_at: format!(
                "SELECT offset, ifnull(high_time_ms, time_ms) FROM {records}
                 {of_partition} AND offset >= ?2 ORDER BY offset LIMIT 1"
            ),
            first_at_time: format!(
                "SELECT offset FROM {records}
                 {of_partition} AND offset >= ?2 AND time_ms >= ?3 ORDER BY offset LIMIT 1"
            ),
            // Two halves, since SQLite looks up one end of an index, and walks it for both.
            ends: format!(
                "SELECT (SELECT min(offset) FROM {records} {of_partition}),
                        (SELECT max(offset) FROM {records} {of_partition})"
            ),
            count: format!("SELECT count(*) FROM {records} {of_partition}"),
            key_offset: format!("SELECT offset FROM {keys} {of_partition} AND key = ?2"),
            put_key: format!(
                "INSERT INTO {keys} (partition, key, offset) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET offset = excluded.offset"
            ),
            delete_key: format!("DELETE FROM {keys} {of_partition} AND key = ?2 AND offset = ?3"),
            delete_key_at: format!("DELETE FROM {keys} {of_partition} AND offset = ?2"),
            set_aside: format!(
                "INSERT INTO damaged (topic_id, partition, offset, time_ms, key, checksum, value)
                 SELECT ?3, partition, offset, time_ms, key, checksum, value FROM {records}
                 {of_partition} AND offset = ?2"
            ),
        }
    }
}

impl Topic {
    pub(crate) fn new(id: i64, name: &str, retention: Retention, partitions: Vec<PartitionState>) -> Self {
        Self {
            id,
            name: name.into(),
            compact: retention == Retention::Compact,
            sql: TopicSql::new(id),
            dropped_by_bytes: AtomicU64::new(0),
            retention: Mutex::new(retention),
            partitions: partitions.into_iter().map(Mutex::new).collect(),
        }
    }

    pub(crate) fn partition_count(&self) -> u32 {
        self.partitions.len() as u32
    }

    pub(crate) fn check_partition(&self, partition: u32) -> Result<(), JournalError> {
        if partition < self.partition_count() {
            return Ok(());
        }
        let topic = self.name.to_string();
        Err(JournalError::UnknownPartition { topic, partition, partitions: self.partition_count() })
    }

    /// A partition's counters as of the last commit. The partition must exist (`check_partition`).
    pub(crate) fn state(&self, partition: u32) -> PartitionState {
        *self.partitions[partition as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn publish(&self, partition: u32, state: PartitionState) {
        *self.partitions[partition as usize].lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(crate) fn bounds(&self, partition: u32) -> Bounds {
        let state = self.state(partition);
        Bounds { first_offset: state.first_offset, next_offset: state.next_offset }
    }

    pub(crate) fn size(&self) -> TopicSize {
        let mut size = TopicSize {
            dropped_by_bytes: self.dropped_by_bytes.load(std::sync::atomic::Ordering::Relaxed),
            ..TopicSize::default()
        };
        for partition in 0..self.partition_count() {
            let state = self.state(partition);
            size.records += state.records;
            size.bytes += state.bytes;
        }
        size
    }

    pub(crate) fn retention(&self) -> Retention {
        *self.retention.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_retention(&self, retention: Retention) {
        *self.retention.lock().unwrap_or_else(PoisonError::into_inner) = retention;
    }
}

/// All topics, by name.
#[derive(Default)]
pub(crate) struct Topics(RwLock<HashMap<Arc<str>, Arc<Topic>>>);

impl Topics {
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Topic>, JournalError> {
        self.find(name).ok_or_else(|| JournalError::UnknownTopic { topic: name.to_owned() })
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Topic>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The topic, if it has that partition.
    pub(crate) fn get_partition(&self, name: &str, partition: u32) -> Result<Arc<Topic>, JournalError> {
        let topic = self.get(name)?;
        topic.check_partition(partition)?;
        Ok(topic)
    }

    pub(crate) fn insert(&self, topic: Topic) {
        let mut topics = self.0.write().unwrap_or_else(PoisonError::into_inner);
        topics.insert(topic.name.clone(), Arc::new(topic));
    }

    /// All of them, in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        let mut all: Vec<_> = self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}
