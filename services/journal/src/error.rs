//! What can go wrong, said with what was being done and what to do about it.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the journal could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// An option is outside of what is allowed.
    #[error("journal option {option}: {reason}")]
    InvalidOption {
        /// The field of [`crate::Options`].
        option: &'static str,
        /// What is allowed.
        reason: &'static str,
    },
    /// Another owner has the file.
    #[error("{} is in use: a journal has one owner; stop the other process or choose another path", path.display())]
    InUse {
        /// The journal's file.
        path: PathBuf,
    },
    /// The file system refused something.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A sound SQLite file, but of another program: it is left alone.
    #[error("{} is a SQLite file of another program; choose another path", path.display())]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer version: it is left alone.
    #[error("{} has format {found}, this program knows up to {supported}; use the newer program", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format of the file.
        found: i64,
        /// The newest format known here.
        supported: i64,
    },
    /// A topic's name is empty, too long, or has other characters than letters, digits, `.`, `_`, `-`.
    #[error("{name:?} cannot name a topic: 1 to 200 letters, digits, '.', '_' or '-' are allowed")]
    TopicName {
        /// The name that was asked for.
        name: String,
    },
    /// A topic must have from 1 to 4096 partitions.
    #[error("topic {topic} cannot have {asked} partitions: 1 to 4096 are allowed")]
    PartitionLimit {
        /// The topic.
        topic: String,
        /// The number that was asked for.
        asked: u32,
    },
    /// A topic's number of partitions is fixed when it is created.
    #[error("topic {topic} has {existing} partitions and cannot be given {asked}: keys would change their partition")]
    PartitionCount {
        /// The topic.
        topic: String,
        /// The number it has.
        existing: u32,
        /// The number that was asked for.
        asked: u32,
    },
    /// A topic cannot change between deleting and compacting.
    #[error("topic {topic} cannot change between delete and compact; create another topic")]
    RetentionKind {
        /// The topic.
        topic: String,
    },
    /// No such topic.
    #[error("there is no topic {topic}; create it first")]
    UnknownTopic {
        /// The name that was asked for.
        topic: String,
    },
    /// No such partition.
    #[error("topic {topic} has no partition {partition}, only 0 to {}", partitions - 1)]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition that was asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// A record without a key cannot be compacted by key.
    #[error("a record for the compacted topic {topic}, partition {partition}, has no key")]
    MissingKey {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },
    /// A record is larger than `max_record_bytes`.
    #[error("a record of {bytes} bytes for topic {topic} is over the limit of {limit}")]
    RecordTooLarge {
        /// The topic.
        topic: String,
        /// Key and value together.
        bytes: usize,
        /// `Options::max_record_bytes`.
        limit: usize,
    },
    /// A batch is larger than `queue_max_bytes`.
    #[error("a batch of {bytes} bytes is over the limit of {limit}; split it")]
    BatchTooLarge {
        /// All of its records.
        bytes: usize,
        /// `Options::queue_max_bytes`.
        limit: usize,
    },
    /// A number that SQLite cannot store.
    #[error("offset {offset} is over the largest possible, {}", i64::MAX)]
    OffsetRange {
        /// The offset that was given.
        offset: u64,
    },
    /// A reader asked for what does not exist yet: its position is of another log.
    #[error("offset {offset} of topic {topic}, partition {partition}, is past the end {next_offset}; compare log_id")]
    OffsetPastEnd {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The offset that was asked for.
        offset: u64,
        /// The offset of the next record to come.
        next_offset: u64,
    },
    /// More was submitted than the disk keeps up with.
    #[error("the journal's queue is full ({batches} batches, {bytes} bytes); try again later")]
    QueueFull {
        /// Batches that wait.
        batches: usize,
        /// Bytes that wait.
        bytes: usize,
    },
    /// The journal was closed, or its writer has ended.
    #[error("the journal {} is closed", path.display())]
    Closed {
        /// The journal's file.
        path: PathBuf,
    },
    /// A blocking call was made from inside a callback, where it would wait for itself.
    #[error("a callback of the journal made a blocking call to it; use submit, or another thread")]
    OnWriterThread,
    /// No room: the batch is not in the journal. The journal goes on when there is room again.
    #[error("no room on disk to {action} {}; free some, then try again", path.display())]
    DiskFull {
        /// What was being done.
        action: &'static str,
        /// The journal's file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file's structure is damaged. The next open checks it whole, and sets it aside.
    #[error("{} is damaged (found while trying to {action}); reopen it to set it aside", path.display())]
    Damaged {
        /// What was being done.
        action: &'static str,
        /// The journal's file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Any other failure of SQLite.
    #[error("cannot {action} {}", path.display())]
    Sql {
        /// What was being done.
        action: &'static str,
        /// The journal's file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl JournalError {
    /// Sorts a failure of SQLite into the kinds that a caller treats differently.
    pub(crate) fn sql(action: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull { action, path, source },
            // Nothing here is larger than SQLite allows, so what it takes for too big is a damaged length.
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TooBig) => {
                Self::Damaged { action, path, source }
            }
            _ => Self::Sql { action, path, source },
        }
    }
}
