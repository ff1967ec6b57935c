//! The loop: read, add to the piles, commit what is due, and keep where reading goes on.

use super::parcel::{Parcel, Sender, Sent};
use super::pile::Pile;
use super::positions::Positions;
use super::seen::Seen;
use crate::config::HistoryConfig;
use crate::lake::Lake;
use crate::metrics::{Metrics, TableLabel};
use crate::service::{Clock, HistoryError};
use crate::tables::Table;
use deltalake::table::state::DeltaTableState;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_bus::{Batch, Bus, BusError, Membership, Reader, Record};
use tidegate_runtime::backoff::Backoff;
use tidegate_runtime::shutdown::CancellationToken;
use tidegate_runtime::{Health, error_line};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

/// How long a passing fault is waited out, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How long to wait for records at most.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long commits may take at the end.
const LAST_COMMITS: Duration = Duration::from_secs(4);
/// How often it is looked whether a log that was too short has grown.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Name of this service in readiness reports.
pub(crate) const PART: &str = "history";

/// Fills the tables.
pub(crate) struct Sink {
    bus: Arc<dyn Bus>,
    /// Commits, beside the loop: has the tables, the metrics and the readiness of both.
    sender: Arc<Sender>,
    clock: Clock,
    commit_interval: Duration,
    commit_records: usize,
    membership: Box<dyn Membership>,
    wanted: BTreeSet<u32>,
    /// What the tables say; none: that is to be looked up before anything is read.
    positions: Option<Positions>,
    seen: Seen,
    piles: BTreeMap<Table, Piled>,
    sending: JoinSet<Sent>,
    look_again: Option<Instant>,
    /// Whether the first partition is written here: who has it tidies up.
    is_keeper: watch::Sender<bool>,
}

/// A table's pile, and its commit that is on its way.
struct Piled {
    pile: Pile,
    is_sending: bool,
    /// A state of the table as of which it says what `positions` says.
    base: Option<DeltaTableState>,
}

enum Next {
    Wanted(Result<BTreeSet<u32>, BusError>),
    Sent(Box<Result<Sent, JoinError>>),
    Batch(Result<Batch, BusError>),
    Tick,
}

impl Sink {
    pub fn new(
        config: &HistoryConfig,
        bus: Arc<dyn Bus>,
        lake: Lake,
        membership: Box<dyn Membership>,
        metrics: Metrics,
        health: Health,
        clock: Clock,
    ) -> Self {
        let filled = Table::ALL.into_iter().filter(|table| table.topic().is_some());
        let piled = |table| (table, Piled { pile: Pile::new(table), is_sending: false, base: None });
        health.needs(PART);
        let sender = Arc::new(Sender {
            lake,
            log_id: bus.log_id().to_owned(),
            metrics,
            health,
            files_last: Duration::from_secs(config.vacuum_after_s) / 4,
            attempt_wait: Duration::from_millis(config.store_timeout_ms),
        });
        Self {
            bus,
            sender,
            clock,
            commit_interval: Duration::from_millis(config.commit_interval_ms),
            commit_records: config.commit_records,
            membership,
            wanted: BTreeSet::new(),
            positions: None,
            seen: Seen::default(),
            piles: filled.map(piled).collect(),
            sending: JoinSet::new(),
            look_again: None,
            is_keeper: watch::Sender::new(false),
        }
    }

    /// Whether the first partition is written here.
    pub fn is_keeper(&self) -> watch::Receiver<bool> {
        self.is_keeper.subscribe()
    }

