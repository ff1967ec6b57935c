//! What each rule did lately in one partition, for administrators: how often it held, and for whom last.

use crate::partition::action_name;
use std::collections::{HashMap, VecDeque};
use tidegate_detect::{RuleInfo, Rules};
use tidegate_domain::{Account, Action, Evidence, Match};

/// Accounts that are remembered for each rule.
pub(crate) const MAX_RECENT: usize = 20;
/// Columns of evidence that are remembered for each of them.
const MAX_EVIDENCE: usize = 10;

/// What the rules in force did.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    rules: HashMap<String, RuleActivity>,
    changed: bool,
}

/// What one rule did since its owner started.
#[derive(Debug)]
pub(crate) struct RuleActivity {
    /// What it asks for, in enforce mode.
    action: Action,
    /// How often it held.
    pub matches: u64,
    /// When it held last.
    pub last_ms: i64,
    /// The accounts for which it held last, each once, the newest first.
    pub recent: VecDeque<RecentMatch>,
}

/// A rule held for an account.
#[derive(Debug)]
pub(crate) struct RecentMatch {
    pub account: Account,
    pub at_ms: i64,
    /// What it would have asked for were it not only observed, or what it asked for.
    pub action: &'static str,
    /// Whether nothing was done, since it is only observed.
    pub observed: bool,
    pub evidence: Vec<Evidence>,
}

impl Activity {
    /// Other rules are in force: what is known of those that stay is kept.
    pub fn follow(&mut self, rules: &Rules) {
        let mut before = std::mem::take(&mut self.rules);
        let kept = |rule: &RuleInfo| {
            let known = before.remove(&rule.name);
            let new = RuleActivity { action: rule.action, matches: 0, last_ms: 0, recent: VecDeque::new() };
            (rule.name.clone(), RuleActivity { action: rule.action, ..known.unwrap_or(new) })
        };
        self.rules = rules.list().iter().map(kept).collect();
    }

    /// A rule held for an account; `exempt` when it passes the account by.
    pub fn note(&mut self, account: &Account, at_ms: i64, found: &Match, exempt: bool) {
        let Some(rule) = self.rules.get_mut(&found.rule.name) else { return };
        self.changed = true;
        rule.matches += 1;
        rule.last_ms = rule.last_ms.max(at_ms);
        let again = rule.recent.iter().position(|recent| recent.account == *account);
        if let Some(index) = again.or_else(|| rule.recent.len().checked_sub(MAX_RECENT)) {
            rule.recent.remove(if again.is_some() { index } else { rule.recent.len() - 1 });
        }
        rule.recent.push_front(RecentMatch {
            account: account.clone(),
            at_ms,
            action: action_name(rule.action),
            observed: exempt || found.action == Action::Observe,
            evidence: found.evidence.iter().take(MAX_EVIDENCE).cloned().collect(),
        });
    }

    /// What a rule did.
    pub fn of(&self, rule: &str) -> Option<&RuleActivity> {
        self.rules.get(rule)
    }

    /// Whether something was noted since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_detect::{DEFAULT_STATISTICS, Statistics};
    use tidegate_domain::RuleRef;

    fn rules(names: &[&str]) -> Rules {
        let rule = |name: &&str| {
            format!(
                "[[rule]]\nname = '{name}'\nwhen = 'messages_1m >= 5'\naction = 'lock'\nreason = 'r'\nreply = 'r'\n\
                 source = 's'\n"
            )
        };
        let statistics = Statistics::parse("statistics.sql", DEFAULT_STATISTICS).unwrap();
        Rules::parse("rules.toml", &names.iter().map(rule).collect::<String>(), &statistics).unwrap()
    }

    fn note(activity: &mut Activity, rule: &str, number: i64, exempt: bool) {
        let found = Match {
            rule: RuleRef { name: rule.to_owned(), rule_set: "v".to_owned() },
            action: if number == 0 { Action::Observe } else { Action::Notify },
            reason: String::new(),
            reply: String::new(),
            evidence: vec![Evidence { column: "messages_1m".to_owned(), value: 5.0 }; 50],
        };
        activity.note(&Account::parse(&format!("a{number}@example.org")).unwrap(), number, &found, exempt);
    }

    #[test]
    fn the_newest_accounts_are_told_each_once() {
        let mut activity = Activity::default();
        activity.follow(&rules(&["burst", "spam"]));
        assert!(!activity.take_changed());
        for number in (0..30).chain([25, 0]) {
            note(&mut activity, "burst", number, number == 25);
        }
        assert!(activity.take_changed() && !activity.take_changed());
        let burst = activity.of("burst").unwrap();
        assert_eq!((burst.matches, burst.last_ms, burst.recent.len()), (32, 29, MAX_RECENT));
        let newest: Vec<_> =
            burst.recent.iter().take(3).map(|one| (one.account.as_str(), one.observed, one.action)).collect();
        let expected =
            [("a0@example.org", true, "lock"), ("a25@example.org", true, "lock"), ("a29@example.org", false, "lock")];
        assert_eq!(newest, expected);
        assert_eq!(burst.recent[0].evidence.len(), MAX_EVIDENCE);
    }

    #[test]
    fn rules_that_stay_keep_what_is_known_of_them() {
        let mut activity = Activity::default();
        activity.follow(&rules(&["burst", "spam"]));
        note(&mut activity, "burst", 1, false);
        note(&mut activity, "spam", 1, false);
        activity.follow(&rules(&["burst", "other"]));
        assert_eq!(activity.of("burst").unwrap().matches, 1);
        assert!(activity.of("spam").is_none() && activity.of("other").unwrap().matches == 0);
        note(&mut activity, "spam", 2, false);
        assert!(activity.of("spam").is_none());
    }
}
