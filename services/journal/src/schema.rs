//! The format on disk, and the one place that creates and upgrades it.
//!
//! A journal is one SQLite 3 file in WAL mode, with `<file>-wal` and `<file>-shm` beside it while it is
//! open, and `<file>.lock`, which its owner keeps locked. `application_id` is [`APPLICATION_ID`],
//! `user_version` the format's number ([`FORMAT`]), `auto_vacuum` incremental. Integers are SQLite's
//! (signed, 64 bits), so offsets end at 2^63-1. Tables:
//!
//! `meta (name, value)`: `log_id`, 16 hexadecimal digits, drawn when the log began. A reader whose
//! position was for another `log_id` must start again. `format`: the same as `user_version`; where they
//! differ the file's header is damaged.
//!
//! `topics (id, name, partitions, compact, max_age_ms, max_bytes)`: the topics and what they keep.
//!
//! `partitions (topic_id, partition, first_offset, next_offset, records, bytes, high_time_ms,
//! compacted_to, swept_to)`: counters, written in the transaction that changes them. `next_offset` is
//! kept here, and not derived from the rows, so that an emptied partition does not begin at 0 again.
//!
//! `positions (group_name, topic_id, partition, next_offset)`: how far consumers have come.
//!
//! `records_<topic id> (partition, offset, time_ms, high_time_ms, supersedes, key, checksum, value)`,
//! `WITHOUT ROWID`, in the order of (partition, offset):
//! - `high_time_ms`: the highest time of this and all earlier records of the partition, or NULL when
//!   that is its own. It never falls, so a time can be looked up by halving, although times may go back.
//! - `supersedes`: in a compacted topic the offset of the key's record before this one, else NULL. It is
//!   a hint for compaction, which compares the keys before it deletes.
//! - `checksum`: CRC-32C over partition (u32), offset (u64), time (i64), key length (u64, all ones for
//!   no key), all little-endian, then key and value.
//!
//! `keys_<topic id> (partition, key, offset)`, `WITHOUT ROWID`, compacted topics only: each key's newest
//! record.
//!
//! `damaged (id, topic_id, partition, offset, time_ms, key, checksum, value)`: records whose checksum
//! did not match, moved here as they were; the newest [`DAMAGED_KEPT`] are kept.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::options::{Options, Retention, Synchronous};
use crate::topics::{PartitionState, Topic};

/// "TGJ1": marks a SQLite file as a journal.
pub(crate) const APPLICATION_ID: i64 = 0x5447_4a31;

/// The newest format that is known here; one more than the last upgrade's index.
pub(crate) const FORMAT: i64 = UPGRADES.len().cast_signed() as i64;

/// How many damaged records are kept for a look.
pub(crate) const DAMAGED_KEPT: i64 = 1_000;

/// The most partitions that a topic can have.
pub(crate) const MAX_PARTITIONS: u32 = 4_096;

/// How long the writer waits for another program (a `sqlite3` shell) that holds the file.
const BUSY_TIMEOUT_MS: u64 = 250;

