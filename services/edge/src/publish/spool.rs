//! Events on disk that could not be published yet, and the live batch that is kept.
//!
//! A journal (`spool.db`) with two topics: `spool`, whose records are events without a number, bounded by octets and age
//! (the oldest go first, counted); and `kept`, at most one batch of live events with their numbers.

use super::{BATCH_MAX_EVENTS, BATCH_MAX_OCTETS};
use crate::clock::Clock;
use crate::config::SpoolConfig;
use crate::error::EdgeError;
use crate::metrics::{Metrics, because, set_counter};
use prost::Message as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidegate_journal::{Batch, Journal, JournalError, NewRecord, Options, Retention};
use tidegate_proto::v1;
use tidegate_runtime::error_line;
use tokio::sync::{Notify, oneshot};

const FILE: &str = "spool.db";
const SPOOL: &str = "spool";
const KEPT: &str = "kept";
const HOUR_MS: i64 = 3_600_000;

/// Events on disk. A clone is the same.
#[derive(Clone)]
pub(crate) struct Spool {
    journal: Journal,
    node: Arc<str>,
    clock: Clock,
    metrics: Metrics,
    /// Told when something was written.
    written: Arc<Notify>,
    /// The disk refused the last events; said once.
    refusing: Arc<AtomicBool>,
}

/// The first events of the spool.
pub(crate) struct SpooledBatch {
    /// With their numbers.
    pub events: Vec<v1::Event>,
    /// Where to read on when they are durable in the log.
    pub next_offset: u64,
}

/// How much is on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SpoolLevel {
    /// Events.
    pub events: u64,
    /// Their octets.
    pub bytes: u64,
    /// When the oldest happened.
    pub oldest_ms: Option<i64>,
}

impl Spool {
    /// Opens the spool in `directory`.
    pub fn open(
        directory: &Path,
        config: &SpoolConfig,
        node: &str,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Self, EdgeError> {
        let path = directory.join(FILE);
        let failed = |source| EdgeError::Journal { path: path.clone(), source: Box::new(source) };
        let journal = Journal::open(&path, Options::default()).map_err(failed)?;
        let retention = Retention::Delete {
            max_age_ms: Some(i64::from(config.max_age_hours) * HOUR_MS),
            max_bytes: Some(config.max_bytes),
        };
        journal.create_topic(SPOOL, 1, retention).map_err(failed)?;
        journal.create_topic(KEPT, 1, Retention::KEEP).map_err(failed)?;
        Ok(Self {
            journal,
            node: node.into(),
            clock,
            metrics,
            written: Arc::new(Notify::new()),
            refusing: Arc::default(),
        })
    }

    /// Tells this spool's offsets from another's.
    pub fn log_id(&self) -> &str {
        self.journal.log_id()
    }

    /// Takes events and returns at once. What the disk refuses is counted as lost.
    pub fn put(&self, events: &[v1::Event], reason: &'static str) {
        let count = events.len() as u64;
        if count == 0 {
            return;
        }
        let batch = Batch::new().append(SPOOL, 0, events.iter().map(record).collect());
        let (metrics, written, refusing) = (self.metrics.clone(), self.written.clone(), self.refusing.clone());
        let done = move |result: Result<_, JournalError>| match result {
            Ok(_) => {
                metrics.spooled.get_or_create(&because(reason)).inc_by(count);
                written.notify_one();
                if refusing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the spool takes events again");
                }
            }
            Err(error) => {
                metrics.lost.get_or_create(&because("spool_refused")).inc_by(count);
                if !refusing.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        error = error_line(&error),
                        "the spool takes no events; they are lost, and counted"
                    );
                }
            }
        };
        self.journal.submit(batch, Box::new(done));
    }

    /// Waits until everything that was put is on disk.
    pub async fn flush(&self) {
        let (done, waiting) = oneshot::channel();
        self.journal.submit(
            Batch::new(),
            Box::new(move |_| {
                let _ = done.send(());
            }),
        );
        let _ = waiting.await;
    }

    /// Waits until something is put.
    pub async fn written(&self) {
        self.written.notified().await;
    }

    /// Whether there is nothing to publish.
    pub fn is_empty(&self) -> bool {
        self.journal.bounds(SPOOL, 0).is_ok_and(|bounds| bounds.first_offset == bounds.next_offset)
    }

    /// The first events, numbered from `base` on. Blocks.
    pub fn first(&self, base: u64) -> Result<SpooledBatch, JournalError> {
        let from = self.journal.bounds(SPOOL, 0)?.first_offset;
        let batch = self.journal.read(SPOOL, 0, from, BATCH_MAX_EVENTS, BATCH_MAX_OCTETS)?;
        let mut damaged = batch.skipped_damaged;
        let mut events = Vec::with_capacity(batch.records.len());
        for record in batch.records {
            let Ok(mut event) = v1::Event::decode(record.value) else {
                damaged += 1;
                continue;
            };
            let sequence = base.saturating_add(record.offset);
            event.id = Some(v1::EventId { node: self.node.to_string(), lane: v1::Lane::Spooled.into(), sequence });
            events.push(event);
        }
        self.metrics.spool_damaged.inc_by(damaged);
        Ok(SpooledBatch { events, next_offset: batch.next_offset })
    }

    /// What lies before `next_offset` is durable in the log. Blocks.
    pub fn trim(&self, next_offset: u64) -> Result<(), JournalError> {
        self.journal.trim(SPOOL, 0, next_offset).map(drop)
    }

    /// Keeps a batch of live events with their numbers.
    pub async fn keep(&self, events: &[v1::Event]) -> Result<(), JournalError> {
        let (done, waiting) = oneshot::channel();
        let batch = Batch::new().append(KEPT, 0, events.iter().map(record).collect());
        self.journal.submit(batch, Box::new(move |result| drop(done.send(result))));
        // The journal calls exactly once; when it is dropped without, the batch is in memory still.
        waiting.await.unwrap_or(Ok(tidegate_journal::Committed { base_offsets: Vec::new() })).map(drop)
    }

    /// The batch that was kept; empty: none. Blocks.
    pub fn kept(&self) -> Result<Vec<v1::Event>, JournalError> {
        let bounds = self.journal.bounds(KEPT, 0)?;
        let mut events = Vec::new();
        let mut offset = bounds.first_offset;
        while offset < bounds.next_offset {
            let batch = self.journal.read(KEPT, 0, offset, BATCH_MAX_EVENTS, BATCH_MAX_OCTETS)?;
            offset = batch.next_offset;
            self.metrics.spool_damaged.inc_by(batch.skipped_damaged);
            events.extend(batch.records.into_iter().filter_map(|record| v1::Event::decode(record.value).ok()));
        }
        Ok(events)
    }

    /// The kept batch is durable in the log. Blocks.
    pub fn forget_kept(&self) -> Result<(), JournalError> {
        let end = self.journal.bounds(KEPT, 0)?.next_offset;
        self.journal.trim(KEPT, 0, end).map(drop)
    }

    /// Drops what is too old. Blocks.
    pub fn maintain(&self) -> Result<(), JournalError> {
        self.journal.maintain(self.clock.now_ms()).map(drop)
    }

    /// How much is on disk, and counts what was dropped. Blocks.
    pub fn level(&self) -> SpoolLevel {
        let stats = self.journal.stats();
        set_counter(&self.metrics.lost.get_or_create_owned(&because("spool_full")), stats.dropped_by_bytes);
        set_counter(&self.metrics.lost.get_or_create_owned(&because("spool_age")), stats.deleted_by_age);
        let size = self.journal.topic_size(SPOOL).unwrap_or_default();
        let first = || {
            let from = self.journal.bounds(SPOOL, 0).ok()?.first_offset;
            self.journal.read(SPOOL, 0, from, 1, BATCH_MAX_OCTETS).ok()?.records.first().map(|record| record.time_ms)
        };
        let oldest_ms = if size.records == 0 { None } else { first() };
        SpoolLevel { events: size.records, bytes: size.bytes, oldest_ms }
    }
}

