//! The core of one partition, sans-IO: records in, states to publish out.

use crate::activity::Activity;
use crate::checkpoint::{Covered, EventPlace, LaneMark};
use crate::inspections::{InspectionRequest, answer_message};
use crate::observations::Observations;
use crate::output::{Counts, Origin, Output};
use crate::senders::Senders;
use crate::settings::DomainExemptions;
use arrow::error::ArrowError;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tidegate_bus::{Record, partition_of};
use tidegate_detect::{AccountMatches, Engine, EngineError, EventBatchBuilder, Rules, Taken};
use tidegate_domain::{Account, AccountState, Action, Effect, Event, Input, Lane, Match, Sightings, apply};
use tidegate_proto::{Asked, DecodeError, asked_from_proto, event_from_proto, state_from_proto, v1};

/// How far an edge's clock may be ahead of the log's before its events are moved back to it.
const CLOCK_AHEAD_MS: i64 = 2_000;
/// Most lanes (two for each node) that a partition tells apart.
const MAX_LANES: usize = 100_000;

/// One partition: its windows, its account states, and how far it has read.
#[derive(Debug)]
pub struct Partition {
    number: u32,
    /// How many there are.
    partitions: u32,
    engine: Engine,
    builder: EventBatchBuilder,
    states: HashMap<Account, AccountState>,
    /// Accounts whose lock ends by itself, by its end.
    ends: BTreeSet<(i64, Account)>,
    /// Domains that rules pass by.
    exemptions: Arc<DomainExemptions>,
    observations: Observations,
    senders: Senders,
    /// What the rules did lately.
    pub(crate) activity: Activity,
    /// Highest sequence seen for each node and lane.
    lanes: HashMap<(String, Lane), u64>,
    /// Events before this were decided upon in an earlier life.
    decided_to: u64,
    /// Highest offset of events that was read.
    events_read_to: Option<u64>,
    /// The log's time of that event.
    read_to_ms: i64,
    /// Locks that ended until then are ended.
    ticked_ms: i64,
}

/// Why the core could not go on.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// The engine failed.
    #[error("the engine of partition {partition} failed")]
    Engine {
        /// The partition.
        partition: u32,
        /// Why.
        #[source]
        source: EngineError,
    },
    /// A batch could not be built.
    #[error("building a batch of events for partition {partition}")]
    Batch {
        /// The partition.
        partition: u32,
        /// Why.
        #[source]
        source: ArrowError,
    },
}

impl Partition {
    /// A partition of which nothing was read yet. Events before `decided_to` will only fill windows.
    pub fn new(number: u32, engine: Engine, decided_to: u64) -> Self {
        let mut activity = Activity::default();
        activity.follow(engine.rules());
        Self {
            number,
            partitions: 1,
            engine,
            builder: EventBatchBuilder::new(),
            states: HashMap::new(),
            ends: BTreeSet::new(),
            exemptions: Arc::default(),
            observations: Observations::default(),
            senders: Senders::default(),
            activity,
            lanes: HashMap::new(),
            decided_to,
            events_read_to: None,
            read_to_ms: 0,
            ticked_ms: i64::MIN,
        }
    }

    /// The same as one of so many partitions: an account that belongs to another one is left out. Its state could never
    /// be written here, and would keep all others from being written.
    #[must_use]
    pub fn among(self, partitions: u32) -> Self {
        Self { partitions, ..self }
    }

    /// Goes on where a checkpoint ended, of which the engine was made. All states have to be there already: what a
    /// clean slate has made void since is forgotten.
    pub fn resume(&mut self, covered: Covered) {
        let Covered { events_next, last_event, ticked_ms, lanes } = covered;
        for (account, state) in &self.states {
            let Some(slate) = state.clean_slate else { continue };
            if slate.event_offset.is_some_and(|clean| clean.saturating_add(1) >= events_next) {
                self.engine.forget(account);
            } else if slate.event_offset.is_none() || slate.time_ms > ticked_ms {
                self.engine.forget_up_to(account, slate.time_ms);
            }
        }
        self.lanes =
            lanes.into_iter().take(MAX_LANES).map(|mark| ((mark.node, lane_of(mark.spooled)), mark.sequence)).collect();
        self.decided_to = self.decided_to.max(events_next);
        self.events_read_to = events_next.checked_sub(1);
        self.read_to_ms = last_event.map_or(0, |last| last.time_ms);
        self.ticked_ms = ticked_ms;
    }

