//! What an account did and what was decided about it, put together for people.

use serde::Serialize;
use std::collections::BTreeMap;

/// Client addresses that are told apart within an hour; further ones are put together.
const MAX_ADDRESSES: usize = 5;

/// How the audit ends what it tells of an action that is about to be done.
const ANNOUNCED: &str = " (asked)";
/// What came of it follows so soon.
const ANSWERED_WITHIN_MS: i64 = 10 * 60 * 1000;

/// One entry of the timeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// Something was decided about it.
    Decided(Decided),
    /// An administrator asked for something.
    Asked(Asked),
    /// It did the same several times.
    Did(Did),
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decided {
    /// When, in milliseconds since 1970 UTC.
    #[serde(serialize_with = "as_time", rename = "time")]
    pub at_ms: i64,
    /// `locked`, `unlocked` and so on.
    pub change: String,
    /// Why: the rule and its reason, or the actor's.
    pub why: String,
    /// Who asked; none when a rule held.
    pub actor: Option<String>,
    /// The lock.
    pub lock: Option<String>,
    /// The statistics that made the rule hold.
    pub evidence: BTreeMap<String, Option<f64>>,
    /// Addresses that it sent from before.
    pub client_addresses: Vec<String>,
}

/// What somebody asked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Asked {
    /// When, in milliseconds since 1970 UTC.
    #[serde(serialize_with = "as_time", rename = "time")]
    pub at_ms: i64,
    /// Who.
    pub actor: Option<String>,
    /// For what, and why, and what came of it.
    pub what: String,
    /// Whether it was allowed.
    pub allowed: bool,
}

/// What it did within one hour, from one client address.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Did {
    /// The first, in milliseconds since 1970 UTC.
    #[serde(serialize_with = "as_time", rename = "first")]
    pub first_ms: i64,
    /// The last.
    #[serde(serialize_with = "as_time", rename = "last")]
    pub last_ms: i64,
    /// What.
    pub what: What,
    /// From where; none for local submission, and for deliveries.
    pub client_address: Option<String>,
    /// More addresses that are put together here.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_addresses: usize,
    /// How often.
    pub count: i64,
    /// Recipients of all messages.
    pub recipients: i64,
    /// Messages that a filter called spam.
    pub spam: i64,
    /// Messages that a filter refused.
    pub refused: i64,
}

/// What it did.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It sent a message.
    Sent,
    /// It logged in.
    LoggedIn,
    /// It tried to log in.
    FailedToLogIn,
    /// Its mail was delivered, or not: the outcome.
    Delivery(String),
}

impl Entry {
    /// When it begins.
    pub fn at_ms(&self) -> i64 {
        match self {
            Self::Decided(decided) => decided.at_ms,
            Self::Asked(asked) => asked.at_ms,
            Self::Did(did) => did.first_ms,
        }
    }
}

/// A decision, of its parts in the view `account_timeline`.
pub fn decided(at_ms: i64, change: String, detail: &str, actor: Option<String>, lock: Option<String>) -> Decided {
    let (why, evidence) = split_evidence(detail);
    Decided { at_ms, change, why: why.to_owned(), actor, lock, evidence, client_addresses: Vec::new() }
}

/// The words of a detail, and the statistics that are an object of JSON at its end.
fn split_evidence(detail: &str) -> (&str, BTreeMap<String, Option<f64>>) {
    for (at, _) in detail.match_indices('{') {
        if let Ok(evidence) = serde_json::from_str(&detail[at..]) {
            return (detail[..at].trim_end(), evidence);
        }
    }
    (detail.trim_end(), BTreeMap::new())
}

/// What was done in one hour, with one decision before it, is one group for each thing and address; those with few
/// messages are put together, so that a thief with a thousand addresses does not fill the screen.
pub fn fold(did: Vec<(GroupKey, Did)>) -> Vec<Did> {
    let mut groups: BTreeMap<GroupKey, Vec<Did>> = BTreeMap::new();
    for (key, one) in did {
        groups.entry(key).or_default().push(one);
    }
    let mut folded = Vec::new();
    for (_, mut group) in groups {
        group.sort_by_key(|one| (std::cmp::Reverse(one.count), one.first_ms));
        // Putting one address away would save nothing.
        if group.len() > MAX_ADDRESSES + 1 {
            let rest = group.split_off(MAX_ADDRESSES);
            folded.extend(together(rest));
        }
        folded.extend(group);
    }
    folded
}

/// The hour, the decisions before it, and what it was.
pub type GroupKey = (i64, i64, What);

