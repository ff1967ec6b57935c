//! What rules that only observe found: told once in a while for each account and rule, so that an administrator sees
//! what enforcing them would do and is not flooded.

use std::collections::HashMap;
use tidegate_domain::{Account, Action, Evidence, Match};

/// A rule that goes on holding for an account is told again after this time.
const QUIET_MS: i64 = 60 * 60 * 1_000;
/// Most pairs of account and rule that are remembered.
const MAX_REMEMBERED: usize = 10_000;

/// A rule held for an account, and only observes.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// For whom.
    pub account: Account,
    /// The rule.
    pub rule: String,
    /// Its reason; in observe mode with what would have been done.
    pub reason: String,
    /// The statistics that made it hold.
    pub evidence: Vec<Evidence>,
}

/// What was told, and when.
#[derive(Debug, Default)]
pub(crate) struct Observations {
    told_ms: HashMap<(Account, String), i64>,
}

impl Observations {
    /// The ones among `matches` that only observe and were not told for a while.
    pub fn take_due<'a>(
        &mut self,
        account: &Account,
        at_ms: i64,
        matches: impl Iterator<Item = &'a Match>,
    ) -> Vec<Observation> {
        let observing = matches.filter(|found| found.action == Action::Observe);
        let due: Vec<&Match> = observing.filter(|found| self.is_due(account, &found.rule.name, at_ms)).collect();
        let told = due.into_iter().map(|found| Observation {
            account: account.clone(),
            rule: found.rule.name.clone(),
            reason: found.reason.clone(),
            evidence: found.evidence.clone(),
        });
        told.collect()
    }

    fn is_due(&mut self, account: &Account, rule: &str, at_ms: i64) -> bool {
        let pair = (account.clone(), rule.to_owned());
        if self.told_ms.get(&pair).is_some_and(|told| at_ms < told.saturating_add(QUIET_MS)) {
            return false;
        }
        if self.told_ms.len() >= MAX_REMEMBERED {
            self.told_ms.retain(|_, told| at_ms < told.saturating_add(QUIET_MS));
        }
        // Still full: so many accounts at once are told by the metric alone.
        let has_room = self.told_ms.len() < MAX_REMEMBERED || self.told_ms.contains_key(&pair);
        if has_room {
            self.told_ms.insert(pair, at_ms);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_domain::RuleRef;

    fn found(rule: &str, action: Action) -> Match {
        Match {
            rule: RuleRef { name: rule.to_owned(), rule_set: "v".to_owned() },
            action,
            reason: "r".to_owned(),
            reply: String::new(),
            evidence: Vec::new(),
        }
    }

    fn account(number: usize) -> Account {
        Account::parse(&format!("a{number}@example.org")).unwrap()
    }

    #[test]
    fn a_rule_is_told_once_an_hour_for_each_account() {
        let mut observations = Observations::default();
        let matches = [found("a", Action::Observe), found("b", Action::Observe), found("c", Action::Notify)];
        let mut rules = |number, at_ms| -> Vec<String> {
            observations.take_due(&account(number), at_ms, matches.iter()).into_iter().map(|told| told.rule).collect()
        };
        assert_eq!(rules(1, 0), ["a", "b"]);
        assert_eq!(rules(1, QUIET_MS - 1), [""; 0]);
        assert_eq!(rules(2, 5), ["a", "b"]);
        assert_eq!(rules(1, QUIET_MS), ["a", "b"]);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_room_is_made() {
        let mut observations = Observations::default();
        let matches = [found("a", Action::Observe)];
        let told = |observations: &mut Observations, number, at_ms| {
            observations.take_due(&account(number), at_ms, matches.iter()).len()
        };
        for number in 0..MAX_REMEMBERED {
            assert_eq!(told(&mut observations, number, 0), 1);
        }
        assert_eq!(told(&mut observations, MAX_REMEMBERED, 1), 0);
        assert_eq!(told(&mut observations, MAX_REMEMBERED, QUIET_MS), 1);
        assert_eq!(observations.told_ms.len(), 1);
    }
}
