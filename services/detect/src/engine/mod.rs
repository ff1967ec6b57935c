//! The engine: events in, matches out. It owns the panes of all accounts that it was shown.

mod bands;
mod changes;
mod image;
mod inspect;
mod judge;
mod judges;
mod read;
mod room;
mod store;
mod update;

pub use image::{LoadError, Loaded, Taken};
pub use inspect::{Inspection, LimitInForce, Series};
pub(crate) use read::ReadPlan;

use crate::event::EventBatch;
use crate::rules::{Rules, Variant};
use crate::statistics::Statistics;
use crate::window::{WINDOWS, slot_of};
use datafusion::common::DataFusionError;
use hashbrown::HashMap;
use judge::Case;
use judges::Judges;
use read::AsOf;
use store::{Id, Store};
use tidegate_domain::{Account, Action, Match};

/// Windowed statistics of many accounts, and the rules over them.
///
/// It is not tied to a partition: whoever runs one engine for each partition can hand over partitions one by one.
#[derive(Debug)]
pub struct Engine {
    statistics: Statistics,
    rules: Rules,
    limits: EngineLimits,
    store: Store,
    everything: ReadPlan,
    evicted: u64,
    too_old: u64,
}

/// Bounds of an [`Engine`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineLimits {
    /// Most accounts that it remembers between two batches; beyond, the least recently used ones are forgotten.
    pub max_accounts: usize,
    /// How many accounts one call of [`Engine::expire`] looks at.
    pub expire_step: usize,
    /// From so many panes on an account is busy: what its older panes add up to is kept.
    pub busy_panes: usize,
}

/// The rules that hold for an account after one of its events.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountMatches {
    /// The account.
    pub account: Account,
    /// Offset of the last event that was counted, among those that ask for a decision.
    pub event_offset: u64,
    /// The time as of which they hold, in milliseconds: the event's own, or, when a late event completed what holds
    /// now, the account's newest.
    pub at_ms: i64,
    /// In the order of the rule set, at least one.
    pub matches: Vec<Match>,
}

/// Size of an engine and what it had to leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineStats {
    /// Accounts with at least one pane.
    pub accounts: usize,
    /// Panes of all accounts.
    pub panes: usize,
    /// About how many octets of memory they take.
    pub octets: usize,
    /// Accounts forgotten because there were too many.
    pub evicted: u64,
    /// Events that were too old for every window.
    pub too_old: u64,
}

/// Why the engine could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The events could not be added; the windows are as they were.
    #[error("adding {events} events to the windows")]
    Add {
        /// How many there were.
        events: usize,
        /// What DataFusion says.
        source: DataFusionError,
    },
    /// The events were added, but the rules could not be evaluated for them.
    #[error("evaluating the rules of version {version} for {accounts} accounts")]
    Judge {
        /// Version of the rule set.
        version: String,
        /// How many accounts.
        accounts: usize,
        /// What DataFusion says.
        source: DataFusionError,
    },
    /// The events were added and judged, but old panes could not be merged; the windows are as they were.
    #[error("merging old panes")]
    RollUp(#[source] DataFusionError),
    /// The statistics could not be read.
    #[error("reading the statistics")]
    Read(#[source] DataFusionError),
    /// Rules and engine belong to different statistics.
    #[error(
        "the rules were compiled for statistics {rules}, the engine keeps statistics {engine}; parse them with the \
         engine's statistics"
    )]
    OtherStatistics {
        /// Version of the statistics of the rules.
        rules: String,
        /// Version of the engine's.
        engine: String,
    },
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self { max_accounts: 1_000_000, expire_step: 1_000, busy_panes: 24 }
    }
}

impl Engine {
    /// An engine that has seen nothing.
    ///
    /// # Errors
    /// When `rules` were compiled for other statistics.
    pub fn new(statistics: Statistics, rules: Rules, limits: EngineLimits) -> Result<Self, EngineError> {
        check_same(&statistics, &rules)?;
        let all: Vec<usize> = (0..statistics.list().len()).collect();
        let everything = ReadPlan::new(statistics.plan(), &all, WINDOWS.to_vec()).map_err(EngineError::Read)?;
        let mut store = Store::new();
        store.reset_rooms(rules.plan().gates.empty_room());
        Ok(Self { statistics, rules, limits, store, everything, evicted: 0, too_old: 0 })
    }

