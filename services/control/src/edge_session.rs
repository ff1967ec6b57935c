//! One edge's stream without its I/O: what the edge holds, what it is sent next, what it has acknowledged.
//!
//! There is no queue for an edge. What is sent next is asked from the replica by the positions that the edge holds,
//! whenever there is room on its connection and in the window of unacknowledged batches; so a slow edge gets the
//! newest states when it takes them, and costs no memory while it does not.

use crate::accounts::Accounts;
use crate::pushes::Push;
use prost::Message as _;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tidegate_domain::{AccountState, Position, Positions};
use tidegate_proto::{state_for_edge, v1};

/// A batch is closed when it has so many octets, well below the 4 MiB that gRPC clients take by default.
const MAX_BATCH_OCTETS: usize = 1 << 20;

/// The state of one edge's stream.
#[derive(Debug)]
pub(crate) struct EdgeSession {
    /// What the edge holds when all that was sent has arrived.
    held: Positions,
    /// A snapshot was announced and is not complete.
    snapshot: bool,
    /// The edge had everything when the next batch is made: what follows are changes as they come.
    level: bool,
    sequence: u64,
    unacked: VecDeque<SentBatch>,
    max_states: usize,
    max_unacked: usize,
}

/// What is sent next, as the replica has it; encoded after its lock is released.
pub(crate) struct Selection {
    states: Vec<(Position, Arc<AccountState>)>,
    read_to: Positions,
    whole: bool,
}

/// A batch on its way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SentBatch {
    /// Its number on the stream.
    pub sequence: u64,
    /// How many states it holds.
    pub states: u64,
    /// When it was sent, by our clock.
    pub sent_ms: i64,
    /// Whether the edge had everything before it, so that its way tells how fast changes get there.
    pub live: bool,
    /// The offsets that it brings: partition, first, and the one after the last.
    pub advances: Vec<(u32, u64, u64)>,
    /// The traced decisions in it.
    pub pushes: Vec<Push>,
}

/// What an acknowledgement told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Acked {
    /// These batches are in force. The last is the acknowledged one, unless it was known already.
    Batches(Vec<SentBatch>),
    /// It names a batch that was never sent.
    NeverSent,
}

/// How an edge is brought up to date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resume {
    /// From the positions that it holds.
    Deltas(Positions),
    /// With everything.
    Snapshot,
}

/// How an edge that holds `positions` of `edge_log` is brought up to date from `log_id`, whose partitions end at
/// `ends` (only those that are known).
///
/// Positions ahead of this replica are fine as long as the log has them: the edge was at a replica that is ahead of
/// this one, and must not go back. Positions beyond the log itself are of another life of it.
pub(crate) fn resume(
    edge_log: &str,
    positions: &[v1::PartitionPosition],
    log_id: &str,
    partitions: u32,
    ends: &BTreeMap<u32, u64>,
) -> Resume {
    let beyond = |at: &v1::PartitionPosition| {
        at.partition >= partitions || ends.get(&at.partition).is_some_and(|end| at.next_offset > *end)
    };
    if edge_log != log_id || positions.is_empty() || positions.iter().any(beyond) {
        return Resume::Snapshot;
    }
    Resume::Deltas(positions.iter().map(|at| (at.partition, at.next_offset)).collect())
}

impl EdgeSession {
    /// Begins a stream; at most `max_states` in a batch, at most `max_unacked` batches unacknowledged.
    pub fn new(resume: Resume, max_states: usize, max_unacked: usize) -> Self {
        let (held, snapshot) = match resume {
            Resume::Deltas(held) => (held, false),
            Resume::Snapshot => (Positions::new(), true),
        };
        Self {
            held,
            snapshot,
            level: false,
            sequence: 0,
            unacked: VecDeque::new(),
            max_states: max_states.max(1),
            max_unacked: max_unacked.max(1),
        }
    }

    /// Whether the window has room for one more batch.
    pub fn has_room(&self) -> bool {
        self.unacked.len() < self.max_unacked
    }

