//! The replica of all account states that edge and control share: what the `accounts` topic says, in memory.

use crate::{Account, AccountState};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Where a state stands in the `accounts` topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Partition of the account.
    pub partition: u32,
    /// Offset in it.
    pub offset: u64,
}

/// For each partition, the offset after the last record that was applied.
pub type Positions = BTreeMap<u32, u64>;

/// What [`Replica::apply`] did.
#[derive(Debug, Clone, PartialEq)]
pub enum Applied {
    /// The state is new or newer than what was held.
    Updated(Arc<AccountState>),
    /// The account was forgotten.
    Removed,
    /// It was known already.
    Known,
}

/// All account states, and the positions that they reflect.
///
/// A later record of an account replaces an earlier one; applying a record again changes nothing.
#[derive(Debug, Clone, Default)]
pub struct Replica {
    states: HashMap<Account, (Position, Arc<AccountState>)>,
    by_position: BTreeMap<Position, Account>,
    positions: Positions,
}

impl Replica {
    /// An empty replica, which has read nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies the record at `position`: the account's new state, or `None` when it is to be forgotten.
    pub fn apply(&mut self, position: Position, account: &Account, state: Option<AccountState>) -> Applied {
        let next = self.positions.entry(position.partition).or_insert(0);
        if position.offset < *next {
            return Applied::Known;
        }
        *next = position.offset.saturating_add(1);
        if let Some((held, _)) = self.states.get(account) {
            self.by_position.remove(held);
        }
        match state {
            Some(state) => {
                let state = Arc::new(state);
                self.states.insert(account.clone(), (position, Arc::clone(&state)));
                self.by_position.insert(position, account.clone());
                Applied::Updated(state)
            }
            None => match self.states.remove(account) {
                Some(_) => Applied::Removed,
                None => Applied::Known,
            },
        }
    }

    /// Notes that `partition` was read up to before `next_offset`, though no record said so (compaction left gaps).
    pub fn advance(&mut self, partition: u32, next_offset: u64) {
        let next = self.positions.entry(partition).or_insert(0);
        *next = (*next).max(next_offset);
    }

    /// The account's state, if anything was ever decided about it.
    pub fn get(&self, account: &str) -> Option<&Arc<AccountState>> {
        self.states.get(account).map(|(_, state)| state)
    }

    /// Where the account's state stands.
    pub fn position_of(&self, account: &str) -> Option<Position> {
        self.states.get(account).map(|(position, _)| *position)
    }

    /// What has been read.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// All states, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<AccountState>> {
        self.states.values().map(|(_, state)| state)
    }

    /// The states that stand at or after the positions `held` (from the start, in a partition it does not name),
    /// at most `limit`, in the order of their positions.
    ///
    /// Since a later state of an account replaces the earlier one, these are all that a reader at `held` lacks.
    pub fn newer_than(&self, held: &Positions, limit: usize) -> Vec<(Position, Arc<AccountState>)> {
        self.positions
            .keys()
            .flat_map(|&partition| {
                let from = Position { partition, offset: held.get(&partition).copied().unwrap_or(0) };
                self.by_position.range(from..=Position { partition, offset: u64::MAX })
            })
            .filter_map(|(position, account)| self.states.get(account).map(|(_, state)| (*position, Arc::clone(state))))
            .take(limit)
            .collect()
    }

    /// How many states it holds.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn account(n: u8) -> Account {
        Account::parse(&format!("user{n}@example.org")).unwrap()
    }

    fn state(n: u8, version: u64) -> AccountState {
        AccountState { version, ..AccountState::new(account(n)) }
    }

    #[test]
    fn a_record_applied_again_changes_nothing() {
        let mut replica = Replica::new();
        let at = |offset| Position { partition: 0, offset };
        assert!(matches!(replica.apply(at(4), &account(1), Some(state(1, 2))), Applied::Updated(_)));
        assert_eq!(replica.apply(at(4), &account(1), Some(state(1, 2))), Applied::Known);
        assert_eq!(replica.apply(at(3), &account(1), Some(state(1, 1))), Applied::Known);
        assert_eq!(replica.get("user1@example.org").unwrap().version, 2);
        assert_eq!(replica.positions(), &Positions::from([(0, 5)]));
        assert_eq!(replica.apply(at(6), &account(1), None), Applied::Removed);
        assert!(replica.is_empty());
        assert!(replica.newer_than(&Positions::new(), 10).is_empty());
    }

    proptest! {
        /// Against the plain rule: the last record of each account stands; what is newer than a position is
        /// every account whose last record lies at or after it.
        #[test]
        fn equals_the_last_record_of_each_account(
            records in proptest::collection::vec((0u8..6, any::<bool>()), 0..60),
            cut in 0u64..60,
            limit in 0usize..10,
        ) {
            let mut replica = Replica::new();
            let mut last: BTreeMap<u8, (u64, bool)> = BTreeMap::new();
            for (offset, (n, alive)) in records.iter().enumerate() {
                let offset = offset as u64;
                replica.apply(
                    Position { partition: 3, offset },
                    &account(*n),
                    alive.then(|| state(*n, offset)),
                );
                last.insert(*n, (offset, *alive));
            }
            let held = Positions::from([(3, cut)]);
            let mut expected: Vec<u64> =
                last.values().filter(|(offset, alive)| *alive && *offset >= cut).map(|(offset, _)| *offset).collect();
            expected.sort_unstable();
            let found: Vec<u64> = replica.newer_than(&held, usize::MAX).iter().map(|(at, _)| at.offset).collect();
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(replica.newer_than(&held, limit).len(), expected.len().min(limit));
            prop_assert_eq!(replica.len(), last.values().filter(|(_, alive)| *alive).count());
        }
    }
}
