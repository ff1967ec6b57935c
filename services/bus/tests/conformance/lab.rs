//! What the cases need beside a log.

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_bus::{Batch, Bus, Message, ReadFrom, Reader, Record, Topic, partition_of};

/// Longest wait for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const PARTITIONS: u32 = 3;

/// A log of its own for one case.
#[async_trait]
pub trait Lab: Sync {
    /// Opens it, the first time and again.
    async fn open(&self) -> Arc<dyn Bus>;
    /// Has all that is in a partition expire.
    async fn expire(&self, topic: Topic, partition: u32);
    /// Waits until superseded records in `accounts` are gone from a partition.
    async fn compact(&self, partition: u32);
}

pub fn message(key: &str, value: &str) -> Message {
    Message::new(Bytes::copy_from_slice(key.as_bytes()), Some(Bytes::copy_from_slice(value.as_bytes())))
}

/// A key that belongs to `partition`.
pub fn key_of(partition: u32, number: usize) -> String {
    let mut keys = (0..).map(|n| format!("{n}@example.org"));
    keys.by_ref().filter(|key| partition_of(key.as_bytes(), PARTITIONS) == partition).nth(number).unwrap()
}

pub fn from(topic: Topic, partition: u32, offset: u64) -> ReadFrom {
    ReadFrom { topic, partition, offset }
}

pub fn everything(topic: Topic) -> Vec<ReadFrom> {
    (0..PARTITIONS).map(|partition| from(topic, partition, 0)).collect()
}

/// Reads until there are `count` records.
pub async fn read(reader: &mut dyn Reader, count: usize) -> Vec<Record> {
    read_until(reader, |records, _| records.len() >= count).await
}

/// Reads until what was read, and where each partition is read on, is enough.
pub async fn read_until(
    reader: &mut dyn Reader,
    mut enough: impl FnMut(&[Record], &[ReadFrom]) -> bool,
) -> Vec<Record> {
    let (began, mut records, mut reached) = (Instant::now(), Vec::new(), Vec::<ReadFrom>::new());
    while !enough(&records, &reached) {
        assert!(began.elapsed() < PATIENCE, "only {} records came, up to {reached:?}", records.len());
        let batch = reader.next(Duration::from_millis(200)).await.unwrap();
        check_batch(&batch);
        for next in batch.next {
            reached.retain(|at| (at.topic, at.partition) != (next.topic, next.partition));
            reached.push(next);
        }
        records.extend(batch.records);
    }
    records
}

/// Whatever was read, `next` is past it.
fn check_batch(batch: &Batch) {
    for record in &batch.records {
        let next = batch.next.iter().find(|at| (at.topic, at.partition) == (record.topic, record.partition));
        assert!(next.unwrap().offset > record.offset, "{next:?} is not past {record:?}");
    }
    assert_eq!(batch.damaged, 0);
}

/// Waits for a condition.
pub async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn value(record: &Record) -> &str {
    std::str::from_utf8(record.value.as_ref().unwrap()).unwrap()
}
