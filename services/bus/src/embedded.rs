//! The embedded log: all topics in one journal on this machine's disk, for an installation of one process.
//!
//! Appends go through the journal's group commit and are answered when they are durable; readers in this process are
//! woken by it. Nothing here blocks the async runtime: the journal's writer has a thread of its own, and reading
//! runs on the runtime's blocking threads.

mod config;
mod gate;
mod maintenance;
mod membership;
mod owner;
mod reader;
mod stats;
mod traces;

pub use config::{Durability, EmbeddedConfig};
pub(crate) use config::{check_ages, default_age_s};
pub use stats::EmbeddedStats;

use crate::limits::{check, split};
use crate::{Bounds, Bus, BusError, Membership, Message, Owner, Place, ReadFrom, Reader, Topic, partition_of};
use async_trait::async_trait;
use gate::Gate;
use membership::EmbeddedMembership;
use owner::{EmbeddedOwner, Owners};
use reader::EmbeddedReader;
use stats::Counters;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};
use tidegate_journal::{Batch, Committed, Journal, JournalError, NewRecord};
use tidegate_runtime::shutdown::CancellationToken;
use tokio::sync::oneshot;
use traces::Traces;

/// Gives the time that records are stamped with: milliseconds since 1970 UTC.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The log of one process.
pub struct EmbeddedBus {
    log: Arc<Log>,
    owners: Owners,
    config: EmbeddedConfig,
}

/// What the bus, its readers and its owners share.
pub(crate) struct Log {
    journal: Journal,
    partitions: u32,
    clock: Clock,
    gate: Gate,
    counters: Counters,
    closed: CancellationToken,
    traces: Traces,
}

impl EmbeddedBus {
    /// Opens the log in `config.directory`, and makes what is missing. It blocks for some milliseconds, and longer
    /// after the process was killed.
    ///
    /// # Errors
    /// When another process has it, when it was made with another number of partitions, or the disk fails.
    pub fn open(config: EmbeddedConfig) -> Result<Arc<Self>, BusError> {
        Self::open_with_clock(config, Arc::new(system_time_ms))
    }

    /// The same with another clock, which retention goes by, too.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_with_clock(config: EmbeddedConfig, clock: Clock) -> Result<Arc<Self>, BusError> {
        let doing = || format!("opening {}", config.directory.display());
        std::fs::create_dir_all(&config.directory).map_err(|source| {
            let path = config.directory.clone();
            failed(doing(), JournalError::Io { action: "make the directory", path, source })
        })?;
        let journal = Journal::open(&config.directory, config.options()).map_err(|source| failed(doing(), source))?;
        for topic in Topic::ALL {
            let retention = config.retention(topic);
            journal.create_topic(topic.suffix(), config.partitions, retention).map_err(|source| match source {
                JournalError::PartitionCount { .. } | JournalError::RetentionKind { .. } => {
                    let problem = format!("{source}; set partitions as before, or choose another directory");
                    BusError::Topic { topic: topic.suffix().to_owned(), problem }
                }
                source => failed(doing(), source),
            })?;
        }
        let partitions = config.partitions;
        let (gate, counters, closed) = (Gate::default(), Counters::default(), CancellationToken::new());
        let traces = Traces::default();
        let log = Arc::new(Log { journal, partitions, clock, gate, counters, closed, traces });
        Ok(Arc::new(Self { log, owners: Owners::default(), config }))
    }

    /// Counters since it was opened, and levels now.
    pub fn stats(&self) -> EmbeddedStats {
        self.log.counters.snapshot(&self.log.journal)
    }

    /// Makes durable what was handed over, and closes the file. Readers, owners and appends get
    /// [`BusError::Closed`] from then on.
    pub async fn close(&self) {
        self.log.closed.cancel();
        let journal = self.log.journal.clone();
        // It cannot fail but by a panic, which was reported where it happened.
        drop(tokio::task::spawn_blocking(move || journal.close()).await);
    }
}

#[async_trait]
impl Bus for EmbeddedBus {
    fn log_id(&self) -> &str {
        self.log.journal.log_id()
    }

    fn partitions(&self) -> u32 {
        self.log.partitions
    }

    async fn append(&self, topic: Topic, messages: Vec<Message>) -> Result<Vec<Place>, BusError> {
        check(topic.suffix(), &messages)?;
        let mut waiting = Vec::new();
        for part in split(messages) {
            let (batch, places) = self.log.lay_out(part.into_iter().map(|message| (topic, message)));
            waiting.push((self.log.submit(batch).await, places));
        }
        let mut all = Vec::new();
        for (committed, places) in waiting {
            let committed = committed.wait(|| format!("appending to {}", topic.suffix())).await?;
            all.extend(places.resolve(&committed));
        }
        Ok(all)
    }

    async fn read(&self, from: &[ReadFrom]) -> Result<Box<dyn Reader>, BusError> {
        for at in from {
            self.log.check_partition(at.topic, at.partition)?;
        }
        Ok(Box::new(EmbeddedReader::new(self.log.clone(), from)))
    }

    async fn bounds(&self, topic: Topic, partition: u32) -> Result<Bounds, BusError> {
        self.log.bounds(topic, partition)
    }

