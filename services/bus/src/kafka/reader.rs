//! Reads partitions that are assigned by hand, and committed records only.

use super::context::Context;
use super::headers::trace;
use super::shared::{Shared, blocking, failed, unsigned};
use super::stats::add;
use crate::limits::{BATCH_MAX_BYTES, BATCH_MAX_RECORDS};
use crate::{Batch, BusError, ReadFrom, Reader, Record};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Partitions whose ends are asked for at once.
const ASK_AT_ONCE: usize = 16;

type Consumer = StreamConsumer<Context>;

pub(crate) struct KafkaReader {
    shared: Arc<Shared>,
    /// None when there is nothing to read from.
    consumer: Option<Arc<Consumer>>,
    at: Vec<Position>,
    /// Whether a position is gone or not there yet, so that all must be looked at and assigned anew.
    realign: bool,
}

/// Where a partition is read on, and what the caller knows of it.
struct Position {
    next: ReadFrom,
    told: u64,
}

impl KafkaReader {
    pub(crate) async fn open(shared: Arc<Shared>, from: &[ReadFrom]) -> Result<Self, BusError> {
        let at = from.iter().map(|next| Position { next: *next, told: next.offset }).collect();
        let mut reader = Self { shared, consumer: None, at, realign: false };
        if from.is_empty() {
            return Ok(reader);
        }
        let (config, context) = (reader.shared.config.reader(), reader.shared.context());
        let made = blocking("making a reader", move || config.create_with_context::<_, Consumer>(context)).await?;
        reader.consumer = Some(Arc::new(made.map_err(|source| failed("making a reader", source))?));
        reader.assign().await?;
        Ok(reader)
    }

    async fn assign(&self) -> Result<(), BusError> {
        let Some(consumer) = self.consumer.clone() else { return Ok(()) };
        let doing = || "assigning partitions to a reader";
        let list = self.list().map_err(|source| failed(doing(), source))?;
        blocking(doing(), move || consumer.assign(&list)).await?.map_err(|source| failed(doing(), source))
    }

