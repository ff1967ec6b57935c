//! The rules in force, as far as the caller may know of them.

use prost::Message as _;
use std::collections::HashSet;
use tidegate_access::Scope;
use tidegate_domain::Account;
use tidegate_proto::v1;

/// Most octets of an answer, well below the 4 MiB that gRPC clients take by default.
const MAX_OCTETS: usize = 2 << 20;

/// The rule sets within `scope`. When they are too large for one answer, those of a version that was told already come
/// without their rules, and then all without what their rules did.
pub(super) fn answer(rule_sets: Vec<v1::RuleSet>, scope: &Scope) -> v1::ListRulesResponse {
    let mut answer = v1::ListRulesResponse { rule_sets };
    if !scope.is_all() {
        answer.rule_sets.iter_mut().for_each(|rule_set| limit(rule_set, scope));
    }
    if answer.encoded_len() > MAX_OCTETS {
        let mut told = HashSet::new();
        for rule_set in &mut answer.rule_sets {
            if !told.insert(rule_set.version.clone()) {
                rule_set.rules.clear();
            }
        }
    }
    if answer.encoded_len() > MAX_OCTETS {
        answer.rule_sets.iter_mut().flat_map(|rule_set| &mut rule_set.activity).for_each(|one| one.recent.clear());
    }
    answer
}

/// Leaves out what tells of other domains: rules that are limited to them, matches and counts of their accounts, and
/// problems of the file, which can name them.
fn limit(rule_set: &mut v1::RuleSet, scope: &Scope) {
    let is_concerned = |rule: &v1::Rule| {
        rule.domains.is_empty() || rule.domains.iter().any(|domain| scope.has_domain(&domain.to_lowercase()))
    };
    rule_set.rules.retain(is_concerned);
    for rule in &mut rule_set.rules {
        rule.domains.retain(|domain| scope.has_domain(&domain.to_lowercase()));
    }
    rule_set.problems.clear();
    let rules: HashSet<&str> = rule_set.rules.iter().map(|rule| rule.name.as_str()).collect();
    rule_set.activity.retain(|activity| rules.contains(activity.rule.as_str()));
    for activity in &mut rule_set.activity {
        activity.recent.retain(|found| Account::parse(&found.account).is_ok_and(|account| scope.has(&account)));
        activity.matches = activity.recent.len() as u64;
        activity.last_ms = activity.recent.iter().map(|found| found.at_ms).max().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_large_rule_sets_of_one_version_tell_their_rules_once() {
        let rule = v1::Rule { predicate: "x".repeat(1_000), ..Default::default() };
        let set = |partition, version: &str, count| v1::RuleSet {
            partition,
            version: version.into(),
            rules: vec![rule.clone(); count],
            ..Default::default()
        };
        let counts = |count| -> Vec<usize> {
            let sets = vec![set(0, "a", count), set(1, "a", count), set(2, "b", count)];
            answer(sets, &Scope::all()).rule_sets.iter().map(|set| set.rules.len()).collect()
        };
        assert_eq!(counts(10), [10, 10, 10]);
        assert_eq!(counts(900), [900, 0, 900]);
    }

    #[test]
    fn who_is_limited_to_a_domain_learns_nothing_of_others() {
        let rule = |name: &str, domains: &[&str]| v1::Rule {
            name: name.into(),
            domains: domains.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let found = |account: &str, at_ms| v1::RuleMatch { account: account.into(), at_ms, ..Default::default() };
        let activity = |rule: &str| v1::RuleActivity {
            rule: rule.into(),
            matches: 77,
            last_ms: 99,
            recent: vec![found("al@example.com", 99), found("jo@example.org", 5), found("local:www", 7)],
        };
        let set = v1::RuleSet {
            rules: vec![
                rule("all", &[]),
                rule("both", &["example.org", "example.com"]),
                rule("other", &["example.com"]),
            ],
            problems: vec!["rule x of example.com".into()],
            activity: vec![activity("all"), activity("other")],
            ..Default::default()
        };
        let answer = answer(vec![set], &Scope::domains(["example.org"]));
        let set = &answer.rule_sets[0];
        assert_eq!(set.rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["all", "both"]);
        assert_eq!(set.activity.len(), 1);
        assert_eq!((set.activity[0].matches, set.activity[0].last_ms), (1, 5));
        let text = format!("{answer:?}");
        assert!(!text.contains("example.com") && !text.contains("77") && !text.contains("www"), "{text}");
    }
}
