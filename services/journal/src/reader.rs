//! Reads, on connections of their own: they see what was committed and never hold up the writer.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::checksum::record_checksum;
use crate::file::Files;
use crate::record::Record;
use crate::schema::{as_i64, as_u64};
use crate::topics::Topic;

/// What was read of a partition.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) records: Vec<Record>,
    /// Where to read on.
    pub(crate) next_offset: u64,
    /// Offsets of rows whose checksum does not match.
    pub(crate) damaged: Vec<u64>,
    /// Damaged rows, and offsets on unreadable pages.
    pub(crate) skipped: u64,
    /// Some page was unreadable.
    pub(crate) broken: bool,
    bytes: usize,
}

/// How much to read.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_records: usize,
    pub(crate) max_bytes: usize,
}

/// Reads from `from` on, past damage, up to `end`: the partition's next offset as it was published. What was
/// committed since then is left for the next read, so that no reader is ahead of `bounds`.
pub(crate) fn read(
    connection: &Connection,
    topic: &Topic,
    partition: u32,
    (from, end): (u64, u64),
    limits: Limits,
) -> rusqlite::Result<Run> {
    let mut run = Run { next_offset: from, ..Run::default() };
    loop {
        match read_rows(connection, topic, partition, end, limits, &mut run) {
            Ok(Stop::Full) => break,
            Ok(Stop::End) => {
                run.next_offset = run.next_offset.max(end);
                break;
            }
            Err(error) if is_damage(&error) => {
                run.broken = true;
                if run.next_offset >= end {
                    break;
                }
                let readable = next_readable(connection, topic, partition, run.next_offset, end)?;
                run.skipped += readable - run.next_offset;
                run.next_offset = readable;
            }
            Err(error) => return Err(error),
        }
    }
    // Rows that lie about their own offset must not keep a reader in one place.
    if run.skipped > 0 && run.records.is_empty() {
        run.next_offset = run.next_offset.max(from + 1);
    }
    Ok(run)
}

enum Stop {
    Full,
    End,
}

fn read_rows(
    connection: &Connection,
    topic: &Topic,
    partition: u32,
    end: u64,
    limits: Limits,
    run: &mut Run,
) -> rusqlite::Result<Stop> {
    let wanted = limits.max_records.saturating_sub(run.records.len());
    let mut statement = connection.prepare_cached(&topic.sql.read)?;
    let mut rows = statement.query(params![partition, as_i64(run.next_offset), as_i64(end), as_i64(wanted as u64)])?;
    let mut seen = 0;
    while let Some(row) = rows.next()? {
        seen += 1;
        let offset = row.get_ref(0)?.as_i64().ok().and_then(|offset| u64::try_from(offset).ok());
        let Some(record) = decode(row, partition)?.filter(|record| record.offset >= run.next_offset) else {
            run.skipped += 1;
            if let Some(offset) = offset.filter(|offset| (run.next_offset..end).contains(offset)) {
                run.damaged.push(offset);
                run.next_offset = offset + 1;
            }
            continue;
        };
        let bytes = record.key.as_ref().map_or(0, Bytes::len) + record.value.len();
        if !run.records.is_empty() && run.bytes + bytes > limits.max_bytes {
            return Ok(Stop::Full);
        }
        run.bytes += bytes;
        run.next_offset = record.offset + 1;
        run.records.push(record);
    }
    Ok(if seen == wanted { Stop::Full } else { Stop::End })
}

/// `None` if the row is not what was written.
fn decode(row: &rusqlite::Row<'_>, partition: u32) -> rusqlite::Result<Option<Record>> {
    let fields = (row.get_ref(0)?, row.get_ref(1)?, row.get_ref(2)?, row.get_ref(3)?, row.get_ref(4)?);
    let (
        ValueRef::Integer(offset),
        ValueRef::Integer(time_ms),
        key,
        ValueRef::Integer(checksum),
        ValueRef::Blob(value),
    ) = fields
    else {
        return Ok(None);
    };
    let key = match key {
        ValueRef::Null => None,
        ValueRef::Blob(key) => Some(key),
        _ => return Ok(None),
    };
    let Ok(offset) = u64::try_from(offset) else { return Ok(None) };
    if i64::from(record_checksum(partition, offset, time_ms, key, value)) != checksum {
        return Ok(None);
    }
    let key = key.map(Bytes::copy_from_slice);
    Ok(Some(Record { offset, time_ms, key, value: Bytes::copy_from_slice(value) }))
}