/// `UPGRADES[n]` leads from format `n` to `n + 1`; format 0 is an empty file. Add, never change.
const UPGRADES: [&str; 1] = ["
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('log_id', lower(hex(randomblob(8)))), ('format', '1');
CREATE TABLE topics (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL,
    compact INTEGER NOT NULL, max_age_ms INTEGER, max_bytes INTEGER);
CREATE TABLE partitions (
    topic_id INTEGER NOT NULL, partition INTEGER NOT NULL,
    first_offset INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    records INTEGER NOT NULL, bytes INTEGER NOT NULL, high_time_ms INTEGER NOT NULL,
    compacted_to INTEGER NOT NULL, swept_to INTEGER NOT NULL,
    PRIMARY KEY (topic_id, partition)) WITHOUT ROWID;
CREATE TABLE positions (
    group_name TEXT NOT NULL, topic_id INTEGER NOT NULL, partition INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (group_name, topic_id, partition)) WITHOUT ROWID;
CREATE TABLE damaged (
    id INTEGER PRIMARY KEY, topic_id INTEGER, partition INTEGER, offset INTEGER,
    time_ms INTEGER, key BLOB, checksum INTEGER, value BLOB);
"];

/// Creates a topic's own tables. They are as format 1 has them; an upgrade that changes them walks `topics`.
fn create_topic_tables(id: i64, compact: bool) -> String {
    let records = format!(
        "CREATE TABLE records_{id} (
            partition INTEGER NOT NULL, offset INTEGER NOT NULL, time_ms INTEGER NOT NULL,
            high_time_ms INTEGER, supersedes INTEGER, key BLOB, checksum INTEGER NOT NULL, value BLOB NOT NULL,
            PRIMARY KEY (partition, offset)) WITHOUT ROWID;"
    );
    if !compact {
        return records;
    }
    format!(
        "{records}
        CREATE TABLE keys_{id} (
            partition INTEGER NOT NULL, key BLOB NOT NULL, offset INTEGER NOT NULL,
            PRIMARY KEY (partition, key)) WITHOUT ROWID;"
    )
}

/// What kind of file a connection opened.
pub(crate) enum FileKind {
    /// A journal of a known format, which may be older than [`FORMAT`], or an empty file.
    Journal,
    /// A journal of a newer format.
    Newer(i64),
    /// Another program's.
    Foreign,
    /// A journal whose header is damaged.
    Scrambled,
}

/// Tells whose file it is, without changing it.
pub(crate) fn identify(connection: &Connection) -> rusqlite::Result<FileKind> {
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if tables == 0 && application == 0 {
        return Ok(FileKind::Journal);
    }
    let ours: i64 = connection.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE name IN ('meta', 'topics', 'partitions', 'positions')",
        [],
        |row| row.get(0),
    )?;
    if ours < 4 {
        return Ok(if application == APPLICATION_ID { FileKind::Scrambled } else { FileKind::Foreign });
    }
    let format_again: Option<String> =
        connection.query_row("SELECT value FROM meta WHERE name = 'format'", [], |row| row.get(0)).optional()?;
    if application != APPLICATION_ID || format_again != Some(format.to_string()) {
        return Ok(FileKind::Scrambled);
    }
    Ok(if (1..=FORMAT).contains(&format) { FileKind::Journal } else { FileKind::Newer(format) })
}

/// Sets up the writer's connection; must be the first thing done with a new file.
pub(crate) fn configure(connection: &Connection, options: &Options) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))?;
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if pages == 0 {
        // Setting it again would write to the file, which may be damaged and evidence.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match options.synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "cache_size", -8_192)?;
    // The log is cut to this after a checkpoint that reached its end.
    connection.pragma_update(None, "journal_size_limit", i64::try_from(options.wal_max_bytes).unwrap_or(i64::MAX))?;
    let page_bytes: u64 = connection.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0))?.into();
    let max_pages = options.file_max_bytes.map_or(i64::from(u32::MAX - 1), |bytes| as_i64((bytes / page_bytes).max(1)));
    connection.pragma_update(None, "max_page_count", max_pages)?;
    connection.set_prepared_statement_cache_capacity(512);
    Ok(())
}

