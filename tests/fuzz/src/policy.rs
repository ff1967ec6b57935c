//! Policy sessions over one joiner.

use serde_json::Value;
use tidegate_mta::SessionEvent;
use tidegate_mta::policy::{PolicyJoiner, PolicyJoinerConfig, PolicyJoinerStats, PolicySession, SubmissionAt};

use crate::input::{Input, outcome, pieces, seed};
use crate::milter::{Choices, check_submission, settings};
use crate::{Outcome, Target};

const POSTFIX: &str = include_str!("../../../services/mta/tests/data/postfix_policy.jsonl");
const EXIM: &str = include_str!("../../../services/mta/tests/data/exim_policy.txt");
/// Longest line that is kept.
const MAX_BUFFERED_OCTETS: usize = 4096;
const MAX_OPEN: usize = 4;

/// Octets of a connection, then time.
pub const POLICY: Target = Target {
    name: "policy",
    run,
    seeds,
    words: &[
        "request=smtpd_access_policy\n",
        "protocol_state=RCPT\n",
        "protocol_state=DATA\n",
        "protocol_state=MAIL\n",
        "protocol_state=END-OF-MESSAGE\n",
        "sasl_username=jo@example.org\n",
        "recipient=a@dest.test\n",
        "recipient_count=3\n",
        "instance=1.2\n",
        "policy_context=exim\n",
        "client_address=10.0.0.1\n",
        "client_address=127.0.0.1\n",
        "size=-1\n",
        "\n\n",
        "\r\n",
    ],
    max_octets: 8 * 1024,
    test_inputs: 20_000,
};

type Seen = (Vec<u8>, Vec<SessionEvent>, PolicyJoinerStats);

fn session<'a>(parts: impl Iterator<Item = &'a [u8]>, choices: u8) -> Seen {
    let submission_at = if choices & 8 == 0 { SubmissionAt::Auto } else { SubmissionAt::Data };
    let config = PolicyJoinerConfig { submission_at, max_open: MAX_OPEN, ..PolicyJoinerConfig::default() };
    let (mut session, mut joiner) = (PolicySession::new(settings()), PolicyJoiner::new(settings(), config));
    let (mut out, mut events) = (Vec::new(), Vec::new());
    let gate = Choices::new(choices);
    for part in parts {
        session.input(part, &gate, &mut joiner, 1_000, &mut out, &mut events);
        assert!(session.buffered_octets() <= MAX_BUFFERED_OCTETS, "{} octets held", session.buffered_octets());
        assert!(joiner.stats().open <= MAX_OPEN);
    }
    for now_ms in [2_000, 5_000, 2_000_000, i64::MAX] {
        let mut submitted = Vec::new();
        joiner.tick(now_ms, &mut submitted);
        events.extend(submitted.into_iter().map(|message| SessionEvent::Message(Box::new(message))));
    }
    assert_eq!(joiner.stats().open, 0, "nothing stays open for ever");
    (out, events, joiner.stats())
}

fn run(octets: &[u8]) -> Outcome {
    let mut input = Input::new(octets);
    let (choices, cut) = (input.byte(), input.byte());
    let octets = input.rest();
    let whole = session(std::iter::once(octets), choices);
    assert_eq!(whole, session(pieces(octets, cut), choices), "other results when it is cut");
    let (out, events, stats) = whole;
    let answers = String::from_utf8(out).unwrap();
    for answer in answers.split_terminator("\n\n") {
        let text = answer.strip_prefix("action=").unwrap();
        assert!(text == "DUNNO" || text.starts_with("450 4.7.1 ") || text.starts_with("550 5.7.1 "), "{text:?}");
        assert!(!text.contains(['\n', '\r']) && text.len() <= 400);
    }
    for event in &events {
        if let SessionEvent::Message(message) = event {
            check_submission(&message.submission);
        }
    }
    let kinds: Vec<_> = events.iter().map(std::mem::discriminant).collect();
    outcome((answers.len(), kinds, stats.evicted, stats.abandoned, stats.quiet))
}

fn seeds() -> Vec<Vec<u8>> {
    let mut connections: Vec<String> = Vec::new();
    for line in POSTFIX.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let lines = line["raw"].as_array().unwrap().iter().map(|line| format!("{}\n", line.as_str().unwrap()));
        connections.push(lines.collect::<String>() + "\n");
    }
    let one_after_the_other = connections.windows(4).map(<[String]>::concat).collect::<Vec<_>>();
    connections.extend(one_after_the_other);
    connections.push(EXIM.to_owned());
    let octets = connections.iter().map(String::as_bytes).enumerate();
    octets.map(|(number, octets)| seed(&[number as u8, number as u8], octets)).collect()
}
