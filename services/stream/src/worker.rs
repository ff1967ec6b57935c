//! The loop around the partitions: read, apply, commit states and positions together.

use crate::announce::Announcer;
use crate::checkpoint::Checkpoints;
use crate::checkpointing::Checkpointing;
use crate::config::StreamConfig;
use crate::due::Due;
use crate::in_force::{InForce, Made, Making};
use crate::inspections::{InspectionRequest, Inspections, MAX_A_BATCH};
use crate::metrics::{Metrics, PartitionLabel};
use crate::observations::Observation;
use crate::output::{Decided, Output};
use crate::rule_files::RuleFiles;
use crate::service::{Clock, StreamError};
use crate::settings::{Settings, SettingsFeed};
use crate::sharing::{Taken, TakingOver};
use crate::steps::{Decisions, Steps};
use crate::take_over::Owned;
use bytes::Bytes;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_bus::{Batch, Bus, BusError, Membership, Message, ReadFrom, Reader, Record, Topic};
use tidegate_detect::Rules;
use tidegate_domain::AccountState;
use tidegate_proto::state_to_proto;
use tidegate_runtime::backoff::Backoff;
use tidegate_runtime::shutdown::CancellationToken;
use tidegate_runtime::traces::Tracer;
use tidegate_runtime::{Health, error_line};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

/// How long a passing fault of the log is waited out, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How long to wait for events between two blocks of a checkpoint, at most.
const COPY_INTERVAL: Duration = Duration::from_millis(5);
/// Name of this service in readiness reports.
pub(crate) const PART: &str = "stream";

pub(crate) struct Worker {
    pub bus: Arc<dyn Bus>,
    pub config: StreamConfig,
    pub files: RuleFiles,
    /// The rules as their file has them.
    pub file_rules: Rules,
    /// What administrators have set.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Reads it until the worker runs.
    pub settings_feed: Option<SettingsFeed>,
    pub in_force: InForce,
    pub making: Making,
    pub announcer: Announcer,
    pub inspections: Inspections,
    pub metrics: Metrics,
    pub tracer: Tracer,
    /// Where windows are written down; none: nowhere.
    pub checkpoints: Option<Checkpoints>,
    pub health: Health,
    pub clock: Clock,
    pub partitions: BTreeMap<u32, Owned>,
    /// Says which partitions are to be owned; none: those of the configuration, taken over at the start.
    pub membership: Option<Box<dyn Membership>>,
    /// The partitions that are to be owned.
    pub wanted: BTreeSet<u32>,
    pub taking_over: TakingOver,
}