    /// Adds a batch of events and gives the rules that hold after them, in the order of event offsets.
    ///
    /// Rules are evaluated once for each account and each 3 s pane that a deciding event of the batch fell into, as of
    /// the end of that pane, and, when all of an account's events were late, also as of its newest event. What holds
    /// depends on where batches are cut only within such a pane: of several events in it, the last one is named.
    /// An account that is too far from every rule for any to hold is not looked at.
    ///
    /// # Errors
    /// When DataFusion fails; see [`EngineError`] for what has been done by then.
    pub fn process(&mut self, batch: &EventBatch) -> Result<Vec<AccountMatches>, EngineError> {
        self.process_with(batch, |_| None)
    }

    /// The same, for accounts of which some are on probation, until the given times: what happened before is judged by
    /// the tighter limits that the rules have for it.
    ///
    /// # Errors
    /// As for [`Engine::process`].
    pub fn process_with(
        &mut self,
        batch: &EventBatch,
        probation_until_ms: impl Fn(&Account) -> Option<i64>,
    ) -> Result<Vec<AccountMatches>, EngineError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let judges = Judges::new(self.rules.variants(), batch, probation_until_ms);
        let update = update::add_events(&mut self.store, self.statistics.plan(), &judges, batch)
            .map_err(|source| EngineError::Add { events: batch.len(), source })?;
        self.too_old += update.too_old;
        let due = room::due(&self.store, &judges, &update.touched, batch.accounts.len());
        let mut pending: Vec<Pending> = Vec::new();
        // For each account: its last deciding event, and whether its newest slot is judged already.
        let mut newest: HashMap<u32, (usize, bool)> = HashMap::new();
        for touched in update.touched.iter().filter(|touched| due[touched.account as usize]) {
            let Some(event) = touched.decides else { continue };
            let as_of = AsOf { id: touched.id, slot: touched.slot };
            let at_ms = batch.times_ms[event];
            let variant = judges.at(touched.account, at_ms);
            pending.push(Pending { account: touched.account, event, at_ms, as_of, variant });
            let is_newest = touched.slot == slot_of(self.store.entry(touched.id).newest_ms);
            let last = newest.entry(touched.account).or_insert((event, false));
            if batch.offsets[event] > batch.offsets[last.0] {
                last.0 = event;
            }
            last.1 |= is_newest;
        }
        let ids: HashMap<u32, Id> = update.touched.iter().map(|touched| (touched.account, touched.id)).collect();
        for (account, (event, _)) in newest.into_iter().filter(|(_, (_, judged))| !judged) {
            let Some(id) = ids.get(&account).copied() else { continue };
            let at_ms = self.store.entry(id).newest_ms;
            let (as_of, variant) = (AsOf { id, slot: slot_of(at_ms) }, judges.at(account, at_ms));
            pending.push(Pending { account, event, at_ms, as_of, variant });
        }
        let points = pending.iter().map(|case| case.as_of);
        bands::keep(&mut self.store, self.statistics.plan(), self.limits.busy_panes, points)
            .map_err(EngineError::Read)?;
        let matches = self.judge(batch, &mut pending)?;
        update::roll_up(&mut self.store, self.statistics.plan(), &update.touched).map_err(EngineError::RollUp)?;
        self.evicted += self.store.shrink_to(self.limits.max_accounts);
        Ok(matches)
    }

    /// Forgets all events of an account: a clean slate.
    pub fn forget(&mut self, account: &Account) {
        if let Some(id) = self.store.find(account) {
            self.store.remove(id);
        }
    }

    /// Puts other rules in force; the windows stay as they are.
    ///
    /// # Errors
    /// When `rules` were compiled for other statistics; the rules in force stay.
    pub fn set_rules(&mut self, rules: Rules) -> Result<(), EngineError> {
        check_same(&self.statistics, &rules)?;
        self.store.reset_rooms(rules.plan().gates.empty_room());
        self.rules = rules;
        Ok(())
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The statistics that it keeps.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// All statistics of an account in all windows as of `at_ms`, in the order of [`Statistics::columns`]; none is
    /// NULL. Empty when nothing is known of the account.
    ///
    /// # Errors
    /// When DataFusion fails.
    pub fn columns(&self, account: &Account, at_ms: i64) -> Result<Vec<(String, Option<f64>)>, EngineError> {
        let Some(id) = self.store.find(account) else { return Ok(Vec::new()) };
        let point = AsOf { id, slot: slot_of(at_ms) };
        let values = self.everything.read(&self.store, self.statistics.plan(), &[point]).map_err(EngineError::Read)?;
        let names = self.statistics.columns().into_iter().enumerate();
        Ok(names.map(|(index, name)| (name, values.value(index / WINDOWS.len(), index % WINDOWS.len(), 0))).collect())
    }

    /// Drops what no window reaches as of `now_ms`. A call looks at [`EngineLimits::expire_step`] accounts and goes
    /// on where the last one ended, so it is to be called again and again.
    pub fn expire(&mut self, now_ms: i64) {
        self.store.sweep(now_ms, self.limits.expire_step);
    }

    /// Its size, and what it had to leave out.
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            accounts: self.store.accounts(),
            panes: self.store.panes(),
            octets: self.store.octets(),
            evicted: self.evicted,
            too_old: self.too_old,
        }
    }

    fn judge(&mut self, batch: &EventBatch, pending: &mut [Pending]) -> Result<Vec<AccountMatches>, EngineError> {
        pending.sort_by_key(|case| (batch.offsets[case.event], case.at_ms));
        let cases: Vec<Case> = pending
            .iter()
            .map(|case| {
                let Pending { account, as_of, variant, .. } = *case;
                Case { account: &batch.accounts[account as usize], as_of, variant }
            })
            .collect();
        let judged = judge::judge(&self.store, &self.rules, &cases).map_err(|source| EngineError::Judge {
            version: self.rules.version().to_owned(),
            accounts: cases.len(),
            source,
        })?;
        for (case, room) in pending.iter().zip(judged.rooms) {
            if let Some(room) = room {
                let entry = self.store.entry_mut(case.as_of.id);
                (entry.room, entry.room_of, entry.room_slot) = (room, case.variant, case.as_of.slot);
            }
        }
        let mut results: Vec<AccountMatches> = Vec::new();
        for (case, matches) in pending.iter().zip(judged.matches) {
            if matches.is_empty() {
                continue;
            }
            let account = &batch.accounts[case.account as usize];
            let event_offset = batch.offsets[case.event];
            match results.last_mut() {
                // A late event, judged as of its own time and as of the newest: one result, for one offset.
                Some(last) if last.event_offset == event_offset && last.account == *account => {
                    join(last, case.at_ms, matches);
                }
                _ => {
                    let account = account.clone();
                    results.push(AccountMatches { account, event_offset, at_ms: case.at_ms, matches });
                }
            }
        }
        Ok(results)
    }
}

