//! Kafka stops and comes back: readers, owners and appends go on by themselves.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};
use tidegate_bus::{Bus as _, BusError, KafkaBus, KafkaConfig, Message, ReadFrom, Record, Topic, partition_of};
use xtask::kafka::KafkaRig;

const PATIENCE: Duration = Duration::from_mins(1);

fn message(value: &str) -> Message {
    Message::new("jo@example.org".into(), Some(value.to_owned().into()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_on_after_kafka_was_away() {
    let directory = tempfile::tempdir().unwrap();
    let mut rig = KafkaRig::start(directory.path()).unwrap();
    let config = KafkaConfig {
        bootstrap_servers: rig.bootstrap(),
        partitions: 2,
        request_timeout_ms: 2_000,
        ..KafkaConfig::default()
    };
    let bus = KafkaBus::connect(config).await.unwrap();
    let partition = partition_of(b"jo@example.org", 2);
    let from = |topic| ReadFrom { topic, partition, offset: 0 };
    let mut reader = bus.read(&[from(Topic::Events), from(Topic::Accounts)]).await.unwrap();
    let mut owner = bus.own("stream", partition).await.unwrap();
    bus.append(Topic::Events, vec![message("event 1")]).await.unwrap();
    owner.commit(vec![(Topic::Accounts, message("state 1"))], vec![(Topic::Events, 1)]).await.unwrap();

    rig.stop().unwrap();
    let lost = bus.append(Topic::Events, vec![message("lost")]).await.unwrap_err();
    assert!(matches!(lost, BusError::Kafka { .. }) && lost.is_retryable(), "{lost:?}");
    let lost = owner.commit(vec![(Topic::Accounts, message("state 2"))], Vec::new()).await.unwrap_err();
    assert!(matches!(lost, BusError::Kafka { .. }) && lost.is_retryable(), "{lost:?}");
    let mut records = reader.next(Duration::from_millis(50)).await.unwrap().records;

    rig.start_again().unwrap();
    let began = Instant::now();
    while let Err(error) = bus.append(Topic::Events, vec![message("event 2")]).await {
        assert!(began.elapsed() < PATIENCE && error.is_retryable(), "{error:?}");
    }
    while let Err(error) = owner.commit(vec![(Topic::Accounts, message("state 2"))], vec![(Topic::Events, 2)]).await {
        assert!(began.elapsed() < PATIENCE && error.is_retryable(), "{error:?}");
    }
    assert_eq!(owner.committed(Topic::Events).await.unwrap(), Some(2));
    let wanted = ["event 1", "event 2", "state 1", "state 2"];
    let is_there = |records: &[Record], value: &str| {
        records.iter().any(|record| record.value.as_deref() == Some(value.as_bytes()))
    };
    while !wanted.iter().all(|value| is_there(&records, value)) {
        assert!(began.elapsed() < PATIENCE, "only {records:?} came");
        records.extend(reader.next(Duration::from_millis(200)).await.unwrap().records);
    }
}
