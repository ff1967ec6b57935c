//! The replica of all account states, and the orders in which people list them.

use crate::lock_days::LockDays;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, btree_map};
use std::ops::Bound;
use std::sync::Arc;
use tidegate_domain::{Account, AccountState, Applied, Position, Positions, Replica, Status};

/// All account states, by position (for edges) and in the orders of lists (for people).
///
/// An account that was deleted from the topic is kept as a state of version 0: edges that hold an older state are
/// told so, and lists leave it out.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    replica: Replica,
    all: Ordered,
    /// Those that are not active: few, and what is asked for most.
    refused: Ordered,
    exempted: Ordered,
    on_probation: Ordered,
    /// So that who is limited to domains does not wait for a look at all accounts.
    by_domain: HashMap<String, Ordered>,
    lock_days: LockDays,
    locked: usize,
}

/// What one record changed.
#[derive(Debug, Clone)]
pub(crate) struct Changed {
    /// The state before; none: the account was not known.
    pub before: Option<Arc<AccountState>>,
    /// The state now.
    pub after: Arc<AccountState>,
}

/// Which accounts a scan goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Among<'a> {
    /// All of which something was ever decided.
    All,
    /// Those whose mail is refused.
    Refused,
    /// Those with exemptions, also some that have ended.
    Exempted,
    /// Those on probation, also some whose probation has ended.
    OnProbation,
    /// Those of these domains, each named once.
    Of(&'a [String]),
}

/// The order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// By name.
    Name,
    /// The last changed first.
    Changed,
}

/// The last account that a scan has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cursor {
    /// In the order by name.
    Name(Account),
    /// In the order of change, with the time of the change.
    Changed(i64, Account),
}

#[derive(Debug, Default)]
struct Ordered {
    by_name: BTreeMap<Account, Arc<AccountState>>,
    by_changed: BTreeMap<(Reverse<i64>, Account), Arc<AccountState>>,
}

impl Accounts {
    /// Applies the record at `position`; none when it changed nothing.
    pub fn apply(&mut self, position: Position, account: &Account, state: Option<AccountState>) -> Option<Changed> {
        let before = self.replica.get(account.as_str()).cloned();
        let state = state.unwrap_or_else(|| AccountState::new(account.clone()));
        let Applied::Updated(after) = self.replica.apply(position, account, Some(state)) else { return None };
        if let Some(before) = before.as_ref().filter(|before| before.version > 0) {
            self.remove(before);
        }
        if after.version > 0 {
            self.insert(&after);
        }
        Some(Changed { before, after })
    }

    fn insert(&mut self, state: &Arc<AccountState>) {
        self.locked += usize::from(matches!(state.status, Status::Locked(_)));
        self.lock_days.add(state);
        self.all.insert(state);
        if !matches!(state.status, Status::Active) {
            self.refused.insert(state);
        }
        if !state.exemptions.is_empty() {
            self.exempted.insert(state);
        }
        if state.probation_until_ms.is_some() {
            self.on_probation.insert(state);
        }
        if let Some(domain) = state.account.domain() {
            match self.by_domain.get_mut(domain) {
                Some(ordered) => ordered.insert(state),
                None => self.by_domain.entry(domain.to_owned()).or_default().insert(state),
            }
        }
    }

    fn remove(&mut self, state: &Arc<AccountState>) {
        self.locked -= usize::from(matches!(state.status, Status::Locked(_)));
        self.lock_days.remove(state);
        for ordered in [&mut self.all, &mut self.refused, &mut self.exempted, &mut self.on_probation] {
            ordered.remove(state);
        }
        if let Some(domain) = state.account.domain()
            && let Some(ordered) = self.by_domain.get_mut(domain)
        {
            ordered.remove(state);
            if ordered.by_name.is_empty() {
                self.by_domain.remove(domain);
            }
        }
    }

    /// Notes that `partition` was read up to before `next_offset`.
    pub fn advance(&mut self, partition: u32, next_offset: u64) {
        self.replica.advance(partition, next_offset);
    }

    /// The account's state, if the topic ever told one.
    pub fn get(&self, account: &Account) -> Option<&Arc<AccountState>> {
        self.replica.get(account.as_str())
    }

    /// Where the account's state stands.
    pub fn position_of(&self, account: &Account) -> Option<Position> {
        self.replica.position_of(account.as_str())
    }

    /// What has been read.
    pub fn positions(&self) -> &Positions {
        self.replica.positions()
    }

    /// At most `limit` states that a reader at `held` lacks, in the order of their positions.
    pub fn newer_than(&self, held: &Positions, limit: usize) -> Vec<(Position, Arc<AccountState>)> {
        self.replica.newer_than(held, limit)
    }

