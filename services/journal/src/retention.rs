//! Deletes what need not be kept, in chunks so small that appends do not wait long for them.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use crate::error::JournalError;
use crate::options::Retention;
use crate::record::RECORD_OVERHEAD_BYTES;
use crate::schema::{as_i64, as_u64};
use crate::stats::add;
use crate::topics::{PartitionState, Topic};
use crate::writer::Writer;

/// Rows deleted in one transaction, at most.
const CHUNK_RECORDS: usize = 2_000;

/// Bytes deleted in one transaction, about.
const CHUNK_BYTES: u64 = 8 << 20;

/// Pages given back to the file system in one step.
const RECLAIM_PAGES: u64 = 512;

/// What one call of [`crate::Journal::maintain`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaintainReport {
    /// Records that were older than `max_age_ms`.
    pub deleted_by_age: u64,
    /// Records dropped because a topic was over `max_bytes`. Most of these are dropped right after the
    /// commit that went over, and are only in [`crate::Stats::dropped_by_bytes`].
    pub dropped_by_bytes: u64,
    /// Superseded records of compacted topics.
    pub compacted: u64,
    /// Tombstones of compacted topics.
    pub tombstones_removed: u64,
    /// Keys, values and overhead of all these.
    pub deleted_bytes: u64,
    /// Bytes of free pages that are given back to the file system. Other free pages are used again.
    pub reclaimed_file_bytes: u64,
}

impl MaintainReport {
    pub(crate) fn add(&mut self, other: &Self) {
        self.deleted_by_age += other.deleted_by_age;
        self.dropped_by_bytes += other.dropped_by_bytes;
        self.compacted += other.compacted;
        self.tombstones_removed += other.tombstones_removed;
        self.deleted_bytes += other.deleted_bytes;
        self.reclaimed_file_bytes += other.reclaimed_file_bytes;
    }
}

/// One chunk's work, and whether there is more.
#[derive(Default)]
pub(crate) struct Step {
    pub(crate) report: MaintainReport,
    pub(crate) more: bool,
}

/// One chunk of what is due in a partition at `now_ms`.
pub(crate) fn maintain_step(
    writer: &mut Writer,
    topic: &Arc<Topic>,
    partition: u32,
    now_ms: i64,
) -> Result<Step, JournalError> {
    match topic.retention() {
        Retention::Delete { max_age_ms: Some(max_age_ms), .. } => {
            delete_by_age(writer, topic, partition, now_ms, max_age_ms)
        }
        Retention::Delete { max_age_ms: None, .. } => Ok(Step::default()),
        Retention::Compact => {
            let mut step = compact(writer, topic, partition, now_ms)?;
            if !step.more {
                let swept = sweep_tombstones(writer, topic, partition, now_ms)?;
                step.report.add(&swept.report);
                step.more = swept.more;
            }
            Ok(step)
        }
    }
}

fn delete_by_age(
    writer: &mut Writer,
    topic: &Arc<Topic>,
    partition: u32,
    now_ms: i64,
    max_age_ms: i64,
) -> Result<Step, JournalError> {
    let mut step = Step::default();
    let ripeness = Ripeness::new(now_ms, max_age_ms);
    let (mut heads, complete) = read_heads(writer, topic, partition, CHUNK_RECORDS)?;
    let ripe = ripeness.prefix(heads.iter().map(|head| head.time_ms));
    step.more = ripe > 0 && ripe == heads.len() && !complete;
    heads.truncate(ripe);
    step.report.deleted_bytes = delete_heads(writer, topic, partition, &heads)?;
    step.report.deleted_by_age = heads.len() as u64;
    add(&writer.shared.counters.deleted_by_age, heads.len() as u64);
    Ok(step)
}

