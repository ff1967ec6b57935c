//! Copies what is still readable of a damaged file into its successor.
//!
//! Offsets, positions and `log_id` stay the same, so consumers go on where they were. If the catalogue
//! (topics, counters, positions) cannot be read, nothing is copied: the successor is an empty log with
//! another `log_id`.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use crate::append::Inserter;
use crate::error::JournalError;
use crate::file::Files;
use crate::options::Options;
use crate::reader::{self, Limits};
use crate::record::{NewRecord, Record};
use crate::schema::{self, as_u64};
use crate::topics::{PartitionState, Topic};

/// How much is copied in one transaction.
const CHUNK: Limits = Limits { max_records: 2_000, max_bytes: 8 << 20 };

/// What a damaged file says of itself.
struct Catalogue {
    log_id: String,
    topics: Vec<Topic>,
    positions: Vec<(String, i64, u32, i64)>,
}

/// Fills `<file>.salvage` from the damaged file, which is left as it is; returns how many records.
pub(crate) fn into_new_file(files: &Files, options: &Options) -> Result<u64, JournalError> {
    let target = files.salvage_path();
    let writing = |source| JournalError::sql("salvage a damaged journal into", &target, source);
    let Ok((source, catalogue)) = read_catalogue(files) else { return Ok(0) };
    let mut connection = Connection::open(&target).map_err(writing)?;
    schema::configure(&connection, options).map_err(writing)?;
    schema::upgrade(&mut connection).map_err(writing)?;
    let mut salvaged = 0;
    for topic in &catalogue.topics {
        let successor = copy_topic(&source, &mut connection, topic, &catalogue.positions).map_err(writing)?;
        for partition in 0..topic.partition_count() {
            salvaged += copy_partition(&source, topic, &mut connection, &successor, partition).map_err(writing)?;
        }
    }
    connection.execute("UPDATE meta SET value = ?1 WHERE name = 'log_id'", [catalogue.log_id]).map_err(writing)?;
    connection.close().map_err(|(_, error)| writing(error))?;
    Ok(salvaged)
}

fn read_catalogue(files: &Files) -> rusqlite::Result<(Connection, Catalogue)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(&files.main, flags)?;
    // The damaged file is evidence: nothing may be written into it, not even its own log.
    source.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    source.pragma_update(None, "query_only", true)?;
    let log_id = schema::log_id(&source)?;
    let topics = schema::load_topics_by_tables(&source)?;
    let mut statement = source.prepare("SELECT group_name, topic_id, partition, next_offset FROM positions")?;
    let positions = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    drop(statement);
    Ok((source, Catalogue { log_id, topics, positions }))
}

/// Creates the topic, empty but for its bounds, with its consumers' positions.
fn copy_topic(
    source: &Connection,
    connection: &mut Connection,
    topic: &Topic,
    positions: &[(String, i64, u32, i64)],
) -> rusqlite::Result<Topic> {
    let states = (0..topic.partition_count()).map(|partition| {
        let next_offset = topic.bounds(partition).next_offset;
        let mut state = PartitionState { next_offset, ..PartitionState::EMPTY };
        let first_offset = first_offset(source, topic, partition);
        if first_offset <= next_offset {
            state.begin_at(first_offset);
        }
        state
    });
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let successor = schema::create_topic(&transaction, &topic.name, states.collect(), topic.retention())?;
    for (group, _, partition, next_offset) in positions.iter().filter(|position| position.1 == topic.id) {
        transaction.execute(
            "INSERT INTO positions (group_name, topic_id, partition, next_offset) VALUES (?1, ?2, ?3, ?4)",
            params![group, successor.id, partition, next_offset],
        )?;
    }
    transaction.commit()?;
    Ok(successor)
}

/// Where a partition begins. The counter may be what is damaged: a sound row before it counts too, for trimming moves the
/// counter and deletes the rows together.
fn first_offset(source: &Connection, topic: &Topic, partition: u32) -> u64 {
    let counted = topic.bounds(partition).first_offset;
    let Ok((Some(first), _)) = schema::ends(source, topic, partition) else { return counted };
    let before = reader::read(source, topic, partition, (as_u64(first), counted), CHUNK);
    let found = before.ok().and_then(|run| run.records.first().map(|record| record.offset));
    found.map_or(counted, |found| found.min(counted))
}

fn copy_partition(
    source: &Connection,
    topic: &Topic,
    connection: &mut Connection,
    successor: &Topic,
    partition: u32,
) -> rusqlite::Result<u64> {
    let mut state = successor.state(partition);
    // The counter may be what is damaged: rows past it, if sound, count too.
    let (_, last) = schema::ends(source, topic, partition).unwrap_or_default();
    let end = state.next_offset.max(last.map_or(0, |last| as_u64(last.saturating_add(1))));
    let (mut at, mut salvaged) = (state.first_offset, 0);
    while at < end {
        // Where even the table's shape is damaged nothing of it can be read, but the others are worth as much.
        let Ok(run) = reader::read(source, topic, partition, (at, end), CHUNK) else { break };
        at = run.next_offset;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut inserter = Inserter::new(&transaction, successor, partition)?;
        for record in run.records {
            let Record { offset, time_ms, key, value } = record;
            inserter.insert(offset, &NewRecord { time_ms, key, value }, &mut state)?;
            state.next_offset = state.next_offset.max(offset + 1);
            salvaged += 1;
        }
        drop(inserter);
        schema::store_partition(&transaction, successor.id, partition, &state)?;
        transaction.commit()?;
    }
    Ok(salvaged)
}
