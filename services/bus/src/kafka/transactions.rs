//! Transactions, one after the other. Everything here blocks.
//!
//! `BaseProducer::flush`, which `commit_transaction` calls, sleeps for up to 100 ms when something is under way. So this
//! polls until nothing is, and only then commits.

use super::context::Context;
use super::headers::headers;
use super::shared::{LookUp, Shared, failed};
use super::stats::add;
use crate::{BusError, Message, Place, Topic};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a transaction that had to be aborted is tried again.
const ATTEMPTS: usize = 3;
/// Longest wait for one event while something is under way.
const POLL: Duration = Duration::from_millis(1);
/// How long what is under way may still arrive before it is dropped with its transaction.
const DRAIN: Duration = Duration::from_secs(1);

pub(crate) struct Transactions {
    shared: Arc<Shared>,
    group: Arc<LookUp>,
    producer: BaseProducer<OwnerContext>,
    partition: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No transaction runs.
    Ready,
    /// One runs, and was not asked to commit.
    Running,
    /// One was asked to commit, and the answer did not come in time.
    Committing,
    /// There is a newer owner, or librdkafka has given up: nothing can be written any more.
    Ended,
}

/// Why a transaction did not come about.
enum Failure {
    Ended,
    Passing(BusError),
}

impl Transactions {
    /// Fences whoever owned the partition before, and aborts what it left unfinished.
    pub(crate) fn begin(shared: Arc<Shared>, group: Arc<LookUp>, name: &str, partition: u32) -> Result<Self, BusError> {
        let doing = || format!("taking partition {partition} over");
        let context = OwnerContext { client: shared.context(), deliveries: Mutex::default() };
        let producer: BaseProducer<OwnerContext> = shared
            .config
            .owner(name, partition)
            .create_with_context(context)
            .map_err(|source| failed(doing(), source))?;
        let begun = Self { shared, group, producer, partition, state: State::Ready };
        // Connects first: librdkafka looks for the coordinator every 500 ms only, and in vain while it has no broker.
        let name = begun.shared.name(Topic::Accounts);
        begun
            .producer
            .client()
            .fetch_metadata(Some(name), begun.shared.timeout())
            .map_err(|source| failed(doing(), source))?;
        begun
            .until_answered(|timeout| begun.producer.init_transactions(timeout))
            .map_err(|source| failed(doing(), source))?;
        Ok(begun)
    }

    pub(crate) fn commit(
        &mut self,
        messages: &[(Topic, Message)],
        positions: &[(Topic, u64)],
    ) -> Result<Vec<Place>, BusError> {
        let (mut attempt, deadline) = (1, Instant::now() + self.shared.timeout());
        loop {
            let failure = match self.settle().and_then(|()| self.attempt(messages, positions)) {
                Ok(places) => return Ok(places),
                Err(failure) => failure,
            };
            match failure {
                Failure::Ended => {
                    self.state = State::Ended;
                    return Err(BusError::Fenced { partition: self.partition });
                }
                Failure::Passing(error) => {
                    // A commit whose outcome is not known is not to be made a second time.
                    if attempt == ATTEMPTS || Instant::now() > deadline || self.state == State::Committing {
                        return Err(error);
                    }
                    add(&self.shared.counters.commit_retries, 1);
                    tracing::warn!(partition = self.partition, attempt, %error, source = %cause(&error), "a transaction is tried again");
                    attempt += 1;
                }
            }
        }
    }

    /// Ends what an earlier call left behind.
    fn settle(&mut self) -> Result<(), Failure> {
        match self.state {
            State::Ready => Ok(()),
            State::Running => self.abort(),
            State::Committing => self.commit_running(),
            State::Ended => Err(Failure::Ended),
        }
    }

    fn attempt(&mut self, messages: &[(Topic, Message)], positions: &[(Topic, u64)]) -> Result<Vec<Place>, Failure> {
        if messages.is_empty() && positions.is_empty() {
            return Ok(Vec::new());
        }
        self.producer.context().clear();
        self.producer.begin_transaction().map_err(|error| self.failure("beginning a transaction", error))?;
        self.state = State::Running;
        for (index, (topic, message)) in messages.iter().enumerate() {
            self.send(index, *topic, message)?;
        }
        if !positions.is_empty() {
            self.send_positions(positions)?;
        }
        self.drain(Instant::now() + self.shared.timeout())?;
        let places = self.places(messages.len())?;
        self.commit_running()?;
        Ok(places)
    }

