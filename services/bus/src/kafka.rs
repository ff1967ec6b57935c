//! The topics on Apache Kafka, through librdkafka.
//!
//! librdkafka's threads do the network; everything of it that blocks runs on the runtime's blocking threads.
//! Appending is idempotent, reading sees committed records only, and an owner is a transactional producer, so that Kafka
//! itself fences the owner before.

mod appender;
mod config;
mod context;
mod examination;
mod headers;
mod membership;
mod owner;
mod reader;
mod shared;
mod stats;
mod topics;
mod transactions;

pub use config::KafkaConfig;
pub use examination::{ExaminedTopic, TopicsExamined, examine_topics};
pub use stats::KafkaStats;

use crate::limits::{check, check_partition};
use crate::{Bounds, Bus, BusError, Membership, Message, Owner, Place, ReadFrom, Reader, Topic};
use appender::Appender;
use async_trait::async_trait;
use membership::KafkaMembership;
use owner::KafkaOwner;
use rdkafka::consumer::Consumer as _;
use reader::KafkaReader;
use shared::Shared;
use std::sync::Arc;

/// A connection to Kafka.
pub struct KafkaBus {
    shared: Arc<Shared>,
    appender: Appender,
    log_id: String,
}

impl KafkaBus {
    /// Connects, makes the topics that are missing (if `create_topics`), and checks those that are there. It must be
    /// called on a tokio runtime.
    ///
    /// # Errors
    /// When Kafka does not answer within `request_timeout_ms`, refuses, or has a topic that is not as it must be.
    pub async fn connect(config: KafkaConfig) -> Result<Arc<Self>, BusError> {
        let shared = Arc::new(Shared::new(config.with_property_files()?)?);
        topics::prepare(&shared).await?;
        let appender = Appender::new(shared.clone())?;
        appender.warm_up().await?;
        let cluster = shared.metadata("asking for the cluster's id", |consumer, timeout| {
            Ok(consumer.client().fetch_cluster_id(timeout))
        });
        let Some(cluster) = cluster.await? else {
            let problem = "the cluster has no id; use Kafka 0.10.1 or newer".to_owned();
            return Err(BusError::Topic { topic: shared.config.topic_prefix.clone(), problem });
        };
        let log_id = format!("{cluster}/{}", shared.config.topic_prefix);
        tracing::info!(
            log_id,
            brokers = shared.config.bootstrap_servers,
            partitions = shared.config.partitions,
            "connected to Kafka"
        );
        Ok(Arc::new(Self { shared, appender, log_id }))
    }

    /// Counters since it was connected.
    pub fn stats(&self) -> KafkaStats {
        self.shared.counters.snapshot()
    }

    fn check(&self, topic: Topic, partition: u32) -> Result<(), BusError> {
        check_partition(self.shared.name(topic), partition, self.shared.config.partitions)
    }
}

#[async_trait]
impl Bus for KafkaBus {
    /// The cluster's id and the topics' prefix.
    fn log_id(&self) -> &str {
        &self.log_id
    }

    fn partitions(&self) -> u32 {
        self.shared.config.partitions
    }

    async fn append(&self, topic: Topic, messages: Vec<Message>) -> Result<Vec<Place>, BusError> {
        check(self.shared.name(topic), &messages)?;
        self.appender.append(topic, messages).await
    }

    async fn read(&self, from: &[ReadFrom]) -> Result<Box<dyn Reader>, BusError> {
        for at in from {
            self.check(at.topic, at.partition)?;
        }
        Ok(Box::new(KafkaReader::open(self.shared.clone(), from).await?))
    }

    /// The end is that of the committed records: what is in a transaction that still runs is not counted, and a
    /// transaction runs until its marker is written, some milliseconds after the commit was answered.
    async fn bounds(&self, topic: Topic, partition: u32) -> Result<Bounds, BusError> {
        self.check(topic, partition)?;
        self.shared.bounds(topic, partition).await
    }

    async fn offset_for_time(&self, topic: Topic, partition: u32, time_ms: i64) -> Result<u64, BusError> {
        self.check(topic, partition)?;
        match self.shared.offset_for_time(topic, partition, time_ms).await? {
            Some(offset) => Ok(offset),
            None => Ok(self.shared.bounds(topic, partition).await?.next),
        }
    }

    async fn own(&self, group: &str, partition: u32) -> Result<Box<dyn Owner>, BusError> {
        self.check(Topic::Accounts, partition)?;
        Ok(Box::new(KafkaOwner::open(self.shared.clone(), group, partition).await?))
    }

    async fn join(&self, group: &str) -> Result<Box<dyn Membership>, BusError> {
        Ok(Box::new(KafkaMembership::join(&self.shared, group)?))
    }
}

/// Version of librdkafka that is built in.
pub fn client_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
