//! What a partition's core wants done after an input.

use crate::inspections::InspectionRequest;
use crate::observations::Observation;
use std::collections::HashSet;
use tidegate_domain::{AccountState, Change, RuleRef};

/// What is to be done after an input.
#[derive(Debug, Default, PartialEq)]
pub struct Output {
    /// States to publish, in order; the last of an account stands.
    pub states: Vec<AccountState>,
    /// How they changed, one for each.
    pub changes: Vec<Change>,
    /// What changed them, one for each.
    pub origins: Vec<Origin>,
    /// Rules that held without changing anything.
    pub observed: Vec<RuleRef>,
    /// Those of rules that only observe, to be told.
    pub told: Vec<Observation>,
    /// Who asks for an account's statistics.
    pub inspections: Vec<InspectionRequest>,
    /// What was counted.
    pub counts: Counts,
}

/// What changed a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Rules that were asked after the event at this offset.
    Event(u64),
    /// The command at this offset.
    Command(u64),
    /// Time passed.
    Time,
}

/// A state to publish.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decided<'a> {
    /// The state.
    pub state: &'a AccountState,
    /// How it changed.
    pub change: Change,
    /// What changed it.
    pub origin: Origin,
}

/// What happened to the records of an input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that went into the windows and were decided upon.
    pub events: u64,
    /// Events that had been decided upon in an earlier life, and went into the windows again.
    pub rebuilt: u64,
    /// Events that were seen before.
    pub duplicates: u64,
    /// Events that a clean slate made void.
    pub void: u64,
    /// Events of a kind that no statistic uses.
    pub unused: u64,
    /// Events whose edge's clock was ahead of the log's.
    pub clock_ahead: u64,
    /// Records that could not be decoded.
    pub rejected: u64,
}

impl Output {
    /// Adds what another input led to.
    pub fn add(&mut self, other: Self) {
        self.states.extend(other.states);
        self.changes.extend(other.changes);
        self.origins.extend(other.origins);
        self.observed.extend(other.observed);
        self.told.extend(other.told);
        self.inspections.extend(other.inspections);
        self.counts.add(other.counts);
    }

    /// The newest state of each account, in the order of their last change.
    pub fn newest_states(&self) -> Vec<Decided<'_>> {
        let mut seen = HashSet::new();
        let all = self.states.iter().zip(self.changes.iter().zip(&self.origins)).rev();
        let mut newest: Vec<Decided<'_>> = all
            .filter(|(state, _)| seen.insert(&state.account))
            .map(|(state, (&change, &origin))| Decided { state, change, origin })
            .collect();
        newest.reverse();
        newest
    }
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.rebuilt += other.rebuilt;
        self.duplicates += other.duplicates;
        self.void += other.void;
        self.unused += other.unused;
        self.clock_ahead += other.clock_ahead;
        self.rejected += other.rejected;
    }
}