    /// Number of the last batch sent.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// States sent and not acknowledged.
    pub fn unacked_states(&self) -> u64 {
        self.unacked.iter().map(|batch| batch.states).sum()
    }

    /// Picks what is sent next; quick, for it runs under the replica's lock.
    pub fn select(&self, accounts: &Accounts) -> Selection {
        let states = accounts.newer_than(&self.held, self.max_states);
        let whole = states.len() < self.max_states;
        Selection { states, read_to: accounts.positions().clone(), whole }
    }

    /// Makes the batch; none when the edge lacks nothing, and is from then on told of changes as they come.
    /// Also says whether there is more to send at once. `traced` begins a step if the decision at a place is traced.
    pub fn batch(
        &mut self,
        selection: Selection,
        now_ms: i64,
        traced: impl Fn(Position) -> Option<Push>,
    ) -> (Option<v1::StateBatch>, bool) {
        let Selection { states, read_to, mut whole } = selection;
        if states.is_empty() && !self.snapshot {
            self.level = true;
            return (None, false);
        }
        let mut placed = Vec::with_capacity(states.len());
        let (mut octets, mut pushes) = (0, Vec::new());
        let mut last = None;
        for (position, state) in &states {
            let state = state_for_edge(state);
            octets += state.encoded_len();
            if octets > MAX_BATCH_OCTETS && !placed.is_empty() {
                whole = false;
                break;
            }
            let &Position { partition, offset } = position;
            let push = traced(*position);
            let trace_parent = push.map(|push| push.step.to_string()).unwrap_or_default();
            pushes.extend(push);
            placed.push(v1::PlacedState { partition, offset, state: Some(state), trace_parent });
            last = Some(*position);
        }
        let before = self.held.clone();
        self.hold(&read_to, last.filter(|_| !whole));
        self.sequence += 1;
        self.unacked.push_back(SentBatch {
            sequence: self.sequence,
            states: placed.len() as u64,
            sent_ms: now_ms,
            live: self.level && !self.snapshot,
            advances: advances(&before, &self.held),
            pushes,
        });
        let batch = v1::StateBatch {
            sequence: self.sequence,
            states: placed,
            positions: self.positions(),
            snapshot_complete: self.snapshot && whole,
            sent_ms: now_ms,
        };
        self.level = whole;
        self.snapshot &= !whole;
        (Some(batch), !whole)
    }

    /// The edge has everything up to batch `sequence` in force.
    pub fn acknowledge(&mut self, sequence: u64) -> Acked {
        if sequence > self.sequence {
            return Acked::NeverSent;
        }
        let count = self.unacked.iter().take_while(|batch| batch.sequence <= sequence).count();
        Acked::Batches(self.unacked.drain(..count).collect())
    }

    /// Notes what the edge holds after a batch that ended with `last` (none: with all there is).
    ///
    /// States come in the order of partitions, so those before the last one's are whole.
    fn hold(&mut self, read_to: &Positions, last: Option<Position>) {
        for (partition, next) in read_to {
            let next = match last {
                None => *next,
                Some(last) if *partition < last.partition => *next,
                Some(last) if *partition == last.partition => last.offset + 1,
                Some(_) => continue,
            };
            let held = self.held.entry(*partition).or_insert(0);
            *held = (*held).max(next);
        }
    }

    fn positions(&self) -> Vec<v1::PartitionPosition> {
        self.held
            .iter()
            .map(|(partition, next_offset)| v1::PartitionPosition { partition: *partition, next_offset: *next_offset })
            .collect()
    }
}

