//! Counters since the journal was opened.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: AtomicU64,)+ }

        /// Counters since the journal was opened, and a few levels as they are now.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Batches that wait for the writer now.
            pub queued_batches: u64,
            /// Bytes that wait for the writer now.
            pub queued_bytes: u64,
            /// Size of the main file now.
            pub file_bytes: u64,
            /// Size of the write-ahead log now.
            pub wal_bytes: u64,
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Stats {
                Stats { $($name: self.$name.load(Ordering::Relaxed),)+ ..Stats::default() }
            }
        }
    };
}

counters! {
    /// Records appended.
    appended_records,
    /// Keys and values appended, in bytes.
    appended_bytes,
    /// Batches committed.
    batches,
    /// Transactions that committed batches; fewer than `batches` where they were gathered.
    commits,
    /// Batches refused with `QueueFull`.
    queue_full,
    /// Batches refused with `DiskFull`.
    disk_full,
    /// Records deleted because of `max_age_ms`.
    deleted_by_age,
    /// Records dropped because of `max_bytes`.
    dropped_by_bytes,
    /// Records deleted by `trim`.
    trimmed,
    /// Superseded records deleted by compaction.
    compacted,
    /// Tombstones deleted by compaction.
    tombstones_removed,
    /// Records that were set aside because their checksum did not match.
    damaged_records,
    /// Damaged files that lie beside the journal now (`<file>.damaged-<n>`), those of earlier runs too.
    damaged_files,
    /// Records that were copied from a damaged file into its successor when this journal was opened.
    salvaged_records,
    /// Times that the write-ahead log had to be emptied by holding up readers.
    forced_checkpoints,
    /// Retention or checkpoint steps of the writer's own that failed; they are tried again.
    housekeeping_failures,
    /// Callbacks that panicked; the writer goes on.
    callback_panics,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
