//! Policy sessions against what Postfix and Exim sent.
#![allow(clippy::unwrap_used, missing_docs)]

mod rig;

use proptest::prelude::*;
use rig::{Rig, hash, settings, settings_with};
use std::sync::Arc;
use tidegate_mta::policy::{PolicyJoiner, PolicyJoinerConfig, PolicyJoinerStats, PolicySession, SubmissionAt};
use tidegate_mta::{SessionEvent, SessionSettings, Stage, Submitted};

const POSTFIX: &str = include_str!("data/postfix_policy.jsonl");
const EXIM: &str = include_str!("data/exim_policy.txt");
const REFUSED: &str = "action=550 5.7.1 Account locked (L-7K2M9QXB), 100% sure\n\n";

/// An edge: one joiner, any number of sessions.
struct Edge<'a> {
    gate: &'a Rig,
    settings: Arc<SessionSettings>,
    joiner: PolicyJoiner,
    sessions: Vec<PolicySession>,
    events: Vec<SessionEvent>,
    now_ms: i64,
}

impl<'a> Edge<'a> {
    fn new(gate: &'a Rig, config: PolicyJoinerConfig) -> Self {
        Self::with_settings(gate, config, settings())
    }

    fn with_settings(gate: &'a Rig, config: PolicyJoinerConfig, settings: Arc<SessionSettings>) -> Self {
        let joiner = PolicyJoiner::new(Arc::clone(&settings), config);
        Self { gate, settings, joiner, sessions: Vec::new(), events: Vec::new(), now_ms: 1_000_000 }
    }

    fn ask(&mut self, conn: usize, request: &str) -> String {
        while self.sessions.len() <= conn {
            self.sessions.push(PolicySession::new(Arc::clone(&self.settings)));
        }
        let mut out = Vec::new();
        let session = &mut self.sessions[conn];
        session.input(request.as_bytes(), self.gate, &mut self.joiner, self.now_ms, &mut out, &mut self.events);
        String::from_utf8(out).unwrap()
    }

    fn messages(&self) -> Vec<&Submitted> {
        self.events
            .iter()
            .filter_map(|event| if let SessionEvent::Message(found) = event { Some(found.as_ref()) } else { None })
            .collect()
    }

    fn pass(&mut self, ms: i64) -> Vec<Submitted> {
        let mut out = Vec::new();
        self.now_ms += ms;
        self.joiner.tick(self.now_ms, &mut out);
        out
    }
}

fn captured() -> Vec<(usize, String, String)> {
    let read = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let lines: Vec<_> = line["raw"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
        let conn = usize::try_from(line["conn"].as_u64().unwrap()).unwrap();
        (conn, lines.join("\n") + "\n\n", line["action"].as_str().unwrap().to_owned())
    };
    POSTFIX.lines().map(read).collect()
}

fn request(state: &str, instance: &str, rest: &str) -> String {
    format!(
        "request=smtpd_access_policy\nprotocol_state={state}\nclient_address=203.0.113.7\nclient_port=4000\n\
         sender=jo@rig.test\nsasl_method=plain\nsasl_username=jo@rig.test\ninstance={instance}\n{rest}\n"
    )
}

