//! Milter sessions against what real mail servers sent, and against a mail server's side that is written here.
#![allow(clippy::unwrap_used, missing_docs)]

mod rig;

use proptest::prelude::*;
use rig::{
    Mta, Rig, captured, decode_replies, hash, locked_reply, milter_octets, settings, settings_with, wire_octets,
};
use tidegate_domain::{Disposition, Submission};
use tidegate_mta::milter::client::{self, MacroStage, Reply};
use tidegate_mta::milter::{Flow, MilterError, MilterSession};
use tidegate_mta::{Ignored, RefuseAt, SessionEvent, Stage, Submitted};

const POSTFIX: &str = include_str!("data/postfix_milter.jsonl");
const SENDMAIL: &str = include_str!("data/sendmail_milter.jsonl");
const BEHIND_RSPAMD: &str = include_str!("data/postfix_behind_rspamd.jsonl");

fn replay(capture: &str, conn: u64) -> (Vec<Reply>, Vec<SessionEvent>) {
    let (mut out, mut events) = (Vec::new(), Vec::new());
    let octets = milter_octets(capture, conn, true);
    let flow = MilterSession::new(settings()).input(&octets, &Rig::default(), &mut out, &mut events);
    let quits = captured(capture, conn).any(|line| line["cmd"] == "Q");
    assert_eq!(flow, Ok(if quits { Flow::Close } else { Flow::Open }));
    (decode_replies(&out), events)
}

fn messages(events: &[SessionEvent]) -> Vec<&Submitted> {
    events
        .iter()
        .filter_map(|event| if let SessionEvent::Message(found) = event { Some(found.as_ref()) } else { None })
        .collect()
}

#[test]
fn postfix_with_two_messages_in_one_session() {
    let (replies, events) = replay(POSTFIX, 3);
    assert_eq!(events.len(), 2);
    let [first, second] = messages(&events)[..] else { panic!("{events:?}") };
    assert_eq!(first.account.as_str(), "user0001@rig.test");
    let found = &first.submission;
    assert_eq!(found.client_address, Some("203.0.113.7".parse().unwrap()));
    assert_eq!((found.client_port, found.helo.as_str()), (54170, "client.test"));
    assert_eq!((found.sender.as_str(), found.queue_id.as_str()), ("user0001@rig.test", "B0FE099A001"));
    assert_eq!((found.login_method.as_str(), found.tls.as_str()), ("PLAIN", "TLSv1.3"));
    assert_eq!((found.recipients.count, found.recipients.internal), (2, 0));
    assert_eq!(found.recipients.domains, ["dest.test"]);
    assert_eq!(found.recipients.hashes, [hash("recipient", "a@dest.test"), hash("recipient", "b@dest.test")]);
    assert_eq!(found.subject_hash, hash("subject", "caf\u{e9}"));
    assert_eq!((found.spam, found.spam_score), (true, Some(9.1)));
    assert_eq!(found.disposition, Disposition::Accepted);
    assert_ne!(found.fingerprint, 0);
    assert_eq!((second.submission.queue_id.as_str(), second.submission.recipients.count), ("B27D499A0F1", 1));
    assert_eq!((second.submission.spam, second.submission.fingerprint), (false, found.fingerprint));
    assert_eq!([found.size, second.submission.size], wire_octets(POSTFIX, 3)[..]);
    // Round trips: options, and for each message MAIL, each RCPT, DATA and the end.
    assert_eq!(replies.len(), 1 + 5 + 4, "{replies:?}");
    assert!(replies[1..].iter().all(|reply| *reply == Reply::Continue));
}

