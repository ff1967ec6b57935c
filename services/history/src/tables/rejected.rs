//! The table `rejected`.

use super::{day_of, place};
use crate::columns::ColumnKind::{Date, Octets, Text, Time};
use crate::columns::{Column, Rows};
use tidegate_bus::Record;

pub(super) const COLUMNS: [Column; 6] = [
    Column::new("date", Date, "UTC day of `logged`. Partition column."),
    Column::new("logged", Time, "When the log took it."),
    Column::new("topic", Text, "The topic: events, accounts or audit."),
    Column::new("reason", Text, "Why it could not be read."),
    Column::new("key", Octets, "Its key."),
    Column::new("value", Octets, "Its octets; cut off after a mebibyte."),
];

/// Most octets of a record that are kept.
const MAX_OCTETS: usize = 1 << 20;

/// A record that could not be read.
#[derive(Debug, Clone)]
pub struct Rejected {
    /// The record.
    pub record: Record,
    /// Why it could not be read.
    pub reason: String,
}

impl Rejected {
    /// Adds it.
    pub fn add(&self, rows: &mut Rows) {
        let Self { record, reason } = self;
        let cut = |octets: &[u8]| octets[..octets.len().min(MAX_OCTETS)].to_vec();
        rows.date(day_of(record.time_ms, record.time_ms)).time_ms(record.time_ms).text(record.topic.suffix());
        rows.text(reason).octets(Some(&cut(&record.key))).octets(record.value.as_deref().map(cut).as_deref());
        place(record, rows);
        rows.end();
    }
}
