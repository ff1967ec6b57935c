//! From the log through windows and rules: the stream service as it runs, reading what is there.

use super::Scale;
use super::report::Figure;
use super::stopwatch::Stopwatch;
use super::traffic::{Tail, Traffic};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use prometheus_client::registry::Registry;
use prost::Message as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tidegate_bus::{Bus, BusConfig, EmbeddedConfig, KafkaConfig, Message, Topic};
use tidegate_proto::event_to_proto;
use tidegate_runtime::Health;
use tidegate_runtime::shutdown::CancellationToken;
use tidegate_stream::{Service, StreamConfig};

const ACCOUNTS: u64 = 20_000;
const PARTITIONS: u32 = 4;
/// How long it may take to read everything.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long the first event may take.
const FIRST: Duration = Duration::from_secs(30);

/// Measures from the embedded log, and from Kafka when there is one.
pub async fn measure(scale: Scale, kafka: Option<&str>) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for tail in [Tail::Heavy, Tail::Flat] {
        let directory = tempfile::tempdir().context("making a folder")?;
        let log = EmbeddedConfig {
            directory: directory.path().join("log"),
            partitions: PARTITIONS,
            ..EmbeddedConfig::default()
        };
        figures.push(measure_one(&BusConfig::Embedded(log), "the embedded log", tail, scale).await?);
        if let Some(brokers) = kafka {
            figures.push(measure_one(&on_kafka(brokers), "Kafka", tail, scale).await?);
        }
    }
    Ok(figures)
}

/// Topics of its own on these brokers.
pub fn on_kafka(brokers: &str) -> BusConfig {
    BusConfig::Kafka(KafkaConfig {
        bootstrap_servers: brokers.to_owned(),
        topic_prefix: format!("tidegate-bench-{:08x}", rand::random::<u32>()),
        partitions: PARTITIONS,
        replication_factor: Some(1),
        ..KafkaConfig::default()
    })
}

async fn measure_one(log: &BusConfig, name: &str, tail: Tail, scale: Scale) -> anyhow::Result<Figure> {
    let bus = log.connect().await.context("opening the log")?;
    let events = scale.of(300_000);
    fill(&bus, events, tail).await?;
    let mut registry = Registry::default();
    let config = StreamConfig { group: "bench".to_owned(), rules: None, ..StreamConfig::default() };
    let service = Service::start(config, Arc::clone(&bus), &mut registry, Health::new()).await?;
    let stop = CancellationToken::new();
    let running = tokio::spawn(service.run(stop.clone()));
    wait_for(&registry, 1, FIRST).await?;
    let (watch, first) = (Stopwatch::start(), counted(&registry)?);
    wait_for(&registry, events, PATIENCE).await?;
    let spent = watch.spent();
    stop.cancel();
    running.await??;
    let settings = format!("{name}, {PARTITIONS} partitions, {ACCOUNTS} accounts, {}, shipped rules", tail.name());
    Ok(Figure::rate("end to end", settings, "events/s", events - first, spent))
}

/// Events of the last hour.
async fn fill(bus: &Arc<dyn Bus>, events: u64, tail: Tail) -> anyhow::Result<()> {
    let mut traffic = Traffic::new(ACCOUNTS, tail)?;
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as i64;
    let mut messages = Vec::new();
    for number in 0..events {
        let event = traffic.event("mx1", now_ms - ((events - number) * 3_600_000 / events).cast_signed());
        let key = Bytes::copy_from_slice(event.account.as_str().as_bytes());
        messages.push(Message::new(key, Some(event_to_proto(&event).encode_to_vec().into())));
        if messages.len() == 1_000 || number + 1 == events {
            bus.append(Topic::Events, std::mem::take(&mut messages)).await?;
        }
    }
    Ok(())
}

async fn wait_for(registry: &Registry, events: u64, patience: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + patience;
    while counted(registry)? < events {
        if Instant::now() > end {
            bail!("{} of {events} events were counted within {patience:?}", counted(registry)?);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Events that went into the windows.
fn counted(registry: &Registry) -> anyhow::Result<u64> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    let line = text.lines().find_map(|line| line.strip_prefix("tidegate_stream_events_total{result=\"counted\"} "));
    Ok(line.map_or(Ok(0), str::parse)?)
}