#[test]
fn a_server_that_offers_nothing_gets_an_answer_to_everything_and_the_same_message() {
    let mut octets = milter_octets(POSTFIX, 3, false);
    octets[5..17].copy_from_slice(&[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
    let (mut out, mut events) = (Vec::new(), Vec::new());
    let flow = MilterSession::new(settings()).input(&octets, &Rig::default(), &mut out, &mut events);
    assert_eq!(flow, Ok(Flow::Close));
    let answered = captured(POSTFIX, 3).filter(|line| !["D", "A", "Q"].contains(&line["cmd"].as_str().unwrap()));
    assert_eq!(decode_replies(&out).len(), answered.count());
    assert_eq!(events, replay(POSTFIX, 3).1);
}

#[test]
fn sendmail_gives_the_queue_id_at_mail_only() {
    let (_, events) = replay(SENDMAIL, 1);
    let [message] = messages(&events)[..] else { panic!("{events:?}") };
    let found = &message.submission;
    assert_eq!(message.account.as_str(), "user0001@sm.rig.test");
    assert_eq!((found.queue_id.as_str(), found.sender.as_str()), ("6AOKgowt007189", "alias@sm.rig.test"));
    assert_eq!((found.recipients.count, found.size), (2, wire_octets(SENDMAIL, 1)[0]));
}

#[test]
fn a_message_given_up_after_data_is_told_of_and_others_are_not() {
    // Connection 8: refused by the filter in front; 18: the client left in the middle.
    for (capture, conn, queue_id) in [(BEHIND_RSPAMD, 8, "EB39C9840E1"), (POSTFIX, 18, "7233499A002")] {
        let (_, events) = replay(capture, conn);
        let [SessionEvent::Aborted(found)] = &events[..] else { panic!("{events:?}") };
        assert_eq!((found.submission.queue_id.as_str(), found.submission.recipients.count), (queue_id, 2));
    }
    // 2: HELO only; 4: given up after MAIL.
    for conn in [2, 4] {
        assert_eq!(replay(POSTFIX, conn).1, [], "{conn}");
    }
    // Marked by the filter in front.
    let (_, events) = replay(BEHIND_RSPAMD, 9);
    let [message] = messages(&events)[..] else { panic!("{events:?}") };
    assert_eq!((message.submission.spam, message.submission.spam_score), (true, Some(8.4)));
    assert_ne!(message.submission.mailer_hash, 0);
    // A connection that breaks off is an abort too.
    let gate = Rig::default();
    let mut mta = Mta::connect(settings(), &gate, "203.0.113.7");
    mta.mail("jo@rig.test", "jo@rig.test");
    mta.recipient("a@dest.test");
    mta.data("Q1");
    mta.session.closed(&mut mta.events);
    assert!(matches!(&mta.events[..], [SessionEvent::Aborted(_)]));
}

#[test]
fn a_locked_account_is_refused_at_mail() {
    let gate = Rig::default();
    gate.lock("jo@rig.test");
    let mut mta = Mta::connect(settings(), &gate, "203.0.113.7");
    assert_eq!(mta.mail("Jo@RIG.test", "jo@rig.test"), locked_reply());
    let [SessionEvent::Refused { account, stage: Stage::Mail, throttled: false }] = &mta.events[..] else {
        panic!("{:?}", mta.events)
    };
    assert_eq!(account.as_str(), "jo@rig.test");
    // Others pass in the same session, and so does the account after the unlock.
    mta.message("ann@rig.test", "Q1", &[]);
    gate.unlock("jo@rig.test");
    mta.message("jo@rig.test", "Q2", &[]);
    gate.throttle("jo@rig.test");
    assert_eq!(mta.mail("jo@rig.test", "x@rig.test"), Reply::ReplyCode("450 4.7.1 slow down".into()));
}

#[test]
fn sendmail_s_format_sign_is_doubled() {
    let gate = Rig::default();
    gate.lock("jo@rig.test");
    let mut session = MilterSession::new(settings());
    let (mut bytes, mut out) = (Vec::new(), Vec::new());
    client::encode_option_negotiation(&mut bytes);
    client::encode_macros(MacroStage::Mail, &[("{auth_authen}", "jo@rig.test")], &mut bytes);
    client::encode_mail("jo@rig.test", &mut bytes);
    assert_eq!(session.input(&bytes, &gate, &mut out, &mut Vec::new()), Ok(Flow::Open));
    assert!(
        out.ends_with(b"y550 5.7.1 Account locked (L-7K2M9QXB), 100%% sure\0"),
        "{:?}",
        String::from_utf8_lossy(&out)
    );
}

#[test]
fn a_lock_stops_a_session_that_was_open() {
    for stage in [Stage::Recipient, Stage::Data, Stage::EndOfMessage] {
        let gate = Rig::default();
        let mut mta = Mta::connect(settings(), &gate, "203.0.113.7");
        mta.mail("jo@rig.test", "jo@rig.test");
        mta.recipient("a@dest.test");
        if stage == Stage::Recipient {
            gate.lock("jo@rig.test");
            assert_eq!(mta.recipient("b@dest.test"), locked_reply());
        } else {
            if stage == Stage::Data {
                gate.lock("jo@rig.test");
                assert_eq!(mta.data("Q1"), locked_reply());
            } else {
                mta.data("Q1");
                gate.lock("jo@rig.test");
                assert_eq!(mta.content(&[("Subject", "x")], "hi\r\n"), locked_reply());
            }
            // What was refused is no message, and no aborted one.
            mta.send(client::encode_abort);
        }
        assert!(matches!(&mta.events[..], [SessionEvent::Refused { stage: at, .. }] if *at == stage), "{stage:?}");
    }
}

#[test]
fn mail_to_the_administrator_passes() {
    let gate = Rig::with_admin();
    gate.lock("jo@rig.test");
    let mut mta = Mta::connect(settings(), &gate, "203.0.113.7");
    assert_eq!(mta.mail("jo@rig.test", "jo@rig.test"), Reply::Continue);
    assert_eq!(mta.recipient("a@dest.test"), locked_reply());
    assert_eq!(mta.recipient("PostMaster@rig.test"), Reply::Continue);
    assert_eq!(mta.data("Q1"), Reply::Continue);
    assert_eq!(mta.content(&[("Subject", "help")], "hi\r\n"), Reply::Continue);
    let found = messages(&mta.events)[0].submission.recipients.clone();
    assert_eq!((found.count, found.internal), (1, 1));
    // A recipient from before the lock keeps the rest from passing.
    gate.unlock("jo@rig.test");
    mta.mail("jo@rig.test", "jo@rig.test");
    mta.recipient("a@dest.test");
    gate.lock("jo@rig.test");
    assert_eq!(mta.recipient("postmaster@rig.test"), Reply::Continue);
    assert_eq!(mta.data("Q2"), locked_reply());
    // Unless it is to be refused at MAIL in any case.
    let strict = settings_with(|config| config.refuse_at = RefuseAt::Mail);
    assert_eq!(Mta::connect(strict, &gate, "203.0.113.7").mail("jo@rig.test", "jo@rig.test"), locked_reply());
}

#[test]
fn mail_without_a_login_is_ignored_or_counts_for_its_address() {
    let gate = Rig::default();
    let mut mta = Mta::connect(settings(), &gate, "203.0.113.7");
    assert_eq!(mta.mail("", "x@else.test"), Reply::Accept);
    assert_eq!(mta.mail("no such\u{7}login", "x@else.test"), Reply::Accept);
    let ignored = [SessionEvent::Ignored(Ignored::NoLogin), SessionEvent::Ignored(Ignored::InvalidLogin)];
    assert_eq!(mta.events, ignored);
    let listed = settings_with(|config| config.address_accounts = vec!["203.0.113.0/24".into()]);
    let mut mta = Mta::connect(listed, &gate, "203.0.113.7");
    assert_eq!(mta.message("", "Q1", &[]).account.as_str(), "address:203.0.113.7");
}

#[test]
fn a_login_does_not_carry_over_to_the_next_message() {
    let gate = Rig::default();
    let mut mta = Mta::connect(settings(), &gate, "203.0.113.7");
    mta.message("jo@rig.test", "Q1", &[]);
    assert_eq!(mta.ask(|out| client::encode_mail("x@else.test", out)), Reply::Accept);
}

#[test]
fn behind_webmail_the_header_names_the_client() {
    let gate = Rig::default();
    let relayed = settings_with(|config| config.trusted_relays = vec!["192.0.2.0/24".into()]);
    let mut mta = Mta::connect(relayed, &gate, "192.0.2.1");
    let found = mta.message("jo@rig.test", "Q1", &[("X-Originating-IP", "[203.0.113.9]")]).submission;
    assert_eq!((found.client_address, found.client_port), (Some("203.0.113.9".parse().unwrap()), 0));
    assert_eq!(mta.message("jo@rig.test", "Q2", &[]).submission.client_address, None);
    // From anywhere else the header is the sender's own word.
    let mut mta = Mta::connect(settings(), &gate, "192.0.2.1");
    let found = mta.message("jo@rig.test", "Q1", &[("X-Originating-IP", "[203.0.113.9]")]).submission;
    assert_eq!(found.client_address, Some("192.0.2.1".parse().unwrap()));
}

#[test]
fn one_connection_can_serve_several_clients() {
    let gate = Rig::default();
    let mut mta = Mta::connect(settings(), &gate, "203.0.113.7");
    assert_eq!(mta.send_bytes(&[0, 0, 0, 1, b'K']), Ok(Flow::Open));
    mta.send(|out| client::encode_connect("b", "[2001:db8::1]:25".parse().unwrap(), out));
    let found: Submission = mta.message("jo@rig.test", "Q1", &[]).submission;
    assert_eq!((found.client_address, found.client_port), (Some("2001:db8::1".parse().unwrap()), 25));
    assert_eq!(found.helo, "");
    // A unix socket, and a family that is not known.
    for family in ["L\0\0/var/run/x\0", "U"] {
        let mut data = b"localhost\0".to_vec();
        data.extend_from_slice(family.as_bytes());
        let mut packet = u32::try_from(data.len() + 1).unwrap().to_be_bytes().to_vec();
        packet.push(b'C');
        packet.extend_from_slice(&data);
        assert_eq!(mta.send_bytes(&packet), Ok(Flow::Open));
        assert_eq!(mta.message("jo@rig.test", "Q2", &[]).submission.client_address, None);
    }
}

#[test]
fn what_is_not_the_protocol_ends_the_session_for_good() {
    let gate = Rig::default();
    let mut session = MilterSession::new(settings());
    let mut out = Vec::new();
    let input = b"GET / HTTP/1.1\r\n\r\n";
    let error = session.input(input, &gate, &mut out, &mut Vec::new()).unwrap_err();
    assert_eq!(error, MilterError::PacketLength { octets: 0x4745_5420 });
    assert_eq!(session.input(b"\0\0\0\x01Q", &gate, &mut out, &mut Vec::new()), Err(error));
    let early = MilterSession::new(settings()).input(b"\0\0\0\x01E", &gate, &mut out, &mut Vec::new());
    assert_eq!(early, Err(MilterError::NotNegotiated { command: b'E' }));
    assert!(out.is_empty());
}

/// Feeds octets in pieces of the given sizes, over and over.
fn feed(octets: &[u8], sizes: &[usize]) -> (Vec<u8>, Vec<SessionEvent>, Result<Flow, MilterError>) {
    let gate = Rig::with_admin();
    gate.lock("user0003@rig.test");
    let mut session = MilterSession::new(settings());
    let (mut out, mut events, mut flow) = (Vec::new(), Vec::new(), Ok(Flow::Open));
    let (mut rest, mut sizes) = (octets, sizes.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
        flow = session.input(piece, &gate, &mut out, &mut events);
        rest = after;
    }
    (out, events, flow)
}

fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let data = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        "(M|R|T|E|H|C)(i|\\{auth_authen\\}|\\{auth_type\\})\0(user000[1-4]@rig.test|Q1|)\0"
            .prop_map(String::into_bytes),
        "(<a@dest.test>|<postmaster@rig.test>|Subject|X-Spam)\0(Yes|)\0".prop_map(String::into_bytes),
    ];
    (prop::sample::select(b"ABCDEHKLMNRTUMRTE".to_vec()), data).prop_map(|(command, data)| {
        let mut packet = u32::try_from(data.len() + 1).unwrap().to_be_bytes().to_vec();
        packet.push(command);
        packet.extend_from_slice(&data);
        packet
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_of_a_real_session_gives_the_same(sizes in prop::collection::vec(1_usize..200, 1..20), which in 0_usize..5) {
        let (capture, conn) = [(POSTFIX, 3), (POSTFIX, 12), (SENDMAIL, 1), (BEHIND_RSPAMD, 8), (BEHIND_RSPAMD, 9)][which];
        let octets = milter_octets(capture, conn, true);
        prop_assert_eq!(feed(&octets, &sizes), feed(&octets, &[octets.len()]));
    }

    #[test]
    fn any_order_of_commands_is_survived_and_any_cut_gives_the_same(
        packets in prop::collection::vec(any_packet(), 0..60), sizes in prop::collection::vec(1_usize..60, 1..20),
    ) {
        let mut octets = Vec::new();
        client::encode_option_negotiation(&mut octets);
        octets.extend(packets.concat());
        prop_assert_eq!(feed(&octets, &sizes), feed(&octets, &[octets.len()]));
    }

    #[test]
    fn random_octets_are_survived(octets in prop::collection::vec(any::<u8>(), 0..400), negotiated: bool) {
        let mut all = Vec::new();
        if negotiated {
            client::encode_option_negotiation(&mut all);
        }
        all.extend(octets);
        let _ = feed(&all, &[7]);
        let _ = client::decode_reply(&all);
    }
}
