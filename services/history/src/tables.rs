//! The tables: what stands in each, and how a record becomes a row of it.

mod account_changes;
mod audit;
mod events;
mod rejected;

pub use rejected::Rejected;

use crate::columns::{Column, ColumnKind, Rows};
use arrow::datatypes::SchemaRef;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoArrow as _;
use std::sync::{Arc, LazyLock};
use tidegate_bus::{Record, Topic};

/// A table of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// What edges saw.
    Events,
    /// Each published state of each account.
    AccountChanges,
    /// Who asked what.
    Audit,
    /// Records of the topics that could not be read.
    Rejected,
}

/// The column that tables are partitioned by.
pub const DATE: &str = "date";
/// Where a record stood: every table has these last.
pub(crate) const PLACE: [Column; 2] = [
    Column::new("log_partition", ColumnKind::Int, "Partition of the topic that the record stood in."),
    Column::new("log_offset", ColumnKind::Long, "Offset of the record in that partition."),
];

/// An event's own clock is believed when it is at most so much older than the log's: a spool can be long.
const MAX_AGE_MS: i64 = 400 * DAY_MS;
/// ... or so much ahead of it.
const MAX_AHEAD_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

impl Table {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Events, Self::AccountChanges, Self::Audit, Self::Rejected];

    /// Its name, which is also its folder's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::AccountChanges => "account_changes",
            Self::Audit => "audit",
            Self::Rejected => "rejected",
        }
    }

    /// The table of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    /// What it holds, in a sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Events => "What the edges saw: one row for each message, login and delivery.",
            Self::AccountChanges => "What was decided about accounts: one row for each state that was published.",
            Self::Audit => "Who asked what of Tidegate, whether it was allowed, and what came of it.",
            Self::Rejected => "Records of the topics that could not be read: why, and their octets.",
        }
    }

    /// Its columns; the first is [`DATE`].
    pub fn columns(self) -> &'static [Column] {
        static ALL: LazyLock<[Vec<Column>; 4]> = LazyLock::new(|| {
            let with_place = |columns: &[Column]| [columns, &PLACE].concat();
            [
                with_place(&events::COLUMNS),
                with_place(&account_changes::COLUMNS),
                with_place(&audit::COLUMNS),
                with_place(&rejected::COLUMNS),
            ]
        });
        &ALL[self as usize]
    }

    /// The columns by which the rows of a file are sorted.
    pub const fn order(self) -> [&'static str; 2] {
        match self {
            Self::Events | Self::AccountChanges | Self::Audit => ["account", "time"],
            Self::Rejected => ["topic", "logged"],
        }
    }

    /// Columns whose least and greatest values stand in the Delta log, for each file.
    pub(crate) const fn indexed(self) -> &'static [&'static str] {
        match self {
            Self::Events | Self::AccountChanges | Self::Audit => {
                &["time", "account", "logged", "log_partition", "log_offset"]
            }
            Self::Rejected => &["logged", "topic", "log_partition", "log_offset"],
        }
    }

    /// The topic that it is filled from; none: from all.
    pub const fn topic(self) -> Option<Topic> {
        match self {
            Self::Events => Some(Topic::Events),
            Self::AccountChanges => Some(Topic::Accounts),
            Self::Audit => Some(Topic::Audit),
            Self::Rejected => None,
        }
    }

    /// The table that is filled from a topic.
    pub fn of_topic(topic: Topic) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.topic() == Some(topic))
    }

    /// Its Delta schema.
    ///
    /// # Panics
    /// Never: that the columns make a schema is tested.
    pub fn delta_schema(self) -> StructType {
        #[allow(clippy::unwrap_used, reason = "the names are known, and each occurs once: see the test")]
        StructType::try_new(self.columns().iter().map(Column::to_delta)).unwrap()
    }

    /// Its Arrow schema.
    ///
    /// # Panics
    /// Never: that the schema can be had is tested.
    pub fn arrow_schema(self) -> SchemaRef {
        static ALL: LazyLock<[SchemaRef; 4]> = LazyLock::new(|| {
            Table::ALL.map(|table| {
                #[allow(clippy::unwrap_used, reason = "all types are among those that both have: see the test")]
                let schema: arrow::datatypes::Schema = (&table.delta_schema()).try_into_arrow().unwrap();
                Arc::new(schema)
            })
        });
        Arc::clone(&ALL[self as usize])
    }

    /// Rows of it; none yet.
    pub fn rows(self) -> Rows {
        Rows::new(self.columns(), self.arrow_schema())
    }

    /// Adds the row of a record of the table's topic.
    ///
    /// # Errors
    /// Why the record cannot be read; nothing was added then.
    pub fn add(self, record: &Record, rows: &mut Rows) -> Result<(), String> {
        match self {
            Self::Events => events::add(record, rows),
            Self::AccountChanges => account_changes::add(record, rows),
            Self::Audit => audit::add(record, rows),
            Self::Rejected => Ok(()),
        }
    }
}

/// The day to whose rows something belongs: that of its own time; that of the log's, where its own is absurd.
fn day_of(time_ms: i64, logged_ms: i64) -> i32 {
    let is_believed =
        time_ms >= logged_ms.saturating_sub(MAX_AGE_MS) && time_ms <= logged_ms.saturating_add(MAX_AHEAD_MS);
    let time_ms = if is_believed { time_ms } else { logged_ms };
    i32::try_from(time_ms.div_euclid(DAY_MS)).unwrap_or(0)
}

/// Where the record stood.
fn place(record: &Record, rows: &mut Rows) {
    rows.int(Some(record.partition.into())).long(Some(record.offset));
}

/// Why a record without a value is rejected.
const NO_VALUE: &str = "it has no value";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_table_has_a_schema_with_the_day_first_and_the_place_last() {
        for table in Table::ALL {
            let schema = table.arrow_schema();
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            assert_eq!(names[0], DATE);
            assert_eq!(names[names.len() - 2..], ["log_partition", "log_offset"]);
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
            for name in table.order().iter().chain(table.indexed()) {
                assert!(names.contains(name), "{} has no {name}", table.name());
            }
            assert!(table.columns().iter().all(|column| column.meaning.ends_with('.')));
            assert_eq!(Table::named(table.name()), Some(table));
        }
    }

    #[test]
    fn an_absurd_clock_does_not_choose_the_day() {
        let now = 20_000 * DAY_MS + 5;
        assert_eq!(day_of(now - 3 * DAY_MS, now), 19_997);
        for absurd in [0, i64::MIN, i64::MAX, now + 2 * MAX_AHEAD_MS, now - MAX_AGE_MS - 1] {
            assert_eq!(day_of(absurd, now), 20_000, "{absurd}");
        }
    }
}