#[test]
fn postfix_asks_over_several_connections_about_one_message() {
    let gate = Rig::default();
    let mut edge = Edge::new(&gate, PolicyJoinerConfig::default());
    for (conn, raw, action) in captured() {
        // The agent of the capture refused twice; the state says the same here.
        if action.starts_with("550") {
            gate.lock("user0006@rig.test");
            assert_eq!(edge.ask(conn, &raw), REFUSED);
            gate.unlock("user0006@rig.test");
        } else {
            assert_eq!(edge.ask(conn, &raw), "action=DUNNO\n\n");
        }
    }
    let [first, second] = edge.messages()[..] else { panic!("{:?}", edge.events) };
    let found = &first.submission;
    assert_eq!(first.account.as_str(), "user0006@rig.test");
    assert_eq!((found.queue_id.as_str(), found.size, found.recipients.count), ("AD98C99A03C", 66, 1));
    assert_eq!(found.client_address, Some("127.0.0.1".parse().unwrap()));
    assert_eq!((found.client_port, found.helo.as_str(), found.login_method.as_str()), (59002, "x", "PLAIN"));
    assert_eq!(found.recipients.hashes, [hash("recipient", "one@dest.test")]);
    assert_eq!((found.fingerprint, found.sender.as_str()), (0, "user0006@rig.test"));
    // Each recipient was asked about twice, in two contexts, over two connections.
    let found = &second.submission;
    assert_eq!((found.queue_id.as_str(), found.size, found.recipients.count), ("BE2A499A03C", 14, 3));
    assert_eq!((found.recipients.hashes.len(), found.recipients.domains.len(), found.sender.as_str()), (3, 1, ""));
    let stages: Vec<_> = edge
        .events
        .iter()
        .filter_map(|event| if let SessionEvent::Refused { stage, .. } = event { Some(*stage) } else { None })
        .collect();
    assert_eq!(stages, [Stage::Recipient, Stage::EndOfMessage]);
    // The last one in the capture was given up.
    assert_eq!(edge.joiner.stats().open, 1);
    assert_eq!(edge.pass(60_000), []);
    assert_eq!(edge.joiner.stats().open, 1);
    assert_eq!(edge.pass(15 * 60_000), []);
    assert_eq!(edge.joiner.stats(), PolicyJoinerStats { abandoned: 1, ..PolicyJoinerStats::default() });
}

#[test]
fn exim_has_no_instance_that_stays() {
    let gate = Rig::default();
    let mut edge = Edge::new(&gate, PolicyJoinerConfig::default());
    for (conn, request) in EXIM.split_inclusive("\n\n").enumerate() {
        assert_eq!(edge.ask(conn, request), "action=DUNNO\n\n");
    }
    let end = EXIM.split_inclusive("\n\n").last().unwrap();
    let end = end.replace("=RCPT", "=END-OF-MESSAGE").replace("recipient=b@dest.test", "recipient=");
    let end =
        end.replace("queue_id=\n", "queue_id=1xVx9T-0002nD-2H\n").replace("recipient_count=1", "recipient_count=2");
    let end = end.replace("instance=10739.1795552207.", "instance=10739.1795552209.1xVx9T-0002nD-2H");
    edge.ask(9, &end);
    let [message] = edge.messages()[..] else { panic!("{:?}", edge.events) };
    let found = &message.submission;
    assert_eq!((found.queue_id.as_str(), found.recipients.count, found.size), ("1xVx9T-0002nD-2H", 2, 0));
    assert_eq!((found.recipients.hashes.len(), found.login_method.as_str()), (2, "PLAIN"));
    // The next message of the same client starts with no recipients.
    for request in EXIM.split_inclusive("\n\n").take(2) {
        edge.ask(10, request);
    }
    edge.ask(11, &end.replace("recipient_count=2", "recipient_count=1"));
    assert_eq!(edge.messages()[1].submission.recipients.hashes.len(), 1);
}

#[test]
fn without_end_of_message_requests_a_message_counts_when_it_has_become_quiet() {
    let gate = Rig::default();
    let mut edge = Edge::new(&gate, PolicyJoinerConfig::default());
    for recipient in ["a@dest.test", "b@rig.test"] {
        edge.ask(0, &request("RCPT", "i1", &format!("recipient={recipient}\n")));
        assert_eq!(edge.pass(2_000), []);
    }
    let counted = edge.pass(2_000);
    assert_eq!(counted.len(), 1);
    assert_eq!((counted[0].submission.recipients.count, counted[0].submission.recipients.internal), (2, 1));
    // It does not count again, not even when its end comes after all.
    edge.ask(0, &request("END-OF-MESSAGE", "i1", "recipient_count=2\nsize=9\n"));
    assert_eq!(edge.messages().len(), 0);
    // From now on it is known that ends are told of.
    edge.ask(0, &request("RCPT", "i2", "recipient=a@dest.test\n"));
    assert_eq!(edge.pass(60_000), []);
    edge.ask(0, &request("END-OF-MESSAGE", "i2", "recipient_count=1\nsize=9\n"));
    assert_eq!(edge.messages().len(), 1);
    assert_eq!(edge.joiner.stats().quiet, 1);
}