    fn send(&self, index: usize, topic: Topic, message: &Message) -> Result<(), Failure> {
        let deadline = Instant::now() + self.shared.timeout();
        let name = self.shared.name(topic);
        loop {
            let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(name, index)
                .partition(self.partition.cast_signed())
                .key(&message.key[..]);
            record.payload = message.value.as_deref();
            record.headers = message.trace.map(headers);
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) if Instant::now() < deadline => {
                    self.producer.poll(POLL);
                }
                Err((error, _)) => return Err(self.failure(&format!("writing to {name}"), error)),
            }
        }
    }

    fn send_positions(&self, positions: &[(Topic, u64)]) -> Result<(), Failure> {
        let doing = "writing positions";
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (topic, next) in positions {
            let offset = Offset::Offset(i64::try_from(*next).unwrap_or(i64::MAX));
            list.add_partition_offset(self.shared.name(*topic), self.partition.cast_signed(), offset)
                .map_err(|error| self.failure(doing, error))?;
        }
        let Some(group) = self.group.group_metadata() else {
            // Every client that looks at a group's positions was made with the group's name.
            return Err(Failure::Passing(BusError::Closed { doing: doing.to_owned() }));
        };
        self.until_answered(|timeout| self.producer.send_offsets_to_transaction(&list, &group, timeout))
            .map_err(|error| self.failure(doing, error))
    }

    /// Waits until what was sent has been answered.
    fn drain(&self, deadline: Instant) -> Result<(), Failure> {
        while self.producer.in_flight_count() > 0 {
            if Instant::now() > deadline {
                let timed_out = KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
                return Err(self.failure("waiting for records to be taken", timed_out));
            }
            self.producer.poll(POLL);
        }
        Ok(())
    }

    /// Where the records went, from the brokers' answers.
    fn places(&self, count: usize) -> Result<Vec<Place>, Failure> {
        let mut places = vec![None; count];
        for (index, delivery) in self.producer.context().take() {
            match delivery {
                Ok(place) => {
                    if let Some(slot) = places.get_mut(index) {
                        *slot = Some(place);
                    }
                }
                Err(error) => return Err(self.failure("writing records", error)),
            }
        }
        let places: Option<Vec<Place>> = places.into_iter().collect();
        places.ok_or_else(|| {
            let unanswered = KafkaError::MessageProduction(RDKafkaErrorCode::NoError);
            self.failure("counting the brokers' answers", unanswered)
        })
    }

    /// Asks for the commit until there is an answer. When none comes, nobody knows: the next call asks again.
    fn commit_running(&mut self) -> Result<(), Failure> {
        self.state = State::Committing;
        match self.until_answered(|timeout| self.producer.commit_transaction(timeout)) {
            Ok(()) => {
                self.state = State::Ready;
                Ok(())
            }
            Err(error) => {
                if matches!(&error, KafkaError::Transaction(error) if error.txn_requires_abort()) {
                    self.state = State::Running;
                }
                Err(self.failure("committing a transaction", error))
            }
        }
    }

    fn abort(&mut self) -> Result<(), Failure> {
        // What is under way is not waited for inside of the call that aborts.
        if self.drain(Instant::now() + DRAIN).is_err() {
            self.producer.purge(PurgeConfig::default().queue().inflight());
            self.drain(Instant::now() + DRAIN)?;
        }
        self.until_answered(|timeout| self.producer.abort_transaction(timeout))
            .map_err(|error| self.failure("aborting a transaction", error))?;
        self.state = State::Ready;
        Ok(())
    }

    /// Asks again for as long as the answer is that one may, up to the request's time.
    fn until_answered(&self, ask: impl Fn(Duration) -> KafkaResult<()>) -> KafkaResult<()> {
        let deadline = Instant::now() + self.shared.timeout();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match ask(left) {
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {
                    self.producer.poll(POLL);
                }
                answer => return answer,
            }
        }
    }

    /// Tells an end from a fault that passes.
    fn failure(&self, doing: &str, source: KafkaError) -> Failure {
        let of_transaction = match &source {
            KafkaError::Transaction(error) => error.is_fatal() || is_fence(error.code()),
            KafkaError::MessageProduction(code) => is_fence(*code),
            _ => false,
        };
        let fatal = self.producer.client().fatal_error();
        if !of_transaction && fatal.is_none() {
            return Failure::Passing(failed(format!("{doing} of partition {}", self.partition), source));
        }
        let (code, reason) = fatal.unwrap_or((RDKafkaErrorCode::Fenced, source.to_string()));
        if is_fence(code) {
            tracing::warn!(partition = self.partition, reason, "the partition has a newer owner");
        } else {
            // Only a new owner can write again, just as if there were one.
            tracing::error!(partition = self.partition, %code, reason, "this owner cannot write any more");
        }
        Failure::Ended
    }
}

fn is_fence(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
    matches!(code, Fenced | InvalidProducerEpoch | ProducerFenced)
}

fn cause(error: &BusError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

/// Collects the brokers' answers.
struct OwnerContext {
    client: Context,
    deliveries: Mutex<Vec<(usize, KafkaResult<Place>)>>,
}

impl OwnerContext {
    fn take(&self) -> Vec<(usize, KafkaResult<Place>)> {
        std::mem::take(&mut *self.deliveries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn clear(&self) {
        drop(self.take());
    }
}

impl ClientContext for OwnerContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.client.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.client.error(error, reason);
    }
}

impl ProducerContext for OwnerContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let delivery = match result {
            Ok(message) => {
                Ok(Place { partition: message.partition().cast_unsigned(), offset: message.offset().cast_unsigned() })
            }
            Err((error, _)) => Err(error.clone()),
        };
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).push((index, delivery));
    }
}