/// Drops the oldest records of a topic that is over its bytes: as many as were appended, or a chunk.
pub(crate) fn enforce_bytes(
    writer: &mut Writer,
    topic: &Arc<Topic>,
    appended_records: usize,
) -> Result<Step, JournalError> {
    let mut step = Step::default();
    let Retention::Delete { max_bytes: Some(max_bytes), .. } = topic.retention() else { return Ok(step) };
    let enough = appended_records.max(CHUNK_RECORDS) as u64;
    loop {
        let excess = topic.size().bytes.saturating_sub(max_bytes);
        step.more = excess > 0 && step.report.dropped_by_bytes >= enough;
        if excess == 0 || step.more {
            return Ok(step);
        }
        let Some(partition) = oldest_partition(writer, topic)? else { return Ok(step) };
        let (mut heads, _) = read_heads(writer, topic, partition, CHUNK_RECORDS)?;
        let mut bytes = 0;
        let over = heads.iter().take_while(|head| {
            let still_over = bytes < excess;
            bytes += head.bytes;
            still_over
        });
        let count = over.count();
        heads.truncate(count);
        step.report.deleted_bytes += delete_heads(writer, topic, partition, &heads)?;
        step.report.dropped_by_bytes += heads.len() as u64;
        add(&topic.dropped_by_bytes, heads.len() as u64);
        add(&writer.shared.counters.dropped_by_bytes, heads.len() as u64);
    }
}

/// The partition whose first record is the oldest.
fn oldest_partition(writer: &Writer, topic: &Topic) -> Result<Option<u32>, JournalError> {
    let mut oldest: Option<(i64, u32)> = None;
    for partition in (0..topic.partition_count()).filter(|partition| topic.state(*partition).records > 0) {
        let time_ms = first_time(&writer.connection, topic, partition)
            .map_err(|error| writer.shared.error("look for the oldest records of", error))?;
        if let Some(time_ms) = time_ms
            && oldest.is_none_or(|(before, _)| time_ms < before)
        {
            oldest = Some((time_ms, partition));
        }
    }
    Ok(oldest.map(|(_, partition)| partition))
}

fn first_time(connection: &Connection, topic: &Topic, partition: u32) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached(&topic.sql.oldest_time)?;
    statement.query_row([partition], |row| row.get(0)).optional()
}

/// Deletes one chunk of what lies before `up_to_offset`; returns how many records, and whether there is more.
pub(crate) fn trim_step(
    writer: &mut Writer,
    topic: &Arc<Topic>,
    partition: u32,
    up_to_offset: u64,
) -> Result<(u64, bool), JournalError> {
    let (mut heads, complete) = read_heads(writer, topic, partition, CHUNK_RECORDS)?;
    let due = heads.iter().take_while(|head| head.offset < up_to_offset).count();
    let more = due > 0 && due == heads.len() && !complete;
    heads.truncate(due);
    delete_heads(writer, topic, partition, &heads)?;
    add(&writer.shared.counters.trimmed, due as u64);
    let first_offset = topic.state(partition).first_offset;
    if !more && first_offset < up_to_offset.min(topic.state(partition).next_offset) {
        writer.transact("trim", |_, _, changes| {
            changes.partition(topic, partition).begin_at(up_to_offset);
            Ok(())
        })?;
    }
    Ok((due as u64, more))
}

/// The first record of a partition, as much of it as deleting needs.
struct Head {
    offset: u64,
    time_ms: i64,
    bytes: u64,
    key: Option<Vec<u8>>,
}

/// The oldest records, up to a chunk, and whether these are all.
fn read_heads(
    writer: &Writer,
    topic: &Topic,
    partition: u32,
    max_records: usize,
) -> Result<(Vec<Head>, bool), JournalError> {
    let from = topic.state(partition).first_offset;
    heads(&writer.connection, topic, partition, from, max_records)
        .map_err(|error| writer.shared.error("look for the oldest records of", error))
}

fn heads(
    connection: &Connection,
    topic: &Topic,
    partition: u32,
    from: u64,
    max_records: usize,
) -> rusqlite::Result<(Vec<Head>, bool)> {
    let mut statement = connection.prepare_cached(&topic.sql.oldest)?;
    let mut rows = statement.query(params![partition, as_i64(from), as_i64(max_records as u64)])?;
    let (mut heads, mut chunk_bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let content: Option<i64> = row.get(2).unwrap_or(None);
        let bytes = content.map_or(0, as_u64) + RECORD_OVERHEAD_BYTES;
        let key = if topic.compact { row.get(3).unwrap_or(None) } else { None };
        heads.push(Head { offset: as_u64(row.get(0)?), time_ms: row.get(1).unwrap_or(i64::MIN), bytes, key });
        chunk_bytes += bytes;
        if chunk_bytes >= CHUNK_BYTES {
            return Ok((heads, false));
        }
    }
    let complete = heads.len() < max_records;
    Ok((heads, complete))
}