/// An event that is to be judged.
#[derive(Debug, Clone, Copy)]
struct Pending {
    account: u32,
    event: usize,
    at_ms: i64,
    as_of: AsOf,
    variant: Variant,
}

/// Adds what holds as of the newest time to what held as of a late event's own. The time is that of the strongest
/// action, the newest among equals.
fn join(result: &mut AccountMatches, newest_ms: i64, newest: Vec<Match>) {
    let strength = |matches: &[Match]| matches.iter().map(|found| strength(found.action)).max();
    if strength(&newest) >= strength(&result.matches) {
        result.at_ms = newest_ms;
    }
    let late = std::mem::replace(&mut result.matches, newest);
    for found in late {
        if result.matches.iter().all(|known| known.rule.name != found.rule.name) {
            result.matches.push(found);
        }
    }
}

fn strength(action: Action) -> u8 {
    match action {
        Action::Observe => 0,
        Action::Notify => 1,
        Action::Throttle { .. } => 2,
        Action::Lock { .. } => 3,
    }
}

fn check_same(statistics: &Statistics, rules: &Rules) -> Result<(), EngineError> {
    let (engine, rules) = (statistics.version(), rules.statistics().version());
    if engine == rules {
        return Ok(());
    }
    Err(EngineError::OtherStatistics { rules: rules.to_owned(), engine: engine.to_owned() })
}
