//! One commit on its way: files are written, and the commit is made, again and again until it is in the table once.

use super::pile::{Claim, Taken};
use super::positions::{app, reached};
use crate::files::write_sorted;
use crate::lake::{Committed, Lake, LakeError, LakeTable};
use crate::metrics::{Metrics, TableLabel};
use crate::tables::{Rejected, Table};
use arrow::record_batch::RecordBatch;
use deltalake::kernel::{Action, Add};
use deltalake::table::state::DeltaTableState;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_bus::Topic;
use tidegate_runtime::backoff::Backoff;
use tidegate_runtime::{Health, error_line};

/// How long a fault of the store is waited out, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Name of the store in readiness reports.
pub(crate) const STORE: &str = "history-store";

/// What is to be committed to one table.
pub(crate) struct Parcel {
    pub table: Table,
    pub taken: Taken,
    /// A state of the table as of which it says what the parcel rests on; none: that is to be looked up.
    pub base: Option<DeltaTableState>,
    /// Since when the oldest record waits.
    pub since: Instant,
}

/// What it takes to send one.
pub(crate) struct Sender {
    pub lake: Lake,
    pub log_id: String,
    pub metrics: Metrics,
    pub health: Health,
    /// How long files may lie about before they are committed: later they would be vacuumed.
    pub files_last: Duration,
    /// How long one attempt may take.
    pub attempt_wait: Duration,
}

/// How it ended.
pub(crate) struct Sent {
    pub table: Table,
    pub claims: BTreeMap<u32, Claim>,
    /// The table's state with the commit; none: it says something else than the parcel rests on.
    pub state: Option<DeltaTableState>,
}

/// One commit of records of one topic.
struct Commit<'a> {
    sender: &'a Sender,
    table: &'a Arc<LakeTable>,
    topic: Topic,
    rows: RecordBatch,
    claims: &'a BTreeMap<u32, Claim>,
    /// The files, when they are written, and since when.
    added: Option<(Vec<Add>, Instant)>,
    base: Option<DeltaTableState>,
}

/// How an attempt ended.
enum Attempt {
    Done(DeltaTableState),
    Overtaken,
    /// Something came first that may not matter.
    Again,
}

impl Sender {
    /// Commits a parcel; does not give up, unless it is overtaken.
    pub async fn send(self: Arc<Self>, parcel: Parcel) -> Sent {
        let Parcel { table: kind, taken, base, since } = parcel;
        let Taken { rows, rejected, claims } = taken;
        let Some(topic) = kind.topic() else { return Sent { table: kind, claims, state: None } };
        if !rejected.is_empty() && !self.set_aside(topic, rejected, &claims).await {
            return Sent { table: kind, claims, state: None };
        }
        let count = rows.num_rows() as u64;
        let commit = Commit::new(&self, self.lake.table(kind), topic, rows, &claims, base);
        let state = commit.make().await;
        if state.is_some() {
            let label = TableLabel { table: kind.name() };
            self.metrics.rows.get_or_create(&label).inc_by(count);
            self.metrics.commits.get_or_create(&label).inc();
            self.metrics.age_seconds.get_or_create(&label).observe(since.elapsed().as_secs_f64());
        }
        Sent { table: kind, claims, state }
    }

