//! The rules of all partitions, folded into one list.

use std::collections::{BTreeMap, BTreeSet};
use tidegate_proto::v1;

/// Newest matches that are shown of each rule.
const RECENT: usize = 10;

/// What all partitions together have in force.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Folded {
    /// How many partitions have which version, the most first.
    pub versions: Vec<(String, usize)>,
    /// Whether no partition lets its rules act.
    pub is_observing: bool,
    /// Whether some do and some do not.
    pub is_mixed: bool,
    /// Since when the newest is in force.
    pub since_ms: i64,
    /// What is wrong with rule files that were not taken.
    pub problems: BTreeSet<String>,
    /// In their order.
    pub rules: Vec<FoldedRule>,
    /// Numbers that predicates use, by name.
    pub limits: BTreeMap<String, f64>,
}

/// One rule, and what it did in all partitions.
#[derive(Debug, PartialEq)]
pub(super) struct FoldedRule {
    pub rule: v1::Rule,
    pub matches: u64,
    pub last_ms: i64,
    /// The newest first.
    pub recent: Vec<v1::RuleMatch>,
    /// Accounts, of the newest matches, for which it would have acted.
    pub would_have: usize,
}

/// Folds `sets`, one of each partition. Where they differ, the one that is in force last is shown.
pub(super) fn fold(sets: &[v1::RuleSet]) -> Folded {
    let Some(newest) = sets.iter().max_by_key(|set| set.since_ms) else { return Folded::default() };
    let mut versions = BTreeMap::<&str, usize>::new();
    for set in sets {
        *versions.entry(&set.version).or_default() += 1;
    }
    let mut versions: Vec<_> = versions.into_iter().map(|(version, count)| (version.to_owned(), count)).collect();
    versions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let observing = sets.iter().filter(|set| set.mode == i32::from(v1::RuleMode::Observe)).count();
    let rules = newest.rules.iter().map(|rule| {
        let activity = || sets.iter().flat_map(|set| &set.activity).filter(|activity| activity.rule == rule.name);
        let mut recent: Vec<_> = activity().flat_map(|activity| activity.recent.iter().cloned()).collect();
        recent.sort_by_key(|held| std::cmp::Reverse(held.at_ms));
        let would_have: BTreeSet<_> = recent.iter().filter(|held| held.observed).map(|held| &held.account).collect();
        let would_have = would_have.len();
        recent.truncate(RECENT);
        FoldedRule {
            rule: rule.clone(),
            matches: activity().map(|activity| activity.matches).sum(),
            last_ms: activity().map(|activity| activity.last_ms).max().unwrap_or_default(),
            recent,
            would_have,
        }
    });
    Folded {
        rules: rules.collect(),
        versions,
        is_observing: observing == sets.len(),
        is_mixed: observing > 0 && observing < sets.len(),
        since_ms: newest.since_ms,
        problems: sets.iter().flat_map(|set| set.problems.iter().cloned()).collect(),
        limits: newest.limits.iter().map(|(name, limit)| (name.clone(), *limit)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_one_list() {
        let held = |account: &str, at_ms| v1::RuleMatch {
            account: account.into(),
            at_ms,
            observed: true,
            ..v1::RuleMatch::default()
        };
        let set = |partition, version: &str, recent: Vec<v1::RuleMatch>| v1::RuleSet {
            partition,
            version: version.into(),
            mode: v1::RuleMode::Observe.into(),
            rules: vec![v1::Rule { name: "burst".into(), ..v1::Rule::default() }],
            since_ms: partition.into(),
            problems: vec!["line 7".into()],
            activity: vec![v1::RuleActivity { rule: "burst".into(), matches: 3, last_ms: 9, recent }],
            limits: [("most".to_owned(), 5.0)].into(),
        };
        let sets =
            [set(0, "a", vec![held("x", 1), held("y", 5)]), set(1, "a", vec![held("x", 3)]), set(2, "b", vec![])];
        let folded = fold(&sets);
        assert_eq!(folded.versions, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        assert!(folded.is_observing && !folded.is_mixed);
        assert_eq!((folded.problems.len(), folded.rules.len(), folded.since_ms), (1, 1, 2));
        let rule = &folded.rules[0];
        assert_eq!((rule.matches, rule.would_have), (9, 2));
        assert_eq!(rule.recent.iter().map(|held| held.at_ms).collect::<Vec<_>>(), [5, 3, 1]);
        assert_eq!(fold(&[]), Folded::default());
    }
}
