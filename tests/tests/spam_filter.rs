//! rspamd as an outbound filter in front of the edge: what it marks and what it refuses both count as spam, once each.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use tidegate_tests::installation::{Edge, Log, Server, TIMEOUT};
use tidegate_tests::mail::{PASSWORD, THIEF, users};
use xtask::postfix::{PostfixOptions, PostfixRig};
use xtask::rspamd::{MARKED_SUBJECT, REJECTED_SUBJECT, RspamdRig};
use xtask::sink::Sink;
use xtask::smtp::{SmtpClient, Stage};
use xtask::wait::wait_until;

const RULES: &str = r#"
mode = "enforce"

[[rule]]
name = "six-spams"
when = "spam_15m >= 6"
action = "lock"
reason = "six spam verdicts"
reply = "This account sends spam and is locked."
source = "end-to-end tests"
"#;

#[test]
fn marked_and_refused_messages_count_once_each_until_the_account_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "server", "serve", &Log::Embedded, RULES).unwrap();
    let edge = Edge::start(dir.path(), "mx1", server.control, "").unwrap();
    let rspamd = RspamdRig::start(&dir.path().join("rspamd"), Some(&format!("http://{}/rspamd", edge.rspamd))).unwrap();
    let sink = Sink::start().unwrap();
    let options = PostfixOptions {
        milters: vec![rspamd.milter(), edge.milter()],
        users: users(1),
        ..PostfixOptions::relaying_to(sink.address())
    };
    let postfix = PostfixRig::start(&dir.path().join("postfix"), &options).unwrap();
    let mut client = SmtpClient::login(postfix.address(), THIEF, PASSWORD).unwrap();
    let mut send = |subject: &str, number: usize| {
        let text = format!("Subject: {subject} {number}\n\nBuy now, number {number}.\n");
        client.send(THIEF, &[&format!("victim{number}@elsewhere.test")], &text).unwrap()
    };
    for number in 0..2 {
        assert!(send(MARKED_SUBJECT, number).is_accepted());
        let refused = send(REJECTED_SUBJECT, number);
        assert_eq!(refused.stage, Stage::EndOfMessage, "{refused:?}");
        assert!(!refused.is_accepted());
        assert!(send("an honest letter", number).is_accepted());
    }
    let counted = || server.counted("counted").unwrap();
    wait_until("six messages to be counted", TIMEOUT, || counted() >= 6.0).unwrap();
    assert!(send(MARKED_SUBJECT, 2).is_accepted(), "four spams and two letters are not six spams");
    let _ = send(REJECTED_SUBJECT, 2);
    wait_until("the account to be locked", TIMEOUT, || {
        let outcome = send("an honest letter", 9);
        outcome.stage == Stage::Mail && outcome.reply.code == 550
    })
    .unwrap();
    let shown = server.admin(&["accounts", "show", THIEF, "--json"]).unwrap().succeeded().unwrap();
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["lock"]["rule"], "six-spams", "{shown}");
    assert_eq!(shown["lock"]["evidence"]["spam_15m"], 6.0, "each once: {shown}");
}
