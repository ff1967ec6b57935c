//! Moves records whose checksum does not match out of the way.

use std::sync::Arc;

use rusqlite::params;

use crate::error::JournalError;
use crate::record::RECORD_OVERHEAD_BYTES;
use crate::schema::{DAMAGED_KEPT, as_i64, as_u64};
use crate::stats::add;
use crate::topics::Topic;
use crate::writer::Writer;

/// Moves these records into the table `damaged`; those that another reader reported before are no longer there.
pub(crate) fn set_aside(
    writer: &mut Writer,
    topic: &Arc<Topic>,
    partition: u32,
    offsets: &[u64],
) -> Result<u64, JournalError> {
    let (moved, _) = writer.transact("set aside damaged records of", |transaction, _, changes| {
        let mut moved = 0;
        for offset in offsets {
            let row = params![partition, as_i64(*offset), topic.id];
            if transaction.prepare_cached(&topic.sql.set_aside)?.execute(row)? == 0 {
                continue;
            }
            let bytes: Option<i64> = transaction.query_row(
                "SELECT ifnull(length(key), 0) + length(value) FROM damaged WHERE id = ?1",
                [transaction.last_insert_rowid()],
                |row| row.get(0),
            )?;
            transaction.prepare_cached(&topic.sql.delete_one)?.execute(params![partition, as_i64(*offset)])?;
            if topic.compact {
                // By offset, and not by key: the key may be what is damaged. It looks at all keys, but rarely.
                transaction.prepare_cached(&topic.sql.delete_key_at)?.execute(params![partition, as_i64(*offset)])?;
            }
            changes.partition(topic, partition).forget(1, bytes.map_or(0, as_u64) + RECORD_OVERHEAD_BYTES);
            moved += 1;
        }
        transaction.execute("DELETE FROM damaged WHERE id <= (SELECT max(id) FROM damaged) - ?1", [DAMAGED_KEPT])?;
        Ok(moved)
    })?;
    add(&writer.shared.counters.damaged_records, moved);
    Ok(moved)
}