    /// What the windows stand for, when every event before `events_next` was read.
    pub fn covered(&self, events_next: u64) -> Covered {
        let mark = |((node, lane), sequence): (&(String, Lane), &u64)| LaneMark {
            node: node.clone(),
            spooled: *lane == Lane::Spooled,
            sequence: *sequence,
        };
        let mut lanes: Vec<LaneMark> = self.lanes.iter().map(mark).collect();
        lanes.sort_unstable();
        let last_event = self.events_read_to.map(|offset| EventPlace { offset, time_ms: self.read_to_ms });
        Covered { events_next, last_event, ticked_ms: self.ticked_ms, lanes }
    }

    /// Begins to note which accounts change; see [`Engine::begin_changes`].
    pub fn begin_changes(&mut self, everything: bool) -> bool {
        self.engine.begin_changes(everything)
    }

    /// Copies what changed; see [`Engine::take_changes`].
    pub fn take_changes(&mut self, max_octets: usize, octets: &mut Vec<u8>) -> Taken {
        self.engine.take_changes(max_octets, octets)
    }

    /// Takes a record of `accounts`, before any event or command: the truth about states.
    ///
    /// # Errors
    /// When it is not a state; it is left out then.
    pub fn load_state(&mut self, record: &Record) -> Result<(), DecodeError> {
        match &record.value {
            Some(value) => {
                let state = state_from_proto(value)?;
                self.check_place(record, "AccountState", &state.account)?;
                self.keep(state);
            }
            None => {
                if let Some(account) = std::str::from_utf8(&record.key).ok().and_then(|key| Account::parse(key).ok()) {
                    self.states.remove(&account);
                }
            }
        }
        Ok(())
    }

    /// Takes records of `events`, in their order, and decides.
    ///
    /// # Errors
    /// When the engine fails; a record that is no event is counted and left out.
    pub fn events(&mut self, records: &[Record]) -> Result<Output, PartitionError> {
        let mut output = Output::default();
        for record in records {
            if self.events_read_to < Some(record.offset) {
                (self.events_read_to, self.read_to_ms) = (Some(record.offset), record.time_ms);
            }
            let event = record.value.as_deref().map(|value| {
                let event = event_from_proto(value)?;
                self.check_place(record, "Event", &event.account).map(|()| event)
            });
            match event {
                Some(Ok(event)) => self.push(record, &event, &mut output.counts),
                Some(Err(error)) => {
                    output.counts.rejected += 1;
                    tracing::warn!(partition = self.number, offset = record.offset, error = %error.to_line(), "left out a record that is no event");
                }
                None => output.counts.rejected += 1,
            }
        }
        if self.builder.is_empty() {
            return Ok(output);
        }
        let batch = self.builder.finish().map_err(|source| PartitionError::Batch { partition: self.number, source })?;
        let states = &self.states;
        let probation_until_ms = |account: &Account| states.get(account)?.probation_until_ms;
        let found = self
            .engine
            .process_with(&batch, probation_until_ms)
            .map_err(|source| PartitionError::Engine { partition: self.number, source })?;
        for AccountMatches { account, event_offset, at_ms, matches } in found {
            let is_exempt = |found: &Match| self.exemptions.cover(&account, &found.rule.name, at_ms);
            let (passed_by, matches): (Vec<Match>, Vec<Match>) = matches.into_iter().partition(is_exempt);
            let state = self.states.get(&account);
            let is_exempt = |found: &Match| state.is_some_and(|state| state.is_exempt(&found.rule.name, at_ms));
            for found in &passed_by {
                self.activity.note(&account, at_ms, found, true);
            }
            for found in &matches {
                self.activity.note(&account, at_ms, found, is_exempt(found));
            }
            output.observed.extend(passed_by.into_iter().map(|found| found.rule));
            let counting = matches.iter().filter(|found| !is_exempt(found));
            output.told.extend(self.observations.take_due(&account, at_ms, counting));
            let sightings = self.sightings(&account, &matches);
            self.apply(&account, Input::Matches { event_offset, at_ms, matches, sightings }, &mut output);
        }
        self.senders.end_batch();
        Ok(output)
    }

