//! Verdicts of a filter, and their joining with what the milter saw.
#![allow(clippy::unwrap_used, missing_docs)]

mod rig;

use proptest::prelude::*;
use rig::{Rig, hash, milter_octets, settings, settings_with};
use std::collections::BTreeMap;
use tidegate_domain::{Account, Disposition, Submission};
use tidegate_mta::milter::MilterSession;
use tidegate_mta::rspamd::{FilterAction, FilterVerdict, VerdictError};
use tidegate_mta::{Ignored, SessionEvent, Submitted, VerdictJoiner, VerdictJoinerConfig};

const BEHIND_RSPAMD: &str = include_str!("data/postfix_behind_rspamd.jsonl");
const REJECTED: &str = include_str!("data/rspamd_rejected.json");
const MARKED: &str = include_str!("data/rspamd_marked.json");

fn parse(body: &str) -> Result<FilterVerdict, VerdictError> {
    FilterVerdict::parse(body.as_bytes(), &settings(), &Rig::default())
}

#[test]
fn reads_what_rspamd_posts() {
    let verdict = parse(REJECTED).unwrap();
    assert_eq!((verdict.queue_id.as_str(), verdict.account.as_str()), ("EB39C9840E1", "user0001@rig.test"));
    assert_eq!((verdict.action, verdict.score), (FilterAction::Reject, Some(20.4)));
    assert!(verdict.is_spam() && verdict.is_refused());
    assert_eq!((verdict.recipients.count, verdict.sender.as_str()), (2, "user0001@rig.test"));
    assert_eq!(verdict.client_address, Some("127.0.0.1".parse().unwrap()));
    assert_eq!(verdict.subject_hash, hash("subject", "cheap pills"));
    let verdict = parse(MARKED).unwrap();
    assert_eq!((verdict.action, verdict.is_spam(), verdict.is_refused()), (FilterAction::AddHeader, true, false));
}