fn advances(before: &Positions, after: &Positions) -> Vec<(u32, u64, u64)> {
    after
        .iter()
        .map(|(partition, to)| (*partition, before.get(partition).copied().unwrap_or(0), *to))
        .filter(|(_, from, to)| from < to)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidegate_domain::{Account, Replica};

    fn at(partition: u32, next_offset: u64) -> v1::PartitionPosition {
        v1::PartitionPosition { partition, next_offset }
    }

    #[test]
    fn only_positions_that_the_log_has_are_resumed() {
        let ends = BTreeMap::from([(0, 10), (1, 4)]);
        let resume = |log: &str, positions: &[v1::PartitionPosition]| resume(log, positions, "a", 2, &ends);
        assert_eq!(resume("a", &[at(0, 10), at(1, 2)]), Resume::Deltas(Positions::from([(0, 10), (1, 2)])));
        assert_eq!(resume("b", &[at(0, 10)]), Resume::Snapshot);
        assert_eq!(resume("a", &[]), Resume::Snapshot);
        assert_eq!(resume("a", &[at(0, 11)]), Resume::Snapshot);
        assert_eq!(resume("a", &[at(2, 0)]), Resume::Snapshot);
    }

    #[test]
    fn a_batch_that_was_never_sent_cannot_be_acknowledged() {
        let mut session = EdgeSession::new(Resume::Snapshot, 10, 2);
        assert_eq!(session.acknowledge(1), Acked::NeverSent);
        let selection = session.select(&Accounts::default());
        let (batch, more) = session.batch(selection, 5, |_| None);
        let batch = batch.unwrap();
        assert!(batch.snapshot_complete && batch.states.is_empty() && !more);
        assert!(matches!(session.acknowledge(1), Acked::Batches(batches) if batches.len() == 1));
        assert!(matches!(session.acknowledge(1), Acked::Batches(batches) if batches.is_empty()));
        let selection = session.select(&Accounts::default());
        assert_eq!(session.batch(selection, 6, |_| None), (None, false));
    }

    proptest! {
        /// Whatever is written between the batches, and whenever the edge is lost and comes back with the positions
        /// that it applied last: in the end it holds what the replica holds.
        #[test]
        fn an_edge_ends_with_what_the_replica_holds(
            steps in proptest::collection::vec((0u32..3, 0u8..8, any::<bool>(), 0u8..6), 1..80),
            max_states in 1usize..5,
        ) {
            let mut accounts = Accounts::default();
            let mut edge = Replica::new();
            let mut ends = BTreeMap::new();
            let mut session = EdgeSession::new(Resume::Snapshot, max_states, 3);
            let deliver = |session: &mut EdgeSession, edge: &mut Replica, accounts: &Accounts| {
                let selection = session.select(accounts);
                let (batch, more) = session.batch(selection, 0, |_| None);
                for placed in batch.iter().flat_map(|batch| &batch.states) {
                    let state = AccountState::try_from(placed.state.clone().unwrap()).unwrap();
                    let position = Position { partition: placed.partition, offset: placed.offset };
                    edge.apply(position, &state.account.clone(), Some(state));
                }
                for held in batch.iter().flat_map(|batch| &batch.positions) {
                    edge.advance(held.partition, held.next_offset);
                }
                session.acknowledge(session.sequence());
                more
            };
            for (version, (partition, n, deleted, act)) in steps.into_iter().enumerate() {
                // An account has one partition for ever.
                let account = Account::parse(&format!("user{n}-{partition}@example.org")).unwrap();
                let offset = *ends.get(&partition).unwrap_or(&0);
                ends.insert(partition, offset + 1);
                let state = AccountState { version: version as u64 + 1, ..AccountState::new(account.clone()) };
                accounts.apply(Position { partition, offset }, &account, (!deleted).then_some(state));
                match act {
                    0 | 1 => { deliver(&mut session, &mut edge, &accounts); }
                    2 if !session.snapshot => {
                        let held: Vec<_> = edge.positions().iter().map(|(p, o)| at(*p, *o)).collect();
                        session = EdgeSession::new(resume("a", &held, "a", 3, &ends), max_states, 3);
                    }
                    _ => {}
                }
            }
            while deliver(&mut session, &mut edge, &accounts) {}
            let mut left: Vec<_> = edge.iter().cloned().collect();
            left.sort_by(|a, b| a.account.cmp(&b.account));
            let mut right: Vec<_> = accounts.newer_than(&Positions::new(), usize::MAX).into_iter().map(|(_, s)| s).collect();
            right.sort_by(|a, b| a.account.cmp(&b.account));
            prop_assert_eq!(left, right);
            prop_assert_eq!(edge.positions(), accounts.positions());
        }
    }
}
