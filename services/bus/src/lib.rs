//! Typed topics over one small trait, [`Bus`]: Kafka, the embedded log, and publishing over gRPC.
//!
//! All topics have the same number of partitions, and a key goes to the same partition number in each, so that
//! one account's events, commands and state always have the same owner.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
pub mod embedded;
mod error;
pub mod kafka;
mod limits;
mod partition;
pub mod publisher;
mod topic;

pub use config::BusConfig;
pub use embedded::{EmbeddedBus, EmbeddedConfig};
pub use error::BusError;
pub use kafka::{KafkaBus, KafkaConfig};
pub use limits::{BATCH_MAX_BYTES, BATCH_MAX_RECORDS, MESSAGE_MAX_BYTES};
pub use partition::partition_of;
pub use publisher::{BusPublisher, GrpcPublisher, Published, Publisher, Rejected};
pub use topic::{Kept, Topic};

use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::time::Duration;
use tidegate_runtime::traces::TraceContext;

/// A log with the topics of [`Topic`]. Implementations are shared behind an `Arc`.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Identity of the log: positions mean nothing in another one.
    fn log_id(&self) -> &str;

    /// How many partitions every topic has.
    fn partitions(&self) -> u32;

    /// Writes messages, each to the partition of its key, and gives their places when they are durable.
    ///
    /// # Errors
    /// When they are not known to be durable: some may still be; who sends them again makes duplicates.
    async fn append(&self, topic: Topic, messages: Vec<Message>) -> Result<Vec<Place>, BusError>;

    /// Reads on from `from`, one entry for each partition of each topic that is to be read.
    ///
    /// # Errors
    /// When the log cannot be reached.
    async fn read(&self, from: &[ReadFrom]) -> Result<Box<dyn Reader>, BusError>;

    /// The first offset that is still there, and the offset that the next record will have.
    ///
    /// # Errors
    /// When the log cannot be reached.
    async fn bounds(&self, topic: Topic, partition: u32) -> Result<Bounds, BusError>;

    /// The first offset whose record the log took at `time_ms` or later; the end, when there is none.
    ///
    /// # Errors
    /// When the log cannot be reached.
    async fn offset_for_time(&self, topic: Topic, partition: u32, time_ms: i64) -> Result<u64, BusError>;

    /// Makes the caller the one owner of `partition` in `group`: whoever owned it before is fenced.
    ///
    /// # Errors
    /// When the log cannot be reached.
    async fn own(&self, group: &str, partition: u32) -> Result<Box<dyn Owner>, BusError>;

    /// Joins the processes that share the partitions of `group` between them.
    ///
    /// # Errors
    /// When the log cannot be reached.
    async fn join(&self, group: &str) -> Result<Box<dyn Membership>, BusError>;
}

/// A place among the processes that share partitions. Dropping it leaves, and its partitions go to the others.
#[async_trait]
pub trait Membership: Send {
    /// Waits until it is decided which partitions are this process's, or other ones are than were told last, and gives
    /// all of them: perhaps none. It may be dropped while it waits. It is a wish, not a fence: who owned a partition before may not know yet, and
    /// [`Bus::own`] keeps it from writing.
    ///
    /// # Errors
    /// When the log was closed.
    async fn next(&mut self) -> Result<BTreeSet<u32>, BusError>;
}

/// Reads records in the order of each partition.
#[async_trait]
pub trait Reader: Send {
    /// What is there, as soon as there is something; an empty batch when `wait` has passed. Never waits for company.
    /// It may be dropped while it waits, and nothing is lost.
    ///
    /// # Errors
    /// When reading failed for good; a passing fault is retried inside.
    async fn next(&mut self, wait: Duration) -> Result<Batch, BusError>;
}

/// The one owner of a partition: writes states and positions together.
#[async_trait]
pub trait Owner: Send {
    /// The position in `topic` that was last committed; none: never.
    ///
    /// # Errors
    /// When the log cannot be reached.
    async fn committed(&mut self, topic: Topic) -> Result<Option<u64>, BusError>;

    /// Writes messages (whose keys belong to the owned partition) and positions, all or nothing, durably.
    ///
    /// # Errors
    /// [`BusError::Fenced`] when somebody else owns the partition now; nothing was written then.
    async fn commit(
        &mut self,
        messages: Vec<(Topic, Message)>,
        positions: Vec<(Topic, u64)>,
    ) -> Result<Vec<Place>, BusError>;
}

/// Something to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Decides the partition; the account in nearly all topics.
    pub key: Bytes,
    /// The protobuf; none deletes the key from a compacted topic.
    pub value: Option<Bytes>,
    /// The traced step that it comes from.
    pub trace: Option<TraceContext>,
}

impl Message {
    /// A message that comes from no traced step.
    pub fn new(key: Bytes, value: Option<Bytes>) -> Self {
        Self { key, value, trace: None }
    }

    /// The same, from the traced step `trace`.
    #[must_use]
    pub fn with_trace(self, trace: Option<TraceContext>) -> Self {
        Self { trace, ..self }
    }
}

/// Something that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Topic.
    pub topic: Topic,
    /// Partition.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: u64,
    /// When the log (or, in Kafka, the producer) took it: milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// The key.
    pub key: Bytes,
    /// The value; none when the key was deleted.
    pub value: Option<Bytes>,
    /// The traced step that it comes from, as far as that is known. In Kafka it is the header `traceparent`.
    pub trace: Option<TraceContext>,
}

/// Where something was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Partition.
    pub partition: u32,
    /// Offset in it.
    pub offset: u64,
}

/// Where to read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReadFrom {
    /// Topic.
    pub topic: Topic,
    /// Partition.
    pub partition: u32,
    /// The first offset to read; an offset that is gone already means the first that is there.
    pub offset: u64,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order of each partition.
    pub records: Vec<Record>,
    /// For each partition that got on, the offset to read on from. It can be past the last record: compaction,
    /// transactions and damaged records leave gaps.
    pub next: Vec<ReadFrom>,
    /// Records that were damaged and set aside.
    pub damaged: u64,
}

/// The ends of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is still there.
    pub first: u64,
    /// The offset that the next record will have.
    pub next: u64,
}
