//! The core of a partition: duplicates, clocks, clean slates, and restarts at any point.

use crate::lab::{BEGIN_MS, RULES, event, locks, partition, record, rules, unlock};
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use std::collections::BTreeMap;
use tidegate_bus::{Record, Topic};
use tidegate_detect::{Rules, Statistics};
use tidegate_domain::{Change, Status};
use tidegate_proto::{state_to_proto, v1};
use tidegate_stream::Decided;

/// A state of another partition's account could never be written here, and would keep all others back.
#[test]
fn what_belongs_to_another_partition_is_left_out() {
    let is_here = |account: &str| tidegate_bus::partition_of(account.as_bytes(), 4) == 0;
    let accounts = || (0..40).map(|number| format!("user{number}@example.org"));
    let mut partition = partition(&rules(), 0).among(4);
    for (offset, account) in (0..).zip(accounts()) {
        let output = partition.events(&[event(offset, &account, offset + 1, 0, 0)]).unwrap();
        assert_eq!(output.counts.events, u64::from(is_here(&account)), "{account}");
        assert_eq!(output.counts.rejected, u64::from(!is_here(&account)), "{account}");
        let output = partition.command(&unlock(offset, &account, 0));
        assert_eq!(output.states.len(), usize::from(is_here(&account)), "{account}");
        // Under another account's key.
        let stray = Record { key: Bytes::from_static(b"user0@example.org"), ..unlock(offset + 100, &account, 0) };
        assert!(account == "user0@example.org" || partition.command(&stray).states.is_empty(), "{account}");
    }
    assert!(accounts().any(|account| is_here(&account)));
}

#[test]
fn duplicates_and_what_is_no_event_are_counted_and_left_out() {
    let mut partition = partition(&rules(), 0);
    let mut records: Vec<Record> = (0..4).map(|n| event(n, "jo@example.org", n + 1, BEGIN_MS, BEGIN_MS)).collect();
    records.push(event(4, "jo@example.org", 4, BEGIN_MS, BEGIN_MS));
    records.push(record(Topic::Events, 5, "x", b"\xff\xff".to_vec(), BEGIN_MS));
    let output = partition.events(&records).unwrap();
    assert_eq!((output.counts.events, output.counts.duplicates, output.counts.rejected), (4, 1, 1));
    assert!(output.states.is_empty(), "four messages are not five");
    let output = partition.events(&[event(6, "jo@example.org", 5, BEGIN_MS, BEGIN_MS)]).unwrap();
    assert_eq!(locks(&output), ["jo@example.org"]);
}

#[test]
fn a_clock_that_is_ahead_is_moved_back_to_the_logs() {
    let mut partition = partition(&rules(), 0);
    let far = BEGIN_MS + 86_400_000;
    let output = partition.events(&[event(0, "jo@example.org", 1, far, BEGIN_MS)]).unwrap();
    assert_eq!(output.counts.clock_ahead, 1);
    let records: Vec<Record> = (1..5).map(|n| event(n, "jo@example.org", n + 1, BEGIN_MS, BEGIN_MS)).collect();
    assert_eq!(locks(&partition.events(&records).unwrap()), ["jo@example.org"], "the far one counts as of now");
}

#[test]
fn old_messages_do_not_lock_an_unlocked_account_again_also_after_a_restart() {
    let rules = rules();
    let mut first = partition(&rules, 0);
    let spam: Vec<Record> = (0..50).map(|n| event(n, "jo@example.org", n + 1, BEGIN_MS, BEGIN_MS)).collect();
    assert_eq!(locks(&first.events(&spam).unwrap()).len(), 1);
    let unlocked = first.command(&unlock(0, "jo@example.org", BEGIN_MS + 100)).states.remove(0);
    assert_eq!(unlocked.status, Status::Active);
    let late = event(50, "jo@example.org", 51, BEGIN_MS + 50, BEGIN_MS + 200);
    assert_eq!(first.events(std::slice::from_ref(&late)).unwrap().counts.void, 1, "sent before the unlock");

    // The second life reads the state, then the same events, with nothing committed at all.
    let mut second = partition(&rules, 0);
    let state = state_to_proto(&unlocked).encode_to_vec();
    second.load_state(&record(Topic::Accounts, 0, "jo@example.org", state, BEGIN_MS)).unwrap();
    let mut replay = spam;
    replay.push(late);
    let output = second.events(&replay).unwrap();
    assert_eq!((output.states.len(), output.counts.void), (0, 51));
    let fresh: Vec<Record> =
        (51..56).map(|n| event(n, "jo@example.org", n + 1, BEGIN_MS + 300, BEGIN_MS + 300)).collect();
    assert_eq!(locks(&second.events(&fresh).unwrap()).len(), 1, "new spam locks again");
}