fn record(event: &v1::Event) -> NewRecord {
    NewRecord { time_ms: event.time_ms, key: None, value: event.encode_to_vec().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    fn open(directory: &Path) -> Spool {
        let metrics = Metrics::register(&mut Registry::default());
        Spool::open(directory, &SpoolConfig::default(), "mx1", Clock::new(|| 10_000), metrics).unwrap()
    }

    fn event(time_ms: i64) -> v1::Event {
        v1::Event { account: "jo@example.org".into(), time_ms, ..v1::Event::default() }
    }

    #[tokio::test]
    async fn an_event_has_the_same_number_on_every_attempt_and_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let spool = open(directory.path());
        spool.put(&[event(1), event(2), event(3)], "test");
        spool.flush().await;
        let numbers = |spool: &Spool| -> Vec<(u64, i64)> {
            let batch = spool.first(1_000).unwrap();
            batch.events.iter().map(|event| (event.id.as_ref().unwrap().sequence, event.time_ms)).collect()
        };
        assert_eq!(numbers(&spool), [(1_000, 1), (1_001, 2), (1_002, 3)]);
        spool.trim(1).unwrap();
        drop(spool);
        let spool = open(directory.path());
        assert_eq!(numbers(&spool), [(1_001, 2), (1_002, 3)]);
        assert_eq!(spool.level().oldest_ms, Some(2));
        spool.trim(3).unwrap();
        assert!(spool.is_empty());
        spool.put(&[event(4)], "test");
        spool.flush().await;
        assert_eq!(numbers(&spool), [(1_003, 4)]);
    }

    #[tokio::test]
    async fn a_kept_batch_stays_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let spool = open(directory.path());
        let mut kept = event(5);
        kept.id = Some(v1::EventId { node: "mx1".into(), lane: v1::Lane::Live.into(), sequence: 77 });
        spool.keep(&[kept.clone()]).await.unwrap();
        drop(spool);
        let spool = open(directory.path());
        assert_eq!(spool.kept().unwrap(), [kept]);
        spool.forget_kept().unwrap();
        assert!(spool.kept().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_too_old_is_dropped_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let spool = open(directory.path());
        let old = 10_000 - 8 * 24 * HOUR_MS;
        spool.put(&[event(old), event(9_999)], "test");
        spool.flush().await;
        spool.maintain().unwrap();
        let level = spool.level();
        assert_eq!((level.events, level.oldest_ms), (1, Some(9_999)));
        assert_eq!(spool.metrics.lost.get_or_create(&because("spool_age")).get(), 1);
    }
}
