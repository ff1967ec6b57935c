//! Kafka stops and comes back: readers, owners and appends go on by themselves.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};
use tidegate_bus::{Bus as _, BusError, KafkaBus, KafkaConfig, Message, ReadFrom, Topic, partition_of};
use xtask::kafka::KafkaRig;

const PATIENCE: Duration = Duration::from_secs(60);

fn message(value: &str) -> Message {
    Message { key: "jo@example.org".into(), value: Some(value.to_owned().into()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_on_after_kafka_was_killed_and_started_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut rig = KafkaRig::start(directory.path()).unwrap();
    let config = KafkaConfig {
        bootstrap_servers: rig.bootstrap(),
        partitions: 2,
        request_timeout_ms: 3_000,
        ..KafkaConfig::default()
    };
    let bus = KafkaBus::connect(config).await.unwrap();
    let partition = partition_of(b"jo@example.org", 2);
    let from = |topic| ReadFrom { topic, partition, offset: 0 };
    let mut reader = bus.read(&[from(Topic::Events), from(Topic::Accounts)]).await.unwrap();
    let mut owner = bus.own("stream", partition).await.unwrap();
    bus.append(Topic::Events, vec![message("event 1")]).await.unwrap();
    owner.commit(vec![(Topic::Accounts, message("state 1"))], vec![(Topic::Events, 1)]).await.unwrap();

    rig.kill();
    let lost = bus.append(Topic::Events, vec![message("lost")]).await.unwrap_err();
    assert!(matches!(lost, BusError::Kafka { .. }) && lost.is_retryable(), "{lost:?}");
    let lost = owner.commit(vec![(Topic::Accounts, message("state 2"))], Vec::new()).await.unwrap_err();
    assert!(matches!(lost, BusError::Kafka { .. }) && lost.is_retryable(), "{lost:?}");
    assert!(reader.next(Duration::from_millis(50)).await.is_ok(), "a fault that passes");

    rig.start_again().unwrap();
    let began = Instant::now();
    while let Err(error) = bus.append(Topic::Events, vec![message("event 2")]).await {
        assert!(began.elapsed() < PATIENCE && error.is_retryable(), "{error:?}");
    }
    while let Err(error) = owner.commit(vec![(Topic::Accounts, message("state 2"))], vec![(Topic::Events, 2)]).await {
        assert!(began.elapsed() < PATIENCE && error.is_retryable(), "{error:?}");
    }
    assert_eq!(owner.committed(Topic::Events).await.unwrap(), Some(2));
    let mut values = Vec::new();
    while !["event 1", "event 2", "state 1", "state 2"].iter().all(|value| values.iter().any(|got| got == value)) {
        assert!(began.elapsed() < PATIENCE, "only {values:?} came");
        let batch = reader.next(Duration::from_millis(200)).await.unwrap();
        let got = batch.records.into_iter().filter_map(|record| record.value);
        values.extend(got.map(|value| String::from_utf8(value.to_vec()).unwrap()));
    }
    println!("{values:?} after {:?}", began.elapsed());
}
