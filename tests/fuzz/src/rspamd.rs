//! Verdicts that rspamd posts, and what joins them to messages.

use tidegate_domain::Submission;
use tidegate_mta::rspamd::{FilterVerdict, VerdictError};
use tidegate_mta::{Submitted, VerdictJoiner, VerdictJoinerConfig};

use crate::input::{Input, outcome, seed};
use crate::milter::{Choices, check_submission, settings};
use crate::{Outcome, Target};

const CAPTURES: [&str; 2] = [
    include_str!("../../../services/mta/tests/data/rspamd_marked.json"),
    include_str!("../../../services/mta/tests/data/rspamd_rejected.json"),
];

/// A body, and whether its message comes before it, after it, is given up, or never comes.
pub const VERDICT: Target = Target {
    name: "rspamd",
    run,
    seeds,
    words: &[
        "\"qid\":\"A1\"",
        "\"user\":\"jo@example.org\"",
        "\"action\":\"reject\"",
        "\"action\":\"add header\"",
        "\"score\":",
        "1e309",
        "\"rcpt\":[",
        "\"unknown\"",
        "null",
        "\\u0000",
        "{",
        "}",
        "[",
        "]",
        ",",
    ],
    max_octets: 8 * 1024,
    test_inputs: 20_000,
};

fn run(octets: &[u8]) -> Outcome {
    let mut input = Input::new(octets);
    let (choices, order) = (input.byte(), input.byte());
    let verdict = match FilterVerdict::parse(input.rest(), &settings(), &Choices::new(choices)) {
        Ok(verdict) => verdict,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let kind = match error {
                VerdictError::TooLong { .. } => 1,
                VerdictError::Json(error) => 10 + error.classify() as u64,
                VerdictError::NoQueueId => 2,
                VerdictError::Nobody(_) => 3,
            };
            return outcome(kind);
        }
    };
    assert!(!verdict.queue_id.is_empty() && verdict.queue_id.len() <= 512 && verdict.sender.len() <= 512);
    assert!(verdict.recipients.domains.len() <= 100 && verdict.recipients.hashes.len() <= 1000);
    let spam = verdict.is_spam();
    let message = || Submitted {
        account: verdict.account.clone(),
        submission: Submission { queue_id: verdict.queue_id.clone(), ..Submission::default() },
    };
    let mut joiner = VerdictJoiner::new(VerdictJoinerConfig { max_entries: 2, ..VerdictJoinerConfig::default() });
    let mut out = Vec::new();
    match order % 4 {
        0 => joiner.message(message(), 1, &mut out),
        1 => joiner.aborted(message(), 1, &mut out),
        _ => {}
    }
    joiner.verdict(verdict.clone(), 2, &mut out);
    joiner.verdict(verdict.clone(), 2, &mut out);
    if order % 4 == 2 {
        joiner.message(message(), 3, &mut out);
    }
    joiner.tick(100_000, &mut out);
    joiner.tick(i64::MAX, &mut out);
    assert_eq!(joiner.stats().entries, 0, "nothing is remembered for ever");
    for submitted in &out {
        check_submission(&submitted.submission);
    }
    let counted = out.iter().filter(|submitted| submitted.submission.spam).count();
    assert!(counted <= 1, "one message counts as spam {counted} times");
    assert!(spam || counted == 0);
    outcome((verdict.action, out.len(), verdict.recipients.count.min(20), verdict.score.is_some()))
}

fn seeds() -> Vec<Vec<u8>> {
    let captures = CAPTURES.iter().map(|capture| capture.trim().as_bytes());
    let small = br#"{"qid":"A1","user":"jo@example.org","ip":"192.0.2.1","from":"<a@b.c>","rcpt":["x@y.z"],"score":7.5,
        "action":"reject","subject":"=?utf-8?q?hi?="}"#;
    captures.chain([&small[..]]).enumerate().map(|(number, octets)| seed(&[0, number as u8], octets)).collect()
}