    async fn offset_for_time(&self, topic: Topic, partition: u32, time_ms: i64) -> Result<u64, BusError> {
        self.log.check_partition(topic, partition)?;
        let doing = move || format!("looking for a time in {}[{partition}]", topic.suffix());
        self.log.blocking(doing, move |journal| journal.offset_for_time(topic.suffix(), partition, time_ms)).await
    }

    async fn own(&self, group: &str, partition: u32) -> Result<Box<dyn Owner>, BusError> {
        self.log.check_partition(Topic::Accounts, partition)?;
        let claim = self.owners.claim(group, partition);
        // What the owner before has handed over is durable, and can be read, before the new one begins.
        let barrier = self.log.submit(Batch::new()).await;
        barrier.wait(|| format!("taking partition {partition} over")).await?;
        Ok(Box::new(EmbeddedOwner::new(self.log.clone(), group.to_owned(), claim)))
    }

    async fn join(&self, _group: &str) -> Result<Box<dyn Membership>, BusError> {
        Ok(Box::new(EmbeddedMembership::new(self.log.partitions, self.log.closed.clone())))
    }
}

/// A batch on its way to the disk.
pub(crate) struct Submitted(oneshot::Receiver<Result<Committed, JournalError>>);

impl Submitted {
    pub(crate) async fn wait(self, doing: impl FnOnce() -> String) -> Result<Committed, BusError> {
        match self.0.await {
            Ok(result) => result.map_err(|source| failed(doing(), source)),
            Err(_) => Err(BusError::Closed { doing: doing() }),
        }
    }
}

/// Which of a batch's appends each message went to, and its place among that one's records.
pub(crate) struct Layout(Vec<(usize, u32, u64)>);

impl Layout {
    pub(crate) fn resolve(self, committed: &Committed) -> impl Iterator<Item = Place> + '_ {
        self.0.into_iter().map(|(append, partition, index)| {
            // The journal gives one base offset for each append.
            let base = committed.base_offsets.get(append).copied().unwrap_or_default();
            Place { partition, offset: base + index }
        })
    }
}

impl Log {
    /// Sorts messages by topic and partition, in their order, and stamps them with the time.
    pub(crate) fn lay_out(&self, messages: impl Iterator<Item = (Topic, Message)>) -> (Batch, Layout) {
        let time_ms = (self.clock)();
        let mut batch = Batch::new();
        let mut heads: Vec<(Topic, u32)> = Vec::new();
        let mut layout = Vec::new();
        for (topic, message) in messages {
            self.traces.note(topic, &message);
            let Message { key, value, trace: _ } = message;
            let partition = partition_of(&key, self.partitions);
            let append = heads.iter().position(|head| *head == (topic, partition)).unwrap_or_else(|| {
                heads.push((topic, partition));
                batch.appends.push(tidegate_journal::Append {
                    topic: topic.suffix().to_owned(),
                    partition,
                    records: Vec::new(),
                });
                heads.len() - 1
            });
            let records = &mut batch.appends[append].records;
            layout.push((append, partition, records.len() as u64));
            // The journal's empty value is a tombstone; `check` lets no other empty value pass.
            records.push(NewRecord { time_ms, key: Some(key), value: value.unwrap_or_default() });
        }
        (batch, Layout(layout))
    }

    /// Hands a batch to the journal when there is room.
    pub(crate) async fn submit(&self, batch: Batch) -> Submitted {
        let pass = self.gate.enter(batch.bytes()).await;
        self.submit_with(batch, pass)
    }

    /// Hands a batch to the journal at once. The pass is given back when it is durable, also if nobody waits.
    pub(crate) fn submit_with(&self, batch: Batch, pass: gate::Pass) -> Submitted {
        let (sender, receiver) = oneshot::channel();
        self.journal.submit(
            batch,
            Box::new(move |result| {
                drop(pass);
                // Who does not wait any more does not want to know.
                drop(sender.send(result));
            }),
        );
        Submitted(receiver)
    }

    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        doing: impl Fn() -> String,
        work: impl FnOnce(&Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, BusError> {
        let journal = self.journal.clone();
        match tokio::task::spawn_blocking(move || work(&journal)).await {
            Ok(result) => result.map_err(|source| failed(doing(), source)),
            Err(_) => Err(BusError::Closed { doing: doing() }),
        }
    }

    pub(crate) fn bounds(&self, topic: Topic, partition: u32) -> Result<Bounds, BusError> {
        self.check_partition(topic, partition)?;
        let bounds = self
            .journal
            .bounds(topic.suffix(), partition)
            .map_err(|source| failed(format!("looking at {}[{partition}]", topic.suffix()), source))?;
        Ok(Bounds { first: bounds.first_offset, next: bounds.next_offset })
    }

    pub(crate) fn check_partition(&self, topic: Topic, partition: u32) -> Result<(), BusError> {
        crate::limits::check_partition(topic.suffix(), partition, self.partitions)
    }

    pub(crate) fn count_fenced(&self) {
        self.counters.fenced.fetch_add(1, Ordering::Relaxed);
    }
}

/// The journal's failure as the bus's.
fn failed(doing: String, source: JournalError) -> BusError {
    match source {
        JournalError::Closed { .. } => BusError::Closed { doing },
        source => BusError::Journal { doing, source: Box::new(source) },
    }
}

fn system_time_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