    /// Writes down what could not be read, before the commit that goes past it. Gives false when it is overtaken.
    async fn set_aside(&self, topic: Topic, rejected: Vec<Rejected>, claims: &BTreeMap<u32, Claim>) -> bool {
        let table = self.lake.table(Table::Rejected);
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            // After a crash between the two commits they are there already.
            let known = match self.numbers(table, topic, claims).await {
                Ok(known) => known,
                Err(error) => {
                    self.fault(table, &error, &mut backoff).await;
                    continue;
                }
            };
            let mut rows = Table::Rejected.rows();
            let mut left = BTreeMap::new();
            for one in &rejected {
                let partition = one.record.partition;
                let (Some(claim), Some(&from)) = (claims.get(&partition), known.get(&partition)) else { continue };
                if from.is_none_or(|from| one.record.offset >= from) {
                    one.add(&mut rows);
                    left.insert(partition, Claim { from, next: claim.next });
                }
            }
            let count = rows.len() as u64;
            if count == 0 {
                return true;
            }
            let Ok(batch) = rows.take() else { return false };
            if Commit::new(self, table, topic, batch, &left, None).make().await.is_some() {
                self.metrics.rejected.get_or_create(&TableLabel { table: topic.suffix() }).inc_by(count);
                return true;
            }
            // By somebody with the same partitions: what he wrote is known in the next round.
        }
    }

    /// What the table says of the claims' partitions, now.
    async fn numbers(
        &self,
        table: &LakeTable,
        topic: Topic,
        claims: &BTreeMap<u32, Claim>,
    ) -> Result<BTreeMap<u32, Option<u64>>, LakeError> {
        reached(table, &self.log_id, topic, claims.keys().copied()).await
    }

    async fn fault(&self, table: &LakeTable, error: &LakeError, backoff: &mut Backoff) {
        let (pause, error) = (backoff.pause(), error_line(error));
        let name = table.table().name();
        self.metrics.commit_failures.get_or_create(&TableLabel { table: name }).inc();
        self.health.not_ready(STORE, format!("writing to the table {name} fails: {error}"));
        tracing::warn!(table = name, %error, retry_ms = pause.as_millis(), "a commit failed; trying again");
        tokio::time::sleep(pause).await;
    }
}

impl<'a> Commit<'a> {
    fn new(
        sender: &'a Sender,
        table: &'a Arc<LakeTable>,
        topic: Topic,
        rows: RecordBatch,
        claims: &'a BTreeMap<u32, Claim>,
        base: Option<DeltaTableState>,
    ) -> Self {
        let added = (rows.num_rows() == 0).then(|| (Vec::new(), Instant::now()));
        Self { sender, table, topic, rows, claims, added, base }
    }

    /// Writes the files, once, and commits them. Gives the table's state with the commit; none: it is overtaken.
    async fn make(mut self) -> Option<DeltaTableState> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let (began, name) = (Instant::now(), self.table.table().name());
        loop {
            let attempt = tokio::time::timeout(self.sender.attempt_wait, self.attempt()).await;
            match attempt.unwrap_or(Err(LakeError::Slow { table: name, after: self.sender.attempt_wait })) {
                Ok(Attempt::Done(state)) => {
                    self.sender.health.ready(STORE);
                    let label = TableLabel { table: name };
                    let seconds = began.elapsed().as_secs_f64();
                    self.sender.metrics.commit_seconds.get_or_create(&label).observe(seconds);
                    return Some(state);
                }
                Ok(Attempt::Overtaken) => return None,
                Ok(Attempt::Again) => self.base = None,
                Err(error) => {
                    // Whether it is in the table is not known: that is looked up first.
                    self.base = None;
                    self.sender.fault(self.table, &error, &mut backoff).await;
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<Attempt, LakeError> {
        let is_old = |since: Instant| since.elapsed() > self.sender.files_last;
        if self.added.as_ref().is_none_or(|(files, since)| !files.is_empty() && is_old(*since)) {
            let began = Instant::now();
            self.added = Some((write_sorted(self.table, &self.rows).await?, began));
        }
        let mut state = if let Some(base) = self.base.take() {
            base
        } else {
            let known = self.sender.numbers(self.table, self.topic, self.claims).await?;
            let state = self.table.newest();
            if self.claims.iter().all(|(partition, claim)| known.get(partition) == Some(&Some(claim.next))) {
                return Ok(Attempt::Done(state));
            }
            if self.claims.iter().any(|(partition, claim)| known.get(partition) != Some(&claim.from)) {
                return Ok(Attempt::Overtaken);
            }
            state
        };
        let actions = self.added.iter().flat_map(|(files, _)| files).cloned().map(Action::Add).collect();
        let number = |(partition, claim): (&u32, &Claim)| {
            (app(&self.sender.log_id, self.topic, *partition), claim.next.cast_signed())
        };
        match self.table.append(&mut state, actions, self.claims.iter().map(number).collect()).await? {
            Committed::Done => Ok(Attempt::Done(state)),
            Committed::Overtaken => Ok(Attempt::Again),
        }
    }
}