impl Worker {
    /// Works until `shutdown`, or until all partitions of the configuration went to other owners.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), StreamError> {
        let mut beside = JoinSet::new();
        beside.spawn(self.announcer.clone().run());
        beside.spawn(self.inspections.writer(self.bus.clone()));
        if let Some(settings) = self.settings_feed.take() {
            beside.spawn(settings.follow());
        }
        let result = self.work(&shutdown).await;
        beside.abort_all();
        for number in self.partitions.keys().copied().collect::<Vec<_>>() {
            self.let_go(number).await;
        }
        result
    }

    async fn work(&mut self, shutdown: &CancellationToken) -> Result<(), StreamError> {
        self.announce();
        let mut membership = self.membership.take();
        let mut reader: Option<Box<dyn Reader>> = None;
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut due = Due::new(&self.config);
        loop {
            if membership.is_none() && self.partitions.is_empty() {
                return Err(StreamError::AllFenced);
            }
            if reader.is_none() && !self.partitions.is_empty() {
                match self.bus.read(&self.positions()).await {
                    Ok(opened) => reader = Some(opened),
                    Err(error) => {
                        self.fault("reading", &error, &mut backoff, shutdown).await;
                        if shutdown.is_cancelled() {
                            return Ok(());
                        }
                        continue;
                    }
                }
            }
            let patience = self.patience();
            let next = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                wanted = assignment(&mut membership) => Next::Wanted(wanted),
                made = self.making.next() => Next::Made(made),
                Ok(()) = self.settings.changed() => Next::Settings,
                taken = self.taking_over.next() => Next::Taken(Box::new(taken)),
                batch = read(&mut reader, patience) => Next::Batch(batch),
            };
            match next {
                Next::Wanted(Ok(wanted)) => {
                    self.share(wanted).await;
                    reader = None;
                }
                Next::Taken(taken) => {
                    if self.taken_over(*taken)? {
                        reader = None;
                    }
                }
                Next::Made(made) => self.made(made)?,
                Next::Settings => self.make_anew(),
                Next::Wanted(Err(source)) => return Err(StreamError::Membership { source }),
                Next::Batch(Ok(batch)) => {
                    backoff.reset();
                    self.metrics.damaged.inc_by(batch.damaged);
                    if self.take(batch.records, &batch.next, shutdown).await? {
                        // A partition went to another owner: read on without it.
                        reader = None;
                    }
                }
                Next::Batch(Err(error)) => {
                    reader = None;
                    self.fault("reading", &error, &mut backoff, shutdown).await;
                }
            }
            if self.when_due(&mut due, membership.is_some(), shutdown).await? {
                reader = None;
            }
        }
    }

    fn positions(&self) -> Vec<ReadFrom> {
        let each = self.partitions.iter().flat_map(|(&partition, owned)| {
            let at = |topic, offset| ReadFrom { topic, partition, offset };
            [at(Topic::Events, owned.events_next), at(Topic::Commands, owned.commands_next)]
        });
        each.collect()
    }

    /// Applies what was read and commits what follows from it. Gives whether a partition was lost.
    async fn take(
        &mut self,
        records: Vec<Record>,
        next: &[ReadFrom],
        shutdown: &CancellationToken,
    ) -> Result<bool, StreamError> {
        let steps = Steps::begin(&self.tracer, &records);
        let mut by_partition: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        for record in records {
            by_partition.entry(record.partition).or_default().push(record);
        }
        let mut outputs = Vec::new();
        for (number, records) in by_partition {
            let Some(owned) = self.partitions.get_mut(&number) else { continue };
            let began = Instant::now();
            let mut output = Output::default();
            for run in records.chunk_by(|a, b| a.topic == b.topic) {
                if run[0].topic == Topic::Events {
                    output.add(owned.core.events(run)?);
                } else {
                    for record in run {
                        output.add(owned.core.command(record));
                        self.metrics.commands.inc();
                    }
                }
            }
            self.metrics.batch_seconds.observe(began.elapsed().as_secs_f64());
            self.metrics.count(&output);
            output.told.iter().for_each(tell);
            outputs.push((number, output));
        }
        steps.end(&self.tracer);
        for at in next {
            if let Some(owned) = self.partitions.get_mut(&at.partition) {
                match at.topic {
                    Topic::Events => owned.events_next = at.offset,
                    Topic::Commands => owned.commands_next = at.offset,
                    Topic::Accounts
                    | Topic::Audit
                    | Topic::Rules
                    | Topic::Settings
                    | Topic::Inspections
                    | Topic::Notifications => {}
                }
                owned.moved = true;
            }
        }
        self.report_readiness();
        let mut lost = false;
        let mut inspections_left = MAX_A_BATCH;
        for (number, mut output) in outputs {
            let asked = std::mem::take(&mut output.inspections);
            if !output.states.is_empty() {
                lost |= !self.commit(number, &output, &steps, shutdown).await?;
            }
            self.answer(number, asked, &mut inspections_left);
        }
        Ok(lost)
    }

    /// Answers who asks for statistics of a partition's accounts.
    fn answer(&self, number: u32, asked: Vec<InspectionRequest>, left: &mut usize) {
        let Some(owned) = self.partitions.get(&number).filter(|_| !asked.is_empty()) else { return };
        let now_ms = (self.clock)();
        let is_ready = owned.events_next >= owned.ready_at;
        for request in self.inspections.due(asked, now_ms, is_ready, left) {
            match owned.core.inspect(&request, now_ms) {
                Ok(answer) => self.inspections.answer(&answer),
                Err(error) => {
                    self.inspections.count("failed");
                    tracing::error!(account = %request.account, error = %error_line(&error), "could not look at an account");
                }
            }
        }
    }

    /// Commits states and positions of one partition, waiting out faults. Gives false when it has another owner now.
    async fn commit(
        &mut self,
        number: u32,
        output: &Output,
        steps: &Steps,
        shutdown: &CancellationToken,
    ) -> Result<bool, StreamError> {
        let newest = output.newest_states();
        let decisions = Decisions::begin(&self.tracer, number, &newest, steps);
        let message = |(index, decided): (usize, &Decided<'_>)| {
            (Topic::Accounts, state_message(decided.state).with_trace(decisions.step(index)))
        };
        let messages: Vec<(Topic, Message)> = newest.iter().enumerate().map(message).collect();
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let Some(owned) = self.partitions.get_mut(&number) else { return Ok(false) };
            let began = Instant::now();
            match owned.owner.commit(messages.clone(), owned.positions()).await {
                Ok(_) => {
                    owned.moved = false;
                    if let Some(checkpointing) = &mut owned.checkpointing {
                        checkpointing.is_owner();
                    }
                    self.metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
                    decisions.end(&self.tracer, number, &newest);
                    for (state, change) in output.states.iter().zip(&output.changes) {
                        tracing::info!(account = %state.account, status = state.status.as_str(), change = ?change,
                            lock = state.status.lock().map(|lock| lock.id.as_str()), "published");
                    }
                    return Ok(true);
                }
                Err(BusError::Fenced { .. }) => {
                    tracing::warn!(partition = number, "another worker owns the partition now");
                    self.partitions.remove(&number);
                    self.metrics.forget(number);
                    self.announcer.forget(number);
                    return Ok(false);
                }
                Err(error) => {
                    self.metrics.commit_failures.inc();
                    self.fault("committing", &error, &mut backoff, shutdown).await;
                    if shutdown.is_cancelled() {
                        return Err(StreamError::Commit { partition: number, source: error });
                    }
                }
            }
        }
    }

    /// What is done now and then. Gives whether partitions came or went.
    async fn when_due(
        &mut self,
        due: &mut Due,
        shares: bool,
        shutdown: &CancellationToken,
    ) -> Result<bool, StreamError> {
        let now = Instant::now();
        let mut changed = false;
        if shares && due.regain.is_due(now) && self.partitions.len() < self.wanted.len() {
            self.take_over_missing();
        }
        changed |= self.tick(now, due.tick.is_due(now), shutdown).await?;
        if due.reload.is_due(now) {
            self.reload();
        }
        if due.announce.is_due(now) {
            for (&partition, owned) in &mut self.partitions {
                if owned.core.activity.take_changed() {
                    self.announcer.tell(partition, &self.in_force, &owned.core.activity);
                }
            }
        }
        if due.measure.is_due(now) {
            for (&partition, owned) in &self.partitions {
                self.metrics.partition(partition, &owned.core);
                if let Ok(bounds) = self.bus.bounds(Topic::Events, partition).await {
                    let lag = bounds.next.saturating_sub(owned.events_next);
                    self.metrics.lag.get_or_create(&PartitionLabel { partition }).set(lag.cast_signed());
                }
            }
        }
        Ok(changed)
    }

    /// Ends locks whose time has passed, in all partitions or in those that write a checkpoint: only then it is known
    /// which clean slates the windows have in them. Gives whether a partition was lost.
    async fn tick(&mut self, now: Instant, all: bool, shutdown: &CancellationToken) -> Result<bool, StreamError> {
        let now_ms = (self.clock)();
        let mut lost = false;
        for number in self.partitions.keys().copied().collect::<Vec<u32>>() {
            let Some(owned) = self.partitions.get_mut(&number) else { continue };
            let writes = owned.checkpointing.as_ref().is_some_and(|checkpointing| checkpointing.has_work(now));
            if !all && !writes {
                continue;
            }
            let output = owned.core.tick(now_ms);
            self.metrics.count(&output);
            if (owned.moved || !output.states.is_empty())
                && !self.commit(number, &output, &Steps::default(), shutdown).await?
            {
                lost = true;
            } else if let Some(owned) = self.partitions.get_mut(&number).filter(|_| writes)
                && let Some(checkpointing) = &mut owned.checkpointing
            {
                checkpointing.step(&mut owned.core, owned.events_next, now, now_ms);
            }
        }
        Ok(lost)
    }

    /// How long to wait for events: not long while a checkpoint is being copied.
    fn patience(&self) -> Duration {
        let mut all = self.partitions.values().filter_map(|owned| owned.checkpointing.as_ref());
        let is_collecting = all.any(Checkpointing::is_collecting);
        if is_collecting { COPY_INTERVAL } else { Duration::from_millis(self.config.commit_interval_ms) }
    }

    /// Tells on the topic `rules` what is in force here.
    pub fn announce(&mut self) {
        for (&partition, owned) in &mut self.partitions {
            owned.core.activity.take_changed();
            self.announcer.tell(partition, &self.in_force, &owned.core.activity);
        }
    }

    /// Waits out a passing fault, longer each time.
    async fn fault(&self, doing: &str, error: &BusError, backoff: &mut Backoff, shutdown: &CancellationToken) {
        let (error, pause) = (error_line(error), backoff.pause());
        tracing::warn!(%error, retry_ms = pause.as_millis(), "{doing} failed; trying again");
        self.health.not_ready(PART, format!("{doing} fails: {error}"));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What a worker waits for.
enum Next {
    Wanted(Result<BTreeSet<u32>, BusError>),
    Taken(Box<Result<Taken, JoinError>>),
    Made(Result<Made, JoinError>),
    Settings,
    Batch(Result<Batch, BusError>),
}

/// The next change of the partitions that are to be owned; never, where they are configured.
async fn assignment(membership: &mut Option<Box<dyn Membership>>) -> Result<BTreeSet<u32>, BusError> {
    match membership {
        Some(membership) => membership.next().await,
        None => std::future::pending().await,
    }
}

/// The next batch; without a reader an empty one when `wait` has passed.
async fn read(reader: &mut Option<Box<dyn Reader>>, wait: Duration) -> Result<Batch, BusError> {
    let Some(reader) = reader else {
        tokio::time::sleep(wait).await;
        return Ok(Batch::default());
    };
    reader.next(wait).await
}

fn tell(observation: &Observation) {
    let columns = observation.evidence.iter().map(|one| format!("{} = {:.3}", one.column, one.value));
    let evidence = columns.collect::<Vec<_>>().join(", ");
    tracing::info!(account = %observation.account, rule = observation.rule, evidence, "{}", observation.reason);
}

fn state_message(state: &AccountState) -> Message {
    Message::new(
        Bytes::copy_from_slice(state.account.as_str().as_bytes()),
        Some(state_to_proto(state).encode_to_vec().into()),
    )
}
