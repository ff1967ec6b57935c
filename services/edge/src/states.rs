//! Account states in memory: what sessions are answered from.
//!
//! Control sends either changes to what is held, or a whole snapshot. A snapshot replaces what is held only when it is
//! complete; until then its states are in force too (a lock does not wait for the rest), over those held before.

mod disk;
pub mod whole_file;

pub(crate) use disk::StatesDisk;

use crate::metrics::{Metrics, set_gauge};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use tidegate_domain::{Account, AccountState, Applied, Position, Positions, Replica};
use tidegate_proto::{DecodeError, v1};
use tokio::sync::watch;

/// States applied under the lock at a time, so that sessions never wait long.
const APPLY_AT_A_TIME: usize = 64;

/// The states that are in force.
#[derive(Debug)]
pub(crate) struct HeldStates {
    inner: RwLock<Inner>,
    /// Rises with each change.
    version: watch::Sender<u64>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Inner {
    /// The log that the positions belong to; empty: they cannot be resumed from.
    log_id: String,
    held: Replica,
    /// States of a snapshot that is not complete.
    early: HashMap<Account, Arc<AccountState>>,
    snapshot: Option<(String, Replica)>,
    /// Rises when a snapshot replaces everything.
    generation: u64,
}

/// What of the states a reader (the disk) lacks.
#[derive(Debug)]
pub(crate) struct Lacking {
    /// Differs from the reader's: it must begin anew.
    pub generation: u64,
    /// The log that the positions belong to.
    pub log_id: String,
    /// States, in the order of their positions.
    pub states: Vec<(Position, Arc<AccountState>)>,
    /// What the reader holds with them.
    pub positions: Positions,
    /// Whether that is everything.
    pub whole: bool,
}

/// Control resumed from positions of another log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("control sends changes of log {theirs:?}, though states of log {ours:?} are held")]
pub(crate) struct OtherLog {
    ours: String,
    theirs: String,
}

impl HeldStates {
    /// Holds `replica`, whose positions belong to `log_id`.
    pub fn new(log_id: String, replica: Replica, metrics: Metrics) -> Self {
        set_gauge(&metrics.states, replica.len() as u64);
        let inner = Inner { log_id, held: replica, ..Inner::default() };
        Self { inner: RwLock::new(inner), version: watch::Sender::new(0), metrics }
    }

    /// What `read` finds in the account's state; none, when nothing was ever decided about it.
    pub fn read<T>(&self, account: &Account, read: impl FnOnce(&AccountState) -> T) -> Option<T> {
        let inner = self.inner.read();
        let state = inner.early.get(account).or_else(|| inner.held.get(account.as_str()));
        state.map(|state| read(state))
    }

    /// The log and the positions to resume from.
    pub fn resume_from(&self) -> (String, Vec<v1::PartitionPosition>) {
        let inner = self.inner.read();
        if inner.log_id.is_empty() {
            return (String::new(), Vec::new());
        }
        let position = |(partition, next_offset): (&u32, &u64)| v1::PartitionPosition {
            partition: *partition,
            next_offset: *next_offset,
        };
        (inner.log_id.clone(), inner.held.positions().iter().map(position).collect())
    }

    /// Control begins to send: changes to what is held, or a snapshot.
    pub fn begin(&self, log_id: &str, snapshot: bool) -> Result<(), OtherLog> {
        let mut inner = self.inner.write();
        if snapshot {
            self.metrics.snapshots.inc();
            inner.snapshot = Some((log_id.to_owned(), Replica::new()));
        } else if inner.log_id == log_id {
            inner.snapshot = None;
            inner.early.clear();
        } else {
            return Err(OtherLog { ours: inner.log_id.clone(), theirs: log_id.to_owned() });
        }
        Ok(())
    }

    /// Puts a batch in force. A state that cannot be read is passed over and counted; what was held stays.
    pub fn apply(&self, batch: &v1::StateBatch) {
        let mut states = Vec::with_capacity(batch.states.len());
        for placed in &batch.states {
            match decode(placed) {
                Ok(state) => states.push(state),
                Err(error) => {
                    self.metrics.states_skipped.inc();
                    tracing::warn!(error = error.to_line(), "a state from control could not be read");
                }
            }
        }
        self.metrics.states_applied.inc_by(states.len() as u64);
        for states in states.chunks(APPLY_AT_A_TIME) {
            let mut inner = self.inner.write();
            for (position, state) in states {
                inner.apply(*position, state);
            }
        }
        let mut inner = self.inner.write();
        inner.advance(&batch.positions);
        if batch.snapshot_complete {
            inner.complete();
        }
        set_gauge(&self.metrics.states, inner.held.len() as u64);
        drop(inner);
        self.version.send_modify(|version| *version += 1);
    }

    /// Tells of changes.
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// What a reader lacks that holds `positions` of `generation`, at most `limit` states.
    pub fn lacking(&self, generation: u64, positions: &Positions, limit: usize) -> Lacking {
        let inner = self.inner.read();
        let none = Positions::new();
        let from = if generation == inner.generation { positions } else { &none };
        let states = inner.held.newer_than(from, limit);
        let whole = states.len() < limit;
        let last = states.last().map(|(position, _)| *position).filter(|_| !whole);
        let mut reached = from.clone();
        for (partition, next) in inner.held.positions() {
            // States come in the order of partitions, so those before the last one's are whole.
            match last {
                Some(last) if *partition > last.partition => {}
                Some(last) if *partition == last.partition => {
                    reached.insert(*partition, last.offset + 1);
                }
                Some(_) | None => {
                    reached.insert(*partition, *next);
                }
            }
        }
        let (generation, log_id) = (inner.generation, inner.log_id.clone());
        Lacking { generation, log_id, states, positions: reached, whole }
    }