/// The first offset after the unreadable `broken` from which reading works again; `end` if there is none.
///
/// A damaged page holds some dozens of rows: double the step until a page answers, then halve back.
fn next_readable(
    connection: &Connection,
    topic: &Topic,
    partition: u32,
    broken: u64,
    end: u64,
) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(&topic.sql.read)?;
    let mut readable =
        |offset: u64| match statement.query_row(params![partition, as_i64(offset), as_i64(end), 1], |_| Ok(())) {
            Ok(()) | Err(rusqlite::Error::QueryReturnedNoRows) => Ok(true),
            Err(error) if is_damage(&error) => Ok(false),
            Err(error) => Err(error),
        };
    let (mut bad, mut step) = (broken, 1_u64);
    let mut good = loop {
        let candidate = broken.saturating_add(step).min(end);
        if candidate == end || readable(candidate)? {
            break candidate;
        }
        bad = candidate;
        step = step.saturating_mul(2);
    };
    while good - bad > 1 {
        let middle = bad + (good - bad) / 2;
        if readable(middle)? {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Ok(good)
}

pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// The first offset in `from..end` whose record has a time of `time_ms` or later; `end` if there is none.
///
/// The running maximum of times never falls, so what comes before the place found by halving is surely
/// earlier; from there on rows are looked at one by one (one or two, unless a clock was set back).
pub(crate) fn offset_for_time(
    connection: &Connection,
    topic: &Topic,
    partition: u32,
    (from, end): (u64, u64),
    time_ms: i64,
) -> rusqlite::Result<u64> {
    let mut high_time_at = connection.prepare_cached(&topic.sql.high_time_at)?;
    let (mut low, mut high) = (from, end);
    while low < high {
        let middle = low + (high - low) / 2;
        let row = high_time_at
            .query_row(params![partition, as_i64(middle)], |row| Ok((as_u64(row.get(0)?), row.get::<_, i64>(1)?)));
        match row.optional()? {
            Some((offset, high_time_ms)) if high_time_ms < time_ms => low = low.max(offset) + 1,
            _ => high = middle,
        }
    }
    let mut first_at_time = connection.prepare_cached(&topic.sql.first_at_time)?;
    let found = first_at_time.query_row(params![partition, as_i64(low), time_ms], |row| row.get(0)).optional()?;
    Ok(found.map_or(end, as_u64).min(end))
}

/// A bounded number of read-only connections.
pub(crate) struct ReadPool {
    files: Files,
    limit: usize,
    state: Mutex<PoolState>,
    returned: Condvar,
    /// Read-locked while a read runs, write-locked while the write-ahead log is emptied.
    gate: RwLock<()>,
}

#[derive(Default)]
struct PoolState {
    idle: Vec<Connection>,
    open: usize,
    closed: bool,
}

impl ReadPool {
    pub(crate) fn new(files: Files, limit: usize) -> Self {
        Self { files, limit, state: Mutex::default(), returned: Condvar::new(), gate: RwLock::new(()) }
    }

    /// Runs `read` on a connection of the pool, waiting for one if all are busy; `None` after `close`.
    pub(crate) fn with<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<rusqlite::Result<T>> {
        let mut lease = match self.lease()? {
            Ok(lease) => lease,
            Err(error) => return Some(Err(error)),
        };
        let _gate: RwLockReadGuard<'_, ()> = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        Some(lease.run(read))
    }

    /// Keeps new reads from starting, and waits for those that run.
    pub(crate) fn hold_up(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more reads.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.open -= state.idle.len();
        state.idle.clear();
        self.returned.notify_all();
    }

    fn lease(&self) -> Option<rusqlite::Result<Lease<'_>>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(connection) = state.idle.pop() {
                return Some(Ok(Lease { pool: self, connection: Some(connection) }));
            }
            if state.open < self.limit {
                state.open += 1;
                break;
            }
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        // Made first, so that the place is given back if connecting fails.
        let mut lease = Lease { pool: self, connection: None };
        match self.files.connect_read_only() {
            Ok(connection) => lease.connection = Some(connection),
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(lease))
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection on loan, or the place for one.
struct Lease<'p> {
    pool: &'p ReadPool,
    connection: Option<Connection>,
}

impl Lease<'_> {
    fn run<T>(&mut self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        match &self.connection {
            Some(connection) => read(connection),
            None => Err(rusqlite::Error::InvalidQuery),
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        match self.connection.take() {
            Some(connection) if !state.closed => state.idle.push(connection),
            _ => state.open -= 1,
        }
        self.pool.returned.notify_one();
    }
}