fn together(rest: Vec<Did>) -> Option<Did> {
    let more_addresses = rest.len();
    let mut whole = rest.into_iter().reduce(|mut whole, one| {
        whole.first_ms = whole.first_ms.min(one.first_ms);
        whole.last_ms = whole.last_ms.max(one.last_ms);
        whole.count += one.count;
        whole.recipients += one.recipients;
        whole.spam += one.spam;
        whole.refused += one.refused;
        whole
    })?;
    whole.client_address = None;
    whole.more_addresses = more_addresses;
    Some(whole)
}

/// All entries, the newest last.
pub fn in_order(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by_key(Entry::at_ms);
    without_announcements(entries)
}

/// The audit has an action twice: before it is done, and what came of it. Both are told as one, at the time of the first.
fn without_announcements(entries: Vec<Entry>) -> Vec<Entry> {
    let mut told: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        if let Entry::Asked(answer) = &entry
            && !answer.what.ends_with(ANNOUNCED)
            && let Some(announced) = told.iter_mut().rev().find_map(|earlier| announcement_of(earlier, answer))
        {
            announced.what.clone_from(&answer.what);
            continue;
        }
        told.push(entry);
    }
    told
}

/// What `earlier` is, if `answer` tells what came of it.
fn announcement_of<'a>(earlier: &'a mut Entry, answer: &Asked) -> Option<&'a mut Asked> {
    let Entry::Asked(asked) = earlier else { return None };
    let is_of_it = asked.what.strip_suffix(ANNOUNCED).is_some_and(|what| answer.what.starts_with(what));
    (is_of_it && asked.actor == answer.actor && answer.at_ms <= asked.at_ms + ANSWERED_WITHIN_MS).then_some(asked)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn as_time<S: serde::Serializer>(ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&crate::admin::format::time(*ms))
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn sent(first_ms: i64, address: &str, count: i64) -> Did {
        Did {
            first_ms,
            last_ms: first_ms + 1_000,
            what: What::Sent,
            client_address: Some(address.to_owned()),
            more_addresses: 0,
            count,
            recipients: 2 * count,
            spam: 0,
            refused: 0,
        }
    }

    #[test]
    fn evidence_is_told_from_the_reason() {
        let decided =
            decided(0, "locked".into(), "burst: sends {much} {\"messages_1m\":61.0,\"size_cv\":null}", None, None);
        assert_eq!(decided.why, "burst: sends {much}");
        assert_eq!(decided.evidence["messages_1m"], Some(61.0));
        assert_eq!(decided.evidence["size_cv"], None);
        assert_eq!(split_evidence("called {back").0, "called {back");
    }

    #[test]
    fn many_addresses_of_an_hour_are_put_together() {
        let key = (0, 0, What::Sent);
        let many: Vec<_> = (0..1_000).map(|n| (key.clone(), sent(n, &format!("10.0.0.{n}"), 1_000 - n))).collect();
        let folded = fold(many);
        assert_eq!(folded.len(), MAX_ADDRESSES + 1);
        let rest = folded.iter().find(|one| one.more_addresses > 0).unwrap();
        assert_eq!((rest.more_addresses, rest.first_ms, rest.last_ms), (995, 5, 1_999));
        assert_eq!(folded.iter().map(|one| one.count).sum::<i64>(), 500_500);
        assert_eq!(folded.iter().map(|one| one.recipients).sum::<i64>(), 1_001_000);
        // Those of another hour, or after a decision, stay apart.
        let few =
            [(key, sent(1, "a", 1)), ((0, 1, What::Sent), sent(2, "a", 1)), ((1, 1, What::Sent), sent(3, "a", 1))];
        assert_eq!(fold(few.into()).len(), 3);
    }

    #[test]
    fn an_action_is_told_once_with_what_came_of_it() {
        let asked = |at_ms, what: &str| {
            Entry::Asked(Asked { at_ms, actor: Some("amy".into()), what: what.into(), allowed: true })
        };
        let told = |entries| in_order(entries);
        let begun = asked(1, "LockAccount: theft (asked)");
        assert_eq!(told(vec![begun.clone(), asked(2, "LockAccount: theft")]), [asked(1, "LockAccount: theft")]);
        let late = "LockAccount: theft (not in time)";
        assert_eq!(told(vec![begun.clone(), asked(2, late)]), [asked(1, late)]);
        for apart in [asked(2, "UnlockAccount: over"), asked(700_000, "LockAccount: theft")] {
            assert_eq!(told(vec![begun.clone(), apart.clone()]), [begun.clone(), apart]);
        }
    }

    #[test]
    fn the_newest_is_last() {
        let entries = in_order(vec![
            Entry::Did(sent(30, "a", 1)),
            Entry::Decided(decided(20, "locked".into(), "", None, None)),
            Entry::Did(sent(10, "a", 1)),
        ]);
        assert_eq!(entries.iter().map(Entry::at_ms).collect::<Vec<_>>(), [10, 20, 30]);
    }
}
