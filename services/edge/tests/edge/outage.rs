//! The log is away, slow, or silent: mail flows, and every event counts exactly once afterwards.

use crate::control::{Control, Log, Publishing};
use crate::lab::{Edge, attached, config, until};
use crate::mta::MilterClient;
use std::collections::HashSet;
use tidegate_mta::milter::client::Reply;
use tidegate_proto::v1;

/// Sends one message each from `n@example.org`, and gives the senders.
async fn send(edge: &Edge, numbers: std::ops::Range<u32>) -> Vec<String> {
    let mut milter = MilterClient::open(edge.milter()).await;
    let mut senders = Vec::new();
    for n in numbers {
        let sender = format!("{n:04}@example.org");
        assert_eq!(milter.message(&sender, &sender, &format!("4Q{n}"), &["jo@dest.test"]).await, Reply::Continue);
        senders.push(sender);
    }
    senders
}

async fn until_counted(log: &Log, sent: &[String]) {
    until("every event has arrived", async || log.senders().len() >= sent.len()).await;
    assert_eq!(log.senders(), sent);
}

fn lanes(log: &Log) -> HashSet<v1::Lane> {
    log.counted().iter().map(|(id, _)| id.lane()).collect()
}

#[tokio::test]
async fn a_submission_arrives_with_what_was_seen_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _control, edge) = attached(directory.path(), |_| {}).await;
    let mut milter = MilterClient::open(edge.milter()).await;
    let recipients = ["a@dest.test", "b@example.org", "c@dest.test"];
    assert_eq!(milter.message("Jo@Example.org", "jo@example.org", "4Q", &recipients).await, Reply::Continue);
    until("it has arrived", async || log.events.lock().len() == 1).await;
    let event = log.events.lock()[0].clone();
    assert_eq!((event.site.as_str(), event.account.as_str()), ("ams", "jo@example.org"));
    let id = event.id.unwrap();
    assert_eq!((id.node.as_str(), id.lane()), ("mx1", v1::Lane::Live));
    let Some(v1::event::Kind::Submission(submission)) = event.kind else { panic!() };
    assert_eq!((submission.recipient_count, submission.internal_recipient_count), (3, 1));
    assert_eq!((submission.queue_id.as_str(), submission.login_method.as_str()), ("4Q", "PLAIN"));
    assert_eq!(submission.client_address, [203, 0, 113, 7]);
    assert!(submission.fingerprint != 0 && submission.subject_hash != 0);
}

#[tokio::test]
async fn a_log_that_refuses_for_a_while_loses_and_doubles_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _control, edge) = attached(directory.path(), |_| {}).await;
    let mut sent = send(&edge, 0..5).await;
    until_counted(&log, &sent).await;
    log.publishing(Publishing::Fails);
    sent.extend(send(&edge, 5..60).await);
    until("events are spooled", async || edge.metric("tidegate_edge_events_spooled_total").await > 40).await;
    log.publishing(Publishing::Works);
    sent.extend(send(&edge, 60..70).await);
    until_counted(&log, &sent).await;
    assert_eq!(lanes(&log), HashSet::from([v1::Lane::Live, v1::Lane::Spooled]));
    until("the spool is empty", async || edge.metric("tidegate_edge_spool_events").await == 0).await;
    assert_eq!(edge.metric("tidegate_edge_events_lost_total").await, 0);
    // Live events flow again.
    let before = log.events.lock().len();
    sent.extend(send(&edge, 70..71).await);
    until_counted(&log, &sent).await;
    assert_eq!(log.events.lock()[before].id.as_ref().unwrap().lane(), v1::Lane::Live);
}

#[tokio::test]
async fn events_that_were_written_without_an_answer_count_once() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _control, edge) = attached(directory.path(), |_| {}).await;
    let mut sent = send(&edge, 0..5).await;
    until_counted(&log, &sent).await;
    log.publishing(Publishing::WritesAndHangs);
    sent.extend(send(&edge, 5..30).await);
    // The live batch was sent, and sent again, and the log has it each time.
    until("it was sent again", async || edge.metric("tidegate_edge_events_resent_total").await >= 3).await;
    until("newer ones are spooled", async || edge.metric("tidegate_edge_events_spooled_total").await > 0).await;
    log.publishing(Publishing::Works);
    until("live events get through", async || edge.metric("tidegate_edge_live_blocked").await == 0).await;
    // Now the spool's batch hangs after it was written.
    log.publishing(Publishing::WritesAndHangs);
    sent.extend(send(&edge, 30..31).await);
    until("all was written", async || log.senders() == sent || edge.metric("tidegate_edge_live_blocked").await == 1)
        .await;
    log.publishing(Publishing::Works);
    until_counted(&log, &sent).await;
    let written = log.events.lock().len();
    assert!(written > sent.len(), "there were repeats: {written}");
}

#[tokio::test]
async fn an_edge_that_is_restarted_during_an_outage_forgets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (log, control, edge) = attached(directory.path(), |_| {}).await;
    let mut sent = send(&edge, 0..5).await;
    until_counted(&log, &sent).await;
    let address = control.address;
    // The batch in hand may have arrived; then everything goes away.
    log.publishing(Publishing::WritesAndHangs);
    sent.extend(send(&edge, 5..10).await);
    until("a batch is kept", async || edge.metric("tidegate_edge_live_blocked").await == 1).await;
    control.stop().await;
    sent.extend(send(&edge, 10..20).await);
    edge.stop().await;
    let edge = Edge::start(config(directory.path(), address)).await;
    sent.extend(send(&edge, 20..30).await);
    edge.stop().await;
    let edge = Edge::start(config(directory.path(), address)).await;
    sent.extend(send(&edge, 30..40).await);
    log.publishing(Publishing::Works);
    let _control = Control::start(&log, address);
    until_counted(&log, &sent).await;
    until("the spool is empty", async || edge.metric("tidegate_edge_spool_events").await == 0).await;
}

#[tokio::test]
async fn a_queue_that_is_full_goes_over_into_the_spool() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _control, edge) = attached(directory.path(), |config| {
        config.publish.queue_max_events = 100;
        config.publish.timeout_ms = 60_000;
    })
    .await;
    log.publishing(Publishing::HangsLive);
    // One batch is on its way, a hundred events wait for it, and the rest goes past them.
    let sent = send(&edge, 0..250).await;
    until("the rest has arrived", async || log.events.lock().len() > 40).await;
    assert_eq!(lanes(&log), HashSet::from([v1::Lane::Spooled]));
    log.publishing(Publishing::Works);
    drop(edge);
    assert!(log.senders().iter().all(|sender| sent.contains(sender)));
}
