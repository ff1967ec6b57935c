//! What goes in and what comes out.

use bytes::Bytes;

/// What a record takes beside its key and value, as counted for `max_bytes`: about what SQLite needs.
pub const RECORD_OVERHEAD_BYTES: u64 = 32;

/// A record to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// Its time, in ms since 1970; retention and [`crate::Journal::offset_for_time`] go by it.
    pub time_ms: i64,
    /// Its key; a compacted topic keeps the newest record of each and takes none without.
    pub key: Option<Bytes>,
    /// Its content; in a compacted topic an empty one says that the key is gone.
    pub value: Bytes,
}

/// A record as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition; never used again for another.
    pub offset: u64,
    /// As appended.
    pub time_ms: i64,
    /// As appended.
    pub key: Option<Bytes>,
    /// As appended.
    pub value: Bytes,
}

/// Records and positions that become durable together, or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Records, in the order in which they get their offsets.
    pub appends: Vec<Append>,
    /// How far a group of consumers has come.
    pub positions: Vec<Position>,
}

/// Records for one partition.
#[derive(Debug, Clone)]
pub struct Append {
    /// The topic; it must exist.
    pub topic: String,
    /// The partition, from 0.
    pub partition: u32,
    /// The records; may be empty.
    pub records: Vec<NewRecord>,
}

/// The next offset that a group of consumers wants of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The group's name.
    pub group: String,
    /// The topic; it must exist.
    pub topic: String,
    /// The partition, from 0.
    pub partition: u32,
    /// The first offset not yet consumed.
    pub next_offset: u64,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds records for one partition.
    pub fn append(mut self, topic: impl Into<String>, partition: u32, records: Vec<NewRecord>) -> Self {
        self.appends.push(Append { topic: topic.into(), partition, records });
        self
    }

    /// Adds a group's position.
    pub fn position(
        mut self,
        group: impl Into<String>,
        topic: impl Into<String>,
        partition: u32,
        next_offset: u64,
    ) -> Self {
        self.positions.push(Position { group: group.into(), topic: topic.into(), partition, next_offset });
        self
    }

    /// How many records it holds.
    pub fn record_count(&self) -> usize {
        self.appends.iter().map(|append| append.records.len()).sum()
    }

    /// What it takes in memory, about: it is counted against `Options::queue_max_bytes`.
    pub fn bytes(&self) -> usize {
        let records = self.appends.iter().flat_map(|append| &append.records);
        let records: usize = records.map(|record| record.bytes() + RECORD_OVERHEAD_BYTES as usize).sum();
        let names: usize = self.appends.iter().map(|append| append.topic.len()).sum();
        let positions: usize =
            self.positions.iter().map(|position| position.group.len() + position.topic.len() + 16).sum();
        records + names + positions
    }
}

impl NewRecord {
    /// Key and value together.
    pub(crate) fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.value.len()
    }
}

/// What became durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// For each of the batch's appends the offset of its first record; the others follow without a gap.
    pub base_offsets: Vec<u64>,
}

/// What one read brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBatch {
    /// In the order of their offsets, which may have gaps (compaction, retention, damage).
    pub records: Vec<Record>,
    /// Where to read on.
    pub next_offset: u64,
    /// Records that were passed over because they are damaged. Where a whole page of the file is
    /// unreadable, this counts the offsets that were passed over.
    pub skipped_damaged: u64,
}

/// Where a partition begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Nothing before this offset is kept. Equal to `next_offset` when the partition is empty by deletion.
    pub first_offset: u64,
    /// The offset that the next record will get.
    pub next_offset: u64,
}

/// How much a topic holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicSize {
    /// Records, of all partitions.
    pub records: u64,
    /// Keys, values and [`RECORD_OVERHEAD_BYTES`] each.
    pub bytes: u64,
    /// Records that were dropped because the topic was over `max_bytes`, since the journal was opened.
    pub dropped_by_bytes: u64,
}