    /// Takes one record of `commands`.
    pub fn command(&mut self, record: &Record) -> Output {
        let mut output = Output::default();
        let decoded = record.value.as_deref().map(|value| {
            let found = asked_from_proto(value, record.offset, record.time_ms, self.events_read_to)?;
            self.check_place(record, "Command", &found.0).map(|()| found)
        });
        match decoded {
            Some(Ok((account, Asked::Change(command)))) => self.apply(&account, Input::Command(command), &mut output),
            Some(Ok((account, Asked::Inspect(inspect)))) => {
                output.inspections.push(InspectionRequest { account, inspect, asked_ms: record.time_ms });
            }
            Some(Err(error)) => {
                output.counts.rejected += 1;
                tracing::warn!(partition = self.number, offset = record.offset, error = %error.to_line(), "left out a record that is no command");
            }
            None => output.counts.rejected += 1,
        }
        output
    }

    /// Ends locks whose time has passed, and drops panes that no window reaches.
    pub fn tick(&mut self, now_ms: i64) -> Output {
        let mut output = Output::default();
        self.ticked_ms = self.ticked_ms.max(now_ms);
        while let Some((end, account)) = self.ends.first().cloned()
            && end <= now_ms
        {
            self.ends.remove(&(end, account.clone()));
            self.apply(&account, Input::Clock { now_ms }, &mut output);
        }
        self.engine.expire(now_ms);
        output
    }

    /// Puts other rules in force.
    ///
    /// # Errors
    /// When they were compiled for other statistics.
    pub fn set_rules(&mut self, rules: Rules) -> Result<(), PartitionError> {
        self.engine.set_rules(rules).map_err(|source| PartitionError::Engine { partition: self.number, source })?;
        self.activity.follow(self.engine.rules());
        Ok(())
    }

    /// Puts other exemptions of domains in force.
    pub fn set_exemptions(&mut self, exemptions: Arc<DomainExemptions>) {
        self.exemptions = exemptions;
    }

