//! What is in the topics, read past all services.

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate_bus::{BusConfig, ReadFrom, Record, Topic};
use tidegate_proto::v1;

/// What is in the topic `events`.
#[derive(Debug, Default)]
pub struct Events {
    /// Each once, by node, lane and sequence.
    pub by_number: BTreeMap<(String, i32, u64), v1::Event>,
    /// All records, repeats too.
    pub records: usize,
}

impl Events {
    /// The site (from 0, of the nodes `mx1` and so on) and the queue id of each submission.
    pub fn messages(&self) -> impl Iterator<Item = (usize, String)> {
        self.by_number.iter().filter_map(|((node, ..), event)| {
            let Some(v1::event::Kind::Submission(submission)) = &event.kind else { return None };
            let site: usize = node.strip_prefix("mx")?.parse().ok()?;
            Some((site.checked_sub(1)?, submission.queue_id.clone()))
        })
    }
}

/// Reads all events of a log, once `at_least` different ones are there.
///
/// # Errors
/// When the log cannot be read, holds what is no event, or too few come.
pub fn read_events(log: &BusConfig, at_least: usize) -> Result<Events> {
    let mut events = Events::default();
    read(log, Topic::Events, |record| {
        let event = v1::Event::decode(record.value.context("an event without a value")?)?;
        let id = event.id.clone().context("an event without a number")?;
        events.by_number.insert((id.node, id.lane, id.sequence), event);
        events.records += 1;
        Ok(events.by_number.len() >= at_least)
    })
    .with_context(|| format!("reading {at_least} events"))?;
    Ok(events)
}

/// All locks that were ever published, as far as the log still has them: account and lock's id. Every restart and
/// every owner that decides a second time would leave another one.
///
/// # Errors
/// When the log cannot be read, or holds what is no state.
pub fn read_locks(log: &BusConfig) -> Result<BTreeSet<(String, String)>> {
    let mut locks = BTreeSet::new();
    read(log, Topic::Accounts, |record| {
        let Some(value) = record.value else { return Ok(true) };
        let state = v1::AccountState::decode(value)?;
        if let Some(lock) = state.lock {
            locks.insert((state.account, lock.id));
        }
        Ok(true)
    })?;
    Ok(locks)
}

/// Reads a topic to its present end, and on until `take` says that it is enough and nothing more comes for a while: more
/// than expected would be seen, too.
fn read(log: &BusConfig, topic: Topic, mut take: impl FnMut(Record) -> Result<bool>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let bus = log.connect().await.context("opening the log")?;
        let mut left = BTreeMap::new();
        for partition in 0..bus.partitions() {
            left.insert(partition, bus.bounds(topic, partition).await?.next);
        }
        let from = |partition| ReadFrom { topic, partition, offset: 0 };
        let mut reader = bus.read(&(0..bus.partitions()).map(from).collect::<Vec<_>>()).await?;
        left.retain(|_, end| *end > 0);
        let (mut enough, mut idle) = (true, 0);
        while !enough || !left.is_empty() || idle < 3 {
            let batch = reader.next(Duration::from_millis(300)).await?;
            idle = if batch.records.is_empty() { idle + 1 } else { 0 };
            ensure!(idle < 100, "the topic does not have enough records");
            for record in batch.records {
                enough = take(record)?;
            }
            for at in batch.next {
                left.retain(|partition, end| *partition != at.partition || at.offset < *end);
            }
        }
        Ok(())
    })
}