/// Deletes these records, which are the first of their partition; returns their bytes.
fn delete_heads(writer: &mut Writer, topic: &Arc<Topic>, partition: u32, heads: &[Head]) -> Result<u64, JournalError> {
    let Some(last) = heads.last() else { return Ok(0) };
    let bytes = heads.iter().map(|head| head.bytes).sum();
    writer.transact("delete old records from", |transaction, _, changes| {
        transaction.prepare_cached(&topic.sql.delete_through)?.execute(params![partition, as_i64(last.offset)])?;
        if topic.compact {
            let mut delete_key = transaction.prepare_cached(&topic.sql.delete_key)?;
            for head in heads.iter().filter(|head| head.key.is_some()) {
                delete_key.execute(params![partition, head.key, as_i64(head.offset)])?;
            }
        }
        let state = changes.partition(topic, partition);
        state.forget(heads.len() as u64, bytes);
        state.begin_at(last.offset + 1);
        Ok(())
    })?;
    Ok(bytes)
}

/// Deletes what a chunk of records supersede, once those are older than the lag.
fn compact(writer: &mut Writer, topic: &Arc<Topic>, partition: u32, now_ms: i64) -> Result<Step, JournalError> {
    let mut step = Step::default();
    let state = topic.state(partition);
    let mut chunk = scan(writer, topic, partition, state.compacted_to..state.next_offset)?;
    let full = chunk.len() == CHUNK_RECORDS;
    let ripe = Ripeness::new(now_ms, writer.shared.options.compact_lag_ms).prefix(chunk.iter().map(|row| row.time_ms));
    step.more = full && ripe == chunk.len();
    chunk.truncate(ripe);
    let Some(last) = chunk.last() else { return Ok(step) };
    let ((count, bytes), _) = writer.transact("compact", |transaction, _, changes| {
        let mut delete = transaction.prepare_cached(&topic.sql.delete_superseded)?;
        let (mut count, mut bytes) = (0, 0);
        for row in &chunk {
            let Some(superseded) = row.supersedes.filter(|superseded| as_u64(*superseded) < row.offset) else {
                continue;
            };
            let mut deleted = delete.query(params![partition, superseded, row.key])?;
            while let Some(deleted) = deleted.next()? {
                count += 1;
                bytes += deleted.get::<_, Option<i64>>(0)?.map_or(0, as_u64) + RECORD_OVERHEAD_BYTES;
            }
        }
        let state: &mut PartitionState = changes.partition(topic, partition);
        state.forget(count, bytes);
        state.compacted_to = last.offset + 1;
        Ok((count, bytes))
    })?;
    step.report.compacted = count;
    step.report.deleted_bytes = bytes;
    add(&writer.shared.counters.compacted, count);
    Ok(step)
}

/// Deletes a chunk of tombstones that every reader had time to see. Only where compaction has been:
/// a tombstone that goes before what it supersedes would bring that back.
fn sweep_tombstones(
    writer: &mut Writer,
    topic: &Arc<Topic>,
    partition: u32,
    now_ms: i64,
) -> Result<Step, JournalError> {
    let mut step = Step::default();
    let state = topic.state(partition);
    let options = &writer.shared.options;
    let ripeness = Ripeness::new(now_ms, options.tombstone_ms.max(options.compact_lag_ms));
    let mut chunk = scan(writer, topic, partition, state.swept_to..state.compacted_to)?;
    let full = chunk.len() == CHUNK_RECORDS;
    let ripe = ripeness.prefix(chunk.iter().map(|row| row.time_ms));
    step.more = full && ripe == chunk.len();
    chunk.truncate(ripe);
    let Some(last) = chunk.last() else { return Ok(step) };
    let ((count, bytes), _) = writer.transact("sweep tombstones from", |transaction, _, changes| {
        let mut delete_key = transaction.prepare_cached(&topic.sql.delete_key)?;
        let mut delete_one = transaction.prepare_cached(&topic.sql.delete_one)?;
        let (mut count, mut bytes) = (0, 0);
        for row in chunk.iter().filter(|row| row.is_tombstone) {
            // A superseded tombstone is compaction's.
            if delete_key.execute(params![partition, row.key, as_i64(row.offset)])? == 1 {
                delete_one.execute(params![partition, as_i64(row.offset)])?;
                count += 1;
                bytes += row.key.as_ref().map_or(0, |key| key.len() as u64) + RECORD_OVERHEAD_BYTES;
            }
        }
        let state: &mut PartitionState = changes.partition(topic, partition);
        state.forget(count, bytes);
        state.swept_to = last.offset + 1;
        Ok((count, bytes))
    })?;
    step.report.tombstones_removed = count;
    step.report.deleted_bytes = bytes;
    add(&writer.shared.counters.tombstones_removed, count);
    Ok(step)
}

