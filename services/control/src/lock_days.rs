//! How many locks began on which day, as far as the accounts' timelines tell.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use tidegate_domain::{AccountState, Change};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Counts of locks by day (UTC), in all and by domain.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LockDays {
    all: BTreeMap<i64, u64>,
    by_domain: HashMap<String, BTreeMap<i64, u64>>,
}

impl LockDays {
    /// Counts the locks in the state's timeline.
    pub fn add(&mut self, state: &AccountState) {
        for day_ms in days(state) {
            *self.all.entry(day_ms).or_default() += 1;
            if let Some(domain) = state.account.domain() {
                *self.by_domain.entry(domain.to_owned()).or_default().entry(day_ms).or_default() += 1;
            }
        }
    }

    /// Takes the state's locks back: another state comes in its place.
    pub fn remove(&mut self, state: &AccountState) {
        for day_ms in days(state) {
            take_one(&mut self.all, day_ms);
            if let Some(domain) = state.account.domain()
                && let Some(counts) = self.by_domain.get_mut(domain)
            {
                take_one(counts, day_ms);
                if counts.is_empty() {
                    self.by_domain.remove(domain);
                }
            }
        }
    }

    /// How many locks began on the day that begins at `day_ms`, in these domains or in all.
    pub fn on(&self, day_ms: i64, domains: Option<&BTreeSet<String>>) -> u64 {
        let count = |counts: &BTreeMap<i64, u64>| counts.get(&day_ms).copied().unwrap_or_default();
        match domains {
            None => count(&self.all),
            Some(domains) => domains.iter().filter_map(|domain| self.by_domain.get(domain)).map(count).sum(),
        }
    }
}

/// The days on which the account was locked.
fn days(state: &AccountState) -> impl Iterator<Item = i64> {
    let locks = state.timeline.iter().filter(|milestone| milestone.change == Change::Locked);
    locks.map(|milestone| milestone.at_ms - milestone.at_ms.rem_euclid(DAY_MS))
}

fn take_one(counts: &mut BTreeMap<i64, u64>, day_ms: i64) {
    if let Some(count) = counts.get_mut(&day_ms) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&day_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_domain::{Account, Milestone};

    fn state(account: &str, changes: &[(Change, i64)]) -> AccountState {
        let milestone = |(version, &(change, at_ms)): (usize, &(Change, i64))| Milestone {
            version: version as u64 + 1,
            at_ms,
            change,
            rule: None,
            actor: None,
            reason: String::new(),
            lock_id: None,
        };
        let timeline = changes.iter().enumerate().map(milestone).collect();
        AccountState { timeline, ..AccountState::new(Account::parse(account).unwrap()) }
    }

    #[test]
    fn locks_are_counted_on_their_days_and_taken_back_with_their_states() {
        let mut days = LockDays::default();
        let jo = state("jo@example.org", &[(Change::Locked, 5), (Change::Unlocked, 6), (Change::Locked, DAY_MS)]);
        let al = state("al@example.net", &[(Change::Locked, 7)]);
        days.add(&jo);
        days.add(&al);
        days.add(&state("local:www", &[(Change::Locked, DAY_MS + 1)]));
        let org = BTreeSet::from(["example.org".to_owned(), "example.com".to_owned()]);
        assert_eq!([days.on(0, None), days.on(DAY_MS, None), days.on(2 * DAY_MS, None)], [2, 2, 0]);
        assert_eq!([days.on(0, Some(&org)), days.on(DAY_MS, Some(&org))], [1, 1]);
        days.remove(&jo);
        days.remove(&al);
        days.remove(&state("local:www", &[(Change::Locked, DAY_MS + 1)]));
        assert_eq!(days, LockDays::default());
    }
}