    fn list(&self) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(self.at.len());
        for Position { next, .. } in &self.at {
            // Offsets of Kafka fit; what does not is past the end in any case.
            let offset = Offset::Offset(i64::try_from(next.offset).unwrap_or(i64::MAX));
            list.add_partition_offset(self.shared.name(next.topic), next.partition.cast_signed(), offset)?;
        }
        Ok(list)
    }

    /// Moves positions that are gone to the first record, and those that are past the end, too: they are of another
    /// log, or this one has lost its end; reading something twice is safe, leaving something out is not.
    async fn align(&mut self) -> Result<(), BusError> {
        let places: Vec<ReadFrom> = self.at.iter().map(|position| position.next).collect();
        let shared = &self.shared;
        let ends: Vec<_> = futures::stream::iter(places)
            .map(|place| shared.bounds(place.topic, place.partition))
            .buffered(ASK_AT_ONCE)
            .try_collect()
            .await?;
        for (position, ends) in self.at.iter_mut().zip(ends) {
            let next = &mut position.next;
            if (ends.first..=ends.next).contains(&next.offset) {
                continue;
            }
            add(&shared.counters.positions_moved, 1);
            if next.offset > ends.next {
                tracing::warn!(
                    topic = shared.name(next.topic),
                    partition = next.partition,
                    offset = next.offset,
                    end = ends.next,
                    "a position is past the end of the partition; reading from the first record again"
                );
            }
            next.offset = ends.first;
        }
        self.assign().await?;
        self.realign = false;
        Ok(())
    }

    /// Takes what librdkafka has fetched already.
    fn drain(&mut self, consumer: &Consumer, first: KafkaResult<BorrowedMessage<'_>>) -> Result<Vec<Record>, BusError> {
        let mut stream = consumer.stream();
        let (mut records, mut bytes) = (Vec::new(), 0);
        let mut event = Some(first);
        while let Some(got) = event {
            match got {
                Ok(message) => {
                    if let Some(record) = self.record(&message) {
                        bytes += record.key.len() + record.value.as_ref().map_or(0, Bytes::len);
                        records.push(record);
                    }
                }
                Err(error) => self.note(error)?,
            }
            if records.len() >= BATCH_MAX_RECORDS || bytes >= BATCH_MAX_BYTES {
                break;
            }
            event = stream.next().now_or_never().flatten();
        }
        add(&self.shared.counters.read_records, records.len() as u64);
        Ok(records)
    }

    fn record(&self, message: &BorrowedMessage<'_>) -> Option<Record> {
        Some(Record {
            // Only our topics were assigned.
            topic: self.shared.topic(message.topic())?,
            partition: message.partition().cast_unsigned(),
            offset: unsigned(message.offset()),
            time_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key().map(Bytes::copy_from_slice).unwrap_or_default(),
            value: message.payload().map(Bytes::copy_from_slice),
            trace: trace(message),
        })
    }

    /// Sorts what is not a record: faults that pass, and those that do not.
    fn note(&mut self, error: KafkaError) -> Result<(), BusError> {
        use RDKafkaErrorCode::{
            AutoOffsetReset, ClusterAuthorizationFailed, GroupAuthorizationFailed, TopicAuthorizationFailed,
            UnknownPartition, UnknownTopic, UnknownTopicOrPartition,
        };
        match error {
            KafkaError::PartitionEOF(_) => Ok(()),
            KafkaError::MessageConsumption(AutoOffsetReset) => {
                self.realign = true;
                Ok(())
            }
            KafkaError::MessageConsumptionFatal(_)
            | KafkaError::MessageConsumption(
                ClusterAuthorizationFailed
                | GroupAuthorizationFailed
                | TopicAuthorizationFailed
                | UnknownPartition
                | UnknownTopic
                | UnknownTopicOrPartition,
            ) => Err(failed("reading", error)),
            passing => {
                add(&self.shared.counters.read_faults, 1);
                tracing::debug!(error = %passing, "reading goes on after a fault");
                Ok(())
            }
        }
    }

    /// How far each partition was read. librdkafka counts the markers of transactions, which are no records, too.
    fn advance(&mut self, consumer: &Consumer) -> Result<Vec<ReadFrom>, BusError> {
        let reached = consumer.position().map_err(|source| failed("looking where a reader is", source))?;
        let mut next = Vec::new();
        for element in reached.elements() {
            let topic = self.shared.topic(element.topic());
            let partition = element.partition().cast_unsigned();
            let position = self.at.iter_mut().find(|at| Some(at.next.topic) == topic && at.next.partition == partition);
            let Some(position) = position else { continue };
            if let Offset::Offset(offset) = element.offset() {
                position.next.offset = position.next.offset.max(unsigned(offset));
            }
            if position.next.offset != position.told {
                position.told = position.next.offset;
                next.push(position.next);
            }
        }
        Ok(next)
    }
}

#[async_trait]
impl Reader for KafkaReader {
    async fn next(&mut self, wait: Duration) -> Result<Batch, BusError> {
        let deadline = Instant::now() + wait;
        let Some(consumer) = self.consumer.clone() else {
            tokio::time::sleep_until(deadline).await;
            return Ok(Batch::default());
        };
        loop {
            if self.realign {
                self.align().await?;
            }
            let waited = timeout_at(deadline, consumer.recv()).await;
            // From here on nothing waits, so nothing that was taken is lost when the caller drops this.
            let timed_out = waited.is_err();
            let records = match waited {
                Ok(first) => self.drain(&consumer, first)?,
                Err(_) => Vec::new(),
            };
            let next = self.advance(&consumer)?;
            if timed_out || !records.is_empty() || !next.is_empty() {
                return Ok(Batch { records, next, damaged: 0 });
            }
        }
    }
}

impl Drop for KafkaReader {
    /// A consumer waits for its threads when it goes: not on a thread of the runtime.
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(move || drop(consumer))),
                Err(_) => drop(consumer),
            }
        }
    }
}