    /// How many accounts there are on lists.
    pub fn count(&self, among: Among) -> usize {
        self.ordered(among).iter().map(|ordered| ordered.by_name.len()).sum()
    }

    /// Shows `visit` at most `limit` accounts after `after`, until it answers `false`. Gives the last one seen; none
    /// when the end was reached. The name is at hand; the state is somewhere else in memory, so who looks at many had
    /// better decide by the name first.
    pub fn scan(
        &self,
        among: Among,
        order: Order,
        after: Option<&Cursor>,
        limit: usize,
        mut visit: impl FnMut(&Account, &Arc<AccountState>) -> bool,
    ) -> Option<Cursor> {
        let ordered = self.ordered(among);
        let mut last = None;
        let mut seen = 0;
        let mut see = |account, state| {
            seen += 1;
            last = Some(state);
            visit(account, state) && seen < limit
        };
        let stopped = match order {
            Order::Name => {
                let from = match after {
                    Some(Cursor::Name(account) | Cursor::Changed(_, account)) => Bound::Excluded(account),
                    None => Bound::Unbounded,
                };
                let ranges = ordered.iter().map(|one| one.by_name.range::<Account, _>((from, Bound::Unbounded)));
                merged(ranges.collect()).any(|(account, state)| !see(account, state))
            }
            Order::Changed => {
                let key = match after {
                    Some(Cursor::Changed(changed_ms, account)) => Some((Reverse(*changed_ms), account.clone())),
                    Some(Cursor::Name(_)) | None => None,
                };
                let from = key.map_or(Bound::Unbounded, Bound::Excluded);
                let ranges = ordered.iter().map(|one| one.by_changed.range((from.clone(), Bound::Unbounded)));
                merged(ranges.collect()).any(|((_, account), state)| !see(account, state))
            }
        };
        last.filter(|_| stopped).map(|state| Cursor::at(state, order))
    }

    /// How many locks began on the day (UTC) that begins at `day_ms`, in these domains or in all.
    pub fn locks_on(&self, day_ms: i64, domains: Option<&BTreeSet<String>>) -> u64 {
        self.lock_days.on(day_ms, domains)
    }

    /// How many accounts are locked.
    pub fn locked(&self) -> usize {
        self.locked
    }

    fn ordered(&self, among: Among) -> Vec<&Ordered> {
        match among {
            Among::All => vec![&self.all],
            Among::Refused => vec![&self.refused],
            Among::Exempted => vec![&self.exempted],
            Among::OnProbation => vec![&self.on_probation],
            Among::Of(domains) => domains.iter().filter_map(|domain| self.by_domain.get(domain)).collect(),
        }
    }
}

/// The states of all ranges in the order of their keys.
fn merged<K: Ord>(
    mut ranges: Vec<btree_map::Range<'_, K, Arc<AccountState>>>,
) -> impl Iterator<Item = (&K, &Arc<AccountState>)> {
    let mut heads: BinaryHeap<_> = BinaryHeap::with_capacity(ranges.len());
    for (index, range) in ranges.iter_mut().enumerate() {
        heads.extend(range.next().map(|(key, state)| Head { key: Reverse(key), index, state }));
    }
    std::iter::from_fn(move || {
        let head = heads.pop()?;
        let next = ranges[head.index].next();
        heads.extend(next.map(|(key, state)| Head { key: Reverse(key), index: head.index, state }));
        Some((head.key.0, head.state))
    })
}

/// The next state of one range; the smallest key is the greatest head.
struct Head<'a, K> {
    key: Reverse<&'a K>,
    index: usize,
    state: &'a Arc<AccountState>,
}

impl<K: Ord> Ord for Head<'_, K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl<K: Ord> PartialOrd for Head<'_, K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord> PartialEq for Head<'_, K> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<K: Ord> Eq for Head<'_, K> {}

impl Cursor {
    /// At `state`.
    pub fn at(state: &AccountState, order: Order) -> Self {
        match order {
            Order::Name => Self::Name(state.account.clone()),
            Order::Changed => Self::Changed(state.changed_ms, state.account.clone()),
        }
    }

    /// Whether `state` comes after it in its order.
    pub fn precedes(&self, state: &AccountState) -> bool {
        match self {
            Self::Name(account) => *account < state.account,
            Self::Changed(changed_ms, account) => {
                (Reverse(*changed_ms), account) < (Reverse(state.changed_ms), &state.account)
            }
        }
    }
}

impl Ordered {
    fn insert(&mut self, state: &Arc<AccountState>) {
        self.by_name.insert(state.account.clone(), Arc::clone(state));
        self.by_changed.insert((Reverse(state.changed_ms), state.account.clone()), Arc::clone(state));
    }

