//! Milter and policy delegation, each on TCP and unix socket, against a real Postfix.
#![allow(clippy::unwrap_used, missing_docs)]

use std::cell::Cell;
use tidegate_tests::installation::{Edge, Log, Server, TIMEOUT};
use tidegate_tests::mail::{PASSWORD, person, users};
use xtask::postfix::{PolicyStage, PostfixOptions, PostfixRig};
use xtask::sink::Sink;
use xtask::smtp::{SmtpClient, Stage};
use xtask::wait::wait_until;

const NO_RULES: &str = "mode = \"observe\"\n";

/// Locks a person by hand, and waits until the edge refuses; then unlocks.
fn check(name: &str, wire: impl Fn(&Edge, PostfixOptions) -> PostfixOptions, refused_at: &[Stage]) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "server", "serve", &Log::Embedded, NO_RULES).unwrap();
    let edge = Edge::start(dir.path(), "mx1", server.control, "").unwrap();
    let sink = Sink::start().unwrap();
    let options = PostfixOptions { users: users(2), ..PostfixOptions::relaying_to(sink.address()) };
    let postfix = PostfixRig::start(&dir.path().join("postfix"), &wire(&edge, options)).unwrap();
    let accepted = Cell::new(0.0);
    let send = |account: &str| {
        let mut client = SmtpClient::login(postfix.address(), account, PASSWORD).unwrap();
        let recipients = ["a@elsewhere.test", "b@example.test"];
        let outcome = client.send(account, &recipients, "Subject: hello\n\nHello there.\n").unwrap();
        if outcome.is_accepted() {
            accepted.set(accepted.get() + 1.0);
        }
        outcome
    };
    let (anna, ben) = (person(0), person(1));
    assert!(send(&anna).is_accepted(), "{name}");
    let counted = || server.counted("counted").unwrap();
    wait_until("the event to be counted", TIMEOUT, || counted() >= 1.0).unwrap();

    server
        .admin(&["accounts", "lock", &anna, "--reason", "test", "--reply", "Locked, call 42"])
        .unwrap()
        .succeeded()
        .unwrap();
    wait_until("the edge to refuse", TIMEOUT, || !send(&anna).is_accepted()).unwrap();
    let refused = send(&anna);
    assert!(refused_at.contains(&refused.stage), "{name}: {refused:?}");
    assert_eq!(refused.reply.code, 550, "{name}: {refused:?}");
    assert!(refused.reply.text.contains("5.7.1") && refused.reply.text.contains("Locked, call 42 (L-"), "{refused:?}");
    assert!(send(&ben).is_accepted(), "{name}: nobody else is refused");
    server
        .admin(&["accounts", "unlock", &anna, "--reason", "test", "--evidence", "test"])
        .unwrap()
        .succeeded()
        .unwrap();
    wait_until("mail to flow again", TIMEOUT, || send(&anna).is_accepted()).unwrap();
    let published = || edge.process.metric("tidegate_edge_events_published_total", &[("lane", "live")]).unwrap();
    wait_until("one event for each accepted message", TIMEOUT, || published() >= accepted.get()).unwrap();
    assert!(published() <= accepted.get(), "{name}: more events than messages");
}

#[test]
fn milter_on_a_unix_socket() {
    check("milter, unix", |edge, options| PostfixOptions { milters: vec![edge.milter()], ..options }, &[Stage::Mail]);
}

#[test]
fn milter_on_tcp() {
    let wire =
        |edge: &Edge, options| PostfixOptions { milters: vec![format!("inet:{}", edge.milter_address)], ..options };
    check("milter, tcp", wire, &[Stage::Mail]);
}

fn policies(service: &str) -> Vec<(PolicyStage, String)> {
    [PolicyStage::Sender, PolicyStage::Recipient, PolicyStage::Data, PolicyStage::EndOfData]
        .map(|stage| (stage, service.to_owned()))
        .to_vec()
}

#[test]
fn policy_on_a_unix_socket() {
    let wire = |edge: &Edge, options| PostfixOptions {
        policies: policies(&format!("unix:{}", edge.policy_socket.display())),
        ..options
    };
    check("policy, unix", wire, &[Stage::Mail, Stage::Rcpt]);
}

#[test]
fn policy_on_tcp() {
    let wire = |edge: &Edge, options| PostfixOptions {
        policies: policies(&format!("inet:{}", edge.policy_address)),
        ..options
    };
    check("policy, tcp", wire, &[Stage::Mail, Stage::Rcpt]);
}
