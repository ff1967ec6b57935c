//! Durable, offset-addressed records on SQLite: what the embedded log and the edge's spool both are.
//!
//! A [`Journal`] is one file with topics; a topic has partitions; a partition is a sequence of records
//! with offsets that only grow. Records and consumers' positions of one [`Batch`] become durable
//! together. What the records mean is not known here, and neither is the time: it is an argument.
//!
//! ```
//! use tidegate_journal::{Batch, Journal, NewRecord, Options, Retention};
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("journal.db");
//! let journal = Journal::open(&path, Options::default())?;
//! journal.create_topic("events", 4, Retention::KEEP)?;
//! let record = NewRecord { time_ms: 1_700_000_000_000, key: Some("a@example.org".into()), value: "...".into() };
//! journal.commit(Batch::new().append("events", 2, vec![record]))?;
//! let batch = journal.read("events", 2, 0, 100, 1 << 20)?;
//! assert_eq!((batch.records.len(), batch.next_offset), (1, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod append;
mod checksum;
mod damaged;
mod error;
mod file;
mod journal;
mod options;
mod queue;
mod reader;
mod record;
mod retention;
mod salvage;
mod schema;
mod stats;
mod topics;
mod writer;

pub use error::JournalError;
pub use journal::{Journal, Subscription};
pub use options::{Options, Retention, Synchronous};
pub use record::{
    Append, Batch, Bounds, Committed, NewRecord, Position, RECORD_OVERHEAD_BYTES, ReadBatch, Record, TopicSize,
};
pub use retention::MaintainReport;
pub use stats::Stats;
pub use writer::Done;

/// Version of SQLite that is built in.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}
