//! Apache Kafka itself, started once for all tests; each has topics of its own.

use crate::lab::{Lab, PARTITIONS, PATIENCE, everything, from, key_of, message, read_until, value};
use async_trait::async_trait;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tidegate_bus::{Bounds, Bus, BusError, KafkaBus, KafkaConfig, Topic};
use xtask::kafka::KafkaRig;
use xtask::leash::Leash;

pub struct KafkaLab {
    bootstrap: String,
    prefix: String,
}

/// It ends with this process, and its folder goes, too.
fn rig() -> &'static (KafkaRig, Leash) {
    static RIG: OnceLock<(KafkaRig, Leash)> = OnceLock::new();
    RIG.get_or_init(|| {
        let directory = tempfile::Builder::new().prefix("tidegate-bus-kafka").tempdir().unwrap().keep();
        let rig = KafkaRig::start(&directory).unwrap();
        // A second time after Kafka has ended: it writes until then.
        let remove = format!("rm -rf '{0}'; sleep 1; rm -rf '{0}'", directory.display());
        (rig, Leash::with(&remove).unwrap())
    })
}

impl KafkaLab {
    pub async fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let bootstrap = tokio::task::spawn_blocking(|| rig().0.bootstrap()).await.unwrap();
        Self { bootstrap, prefix: format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed)) }
    }

    fn config(&self) -> KafkaConfig {
        KafkaConfig {
            bootstrap_servers: self.bootstrap.clone(),
            topic_prefix: self.prefix.clone(),
            partitions: PARTITIONS,
            replication_factor: Some(1),
            ..KafkaConfig::default()
        }
    }

    async fn connect(&self) -> Arc<KafkaBus> {
        KafkaBus::connect(self.config()).await.unwrap()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().unwrap()
    }

    async fn alter(&self, config: AlterConfig<'_>) {
        let altered = self.admin().alter_configs([&config], &AdminOptions::new()).await.unwrap();
        for result in altered {
            result.unwrap();
        }
    }

    async fn create(&self, topic: Topic, partitions: i32, policy: &str) {
        let name = self.config().topic_name(topic);
        let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1)).set("cleanup.policy", policy);
        self.admin().create_topics([&new], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    }
}

#[async_trait]
impl Lab for KafkaLab {
    async fn open(&self) -> Arc<dyn Bus> {
        self.connect().await
    }

    async fn expire(&self, topic: Topic, partition: u32) {
        let mut list = TopicPartitionList::new();
        let name = self.config().topic_name(topic);
        list.add_partition_offset(&name, partition.cast_signed(), Offset::End).unwrap();
        self.admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
    }

    async fn compact(&self, partition: u32) {
        self.alter(AlterConfig::new(ResourceSpecifier::Broker(1)).set("log.cleaner.backoff.ms", "100")).await;
        let name = self.config().topic_name(Topic::Accounts);
        self.alter(
            AlterConfig::new(ResourceSpecifier::Topic(&name))
                .set("cleanup.policy", "compact")
                .set("min.cleanable.dirty.ratio", "0.001")
                .set("segment.ms", "50"),
        )
        .await;
        let bus = self.open().await;
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "nothing was compacted");
            // Only closed segments are compacted, and one is closed when something is written.
            let filler = message(&key_of(partition, 2), "filler");
            let end = bus.append(Topic::Accounts, vec![filler]).await.unwrap()[0].offset;
            let mut reader = bus.read(&[from(Topic::Accounts, partition, 0)]).await.unwrap();
            let records =
                read_until(&mut *reader, |_, reached| reached.first().is_some_and(|at| at.offset > end)).await;
            if records.iter().filter(|record| value(record).starts_with("one")).count() == 1 {
                return;
            }
        }
    }
}

super::conform!(KafkaLab);

#[tokio::test]
async fn topics_with_another_number_of_partitions_are_refused() {
    let lab = KafkaLab::new().await;
    lab.create(Topic::Commands, 5, "delete").await;
    let error = KafkaBus::connect(lab.config()).await.err().unwrap();
    assert!(matches!(&error, BusError::Topic { topic, .. } if topic.ends_with(".commands")), "{error:?}");
    assert!(error.to_string().contains("has 5 partitions, the configuration says 3"), "{error}");
}

#[tokio::test]
async fn a_topic_that_would_lose_states_is_refused() {
    let lab = KafkaLab::new().await;
    lab.create(Topic::Accounts, 3, "delete").await;
    let error = KafkaBus::connect(lab.config()).await.err().unwrap();
    assert!(matches!(&error, BusError::Topic { topic, .. } if topic.ends_with(".accounts")), "{error:?}");
    assert!(error.to_string().contains("cleanup.policy=delete; it must be compact"), "{error}");
}

#[tokio::test]
async fn missing_topics_are_named_when_none_may_be_made() {
    let lab = KafkaLab::new().await;
    let config = KafkaConfig { create_topics: false, ..lab.config() };
    let error = KafkaBus::connect(config).await.err().unwrap().to_string();
    for topic in Topic::ALL {
        assert!(error.contains(&lab.config().topic_name(topic)), "{error}");
    }
    assert!(error.contains("create with 3 partitions each, cleanup.policy=compact for"), "{error}");
    lab.connect().await;
    KafkaBus::connect(KafkaConfig { create_topics: false, ..lab.config() }).await.unwrap();
}

