//! What the bus, its readers and its owners share: configuration, names, counters, and clients for looking things up.

use super::config::KafkaConfig;
use super::context::Context;
use super::stats::Counters;
use crate::{Bounds, BusError, Topic};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long to wait before something is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

pub(crate) type LookUp = BaseConsumer<Context>;

pub(crate) struct Shared {
    pub(crate) config: KafkaConfig,
    pub(crate) counters: Arc<Counters>,
    names: [String; Topic::ALL.len()],
    look_up: Arc<LookUp>,
    /// Clients for the positions of groups; there are as many groups as services.
    groups: Mutex<HashMap<(String, Positions), Arc<LookUp>>>,
}

/// Which positions of a group are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Positions {
    /// The last committed ones, when no transaction is under way that has others.
    Settled,
    /// The last committed ones.
    Committed,
}

impl Shared {
    pub(crate) fn new(config: KafkaConfig) -> Result<Self, BusError> {
        let counters = Arc::new(Counters::default());
        let look_up: LookUp = config
            .consumer()
            .create_with_context(Context { counters: counters.clone() })
            .map_err(|source| failed("making a client (look at bootstrap_servers and properties)", source))?;
        let names = Topic::ALL.map(|topic| config.topic_name(topic));
        Ok(Self { config, counters, names, look_up: Arc::new(look_up), groups: Mutex::default() })
    }

    pub(crate) fn context(&self) -> Context {
        Context { counters: self.counters.clone() }
    }

    /// The full name of a topic.
    pub(crate) fn name(&self, topic: Topic) -> &str {
        &self.names[Topic::ALL.iter().position(|known| *known == topic).unwrap_or_default()]
    }

    /// The topic with a full name.
    pub(crate) fn topic(&self, name: &str) -> Option<Topic> {
        self.names.iter().position(|known| known == name).map(|index| Topic::ALL[index])
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.config.timeout()
    }

    /// The client that looks at a group's positions, and waits for transactions that have others. It is made by the
    /// first who asks, which blocks a little.
    pub(crate) fn group(&self, group: &str) -> Result<Arc<LookUp>, BusError> {
        self.client_of(group, Positions::Settled)
    }

    /// The same, which waits for nobody.
    pub(crate) fn group_as_committed(&self, group: &str) -> Result<Arc<LookUp>, BusError> {
        self.client_of(group, Positions::Committed)
    }

    fn client_of(&self, group: &str, positions: Positions) -> Result<Arc<LookUp>, BusError> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (group.to_owned(), positions);
        if let Some(known) = groups.get(&key) {
            return Ok(known.clone());
        }
        let mut client = self.config.consumer();
        client.set("group.id", self.config.group_id(group));
        if positions == Positions::Committed {
            client.set("isolation.level", "read_uncommitted");
        }
        let made: LookUp = client
            .create_with_context(self.context())
            .map_err(|source| failed(format!("making a client for the group {group}"), source))?;
        let made = Arc::new(made);
        groups.insert(key, made.clone());
        Ok(made)
    }

    /// Asks the brokers something, on a blocking thread.
    pub(crate) async fn metadata<T: Send + 'static>(
        &self,
        doing: impl Into<String>,
        ask: impl Fn(&LookUp, Duration) -> KafkaResult<T> + Send + 'static,
    ) -> Result<T, BusError> {
        let (look_up, timeout) = (self.look_up.clone(), self.timeout());
        let doing = doing.into();
        let asked = blocking(doing.clone(), move || {
            let answer = until_answered(timeout, |left| ask(&look_up, left));
            // Serves its events, so that they do not pile up.
            drop(look_up.poll(Duration::ZERO));
            answer
        });
        asked.await?.map_err(|source| failed(doing, source))
    }

    pub(crate) async fn bounds(&self, topic: Topic, partition: u32) -> Result<Bounds, BusError> {
        let name = self.name(topic).to_owned();
        let doing = format!("looking for the ends of {name}[{partition}]");
        let (first, next) = self
            .metadata(doing, move |client, timeout| client.fetch_watermarks(&name, partition.cast_signed(), timeout))
            .await?;
        // Kafka gives -1 for what it does not know.
        Ok(Bounds { first: unsigned(first), next: unsigned(next) })
    }

    pub(crate) async fn offset_for_time(
        &self,
        topic: Topic,
        partition: u32,
        time_ms: i64,
    ) -> Result<Option<u64>, BusError> {
        let name = self.name(topic).to_owned();
        let doing = format!("looking for a time in {name}[{partition}]");
        let found = self.metadata(doing, move |client, timeout| {
            let mut times = TopicPartitionList::new();
            // Negative numbers have other meanings here.
            times.add_partition_offset(&name, partition.cast_signed(), Offset::Offset(time_ms.max(0)))?;
            let found = client.offsets_for_times(times, timeout)?;
            offset_of(&found)
        });
        found.await
    }
}

/// The offset in a list of one, if it is one.
pub(crate) fn offset_of(list: &TopicPartitionList) -> KafkaResult<Option<u64>> {
    let Some(element) = list.elements().into_iter().next() else { return Ok(None) };
    element.error()?;
    match element.offset() {
        Offset::Offset(offset) => Ok(Some(unsigned(offset))),
        _ => Ok(None),
    }
}

/// Asks again, for as long as there is time, when the brokers only need more of it: after a start, while leaders
/// move, or while a transaction ends. It blocks.
pub(crate) fn until_answered<T>(timeout: Duration, ask: impl Fn(Duration) -> KafkaResult<T>) -> KafkaResult<T> {
    let deadline = Instant::now() + timeout;
    loop {
        match ask(deadline.saturating_duration_since(Instant::now())) {
            Err(error) if passes(&error) && Instant::now() + ASK_AGAIN < deadline => std::thread::sleep(ASK_AGAIN),
            answer => return answer,
        }
    }
}

fn passes(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        BrokerTransportFailure, CoordinatorLoadInProgress, CoordinatorNotAvailable, FencedLeaderEpoch,
        LeaderNotAvailable, NotCoordinator, NotLeaderForPartition, OffsetNotAvailable, UnknownLeaderEpoch,
        UnknownTopicOrPartition, UnstableOffsetCommit,
    };
    matches!(
        error.rdkafka_error_code(),
        Some(
            BrokerTransportFailure
                | CoordinatorLoadInProgress
                | CoordinatorNotAvailable
                | FencedLeaderEpoch
                | LeaderNotAvailable
                | NotCoordinator
                | NotLeaderForPartition
                | OffsetNotAvailable
                | UnknownLeaderEpoch
                | UnknownTopicOrPartition
                | UnstableOffsetCommit
        )
    )
}

/// Does something that blocks, away from the runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    doing: impl Into<String>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BusError> {
    // It fails when the runtime ends, or by a panic that was reported where it happened.
    tokio::task::spawn_blocking(work).await.map_err(|_| BusError::Closed { doing: doing.into() })
}

pub(crate) fn failed(doing: impl Into<String>, source: KafkaError) -> BusError {
    BusError::Kafka { doing: doing.into(), source }
}

/// Offsets are counted from 0; Kafka's negative ones are names for "none".
pub(crate) fn unsigned(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}