#[test]
fn a_message_that_was_open_when_the_first_end_was_told_waits_for_its_own() {
    let gate = Rig::default();
    let mut edge = Edge::new(&gate, PolicyJoinerConfig::default());
    edge.ask(0, &request("RCPT", "long", "recipient=a@dest.test\n"));
    edge.ask(1, &request("END-OF-MESSAGE", "other", "recipient=b@dest.test\nrecipient_count=1\n"));
    assert_eq!(edge.pass(10_000), []);
    edge.ask(0, &request("END-OF-MESSAGE", "long", "recipient_count=1\n"));
    assert_eq!(edge.messages().len(), 2);
}

#[test]
fn at_data_if_it_is_set_so() {
    let gate = Rig::default();
    let config = PolicyJoinerConfig { submission_at: SubmissionAt::Data, ..PolicyJoinerConfig::default() };
    let mut edge = Edge::new(&gate, config);
    edge.ask(0, &request("RCPT", "i", "recipient=a@dest.test\n"));
    edge.ask(0, &request("DATA", "i", "recipient_count=1\nqueue_id=Q\nsize=100\n"));
    edge.ask(0, &request("END-OF-MESSAGE", "i", "recipient_count=1\nqueue_id=Q\nsize=90\n"));
    let [message] = edge.messages()[..] else { panic!("{:?}", edge.events) };
    assert_eq!((message.submission.size, message.submission.recipients.count), (100, 1));
}

#[test]
fn a_lock_refuses_at_every_state_and_lets_the_administrator_s_mail_pass() {
    let gate = Rig::default();
    gate.lock("jo@rig.test");
    let mut edge = Edge::new(&gate, PolicyJoinerConfig::default());
    for state in ["MAIL", "RCPT", "DATA", "END-OF-MESSAGE"] {
        assert_eq!(edge.ask(0, &request(state, "i", "recipient=\n")), REFUSED, "{state}");
    }
    assert_eq!(edge.ask(0, &request("VRFY", "i", "")), "action=DUNNO\n\n");
    gate.throttle("jo@rig.test");
    assert_eq!(edge.ask(0, &request("MAIL", "i", "")), "action=450 4.7.1 slow down\n\n");

    let gate = Rig::with_admin();
    gate.lock("jo@rig.test");
    let mut edge = Edge::new(&gate, PolicyJoinerConfig::default());
    let dunno = "action=DUNNO\n\n";
    assert_eq!(edge.ask(0, &request("MAIL", "i", "")), dunno);
    assert_eq!(edge.ask(0, &request("RCPT", "i", "recipient=a@dest.test\n")), REFUSED);
    assert_eq!(edge.ask(0, &request("RCPT", "i", "recipient=Postmaster@rig.test\n")), dunno);
    assert_eq!(edge.ask(0, &request("DATA", "i", "recipient_count=1\n")), dunno);
    assert_eq!(edge.ask(0, &request("END-OF-MESSAGE", "i", "recipient_count=1\n")), dunno);
    assert_eq!(edge.messages().len(), 1);
    // More recipients than were seen here: one of them may be anybody.
    edge.ask(0, &request("RCPT", "j", "recipient=postmaster@rig.test\n"));
    assert_eq!(edge.ask(0, &request("DATA", "j", "recipient_count=2\n")), REFUSED);
    // What was refused does not count, not even when its end is told of.
    gate.unlock("jo@rig.test");
    edge.ask(0, &request("END-OF-MESSAGE", "j", "recipient_count=2\n"));
    assert_eq!(edge.messages().len(), 1);
}

