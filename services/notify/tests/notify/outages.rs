//! Mail server and webhook receiver down, slow, and back: nothing is lost, and nothing storms.

use crate::hooks::{Answer, Hooks};
use crate::lab::{Lab, config, locked, smtp, until};
use crate::mail_server::{MailServer, Mode};
use std::collections::BTreeMap;
use tidegate_proto::v1::NotificationStatus;

const ACCOUNTS: usize = 60;

fn accounts() -> impl Iterator<Item = String> {
    (0..ACCOUNTS).map(|number| format!("jo{number}@example.org"))
}

/// How often each id was taken.
fn by_id(server: &MailServer) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for taken in server.taken() {
        *counts.entry(taken.id()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_is_down_then_slow_then_back_gets_each_mail_once() {
    let mut server = MailServer::start();
    let mut lab = Lab::new();
    lab.start(config(&smtp(server.port()))).await;

    server.down().await;
    lab.publish(accounts().map(|account| locked(&account, 1))).await;
    until("it was tried while the server was down", async || {
        lab.metric("tidegate_notify_channel_failures{channel=\"mail\"}") >= 3.0
    })
    .await;
    let tries = lab.metric("tidegate_notify_attempts_total{channel=\"mail\"");
    assert!(tries < ACCOUNTS as f64, "one message is tried at a time, not all: {tries}");

    server.set(Mode::Silent);
    server.up();
    until("it was tried while the server was silent", async || server.connections().0 >= 2).await;
    let (_, most) = server.connections();
    assert_eq!(most, 1, "a server that does not answer has one connection");
    assert!(server.taken().is_empty());

    server.set(Mode::Take);
    lab.until_status(NotificationStatus::Sent, ACCOUNTS).await;
    let counts = by_id(&server);
    assert_eq!(counts.len(), ACCOUNTS);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    let (_, most) = server.connections();
    assert!(most <= 4, "{most} connections at a time");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_server_is_tried_again_and_one_that_refuses_the_sender_refuses_nobody() {
    let server = MailServer::start();
    let mut lab = Lab::new();
    lab.start(config(&format!("max_attempts = 1000\n{}", smtp(server.port())))).await;
    server.set(Mode::Busy);
    lab.publish([locked("jo@example.org", 1)]).await;
    let tried = async || {
        let newest = lab.newest().await;
        newest.values().any(|one| one.attempts >= 2 && one.error.contains("451") && one.error.contains("RCPT"))
    };
    until("the log says that it was tried", tried).await;

    server.set(Mode::RefuseSender);
    until("the sender was refused", async || {
        lab.metric("tidegate_notify_attempts_total{channel=\"mail\",result=\"unreachable\"}") >= 2.0
    })
    .await;
    server.set(Mode::Take);
    lab.until_status(NotificationStatus::Sent, 1).await;
    assert_eq!(server.taken().len(), 1);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_down_slow_or_overloaded_gets_everything_in_the_end() {
    let mut hooks = Hooks::start();
    let mut lab = Lab::new();
    let url = format!("http://{}/hook", hooks.address);
    lab.start(config(&format!(
        "[[webhook]]\nname = \"pager\"\nurl = \"{url}\"\ngroup_window_ms = 0\ntimeout_ms = 300\n"
    )))
    .await;
    let unreachable = "tidegate_notify_attempts_total{channel=\"pager\",result=\"unreachable\"}";
    let busy = "tidegate_notify_attempts_total{channel=\"pager\",result=\"busy\"}";

    hooks.down().await;
    lab.publish([locked("down@example.org", 1)]).await;
    until("it was tried while it was down", async || lab.metric(unreachable) >= 2.0).await;

    hooks.answer(Answer::Nothing);
    hooks.up();
    until("it was tried while it was silent", async || !hooks.posted().is_empty()).await;
    lab.publish([locked("slow@example.org", 1)]).await;
    let so_far = lab.metric(unreachable);
    until("its silence was noticed", async || lab.metric(unreachable) > so_far).await;

    hooks.answer(Answer::Status(503));
    until("503 was taken for busy", async || lab.metric(busy) >= 1.0).await;
    hooks.answer(Answer::Later(1));
    let so_far = lab.metric(busy);
    until("429 was taken for busy", async || lab.metric(busy) > so_far).await;

    hooks.answer(Answer::Status(200));
    lab.until_status(NotificationStatus::Sent, 2).await;
    let mut told = BTreeMap::new();
    for posted in hooks.taken() {
        for one in posted.json()["notifications"].as_array().unwrap() {
            *told.entry(one["account"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
    }
    assert_eq!(told, BTreeMap::from([("down@example.org".to_owned(), 1), ("slow@example.org".to_owned(), 1)]));
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_what_memory_holds_the_log_is_the_queue() {
    let mut server = MailServer::start();
    let mut lab = Lab::new();
    lab.start(config(&format!("max_pending = 100\n{}", smtp(server.port())))).await;
    server.down().await;
    let many = 450;
    lab.publish((0..many).map(|number| locked(&format!("jo{number}@example.org"), 1))).await;
    until("reading waits", async || lab.metric("tidegate_notify_reading_paused_total") >= 1.0).await;
    assert!(lab.newest().await.len() < many, "not all were taken out of the log");
    server.up();
    lab.until_status(NotificationStatus::Sent, many).await;
    assert_eq!(by_id(&server).len(), many);
    lab.stop().await;
}