/// A record as compaction sees it.
struct ScannedRow {
    offset: u64,
    time_ms: i64,
    is_tombstone: bool,
    supersedes: Option<i64>,
    key: Option<Vec<u8>>,
}

fn scan(
    writer: &Writer,
    topic: &Topic,
    partition: u32,
    offsets: std::ops::Range<u64>,
) -> Result<Vec<ScannedRow>, JournalError> {
    let read = || -> rusqlite::Result<Vec<ScannedRow>> {
        let mut statement = writer.connection.prepare_cached(&topic.sql.scan)?;
        let bounds = params![partition, as_i64(offsets.start), as_i64(offsets.end), as_i64(CHUNK_RECORDS as u64)];
        let rows = statement.query_map(bounds, |row| {
            Ok(ScannedRow {
                offset: as_u64(row.get(0)?),
                time_ms: row.get(1).unwrap_or(i64::MIN),
                is_tombstone: row.get(2).unwrap_or(None) == Some(0_i64),
                supersedes: row.get(3).unwrap_or(None),
                key: row.get(4).unwrap_or(None),
            })
        })?;
        rows.collect()
    };
    read().map_err(|error| writer.shared.error("look for superseded records of", error))
}

/// Gives free pages back to the file system, one step, when they are so many that the topics must have
/// shrunk; returns the bytes, and whether there is more to give back.
pub(crate) fn reclaim_step(writer: &mut Writer, begun: bool) -> Result<Step, JournalError> {
    let reclaim = |connection: &Connection| -> rusqlite::Result<Step> {
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map(as_u64);
        let (free, pages, page_bytes) = (pragma("freelist_count")?, pragma("page_count")?, pragma("page_size")?);
        let share = if begun { 8 } else { 4 };
        let mut step = Step::default();
        if free > RECLAIM_PAGES.max(pages / share) {
            // Each row that the pragma returns is a page moved: all must be asked for.
            let mut vacuum = connection.prepare_cached(&format!("PRAGMA incremental_vacuum({RECLAIM_PAGES})"))?;
            let mut rows = vacuum.query([])?;
            while rows.next()?.is_some() {}
            step.more = true;
            step.report.reclaimed_file_bytes = pages.saturating_sub(pragma("page_count")?) * page_bytes;
        }
        Ok(step)
    };
    reclaim(&writer.connection).map_err(|error| writer.shared.error("shrink", error))
}

/// Which records are old enough at some time.
struct Ripeness {
    cutoff_ms: i64,
    now_ms: i64,
}

impl Ripeness {
    fn new(now_ms: i64, age_ms: i64) -> Self {
        Self { cutoff_ms: now_ms.saturating_sub(age_ms), now_ms }
    }

    /// How many of the first records can go: up to the last ripe one before the first that is not.
    ///
    /// A time in the future (a clock was wrong) says nothing of the record's age: such a record goes with
    /// its successor, so that it does not keep everything behind it for years.
    fn prefix(&self, times_ms: impl Iterator<Item = i64>) -> usize {
        let mut ripe = 0;
        for (index, time_ms) in times_ms.enumerate() {
            if time_ms <= self.cutoff_ms {
                ripe = index + 1;
            } else if time_ms <= self.now_ms {
                break;
            }
        }
        ripe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(times_ms: &[i64]) -> usize {
        Ripeness::new(1_000, 100).prefix(times_ms.iter().copied())
    }

    #[test]
    fn old_records_go_up_to_the_first_young_one() {
        assert_eq!(prefix(&[1, 899, 900, 901, 2]), 3);
        assert_eq!(prefix(&[901]), 0);
        assert_eq!(prefix(&[]), 0);
    }

    #[test]
    fn a_time_in_the_future_goes_with_its_successor() {
        assert_eq!(prefix(&[1, 5_000, 2, 950]), 3);
        assert_eq!(prefix(&[1, 5_000, 950]), 1);
        assert_eq!(prefix(&[5_000]), 0);
    }

    #[test]
    fn ages_at_the_ends_of_time_do_not_overflow() {
        assert_eq!(Ripeness::new(i64::MIN, i64::MAX).prefix([0].into_iter()), 0);
    }
}