#[test]
fn memory_is_bounded_and_the_oldest_go_first() {
    let gate = Rig::default();
    let config = PolicyJoinerConfig { max_open: 10, ..PolicyJoinerConfig::default() };
    let mut edge = Edge::new(&gate, config);
    for n in 0..25 {
        edge.ask(0, &request("RCPT", &format!("i{n}"), "recipient=a@dest.test\n"));
    }
    assert_eq!(edge.joiner.stats(), PolicyJoinerStats { open: 10, evicted: 15, ..PolicyJoinerStats::default() });
    assert_eq!(edge.pass(60_000).len(), 10);
}

#[test]
fn without_a_login_it_is_let_pass() {
    let gate = Rig::default();
    let mut edge = Edge::new(&gate, PolicyJoinerConfig::default());
    let request =
        request("RCPT", "i", "recipient=a@dest.test\n").replace("sasl_username=jo@rig.test", "sasl_username=");
    assert_eq!(edge.ask(0, &request), "action=DUNNO\n\n");
    assert!(matches!(edge.events[..], [SessionEvent::Ignored(_)]));
    assert_eq!(edge.joiner.stats().open, 0);
    // Its address is listed, and it is a relay: it has an account, but is nobody's own address.
    let both = settings_with(|config| {
        config.address_accounts = vec!["203.0.113.0/24".into()];
        config.trusted_relays = vec!["203.0.113.7".into()];
    });
    let mut edge = Edge::with_settings(&gate, PolicyJoinerConfig::default(), both);
    edge.ask(0, &request.replace("RCPT", "END-OF-MESSAGE"));
    assert_eq!(edge.messages()[0].account.as_str(), "address:203.0.113.7");
    assert_eq!(edge.messages()[0].submission.client_address, None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Cut anywhere, and mixed over connections in any way that keeps the order: the same answers and messages.
    #[test]
    fn any_cut_gives_the_same(sizes in prop::collection::vec(1_usize..300, 1..20)) {
        let octets: String = captured().into_iter().map(|(_, raw, _)| raw).collect();
        let gate = Rig::default();
        let mut whole = Edge::new(&gate, PolicyJoinerConfig::default());
        let answers = whole.ask(0, &octets);
        let mut pieces = Edge::new(&gate, PolicyJoinerConfig::default());
        let (mut joined, mut rest, mut sizes) = (String::new(), octets.as_str(), sizes.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary((*sizes.next().unwrap()).min(rest.len()).max(4)));
            joined += &pieces.ask(0, piece);
            rest = after;
        }
        prop_assert_eq!(joined, answers);
        prop_assert_eq!(pieces.events, whole.events);
    }

    #[test]
    fn each_message_counts_once_in_any_mixture(
        steps in prop::collection::vec((0_usize..4, 0_usize..6, 0_usize..4, 0_i64..400), 1..120),
    ) {
        let gate = Rig::default();
        let mut edge = Edge::new(&gate, PolicyJoinerConfig::default());
        let mut counted = Vec::new();
        // An end of message first, so that ends are waited for; then each message counts at its first end.
        edge.ask(0, &request("END-OF-MESSAGE", "first", "recipient_count=1\n"));
        let mut ended = std::collections::BTreeSet::new();
        let mut expected = 1;
        for (conn, message, state, ms) in steps {
            let state = ["MAIL", "RCPT", "DATA", "END-OF-MESSAGE"][state];
            // Postfix never goes on with an instance that has ended.
            if ended.contains(&message) {
                continue;
            }
            if state == "END-OF-MESSAGE" {
                ended.insert(message);
                expected += 1;
            }
            edge.ask(conn, &request(state, &format!("i{message}"), "recipient=a@dest.test\nrecipient_count=1\n"));
            counted.extend(edge.pass(ms));
        }
        prop_assert_eq!(edge.messages().len() + counted.len(), expected);
        prop_assert!(edge.messages().iter().all(|found| found.submission.recipients.count == 1));
    }
}
