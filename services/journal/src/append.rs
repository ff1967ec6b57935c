//! Writes batches inside a transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{OptionalExtension, Transaction, params};

use crate::checksum::record_checksum;
use crate::error::JournalError;
use crate::options::Options;
use crate::record::{Append, Batch, Committed, NewRecord, RECORD_OVERHEAD_BYTES};
use crate::schema::{as_i64, as_u64, store_partition};
use crate::topics::{PartitionState, Topic, Topics};

/// The partitions that a transaction changes, as they will be when it has committed.
#[derive(Default)]
pub(crate) struct Changes {
    partitions: BTreeMap<(i64, u32), (Arc<Topic>, PartitionState)>,
}

/// A partition that has new records.
pub(crate) struct Grown {
    pub(crate) topic: Arc<Topic>,
    pub(crate) partition: u32,
    pub(crate) next_offset: u64,
}

impl Changes {
    /// The partition's counters, to be changed.
    pub(crate) fn partition(&mut self, topic: &Arc<Topic>, partition: u32) -> &mut PartitionState {
        let entry = self.partitions.entry((topic.id, partition));
        &mut entry.or_insert_with(|| (topic.clone(), topic.state(partition))).1
    }

    /// Writes the changed counters into the transaction.
    pub(crate) fn store(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        for ((topic_id, partition), (_, state)) in &self.partitions {
            store_partition(transaction, *topic_id, *partition, state)?;
        }
        Ok(())
    }

    /// Lets readers see the changes; after the commit. Returns the partitions that have new records.
    pub(crate) fn publish(self) -> Vec<Grown> {
        let mut grown = Vec::new();
        for ((_, partition), (topic, state)) in self.partitions {
            if state.next_offset > topic.state(partition).next_offset {
                grown.push(Grown { topic: topic.clone(), partition, next_offset: state.next_offset });
            }
            topic.publish(partition, state);
        }
        grown
    }
}

/// Says what is wrong with a batch before anything is written, so that it cannot spoil a group.
pub(crate) fn validate(batch: &Batch, topics: &Topics, options: &Options) -> Result<(), JournalError> {
    for append in &batch.appends {
        let topic = topics.get_partition(&append.topic, append.partition)?;
        for record in &append.records {
            if topic.compact && record.key.is_none() {
                return Err(JournalError::MissingKey { topic: append.topic.clone(), partition: append.partition });
            }
            let (bytes, limit) = (record.bytes(), options.max_record_bytes);
            if bytes > limit {
                return Err(JournalError::RecordTooLarge { topic: append.topic.clone(), bytes, limit });
            }
        }
    }
    for position in &batch.positions {
        topics.get_partition(&position.topic, position.partition)?;
        if i64::try_from(position.next_offset).is_err() {
            return Err(JournalError::OffsetRange { offset: position.next_offset });
        }
    }
    Ok(())
}

/// Why a batch that was valid when it was looked at could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error(transparent)]
    Topic(#[from] JournalError),
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
}

/// Writes one batch.
pub(crate) fn apply(
    transaction: &Transaction<'_>,
    topics: &Topics,
    batch: &Batch,
    changes: &mut Changes,
) -> Result<Committed, ApplyError> {
    let mut base_offsets = Vec::with_capacity(batch.appends.len());
    for append in &batch.appends {
        let topic = topics.get_partition(&append.topic, append.partition)?;
        let state = changes.partition(&topic, append.partition);
        base_offsets.push(state.next_offset);
        write_records(transaction, &topic, append, state)?;
    }
    let mut statement = transaction.prepare_cached(
        "INSERT OR REPLACE INTO positions (group_name, topic_id, partition, next_offset) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for position in &batch.positions {
        let topic = topics.get_partition(&position.topic, position.partition)?;
        statement.execute(params![position.group, topic.id, position.partition, as_i64(position.next_offset)])?;
    }
    Ok(Committed { base_offsets })
}

fn write_records(
    transaction: &Transaction<'_>,
    topic: &Topic,
    append: &Append,
    state: &mut PartitionState,
) -> rusqlite::Result<()> {
    let mut inserter = Inserter::new(transaction, topic, append.partition)?;
    for record in &append.records {
        inserter.insert(state.next_offset, record, state)?;
        state.next_offset += 1;
    }
    Ok(())
}

/// Writes records of one partition; the caller gives the offsets.
pub(crate) struct Inserter<'t> {
    partition: u32,
    insert: rusqlite::CachedStatement<'t>,
    keys: Option<(rusqlite::CachedStatement<'t>, rusqlite::CachedStatement<'t>)>,
}

impl<'t> Inserter<'t> {
    pub(crate) fn new(transaction: &'t Transaction<'_>, topic: &Topic, partition: u32) -> rusqlite::Result<Self> {
        let keys = if topic.compact {
            Some((transaction.prepare_cached(&topic.sql.key_offset)?, transaction.prepare_cached(&topic.sql.put_key)?))
        } else {
            None
        };
        Ok(Self { partition, insert: transaction.prepare_cached(&topic.sql.insert)?, keys })
    }

    /// Writes one record, and counts it in `state`, except for `next_offset`.
    pub(crate) fn insert(
        &mut self,
        offset: u64,
        record: &NewRecord,
        state: &mut PartitionState,
    ) -> rusqlite::Result<()> {
        let partition = self.partition;
        let key = record.key.as_deref();
        let mut supersedes = None;
        if let (Some((key_offset, put_key)), Some(key)) = (&mut self.keys, key) {
            supersedes = key_offset.query_row(params![partition, key], |row| row.get::<_, i64>(0)).optional()?;
            put_key.execute(params![partition, key, as_i64(offset)])?;
        }
        let checksum = record_checksum(partition, offset, record.time_ms, key, &record.value);
        let high_time_ms = (state.high_time_ms > record.time_ms).then_some(state.high_time_ms);
        self.insert.execute(params![
            partition,
            as_i64(offset),
            record.time_ms,
            high_time_ms,
            supersedes.filter(|before| as_u64(*before) < offset),
            key,
            checksum,
            &record.value[..],
        ])?;
        state.high_time_ms = state.high_time_ms.max(record.time_ms);
        state.records += 1;
        state.bytes += record.bytes() as u64 + RECORD_OVERHEAD_BYTES;
        Ok(())
    }
}