    fn remove(&mut self, state: &AccountState) {
        self.by_name.remove(&state.account);
        self.by_changed.remove(&(Reverse(state.changed_ms), state.account.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidegate_domain::{Cause, Lock, QueuedMail};

    fn account(n: u8) -> Account {
        Account::parse(&format!("user{n}@{}", DOMAINS[usize::from(n) % DOMAINS.len()])).unwrap()
    }

    const DOMAINS: [&str; 3] = ["example.org", "example.net", "example.com"];

    fn state(n: u8, locked: bool, changed_ms: i64) -> AccountState {
        let lock = Lock {
            id: "L-1".into(),
            cause: Cause::Admin { actor: "amy".into() },
            reason: "reported".into(),
            evidence: Vec::new(),
            since_ms: changed_ms,
            until_ms: None,
            reply: "Locked".into(),
            queued_mail: QueuedMail::Keep,
            clients: Vec::new(),
            subjects: Vec::new(),
        };
        AccountState {
            status: if locked { Status::Locked(lock) } else { Status::Active },
            version: 1,
            changed_ms,
            ..AccountState::new(account(n))
        }
    }

    fn listed(accounts: &Accounts, among: Among, order: Order, page: usize) -> Vec<String> {
        let mut names = Vec::new();
        let mut cursor = None;
        loop {
            cursor = accounts.scan(among, order, cursor.as_ref(), page, |_, state| {
                names.push(state.account.as_str().to_owned());
                true
            });
            if cursor.is_none() {
                return names;
            }
        }
    }

    #[test]
    fn a_deleted_account_leaves_the_lists_but_edges_are_told() {
        let mut accounts = Accounts::default();
        let at = |offset| Position { partition: 0, offset };
        accounts.apply(at(0), &account(1), Some(state(1, true, 5)));
        assert_eq!((accounts.count(Among::All), accounts.count(Among::Refused), accounts.locked()), (1, 1, 1));
        let changed = accounts.apply(at(1), &account(1), None).unwrap();
        assert_eq!((changed.before.unwrap().version, changed.after.version), (1, 0));
        assert_eq!((accounts.count(Among::All), accounts.count(Among::Refused), accounts.locked()), (0, 0, 0));
        let told = accounts.newer_than(&Positions::from([(0, 1)]), 10);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].1.status, Status::Active);
    }

    proptest! {
        /// Against plain sorting of the last record of each account, for any page size.
        #[test]
        fn lists_are_the_sorted_last_records(
            records in proptest::collection::vec((0u8..12, any::<bool>(), 0i64..5, any::<bool>()), 0..60),
            page in 1usize..7,
        ) {
            let mut accounts = Accounts::default();
            let mut last = BTreeMap::new();
            for (offset, (n, locked, changed_ms, deleted)) in records.into_iter().enumerate() {
                let state = (!deleted).then(|| state(n, locked, changed_ms));
                accounts.apply(Position { partition: 0, offset: offset as u64 }, &account(n), state.clone());
                last.insert(account(n), state);
            }
            let mut expected: Vec<AccountState> = last.into_values().flatten().collect();
            let names = |states: &[AccountState]| -> Vec<String> {
                states.iter().map(|state| state.account.as_str().to_owned()).collect()
            };
            let refused = |states: &[AccountState]| -> Vec<AccountState> {
                states.iter().filter(|state| state.status != Status::Active).cloned().collect()
            };
            prop_assert_eq!(accounts.count(Among::All), expected.len());
            prop_assert_eq!(accounts.locked(), refused(&expected).len());
            prop_assert_eq!(listed(&accounts, Among::All, Order::Name, page), names(&expected));
            prop_assert_eq!(listed(&accounts, Among::Refused, Order::Name, page), names(&refused(&expected)));
            let two = [DOMAINS[0].to_owned(), DOMAINS[2].to_owned()];
            let of_two = |states: &[AccountState]| -> Vec<AccountState> {
                let is_of = |state: &&AccountState| two.iter().any(|domain| state.account.domain() == Some(domain));
                states.iter().filter(is_of).cloned().collect()
            };
            prop_assert_eq!(listed(&accounts, Among::Of(&two), Order::Name, page), names(&of_two(&expected)));
            prop_assert_eq!(accounts.count(Among::Of(&two)), of_two(&expected).len());
            expected.sort_by_key(|state| (Reverse(state.changed_ms), state.account.clone()));
            prop_assert_eq!(listed(&accounts, Among::All, Order::Changed, page), names(&expected));
            prop_assert_eq!(listed(&accounts, Among::Refused, Order::Changed, page), names(&refused(&expected)));
            prop_assert_eq!(listed(&accounts, Among::Of(&two), Order::Changed, page), names(&of_two(&expected)));
        }
    }
}
