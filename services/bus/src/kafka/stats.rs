//! Counters of a connection to Kafka.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: AtomicU64,)+ }

        /// Counters since the connection was made.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct KafkaStats { $($(#[doc = $doc])+ pub $name: u64,)+ }

        impl Counters {
            pub(crate) fn snapshot(&self) -> KafkaStats {
                KafkaStats { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }
    };
}

counters! {
    /// Records appended, without those of transactions.
    appended_records,
    /// Appends that failed, in whole or in part.
    append_failures,
    /// Times that an append had to wait because librdkafka's queue was full.
    append_queue_full,
    /// Producers replaced because they had failed for good.
    producers_replaced,
    /// Records given to readers.
    read_records,
    /// Passing faults while reading.
    read_faults,
    /// Readers whose position was no longer there, or not yet, and that were set to one that is.
    positions_moved,
    /// Transactions committed.
    commits,
    /// Transactions aborted and tried again.
    commit_retries,
    /// Transactions given up.
    commit_failures,
    /// Owners that a newer owner has fenced.
    fenced,
    /// Owners that were given up because a commit never ended.
    owners_abandoned,
    /// Errors that librdkafka reported about its connections.
    client_errors,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
