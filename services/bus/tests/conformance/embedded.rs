//! The embedded log, in a directory that goes with the test.

use crate::lab::{Lab, PARTITIONS};
use async_trait::async_trait;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tidegate_bus::embedded::{Durability, EmbeddedBus, EmbeddedConfig};
use tidegate_bus::{Bus, BusError, Topic};
use tidegate_runtime::shutdown::CancellationToken;

const DAY_MS: i64 = 24 * 3_600_000;

pub struct EmbeddedLab {
    directory: TempDir,
    now_ms: Arc<AtomicI64>,
    open: Mutex<Option<Arc<EmbeddedBus>>>,
}

impl EmbeddedLab {
    // The other labs need to wait.
    #[allow(clippy::unused_async)]
    pub async fn new() -> Self {
        let now_ms = Arc::new(AtomicI64::new(1_800_000_000_000));
        Self { directory: TempDir::new().unwrap(), now_ms, open: Mutex::default() }
    }

    fn config(&self) -> EmbeddedConfig {
        EmbeddedConfig {
            directory: self.directory.path().join("log"),
            partitions: PARTITIONS,
            synchronous: Durability::Normal,
            events_max_age_s: 3_600,
            compact_lag_s: 0,
            maintain_interval_ms: 10,
            ..EmbeddedConfig::default()
        }
    }

    async fn open_embedded(&self) -> Arc<EmbeddedBus> {
        let before = self.open.lock().unwrap().take();
        if let Some(before) = before {
            before.close().await;
        }
        let now_ms = self.now_ms.clone();
        // Every look at the clock is a millisecond later.
        let clock = Arc::new(move || now_ms.fetch_add(1, Ordering::Relaxed));
        let bus = EmbeddedBus::open_with_clock(self.config(), clock).unwrap();
        *self.open.lock().unwrap() = Some(bus.clone());
        bus
    }

    fn bus(&self) -> Arc<EmbeddedBus> {
        self.open.lock().unwrap().clone().unwrap()
    }
}

#[async_trait]
impl Lab for EmbeddedLab {
    async fn open(&self) -> Arc<dyn Bus> {
        self.open_embedded().await
    }

    async fn expire(&self, topic: Topic, partition: u32) {
        self.now_ms.fetch_add(DAY_MS, Ordering::Relaxed);
        self.bus().maintain().await;
        let bounds = self.bus().bounds(topic, partition).await.unwrap();
        assert_eq!(bounds.first, bounds.next);
    }

    async fn compact(&self, _partition: u32) {
        assert!(self.bus().maintain().await.compacted > 0);
    }
}

super::conform!(EmbeddedLab);

#[tokio::test]
async fn closing_ends_readers_owners_and_appends() {
    let lab = EmbeddedLab::new().await;
    let bus = lab.open_embedded().await;
    let mut reader = bus.read(&crate::lab::everything(Topic::Events)).await.unwrap();
    let mut owner = bus.own("stream", 0).await.unwrap();
    let waiting = tokio::spawn(async move { reader.next(crate::lab::PATIENCE * 10).await });
    bus.close().await;
    assert!(matches!(waiting.await.unwrap(), Err(BusError::Closed { .. })));
    let appended = bus.append(Topic::Events, vec![crate::lab::message("a", "b")]).await;
    assert!(matches!(appended, Err(BusError::Closed { .. })), "{appended:?}");
    assert!(matches!(owner.commit(Vec::new(), vec![(Topic::Events, 1)]).await, Err(BusError::Closed { .. })));
}

#[tokio::test]
async fn maintenance_runs_until_it_is_told_to_end_and_is_counted() {
    let lab = EmbeddedLab::new().await;
    let bus = lab.open_embedded().await;
    bus.append(Topic::Events, vec![crate::lab::message("a", "b")]).await.unwrap();
    lab.now_ms.fetch_add(DAY_MS, Ordering::Relaxed);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (bus, shutdown) = (bus.clone(), shutdown.clone());
        async move { bus.run_maintenance(shutdown).await }
    });
    crate::lab::wait_for("the record to expire", async || bus.stats().journal.deleted_by_age == 1).await;
    shutdown.cancel();
    running.await.unwrap();
    let stats = bus.stats();
    assert!(stats.maintenance_rounds > 0 && stats.maintenance_failures == 0, "{stats:?}");
    assert_eq!(stats.topics.iter().map(|(_, size)| size.records).sum::<u64>(), 0);
}

#[tokio::test]
async fn another_number_of_partitions_is_refused_with_what_to_do() {
    let lab = EmbeddedLab::new().await;
    lab.open_embedded().await.close().await;
    let other = EmbeddedConfig { partitions: PARTITIONS + 1, ..lab.config() };
    let error = EmbeddedBus::open(other).err().unwrap();
    assert!(matches!(error, BusError::Topic { .. }), "{error:?}");
    assert!(error.to_string().contains("has 3 partitions and cannot be given 4"), "{error}");
}

#[tokio::test]
async fn a_second_process_is_told_that_the_log_is_in_use() {
    let lab = EmbeddedLab::new().await;
    let _open = lab.open_embedded().await;
    let error = EmbeddedBus::open(lab.config()).err().unwrap();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("is in use"), "{source}");
}

#[tokio::test]
async fn a_topic_stays_under_its_bytes_and_readers_go_on() {
    let lab = EmbeddedLab::new().await;
    let config = EmbeddedConfig { events_max_bytes: Some(1 << 20), ..lab.config() };
    let bus = EmbeddedBus::open(config).unwrap();
    let mut reader = bus.read(&crate::lab::everything(Topic::Events)).await.unwrap();
    let value = "v".repeat(10_000);
    let messages: Vec<_> = (0..500).map(|n| crate::lab::message(&format!("{n}"), &value)).collect();
    let places = bus.append(Topic::Events, messages).await.unwrap();
    // What is over is dropped after the commit that went over is acknowledged.
    crate::lab::wait_for("the topic to be under its bytes", async || {
        let stats = bus.stats();
        let (_, events) = stats.topics.iter().find(|(topic, _)| *topic == Topic::Events).unwrap();
        events.bytes <= 1 << 20 && events.dropped_by_bytes > 300
    })
    .await;
    let last = *places.last().unwrap();
    let records = crate::lab::read_until(&mut *reader, |_, reached| {
        reached.iter().any(|at| at.partition == last.partition && at.offset > last.offset)
    })
    .await;
    assert!(records.len() < 500);
}

#[tokio::test]
async fn a_busy_partition_does_not_hold_up_another() {
    let lab = EmbeddedLab::new().await;
    let bus = lab.open_embedded().await;
    let key = crate::lab::key_of(0, 0);
    let busy = (0..12_000).map(|n| crate::lab::message(&key, &n.to_string())).collect();
    bus.append(Topic::Events, busy).await.unwrap();
    bus.append(Topic::Commands, vec![crate::lab::message(&key, "unlock")]).await.unwrap();
    let from = [crate::lab::from(Topic::Events, 0, 0), crate::lab::from(Topic::Commands, 0, 0)];
    let mut reader = bus.read(&from).await.unwrap();
    let first = reader.next(crate::lab::PATIENCE).await.unwrap().records;
    assert!(first.iter().any(|record| record.topic == Topic::Commands));
    assert!(first.len() > 1);
    let rest = crate::lab::read(&mut *reader, 12_001 - first.len()).await;
    assert_eq!(first.len() + rest.len(), 12_001);
}