    /// Those of `accounts` that are not held any more.
    pub fn not_held<'a>(&self, accounts: impl Iterator<Item = &'a Account>) -> Vec<Account> {
        let inner = self.inner.read();
        accounts.filter(|account| inner.held.get(account.as_str()).is_none()).cloned().collect()
    }
}

impl Inner {
    fn apply(&mut self, position: Position, state: &AccountState) {
        if let Some((_, snapshot)) = &mut self.snapshot {
            if let Applied::Updated(state) = snapshot.apply(position, &state.account, Some(state.clone())) {
                self.early.insert(state.account.clone(), state);
            }
        } else {
            self.held.apply(position, &state.account, Some(state.clone()));
        }
    }

    fn advance(&mut self, positions: &[v1::PartitionPosition]) {
        let replica = self.snapshot.as_mut().map_or(&mut self.held, |(_, snapshot)| snapshot);
        for at in positions {
            replica.advance(at.partition, at.next_offset);
        }
    }

    fn complete(&mut self) {
        if let Some((log_id, snapshot)) = self.snapshot.take() {
            self.log_id = log_id;
            self.held = snapshot;
            self.early = HashMap::new();
            self.generation += 1;
        }
    }
}

fn decode(placed: &v1::PlacedState) -> Result<(Position, AccountState), DecodeError> {
    let state = placed.state.clone().ok_or(DecodeError::Missing { message: "PlacedState", field: "state" })?;
    Ok((Position { partition: placed.partition, offset: placed.offset }, state.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;
    use tidegate_proto::state_to_proto;

    pub(super) fn account(n: u64) -> Account {
        Account::parse(&format!("user{n}@example.org")).unwrap()
    }

    pub(super) fn batch(partition: u32, offsets: std::ops::Range<u64>, complete: bool) -> v1::StateBatch {
        let next_offset = offsets.end;
        let placed = |offset: u64| {
            let state = AccountState { version: offset + 1, ..AccountState::new(account(offset)) };
            v1::PlacedState { partition, offset, state: Some(state_to_proto(&state)), trace_parent: String::new() }
        };
        v1::StateBatch {
            sequence: 1,
            states: offsets.map(placed).collect(),
            positions: vec![v1::PartitionPosition { partition, next_offset }],
            snapshot_complete: complete,
            sent_ms: 0,
        }
    }

    pub(super) fn empty() -> HeldStates {
        let metrics = Metrics::register(&mut Registry::default());
        HeldStates::new(String::new(), Replica::new(), metrics)
    }

    #[test]
    fn a_snapshot_is_in_force_as_it_comes_and_replaces_when_it_is_complete() {
        let states = empty();
        let version = |n| states.read(&account(n), |state| state.version);
        states.begin("a", true).unwrap();
        states.apply(&batch(0, 0..3, true));
        assert_eq!(states.resume_from().0, "a");
        // Another log: its first half is in force, and what was held is too.
        states.begin("b", true).unwrap();
        states.apply(&batch(0, 5..7, false));
        assert_eq!((version(1), version(5)), (Some(2), Some(6)));
        assert_eq!(states.resume_from().0, "a", "not complete");
        // The stream broke and comes again.
        states.begin("b", true).unwrap();
        assert_eq!(version(5), Some(6));
        states.apply(&batch(0, 5..9, true));
        assert_eq!((version(1), version(8)), (None, Some(9)));
        assert_eq!(states.resume_from().1, vec![v1::PartitionPosition { partition: 0, next_offset: 9 }]);
        // Changes only continue the log that is held.
        assert!(states.begin("a", false).is_err());
        states.begin("b", false).unwrap();
        states.apply(&batch(0, 9..10, false));
        assert_eq!((version(9), version(8)), (Some(10), Some(9)));
    }

    #[test]
    fn a_reader_gets_what_it_lacks_in_pieces() {
        let states = empty();
        states.begin("a", true).unwrap();
        states.apply(&batch(0, 0..5, false));
        states.apply(&batch(2, 10..13, true));
        let (mut positions, mut seen, mut generation) = (Positions::new(), 0, 0);
        loop {
            let lacking = states.lacking(generation, &positions, 2);
            (positions, generation) = (lacking.positions, lacking.generation);
            seen += lacking.states.len();
            if lacking.whole {
                break;
            }
        }
        assert_eq!((seen, positions), (8, Positions::from([(0, 5), (2, 13)])));
    }

    #[test]
    fn a_state_that_cannot_be_read_is_passed_over() {
        let states = empty();
        states.begin("a", true).unwrap();
        let mut broken = batch(0, 0..3, true);
        broken.states[1].state = None;
        states.apply(&broken);
        assert_eq!(states.metrics.states_skipped.get(), 1);
        assert!(states.read(&account(2), |_| ()).is_some());
    }
}