#[test]
fn what_is_no_verdict_says_why() {
    assert!(matches!(parse("qid=1"), Err(VerdictError::Json(_))));
    assert!(matches!(parse("{}"), Err(VerdictError::NoQueueId)));
    assert!(matches!(parse(r#"{"qid": "unknown", "user": "a@b"}"#), Err(VerdictError::NoQueueId)));
    let anonymous = r#"{"qid": "Q", "user": "unknown", "ip": "192.0.2.1", "rcpt": "unknown", "score": 1, "action": 7}"#;
    assert!(matches!(parse(anonymous), Err(VerdictError::Nobody(Ignored::NoLogin))));
    assert!(matches!(parse(&" ".repeat(2_000_000)), Err(VerdictError::TooLong { octets: 2_000_000 })));
    let listed = settings_with(|config| {
        config.address_accounts = vec!["192.0.2.0/24".into()];
        config.trusted_relays = vec!["192.0.2.1".into()];
    });
    let verdict = FilterVerdict::parse(anonymous.as_bytes(), &listed, &Rig::default()).unwrap();
    assert_eq!((verdict.account.as_str(), verdict.client_address), ("address:192.0.2.1", None));
    assert_eq!((verdict.recipients.count, verdict.action, verdict.is_spam()), (0, FilterAction::Other, false));
}

/// What the milter behind rspamd saw of connection `conn`.
fn seen(conn: u64) -> SessionEvent {
    let mut events = Vec::new();
    let octets = milter_octets(BEHIND_RSPAMD, conn, true);
    let _ = MilterSession::new(settings()).input(&octets, &Rig::default(), &mut Vec::new(), &mut events);
    events.remove(0)
}

fn feed(joiner: &mut VerdictJoiner, event: SessionEvent, now_ms: i64, out: &mut Vec<Submitted>) {
    match event {
        SessionEvent::Message(message) => joiner.message(*message, now_ms, out),
        SessionEvent::Aborted(message) => joiner.aborted(*message, now_ms, out),
        SessionEvent::Refused { .. } | SessionEvent::Ignored(_) => {}
    }
}

#[test]
fn a_refused_message_counts_once_whichever_comes_first() {
    let mut both = Vec::new();
    for verdict_first in [true, false] {
        let (mut joiner, mut out) = (VerdictJoiner::new(VerdictJoinerConfig::default()), Vec::new());
        if verdict_first {
            joiner.verdict(parse(REJECTED).unwrap(), 0, &mut out);
            feed(&mut joiner, seen(8), 3, &mut out);
        } else {
            feed(&mut joiner, seen(8), 0, &mut out);
            assert_eq!(out, []);
            joiner.verdict(parse(REJECTED).unwrap(), 3, &mut out);
        }
        joiner.tick(1_000_000, &mut out);
        assert_eq!(out.len(), 1);
        let found = &out[0].submission;
        assert_eq!((found.disposition, found.spam, found.spam_score), (Disposition::RefusedByFilter, true, Some(20.4)));
        assert_eq!((found.recipients.count, found.login_method.as_str()), (2, "LOGIN"));
        assert_eq!(found.subject_hash, hash("subject", "cheap pills"));
        assert_eq!((joiner.stats().joined, joiner.stats().entries), (1, 0));
        both.push(out);
    }
    assert_eq!(both[0], both[1]);
}

#[test]
fn a_marked_message_counts_as_spam_once_whichever_comes_first() {
    for verdict_first in [true, false] {
        let (mut joiner, mut out) = (VerdictJoiner::new(VerdictJoinerConfig::default()), Vec::new());
        if verdict_first {
            joiner.verdict(parse(MARKED).unwrap(), 0, &mut out);
        }
        feed(&mut joiner, seen(9), 1, &mut out);
        if !verdict_first {
            joiner.verdict(parse(MARKED).unwrap(), 2, &mut out);
        }
        joiner.verdict(parse(MARKED).unwrap(), 3, &mut out);
        joiner.tick(1_000_000, &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!((out[0].submission.spam, out[0].submission.disposition), (true, Disposition::Accepted));
    }
}

fn message(queue_id: &str, spam: bool) -> Submitted {
    let submission = Submission { queue_id: queue_id.into(), spam, size: 5, ..Submission::default() };
    Submitted { account: Account::parse("jo@rig.test").unwrap(), submission }
}

fn verdict(queue_id: &str, action: &str) -> FilterVerdict {
    parse(&format!(
        r#"{{"qid": "{queue_id}", "user": "jo@rig.test", "action": "{action}", "score": 7.5, "rcpt": ["a@b.test"]}}"#
    ))
    .unwrap()
}

#[test]
fn a_verdict_after_the_message_comes_as_a_verdict_of_its_own() {
    let (mut joiner, mut out) = (VerdictJoiner::new(VerdictJoinerConfig::default()), Vec::new());
    joiner.message(message("Q", false), 0, &mut out);
    joiner.verdict(verdict("Q", "add header"), 1, &mut out);
    joiner.verdict(verdict("Q", "add header"), 2, &mut out);
    let [_, late] = &out[..] else { panic!("{out:?}") };
    assert!(!late.submission.is_message());
    assert_eq!((late.submission.spam, late.submission.spam_score), (true, Some(7.5)));
    assert_eq!((late.submission.size, late.submission.recipients.count), (0, 0), "nothing is counted twice");
}

#[test]
fn a_verdict_whose_message_never_comes_counts_alone_after_a_while() {
    let (mut joiner, mut out) = (VerdictJoiner::new(VerdictJoinerConfig::default()), Vec::new());
    joiner.verdict(verdict("Q", "reject"), 0, &mut out);
    joiner.verdict(verdict("P", "no action"), 0, &mut out);
    joiner.tick(4_999, &mut out);
    assert_eq!(out, []);
    joiner.tick(5_000, &mut out);
    let [alone] = &out[..] else { panic!("{out:?}") };
    assert_eq!(alone.submission.disposition, Disposition::RefusedByFilter);
    assert_eq!((alone.submission.recipients.count, alone.submission.spam), (1, true));
    // The abort comes after all.
    joiner.aborted(message("Q", false), 6_000, &mut out);
    assert_eq!((out.len(), joiner.stats().alone), (1, 1));
}

#[test]
fn a_queue_id_that_is_used_again_is_another_message() {
    let (mut joiner, mut out) = (VerdictJoiner::new(VerdictJoinerConfig::default()), Vec::new());
    joiner.message(message("Q", true), 0, &mut out);
    joiner.message(message("Q", false), 100, &mut out);
    joiner.verdict(verdict("Q", "add header"), 200, &mut out);
    assert_eq!(out.iter().filter(|found| found.submission.spam).count(), 2);
    // Another account's message with the same id is not touched.
    let mut other = message("Q", false);
    other.account = Account::parse("ann@rig.test").unwrap();
    joiner.message(other, 300, &mut out);
    assert!(!out.last().unwrap().submission.spam);
    // What is old is forgotten.
    joiner.tick(70_000, &mut out);
    assert_eq!(joiner.stats().entries, 0);
}

#[test]
fn memory_is_bounded_and_no_spam_is_lost_by_it() {
    let config = VerdictJoinerConfig { max_entries: 10, ..VerdictJoinerConfig::default() };
    let (mut joiner, mut out) = (VerdictJoiner::new(config), Vec::new());
    for n in 0..30 {
        joiner.verdict(verdict(&format!("Q{n}"), "reject"), n, &mut out);
    }
    assert_eq!((joiner.stats().entries, joiner.stats().evicted, out.len()), (10, 20, 20));
    joiner.tick(6_000, &mut out);
    assert_eq!(out.len(), 30);
}

/// What became of a message, and which of its two traces comes first.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Clean,
    MarkedInHeader,
    MarkedOnlyInVerdict,
    Refused,
    ClientLeft,
}

proptest! {
    #[test]
    fn every_message_counts_once_and_as_spam_once(
        fates in prop::collection::vec(
            (prop::sample::select(vec![
                Fate::Clean, Fate::MarkedInHeader, Fate::MarkedOnlyInVerdict, Fate::Refused, Fate::ClientLeft,
            ]), 0_i64..3_000, 0_i64..6_000, any::<bool>(), any::<bool>()),
            1..40,
        ),
    ) {
        let (mut joiner, mut out) = (VerdictJoiner::new(VerdictJoinerConfig::default()), Vec::new());
        // Everything that happens, by its time. The two traces of a message are up to 3 s apart.
        let mut happenings = BTreeMap::new();
        for (n, (fate, apart_ms, at_ms, verdict_first, twice)) in fates.iter().enumerate() {
            let (seen, posted) = if *verdict_first { (at_ms + apart_ms, *at_ms) } else { (*at_ms, at_ms + apart_ms) };
            happenings.insert((seen, n, 0), *fate);
            if *fate != Fate::ClientLeft {
                happenings.insert((posted, n, 1), *fate);
                if *twice {
                    happenings.insert((posted + 100, n, 1), *fate);
                }
            }
        }
        for ((at_ms, n, trace), fate) in happenings {
            joiner.tick(at_ms, &mut out);
            let queue_id = format!("Q{n}");
            match (trace, fate) {
                (0, Fate::Clean | Fate::MarkedOnlyInVerdict) => joiner.message(message(&queue_id, false), at_ms, &mut out),
                (0, Fate::MarkedInHeader) => joiner.message(message(&queue_id, true), at_ms, &mut out),
                (0, Fate::Refused | Fate::ClientLeft) => joiner.aborted(message(&queue_id, false), at_ms, &mut out),
                (_, Fate::Clean) => joiner.verdict(verdict(&queue_id, "no action"), at_ms, &mut out),
                (_, Fate::Refused) => joiner.verdict(verdict(&queue_id, "reject"), at_ms, &mut out),
                (_, _) => joiner.verdict(verdict(&queue_id, "add header"), at_ms, &mut out),
            }
        }
        joiner.tick(1_000_000, &mut out);
        for (n, (fate, ..)) in fates.iter().enumerate() {
            let queue_id = format!("Q{n}");
            let of_message = || out.iter().filter(|found| found.submission.queue_id == queue_id);
            let counted = of_message().filter(|found| found.submission.is_message()).count();
            let spam = of_message().filter(|found| found.submission.spam).count();
            let expected = match fate {
                Fate::Clean => (1, 0),
                Fate::MarkedInHeader | Fate::MarkedOnlyInVerdict | Fate::Refused => (1, 1),
                Fate::ClientLeft => (0, 0),
            };
            prop_assert_eq!((counted, spam), expected, "{:?}", fate);
        }
    }

    #[test]
    fn any_body_is_survived(body in prop::collection::vec(any::<u8>(), 0..300), at in 0_usize..1403, octet: u8) {
        let _ = FilterVerdict::parse(&body, &settings(), &Rig::default());
        let mut damaged = REJECTED.as_bytes().to_vec();
        damaged[at] = octet;
        let _ = FilterVerdict::parse(&damaged, &settings(), &Rig::default());
    }
}