    /// The windows and rules.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// How many lanes it tells apart.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Looks at an account for somebody who asks; it changes nothing.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn inspect(&self, request: &InspectionRequest, now_ms: i64) -> Result<v1::Inspection, EngineError> {
        let account = &request.account;
        let until_ms = self.states.get(account).and_then(|state| state.probation_until_ms);
        let on_probation = until_ms.is_some_and(|until| now_ms < until);
        let points = usize::try_from(request.inspect.points).unwrap_or(usize::MAX);
        let found = self.engine.inspect(account, on_probation, now_ms, points)?;
        Ok(answer_message(request, now_ms, found, &self.senders.clients(account)))
    }

    /// How many accounts' client addresses were forgotten because there were too many.
    pub fn forgotten_senders(&self) -> u64 {
        self.senders.forgotten()
    }

    /// What a lock that these matches may ask for tells besides.
    fn sightings(&self, account: &Account, matches: &[Match]) -> Sightings {
        let refuses = |found: &Match| matches!(found.action, Action::Throttle { .. } | Action::Lock { .. });
        if !matches.iter().any(refuses) {
            return Sightings::default();
        }
        Sightings { clients: self.senders.clients(account), subjects: self.senders.subjects(account) }
    }

    /// The state of an account, if anything was ever decided about it.
    pub fn state(&self, account: &str) -> Option<&AccountState> {
        self.states.get(account)
    }

    /// Whether a record stands under its account's key, in its account's partition.
    fn check_place(&self, record: &Record, message: &'static str, account: &Account) -> Result<(), DecodeError> {
        let key = account.as_str().as_bytes();
        if record.key == key && partition_of(key, self.partitions) == self.number {
            return Ok(());
        }
        let value = format!("{account}, under another key or in another partition");
        Err(DecodeError::Value {
            message,
            field: "account",
            value,
            allowed: "the record's key, in the key's partition",
        })
    }

    fn push(&mut self, record: &Record, event: &Event, counts: &mut Counts) {
        if self.is_duplicate(event) {
            counts.duplicates += 1;
            return;
        }
        let Some(submission) = event.submission() else {
            counts.unused += 1;
            return;
        };
        let latest_ms = record.time_ms.saturating_add(CLOCK_AHEAD_MS);
        if event.time_ms > latest_ms {
            counts.clock_ahead += 1;
        }
        let at_ms = event.time_ms.min(latest_ms);
        if self.states.get(&event.account).is_some_and(|state| !state.counts(record.offset, at_ms)) {
            counts.void += 1;
            return;
        }
        let decides = record.offset >= self.decided_to;
        *(if decides { &mut counts.events } else { &mut counts.rebuilt }) += 1;
        self.senders.note(&event.account, at_ms, submission);
        self.builder.push(&event.account, record.offset, at_ms, submission, decides);
    }

    /// Within a partition each lane arrives in order, so a number at or below the highest seen is a repeat.
    fn is_duplicate(&mut self, event: &Event) -> bool {
        let lane = (event.id.node.clone(), event.id.lane);
        if let Some(highest) = self.lanes.get_mut(&lane) {
            if event.id.sequence <= *highest {
                return true;
            }
            *highest = event.id.sequence;
        } else if self.lanes.len() < MAX_LANES {
            self.lanes.insert(lane, event.id.sequence);
        }
        false
    }

    fn apply(&mut self, account: &Account, input: Input, output: &mut Output) {
        let state = self.states.remove(account).unwrap_or_else(|| AccountState::new(account.clone()));
        if let Some(end) = state.status.lock().and_then(|lock| lock.until_ms) {
            self.ends.remove(&(end, account.clone()));
        }
        let known = state.version > 0;
        let origin = match &input {
            Input::Matches { event_offset, .. } => Origin::Event(*event_offset),
            Input::Command(command) => Origin::Command(command.offset),
            Input::Clock { .. } => Origin::Time,
        };
        let (state, effects) = apply(state, input);
        let mut changed = None;
        for effect in effects {
            match effect {
                // Of several changes by one input the last names what it came to.
                Effect::Changed(change) => changed = Some(change),
                Effect::Observed(rule) => output.observed.push(rule),
                Effect::ForgetWindows => {
                    self.engine.forget(account);
                    self.senders.forget(account);
                }
            }
        }
        if let Some(change) = changed {
            output.changes.push(change);
            output.origins.push(origin);
            output.states.push(state.clone());
        }
        if known || changed.is_some() {
            self.keep(state);
        }
    }

    fn keep(&mut self, state: AccountState) {
        if let Some(end) = state.status.lock().and_then(|lock| lock.until_ms) {
            self.ends.insert((end, state.account.clone()));
        }
        if let Some(old) = self.states.insert(state.account.clone(), state.clone())
            && let (Some(old_end), new_end) =
                (old.status.lock().and_then(|lock| lock.until_ms), state.status.lock().and_then(|lock| lock.until_ms))
            && Some(old_end) != new_end
        {
            self.ends.remove(&(old_end, state.account));
        }
    }
}

fn lane_of(spooled: bool) -> Lane {
    if spooled { Lane::Spooled } else { Lane::Live }
}

/// `observe`, `notify`, `throttle` or `lock`, as rules files and metrics spell it.
pub(crate) fn action_name(action: Action) -> &'static str {
    match action {
        Action::Observe => "observe",
        Action::Notify => "notify",
        Action::Throttle { .. } => "throttle",
        Action::Lock { .. } => "lock",
    }
}
