//! Membership of a consumer group on the topic `events`: it says which partitions are this process's to own. It reads
//! nothing, and commits nothing: positions are committed by the owners, under a group of their own.

use super::context::Context;
use super::shared::{Shared, failed};
use crate::{BusError, Membership, Topic};
use async_trait::async_trait;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// How long the group's coordinator is listened to before the end is looked for.
const POLL: Duration = Duration::from_millis(100);

pub(crate) struct KafkaMembership {
    assigned: watch::Receiver<BTreeSet<u32>>,
    leaving: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Notes when the group has decided, also when it gave nothing.
struct MemberContext {
    inner: Context,
    decided: AtomicBool,
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.inner.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.inner.error(error, reason);
    }
}

impl ConsumerContext for MemberContext {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Assign(_)) {
            self.decided.store(true, Ordering::Relaxed);
        }
    }
}

impl KafkaMembership {
    /// Joins; a thread keeps the membership alive.
    pub(crate) fn join(shared: &Arc<Shared>, group: &str) -> Result<Self, BusError> {
        let doing = || format!("joining the group {group}");
        let context = MemberContext { inner: shared.context(), decided: AtomicBool::new(false) };
        let made: KafkaResult<BaseConsumer<MemberContext>> = shared.config.member(group).create_with_context(context);
        let consumer = made.map_err(|source| failed(doing(), source))?;
        consumer.subscribe(&[shared.name(Topic::Events)]).map_err(|source| failed(doing(), source))?;
        let (tell, assigned) = watch::channel(BTreeSet::new());
        let leaving = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&leaving);
        let thread = std::thread::Builder::new().name("kafka-membership".to_owned());
        let thread = thread.spawn(move || be_a_member(&consumer, &tell, &until)).map_err(|source| BusError::Topic {
            topic: group.to_owned(),
            problem: format!("no thread for its membership: {source}"),
        })?;
        Ok(Self { assigned, leaving, thread: Some(thread) })
    }
}

fn be_a_member(consumer: &BaseConsumer<MemberContext>, tell: &watch::Sender<BTreeSet<u32>>, leaving: &AtomicBool) {
    let mut told = false;
    while !leaving.load(Ordering::Relaxed) {
        // Faults of the connection are logged by the context and pass; records are of no interest.
        drop(consumer.poll(POLL));
        let Ok(list) = consumer.assignment() else { continue };
        let now: BTreeSet<u32> = list.elements().iter().map(|element| element.partition().cast_unsigned()).collect();
        let is_first = !told && consumer.context().decided.load(Ordering::Relaxed);
        if *tell.borrow() != now || is_first {
            told = true;
            if let Err(error) = consumer.pause(&list) {
                tracing::debug!(%error, "the group's partitions could not be paused; what they fetch is dropped");
            }
            tell.send_replace(now);
        }
    }
    consumer.unsubscribe();
}

#[async_trait]
impl Membership for KafkaMembership {
    async fn next(&mut self) -> Result<BTreeSet<u32>, BusError> {
        if self.assigned.changed().await.is_err() {
            return Err(BusError::Closed { doing: "waiting for partitions of a group".to_owned() });
        }
        Ok(self.assigned.borrow_and_update().clone())
    }
}

impl Drop for KafkaMembership {
    fn drop(&mut self) {
        self.leaving.store(true, Ordering::Relaxed);
        // It ends within a poll, and leaves the group, so that others need not wait for its session to expire.
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