    /// Works until `shutdown`, and then commits what was read.
    ///
    /// # Errors
    /// When the log was closed.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), HistoryError> {
        let result = self.work(&shutdown).await;
        let last = tokio::time::timeout(LAST_COMMITS, async {
            while let Some(sent) = self.sending.join_next().await {
                self.sent(sent);
            }
            self.send_due(true);
            while let Some(sent) = self.sending.join_next().await {
                self.sent(sent);
            }
        });
        // What is not committed by then is read again.
        drop(last.await);
        result
    }

    async fn work(&mut self, shutdown: &CancellationToken) -> Result<(), HistoryError> {
        let mut reader: Option<Box<dyn Reader>> = None;
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            if self.positions.is_none() && self.sending.is_empty() && !self.wanted.is_empty() {
                reader = self.begin(&mut backoff, shutdown).await;
            }
            self.send_due(false);
            let (may_read, wait) = (self.has_room(), self.until_due());
            let next = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                wanted = self.membership.next() => Next::Wanted(wanted),
                Some(sent) = self.sending.join_next() => Next::Sent(Box::new(sent)),
                batch = read(&mut reader, wait), if may_read => Next::Batch(batch),
                () = tokio::time::sleep(PATIENCE) => Next::Tick,
            };
            match next {
                Next::Wanted(Ok(wanted)) => {
                    tracing::info!(partitions = ?wanted, "the history of these partitions is written here now");
                    self.sender.metrics.owned.set(i64::try_from(wanted.len()).unwrap_or(i64::MAX));
                    self.is_keeper.send_replace(wanted.contains(&0));
                    self.wanted = wanted;
                    self.forget();
                    reader = None;
                    if self.wanted.is_empty() {
                        self.sender.health.ready(PART);
                    }
                }
                Next::Wanted(Err(source)) => return Err(HistoryError::Membership { source }),
                Next::Sent(sent) => {
                    if !self.sent(*sent) {
                        self.forget();
                        reader = None;
                    }
                }
                Next::Batch(Ok(batch)) => {
                    backoff.reset();
                    self.take(batch);
                }
                Next::Batch(Err(error)) => {
                    self.fault("reading", &error, &mut backoff, shutdown).await;
                    self.forget();
                    reader = None;
                }
                Next::Tick => {}
            }
            if self.look_again.is_some_and(|at| at <= Instant::now()) {
                self.look_again = None;
                self.forget();
                reader = None;
            }
        }
    }

    /// Looks up where to read on, and begins. Gives none when that cannot be had now.
    async fn begin(&mut self, backoff: &mut Backoff, shutdown: &CancellationToken) -> Option<Box<dyn Reader>> {
        let positions = match Positions::read(&self.sender.lake, &self.sender.log_id, &self.wanted).await {
            Ok(positions) => positions,
            Err(error) => {
                self.fault("looking up where to read on", &error, backoff, shutdown).await;
                return None;
            }
        };
        let events = self.sender.lake.table(Table::Events);
        self.seen = match Seen::read(events, &self.wanted, (self.clock)()).await {
            Ok(seen) => seen,
            Err(error) => {
                self.fault("looking up which events came last", &error, backoff, shutdown).await;
                return None;
            }
        };
        let start = match positions.start(self.bus.as_ref()).await {
            Ok(start) => start,
            Err(error) => {
                self.fault("looking up what the log has", &error, backoff, shutdown).await;
                return None;
            }
        };
        if start.missed > 0 {
            self.sender.metrics.missed.inc_by(start.missed);
            tracing::error!(records = start.missed, "the log has deleted records that were not read yet");
        }
        let reader = match self.bus.read(&start.from).await {
            Ok(reader) => reader,
            Err(error) => {
                self.fault("reading", &error, backoff, shutdown).await;
                return None;
            }
        };
        if start.too_short.is_empty() {
            self.sender.health.ready(PART);
            self.look_again = None;
        } else {
            let told = start.too_short.join("; ");
            tracing::error!(%told, "the log is not the one that the tables were filled from; was a topic made anew?");
            self.sender.health.not_ready(PART, format!("{told}: if the topic was made anew, name another history.url"));
            self.look_again = Some(Instant::now() + LOOK_AGAIN);
        }
        // As of these states the tables say so.
        for (table, piled) in &mut self.piles {
            piled.base = Some(self.sender.lake.table(*table).newest());
        }
        self.positions = Some(positions);
        Some(reader)
    }

    /// What is in the piles, and where to read on, holds no more.
    fn forget(&mut self) {
        self.positions = None;
        for piled in self.piles.values_mut() {
            piled.pile.clear();
            piled.base = None;
        }
    }

    fn take(&mut self, batch: Batch) {
        self.sender.metrics.damaged.inc_by(batch.damaged);
        let now = Instant::now();
        for record in batch.records {
            let Some(table) = Table::of_topic(record.topic) else { continue };
            if table == Table::Events && self.is_repeat(&record) {
                self.sender.metrics.repeats.inc();
                continue;
            }
            let Some(piled) = self.piles.get_mut(&table) else { continue };
            let (topic, partition, offset) = (record.topic, record.partition, record.offset);
            if !piled.pile.add(record, now) {
                tracing::warn!(topic = topic.suffix(), partition, offset, "a record cannot be read and is set aside");
            }
        }
        let Some(positions) = &self.positions else { return };
        for at in batch.next {
            let Some(table) = Table::of_topic(at.topic) else { continue };
            let (Some(from), Some(piled)) = (positions.of(table, at.partition), self.piles.get_mut(&table)) else {
                continue;
            };
            piled.pile.reach(at.partition, from, at.offset);
        }
        for (table, piled) in &self.piles {
            let waiting = i64::try_from(piled.pile.len()).unwrap_or(i64::MAX);
            self.sender.metrics.waiting.get_or_create(&TableLabel { table: table.name() }).set(waiting);
        }
    }

    fn is_repeat(&mut self, record: &Record) -> bool {
        let Some(id) = record.value.as_deref().and_then(super::seen::event_id) else { return false };
        self.seen.is_repeat(record.partition, &id)
    }

    /// Sends the piles that are due; all of them, at the end.
    fn send_due(&mut self, all: bool) {
        if self.positions.is_none() {
            return;
        }
        let now = Instant::now();
        for (table, piled) in &mut self.piles {
            let Some(since) = piled.pile.since().filter(|_| !piled.is_sending) else { continue };
            let is_due = now.duration_since(since) >= self.commit_interval || piled.pile.is_full(self.commit_records);
            if !is_due && !all {
                continue;
            }
            match piled.pile.take() {
                Ok(taken) => {
                    piled.is_sending = true;
                    let parcel = Parcel { table: *table, taken, base: piled.base.take(), since };
                    self.sending.spawn(Arc::clone(&self.sender).send(parcel));
                }
                Err(error) => {
                    tracing::error!(table = table.name(), %error, "rows cannot be put together; reading them again");
                    self.look_again = Some(now);
                }
            }
        }
    }

    /// A commit ended. Gives false when what the piles rest on holds no more.
    fn sent(&mut self, sent: Result<Sent, JoinError>) -> bool {
        let sent = match sent {
            Ok(sent) => sent,
            Err(error) => {
                tracing::error!(%error, "a commit ended without a word; looking up what came of it");
                for piled in self.piles.values_mut() {
                    piled.is_sending = false;
                }
                self.sending.abort_all();
                return false;
            }
        };
        let Some(piled) = self.piles.get_mut(&sent.table) else { return true };
        piled.is_sending = false;
        let Some(state) = sent.state else {
            tracing::info!(
                table = sent.table.name(),
                "somebody else has written these records; looking up where to go on"
            );
            return false;
        };
        // After a change of what is wanted, positions are looked up anew.
        if let Some(positions) = &mut self.positions {
            for (partition, claim) in &sent.claims {
                positions.set(sent.table, *partition, claim.next);
            }
            piled.pile.rest_on(&sent.claims);
            piled.base = Some(state);
        }
        true
    }

    fn has_room(&self) -> bool {
        self.positions.is_some() && !self.piles.values().any(|piled| piled.pile.is_full(self.commit_records))
    }

    /// How long until the oldest record is to be committed.
    fn until_due(&self) -> Duration {
        let oldest = self.piles.values().filter(|piled| !piled.is_sending).filter_map(|piled| piled.pile.since()).min();
        oldest.map_or(PATIENCE, |since| self.commit_interval.saturating_sub(since.elapsed()).min(PATIENCE))
    }

    async fn fault(
        &mut self,
        doing: &str,
        error: &(dyn std::error::Error + Send + Sync),
        backoff: &mut Backoff,
        shutdown: &CancellationToken,
    ) {
        let (error, pause) = (error_line(error), backoff.pause());
        tracing::warn!(%error, retry_ms = pause.as_millis(), "{doing} failed; trying again");
        self.sender.health.not_ready(PART, format!("{doing} fails: {error}"));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The next batch; never, without a reader.
async fn read(reader: &mut Option<Box<dyn Reader>>, wait: Duration) -> Result<Batch, BusError> {
    match reader {
        Some(reader) => reader.next(wait).await,
        None => std::future::pending().await,
    }
}
