//! Appends with an idempotent producer.

use super::context::Context;
use super::headers::headers;
use super::shared::{Shared, blocking, failed};
use super::stats::add;
use crate::{BusError, Message, Place, Topic, partition_of};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

type IdempotentProducer = FutureProducer<Context>;

/// How long to wait when librdkafka's queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);
/// Messages handed to librdkafka before other tasks get a turn.
const TURN_MESSAGES: usize = 500;

pub(crate) struct Appender {
    shared: Arc<Shared>,
    current: Mutex<Arc<IdempotentProducer>>,
}

impl Appender {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, BusError> {
        let current = Mutex::new(Arc::new(make(&shared)?));
        Ok(Self { shared, current })
    }

    /// Connects, so that the first append does not wait for it.
    pub(crate) async fn warm_up(&self) -> Result<(), BusError> {
        let (producer, timeout) = (self.producer(), self.shared.timeout());
        let name = self.shared.name(Topic::Events).to_owned();
        let asked = blocking("connecting", move || producer.client().fetch_metadata(Some(&name), timeout));
        asked.await?.map(drop).map_err(|source| failed("connecting", source))
    }

    pub(crate) async fn append(&self, topic: Topic, messages: Vec<Message>) -> Result<Vec<Place>, BusError> {
        let producer = self.producer();
        let appended = self.append_with(&producer, topic, &messages).await;
        if let Ok(places) = &appended {
            add(&self.shared.counters.appended_records, places.len() as u64);
        } else {
            add(&self.shared.counters.append_failures, 1);
            self.replace_if_dead(&producer);
        }
        appended
    }

    async fn append_with(
        &self,
        producer: &IdempotentProducer,
        topic: Topic,
        messages: &[Message],
    ) -> Result<Vec<Place>, BusError> {
        let name = self.shared.name(topic);
        let mut deliveries = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            if index % TURN_MESSAGES == TURN_MESSAGES - 1 {
                tokio::task::yield_now().await;
            }
            let partition = partition_of(&message.key, self.shared.config.partitions);
            deliveries.push(self.send(producer, name, partition, message).await?);
        }
        let mut places = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            match delivery.await {
                Ok(Ok(delivered)) => places.push(Place {
                    partition: delivered.partition.cast_unsigned(),
                    offset: delivered.offset.cast_unsigned(),
                }),
                Ok(Err((source, _))) => return Err(failed(format!("appending to {name}"), source)),
                Err(_) => return Err(BusError::Closed { doing: format!("appending to {name}") }),
            }
        }
        Ok(places)
    }

    /// Hands a message to librdkafka, and waits while its queue is full.
    async fn send(
        &self,
        producer: &IdempotentProducer,
        name: &str,
        partition: u32,
        message: &Message,
    ) -> Result<DeliveryFuture, BusError> {
        let deadline = Instant::now() + self.shared.timeout();
        loop {
            let mut record =
                FutureRecord::<[u8], [u8]>::to(name).partition(partition.cast_signed()).key(&message.key[..]);
            record.payload = message.value.as_deref();
            record.headers = message.trace.map(headers);
            match producer.send_result(record).map_err(|(error, _)| error) {
                Ok(delivery) => return Ok(delivery),
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) if Instant::now() < deadline => {
                    add(&self.shared.counters.append_queue_full, 1);
                }
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) => {
                    let problem = "the message is larger than message.max.bytes of librdkafka".to_owned();
                    return Err(BusError::Message { topic: name.to_owned(), problem });
                }
                Err(source) => return Err(failed(format!("appending to {name}"), source)),
            }
            tokio::time::sleep(QUEUE_FULL_PAUSE).await;
        }
    }

    fn producer(&self) -> Arc<IdempotentProducer> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An idempotent producer that can no longer tell what was written is good for nothing: a new one takes its place.
    fn replace_if_dead(&self, used: &Arc<IdempotentProducer>) {
        let Some((code, reason)) = used.client().fatal_error() else { return };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, used) {
            return;
        }
        match make(&self.shared) {
            Ok(new) => {
                add(&self.shared.counters.producers_replaced, 1);
                tracing::warn!(%code, reason, "the producer failed for good; a new one takes its place");
                *current = Arc::new(new);
            }
            Err(error) => tracing::error!(%error, "the producer failed for good, and no new one can be made"),
        }
    }
}

fn make(shared: &Shared) -> Result<IdempotentProducer, BusError> {
    shared.config.appender().create_with_context(shared.context()).map_err(|source| failed("making a producer", source))
}