#[test]
fn a_timed_lock_ends_with_the_clock() {
    let (statistics, _) = rules();
    let timed = RULES.replace("action = \"lock\"", "action = \"lock\"\nfor = \"10m\"");
    let rules = Rules::parse("rules.toml", &timed, &statistics).unwrap();
    let mut partition = partition(&(statistics, rules), 0);
    let records: Vec<Record> = (0..5).map(|n| event(n, "jo@example.org", n + 1, BEGIN_MS, BEGIN_MS)).collect();
    assert_eq!(locks(&partition.events(&records).unwrap()).len(), 1);
    assert!(partition.tick(BEGIN_MS + 599_999).states.is_empty());
    let output = partition.tick(BEGIN_MS + 600_000);
    assert_eq!((output.changes.as_slice(), &output.states[0].status), (&[Change::Expired][..], &Status::Active));
    assert!(partition.tick(BEGIN_MS + 700_000).states.is_empty());
}

#[test]
fn observing_rules_change_nothing_and_are_told_unless_the_account_is_exempted() {
    let (statistics, _) = rules();
    let watching = Rules::parse("rules.toml", &RULES.replace("enforce", "observe"), &statistics).unwrap();
    let mut partition = partition(&(statistics, watching), 0);
    let exempt = v1::Command {
        id: "c".into(),
        account: "news@example.org".into(),
        actor: "amy".into(),
        reason: "newsletter".into(),
        kind: Some(v1::command::Kind::Exempt(v1::ExemptCommand::default())),
    };
    partition.command(&record(Topic::Commands, 0, "news@example.org", exempt.encode_to_vec(), BEGIN_MS));
    let senders =
        (0..20).map(|n| event(n, ["jo@example.org", "news@example.org"][n as usize % 2], n + 1, BEGIN_MS, BEGIN_MS));
    let output = partition.events(&senders.collect::<Vec<_>>()).unwrap();
    assert!(output.states.is_empty());
    let told: Vec<(&str, &str)> = output.told.iter().map(|one| (one.account.as_str(), one.rule.as_str())).collect();
    assert_eq!(told, [("jo@example.org", "five")]);
    assert!(output.told[0].reason.starts_with("would have asked for lock"), "{}", output.told[0].reason);
    let again = partition.events(&[event(20, "jo@example.org", 21, BEGIN_MS + 1, BEGIN_MS + 1)]).unwrap();
    assert!(again.told.is_empty() && !again.observed.is_empty(), "counted, but not told again");
}

/// One life of a worker after another, each killed after some batches; what it had published and committed stands.
fn lives(rules: &(Statistics, Rules), records: &[Record], cuts: &[usize], kills: &[usize]) -> BTreeMap<String, usize> {
    let mut published: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut times_locked: BTreeMap<String, usize> = BTreeMap::new();
    let (mut committed, mut kills) = (0_usize, kills.iter());
    'life: loop {
        let mut partition = partition(rules, committed as u64);
        for (account, state) in &published {
            partition.load_state(&record(Topic::Accounts, 0, account, state.clone(), BEGIN_MS)).unwrap();
        }
        let mut batches_left = kills.next().copied();
        let mut at = 0;
        for cut in cuts.iter().copied().chain([records.len()]) {
            let end = cut.clamp(at, records.len());
            let output = partition.events(&records[at..end]).unwrap();
            at = end;
            if batches_left == Some(0) {
                // Killed after deciding, before the commit.
                continue 'life;
            }
            batches_left = batches_left.map(|left| left - 1);
            for account in locks(&output) {
                *times_locked.entry(account.to_owned()).or_default() += 1;
            }
            for Decided { state, .. } in output.newest_states() {
                published.insert(state.account.to_string(), state_to_proto(state).encode_to_vec());
            }
            committed = committed.max(at);
        }
        return times_locked;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever sent five messages within a minute is locked exactly once, and nobody else, wherever batches are cut
    /// and however often the worker is killed.
    #[test]
    fn no_lock_is_lost_or_doubled(
        senders in proptest::collection::vec(0u8..12, 1..80),
        cuts in proptest::collection::vec(0usize..80, 0..6),
        kills in proptest::collection::vec(0usize..4, 0..4),
    ) {
        let rules = rules();
        let records: Vec<Record> = senders
            .iter()
            .enumerate()
            .map(|(n, sender)| {
                let n = n as u64;
                event(n, &format!("user{sender}@example.org"), n + 1, BEGIN_MS + n.cast_signed(), BEGIN_MS + n.cast_signed())
            })
            .collect();
        let mut expected = BTreeMap::new();
        for sender in &senders {
            *expected.entry(format!("user{sender}@example.org")).or_insert(0_usize) += 1;
        }
        expected.retain(|_, sent| { let over = *sent >= 5; *sent = 1; over });
        let mut cuts = cuts;
        cuts.sort_unstable();
        prop_assert_eq!(lives(&rules, &records, &cuts, &kills), expected);
    }
}