/// Brings the file to [`FORMAT`], in one transaction.
pub(crate) fn upgrade(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let format: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if format == FORMAT {
        return Ok(());
    }
    for upgrade in UPGRADES.iter().skip(usize::try_from(format).unwrap_or(0)) {
        transaction.execute_batch(upgrade)?;
    }
    transaction.execute("UPDATE meta SET value = ?1 WHERE name = 'format'", [FORMAT.to_string()])?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

/// What SQLite's own check of the structure finds first, if anything.
pub(crate) fn quick_check(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((verdict != "ok").then_some(verdict))
}

pub(crate) fn log_id(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("SELECT value FROM meta WHERE name = 'log_id'", [], |row| row.get(0))
}

/// All topics as the file has them.
pub(crate) fn load_topics(connection: &Connection) -> rusqlite::Result<Vec<Topic>> {
    topics(connection, "SELECT id, name, partitions, compact, max_age_ms, max_bytes FROM topics ORDER BY id")
}

/// All topics, their shape as the tables tell it: in a damaged file a number of the catalogue is worth less than what
/// is there.
pub(crate) fn load_topics_by_tables(connection: &Connection) -> rusqlite::Result<Vec<Topic>> {
    let partitions = "(SELECT count(*) FROM partitions WHERE topic_id = topics.id)";
    let compact = "EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'keys_' || topics.id)";
    let sql = format!("SELECT id, name, {partitions}, {compact}, max_age_ms, max_bytes FROM topics ORDER BY id");
    topics(connection, &sql)
}

fn topics(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<Topic>> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut topics = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, name, partitions): (i64, String, u32) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(rusqlite::Error::IntegralValueOutOfRange(2, partitions.into()));
        }
        let retention = if row.get(3)? {
            Retention::Compact
        } else {
            let max_bytes: Option<i64> = row.get(5)?;
            Retention::Delete { max_age_ms: row.get(4)?, max_bytes: max_bytes.map(as_u64) }
        };
        let mut states = Vec::new();
        for partition in 0..partitions {
            states.push(load_partition(connection, id, partition)?);
        }
        topics.push(Topic::new(id, &name, retention, states));
    }
    Ok(topics)
}

/// What contradicts itself in the catalogue, if anything: names and counters are not checksummed. With `whole` records
/// are counted, too.
pub(crate) fn contradiction(
    connection: &Connection,
    topics: &[Topic],
    whole: bool,
) -> rusqlite::Result<Option<String>> {
    // The quick check does not compare a table with its index: a name that is only in one of them can be neither
    // found nor created.
    let verdict: String = connection.query_row("PRAGMA integrity_check('topics')", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Ok(Some(verdict));
    }
    connection.prepare("SELECT group_name, topic_id, partition, next_offset FROM positions")?;
    for topic in topics {
        // A column that has lost its name is found out here, and not at the first read.
        for sql in [&topic.sql.read, &topic.sql.insert, &topic.sql.set_aside] {
            connection.prepare_cached(sql)?;
        }
        let partitions: u32 =
            connection
                .query_row("SELECT count(*) FROM partitions WHERE topic_id = ?1", [topic.id], |row| row.get(0))?;
        if partitions != topic.partition_count() {
            let count = topic.partition_count();
            return Ok(Some(format!("topic {} has {count} partitions and counters of {partitions}", topic.name)));
        }
        let keys = format!("keys_{}", topic.id);
        let has_keys: bool = connection.query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1",
            [keys],
            |row| row.get(0),
        )?;
        if has_keys != matches!(topic.retention(), Retention::Compact) {
            return Ok(Some(format!("it cannot be told whether topic {} is a compacted one", topic.name)));
        }
        if has_keys {
            connection.prepare_cached(&topic.sql.put_key)?;
        }
        for partition in 0..topic.partition_count() {
            let state = topic.state(partition);
            let (first, last) = ends(connection, topic, partition)?;
            let ordered = state.first_offset <= state.next_offset
                && state.swept_to <= state.next_offset
                && state.compacted_to <= state.next_offset
                // What trimming has passed is gone in the same transaction.
                && first.is_none_or(|first| first >= as_i64(state.first_offset))
                && last.is_none_or(|last| last < as_i64(state.next_offset));
            if !ordered {
                return Ok(Some(format!("the counters of {}, partition {partition}, cannot be right", topic.name)));
            }
            if whole {
                let count: i64 = connection.query_row(&topic.sql.count, [partition], |row| row.get(0))?;
                if as_u64(count) != state.records {
                    let Topic { name, .. } = topic;
                    let expected = state.records;
                    return Ok(Some(format!("{name}, partition {partition}, has {count} records of {expected}")));
                }
            }
        }
    }
    Ok(None)
}

