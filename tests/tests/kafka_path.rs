//! The main job on real parts: two Postfixes, two edges, Kafka, a stream worker and a control service of their own.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::time::Duration;
use tidegate_tests::installation::{Edge, Log, Server, TIMEOUT};
use tidegate_tests::mail::{BURST_RULES, PASSWORD, People, THIEF, send_spam, users};
use xtask::kafka::KafkaRig;
use xtask::postfix::{PostfixOptions, PostfixRig};
use xtask::sink::Sink;
use xtask::smtp::{SmtpClient, Stage};
use xtask::wait::wait_until;

const ADMIN: &str = "abuse@example.test";

#[test]
fn a_hijacked_account_is_locked_everywhere_and_unlocked_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = KafkaRig::start(&dir.path().join("kafka")).unwrap();
    let log = Log::Kafka(kafka.bootstrap(), "tidegate".into());
    let control = Server::start(dir.path(), "control", "control", &log, BURST_RULES).unwrap();
    let mut stream = Server::start(dir.path(), "stream", "stream", &log, BURST_RULES).unwrap();
    // The first edge publishes straight to Kafka and refuses at MAIL. The second publishes through control, and lets
    // mail to the administrator pass, so it refuses at RCPT.
    let brokers = kafka.bootstrap();
    let straight =
        format!("publish = {{ kind = \"kafka\", kafka = {{ bootstrap_servers = \"{brokers}\", partitions = 4 }} }}");
    let first = Edge::start(dir.path(), "mx1", control.control, &straight).unwrap();
    let second = Edge::start(dir.path(), "mx2", control.control, &format!("admin_addresses = [\"{ADMIN}\"]")).unwrap();
    let sink = Sink::start().unwrap();
    let postfix = |name: &str, edge: &Edge| {
        let options = PostfixOptions {
            milters: vec![edge.milter()],
            users: users(6),
            ..PostfixOptions::relaying_to(sink.address())
        };
        PostfixRig::start(&dir.path().join(name), &options).unwrap()
    };
    let (mta1, mta2) = (postfix("postfix1", &first), postfix("postfix2", &second));

    let people = People::start(&[mta1.address(), mta2.address()], 0..6, Duration::from_millis(150));
    let mut open = SmtpClient::login(mta1.address(), THIEF, PASSWORD).unwrap();
    assert!(open.mail(THIEF).unwrap().is_ok());
    assert!(open.rcpt("early@elsewhere.test").unwrap().is_ok(), "the account is not locked yet");

    // 200 messages at 50 a second.
    let mut spam = SmtpClient::login(mta1.address(), THIEF, PASSWORD).unwrap();
    let mut accepted = 0;
    let mut refusal = None;
    for number in 0..200 {
        let outcome = send_spam(&mut spam, number).unwrap();
        if !outcome.is_accepted() {
            refusal = Some(outcome);
            break;
        }
        accepted += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    let refusal = refusal.expect("200 messages of similar size were let pass");
    assert!(accepted >= 40, "locked after {accepted}");
    assert_eq!((refusal.stage, refusal.reply.code), (Stage::Mail, 550), "{refusal:?}");
    let text = &refusal.reply.text;
    assert!(text.starts_with("5.7.1 This account is locked. Call the help desk at extension 42."), "{text}");
    assert!(text.contains("(L-"), "the lock's id: {text}");

    // The session that was open before is refused at its next command that matters.
    let stopped = open.data().unwrap();
    assert_eq!(stopped.code, 550, "{stopped:?}");

    // The other site refuses too, but not what goes to the administrator.
    let mut elsewhere = SmtpClient::login(mta2.address(), THIEF, PASSWORD).unwrap();
    wait_until("the second edge to refuse", TIMEOUT, || {
        let outcome = send_spam(&mut elsewhere, 9_999).unwrap();
        outcome.stage == Stage::Rcpt
            && outcome.reply.code == 550
            && outcome.reply.text.starts_with("5.7.1 This account")
    })
    .unwrap();
    assert!(elsewhere.send(THIEF, &[ADMIN], "Subject: help\n\nWhat happened?\n").unwrap().is_accepted());
    wait_until("the administrator's mail", TIMEOUT, || sink.count_to(ADMIN) == 1).unwrap();

    // What administrators see.
    let shown = control.admin(&["accounts", "show", THIEF, "--json"]).unwrap().succeeded().unwrap();
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!((shown["status"].as_str(), shown["lock"]["rule"].as_str()), (Some("locked"), Some("burst")), "{shown}");
    assert!(shown["lock"]["evidence"]["messages_1m"].as_f64().unwrap() >= 40.0, "{shown}");
    assert_eq!(shown["edges"].as_array().unwrap().iter().filter(|edge| edge["in_force"] == true).count(), 2, "{shown}");

    // Unlocked, it sends again at both sites.
    let unlock = ["accounts", "unlock", THIEF, "--reason", "called back", "--password-changed", "now", "--json"];
    let unlocked = control.admin(&unlock).unwrap().succeeded().unwrap();
    let unlocked: Value = serde_json::from_str(&unlocked.stdout).unwrap();
    assert_eq!((&unlocked["applied"], unlocked["state"]["status"].as_str()), (&Value::Bool(true), Some("active")));
    for (number, mta) in [&mta1, &mta2].into_iter().enumerate() {
        let mut client = SmtpClient::login(mta.address(), THIEF, PASSWORD).unwrap();
        wait_until("mail to flow again", TIMEOUT, || send_spam(&mut client, 10_000 + number).unwrap().is_accepted())
            .unwrap();
    }

    // A killed and restarted worker rebuilds its windows from the same old messages, and does not lock it for them.
    stream.process.kill();
    let mut client = SmtpClient::login(mta1.address(), THIEF, PASSWORD).unwrap();
    assert!(send_spam(&mut client, 11_000).unwrap().is_accepted(), "mail flows without the worker");
    stream.process.start_again().unwrap();
    stream.process.wait_until_ready(TIMEOUT).unwrap();
    let counted = || stream.process.metric("tidegate_stream_events_total", &[("result", "counted")]).unwrap();
    for number in 0..5 {
        assert!(send_spam(&mut client, 12_000 + number).unwrap().is_accepted());
    }
    let void = stream.process.metric("tidegate_stream_events_total", &[("result", "void")]).unwrap();
    assert!(void >= 40.0, "{void} old messages were left out");
    let before = counted();
    let (sent, refused) = people.finish();
    assert!(send_spam(&mut client, 13_000).unwrap().is_accepted());
    wait_until("the last message to be counted", TIMEOUT, || counted() > before).unwrap();
    let shown = control.admin(&["accounts", "show", THIEF, "--json"]).unwrap().succeeded().unwrap();
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["status"], "active", "{shown}");

    // The others lost nothing.
    assert!(refused.is_empty(), "{refused:?}");
    assert!(sent > 20, "the others sent only {sent} messages");
    wait_until("the others' mail at the sink", TIMEOUT, || sink.count_to("friend@elsewhere.test") == sent).unwrap();
}