#[tokio::test]
async fn brokers_that_do_not_answer_are_told() {
    let config = KafkaConfig {
        bootstrap_servers: "127.0.0.1:1".to_owned(),
        request_timeout_ms: 1_000,
        ..KafkaConfig::default()
    };
    let error = KafkaBus::connect(config).await.err().unwrap();
    assert!(matches!(error, BusError::Kafka { .. }), "{error:?}");
    assert!(error.to_string().contains("asking for the topics"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_of_two_connections_fence_each_other_and_are_counted() {
    let lab = KafkaLab::new().await;
    let (here, there) = (lab.connect().await, lab.connect().await);
    let mut first = here.own("stream", 0).await.unwrap();
    let state = |text: &str| vec![(Topic::Accounts, message(&key_of(0, 0), text))];
    first.commit(state("1"), Vec::new()).await.unwrap();
    let mut second = there.own("stream", 0).await.unwrap();
    assert!(matches!(first.commit(state("x"), Vec::new()).await, Err(BusError::Fenced { partition: 0 })));
    second.commit(state("2"), Vec::new()).await.unwrap();
    let mut third = here.own("stream", 0).await.unwrap();
    assert!(matches!(second.commit(state("y"), Vec::new()).await, Err(BusError::Fenced { partition: 0 })));
    third.commit(state("3"), Vec::new()).await.unwrap();
    let mut reader = there.read(&[from(Topic::Accounts, 0, 0)]).await.unwrap();
    let records = read_until(&mut *reader, |records, _| records.len() == 3).await;
    assert_eq!(records.iter().map(value).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert_eq!((here.stats().fenced, there.stats().fenced), (1, 1));
    assert_eq!((here.stats().commits, there.stats().commits), (2, 1));
}

/// As a broker that was killed may remember it: a transaction that has another position, and never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_never_settles_holds_nobody_up() {
    let lab = KafkaLab::new().await;
    let bus = lab.connect().await;
    let mut owner = bus.own("stream", 0).await.unwrap();
    owner.commit(Vec::new(), vec![(Topic::Events, 3)]).await.unwrap();
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &lab.bootstrap).set("group.id", format!("{}-stream", lab.prefix));
    let group: BaseConsumer = client.create().unwrap();
    let ghost: BaseProducer = client.remove("group.id").set("transactional.id", "a ghost's").create().unwrap();
    ghost.init_transactions(PATIENCE).unwrap();
    ghost.begin_transaction().unwrap();
    let mut positions = TopicPartitionList::new();
    positions.add_partition_offset(&format!("{}.events", lab.prefix), 0, Offset::Offset(9)).unwrap();
    ghost.send_offsets_to_transaction(&positions, &group.group_metadata().unwrap(), PATIENCE).unwrap();
    let mut next = bus.own("stream", 0).await.unwrap();
    assert_eq!(next.committed(Topic::Events).await.unwrap(), Some(3));
    next.commit(Vec::new(), vec![(Topic::Events, 4)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_gets_past_the_markers_of_transactions() {
    let lab = KafkaLab::new().await;
    let bus = lab.connect().await;
    let mut owner = bus.own("stream", 1).await.unwrap();
    let mut reader = bus.read(&everything(Topic::Accounts)).await.unwrap();
    for n in 0..5_u64 {
        let state = message(&key_of(1, 0), &n.to_string());
        let place = owner.commit(vec![(Topic::Accounts, state)], Vec::new()).await.unwrap()[0];
        // The record and the marker, which is written after the commit was answered.
        let end = place.offset + 2;
        read_until(&mut *reader, |_, reached| reached.contains(&from(Topic::Accounts, 1, end))).await;
    }
    assert_eq!(bus.bounds(Topic::Accounts, 1).await.unwrap(), Bounds { first: 0, next: 10 });
    // The same for one that reads what was there before.
    let mut late = bus.read(&everything(Topic::Accounts)).await.unwrap();
    let records = read_until(&mut *late, |_, reached| reached.contains(&from(Topic::Accounts, 1, 10))).await;
    assert_eq!(records.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_nobody_waits_for_is_finished() {
    let lab = KafkaLab::new().await;
    let bus = lab.connect().await;
    let mut owner = bus.own("stream", 0).await.unwrap();
    for n in 0..20_u64 {
        let state = vec![(Topic::Accounts, message(&key_of(0, 0), &n.to_string()))];
        let wait = Duration::from_micros(n * 300);
        drop(tokio::time::timeout(wait, owner.commit(state, vec![(Topic::Events, n + 1)])).await);
    }
    owner.commit(vec![(Topic::Accounts, message(&key_of(0, 0), "last"))], Vec::new()).await.unwrap();
    let mut reader = bus.read(&[from(Topic::Accounts, 0, 0)]).await.unwrap();
    let records = read_until(&mut *reader, |records, _| records.iter().any(|record| value(record) == "last")).await;
    // Each commit that was begun came in whole, one after the other.
    let numbers: Vec<u64> = records.iter().filter_map(|record| value(record).parse().ok()).collect();
    assert!(numbers.is_sorted() && !numbers.is_empty(), "{numbers:?}");
    assert_eq!(owner.committed(Topic::Events).await.unwrap(), numbers.last().map(|n| n + 1));
}