/// The offsets of a partition's first and last record, as they stand in the table: damage can make them negative.
pub(crate) fn ends(
    connection: &Connection,
    topic: &Topic,
    partition: u32,
) -> rusqlite::Result<(Option<i64>, Option<i64>)> {
    connection.query_row(&topic.sql.ends, [partition], |row| Ok((row.get(0)?, row.get(1)?)))
}

fn load_partition(connection: &Connection, topic_id: i64, partition: u32) -> rusqlite::Result<PartitionState> {
    let mut statement = connection.prepare_cached(
        "SELECT first_offset, next_offset, records, bytes, high_time_ms, compacted_to, swept_to
         FROM partitions WHERE topic_id = ?1 AND partition = ?2",
    )?;
    statement.query_row(params![topic_id, partition], |row| {
        Ok(PartitionState {
            first_offset: as_u64(row.get(0)?),
            next_offset: as_u64(row.get(1)?),
            records: as_u64(row.get(2)?),
            bytes: as_u64(row.get(3)?),
            high_time_ms: row.get(4)?,
            compacted_to: as_u64(row.get(5)?),
            swept_to: as_u64(row.get(6)?),
        })
    })
}

/// Writes a partition's counters.
pub(crate) fn store_partition(
    transaction: &Transaction<'_>,
    topic_id: i64,
    partition: u32,
    state: &PartitionState,
) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT OR REPLACE INTO partitions (topic_id, partition, first_offset, next_offset, records, bytes,
            high_time_ms, compacted_to, swept_to) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    statement.execute(params![
        topic_id,
        partition,
        as_i64(state.first_offset),
        as_i64(state.next_offset),
        as_i64(state.records),
        as_i64(state.bytes),
        state.high_time_ms,
        as_i64(state.compacted_to),
        as_i64(state.swept_to),
    ])?;
    Ok(())
}

/// Creates a topic with its tables and counters.
pub(crate) fn create_topic(
    transaction: &Transaction<'_>,
    name: &str,
    states: Vec<PartitionState>,
    retention: Retention,
) -> rusqlite::Result<Topic> {
    let (compact, max_age_ms, max_bytes) = columns(retention);
    transaction.execute(
        "INSERT INTO topics (name, partitions, compact, max_age_ms, max_bytes) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![name, as_i64(states.len() as u64), compact, max_age_ms, max_bytes],
    )?;
    let id = transaction.last_insert_rowid();
    transaction.execute_batch(&create_topic_tables(id, compact))?;
    for (partition, state) in states.iter().enumerate() {
        store_partition(transaction, id, partition as u32, state)?;
    }
    Ok(Topic::new(id, name, retention, states))
}

/// Changes what a topic keeps.
pub(crate) fn store_retention(
    transaction: &Transaction<'_>,
    topic_id: i64,
    retention: Retention,
) -> rusqlite::Result<()> {
    let (_, max_age_ms, max_bytes) = columns(retention);
    transaction.execute(
        "UPDATE topics SET max_age_ms = ?2, max_bytes = ?3 WHERE id = ?1",
        params![topic_id, max_age_ms, max_bytes],
    )?;
    Ok(())
}

fn columns(retention: Retention) -> (bool, Option<i64>, Option<i64>) {
    match retention {
        Retention::Delete { max_age_ms, max_bytes } => (false, max_age_ms, max_bytes.map(as_i64)),
        Retention::Compact => (true, None, None),
    }
}

/// A count or an offset as SQLite stores it.
pub(crate) fn as_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A count or an offset as SQLite has stored it; damage can make it negative.
pub(crate) fn as_u64(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
