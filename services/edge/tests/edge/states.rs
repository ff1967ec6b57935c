//! Locks: in force on every socket, in sessions that were open, and before control is reached.

use crate::control::{Control, Log};
use crate::lab::{ANY_PORT, Edge, attached, config, until};
use crate::mta::MilterClient;
use tidegate_mta::milter::client::Reply;

const REFUSED: &str = "550 5.7.1 Account locked, call the help desk (L-7K3QX2M9)";

async fn try_mail(edge: &Edge, address: usize, login: &str) -> Reply {
    let mut milter = MilterClient::open(&edge.addresses.milter[address]).await;
    milter.message(login, login, "4Q", &["jo@dest.test"]).await
}

#[tokio::test]
async fn a_locked_account_is_refused_at_mail_on_every_socket_and_nobody_else_is() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _control, edge) = attached(directory.path(), |_| {}).await;
    log.lock("thief@example.org");
    log.throttle("slow@example.org");
    until("both states are in force", async || {
        !log.acks.lock().is_empty() && edge.metric("tidegate_edge_states").await == 2
    })
    .await;
    for address in [0, 1] {
        let mut milter = MilterClient::open(&edge.addresses.milter[address]).await;
        let refused = milter.mail("Thief@example.org", "thief@example.org", "4Q").await;
        assert_eq!(refused, Reply::ReplyCode(REFUSED.into()));
        let slowed = milter.mail("slow@example.org", "slow@example.org", "4Q").await;
        let text = "450 4.7.1 Account locked, call the help desk (L-7K3QX2M9)";
        assert_eq!(slowed, Reply::ReplyCode(text.into()));
        assert_eq!(try_mail(&edge, address, "honest@example.org").await, Reply::Continue);
    }
    assert_eq!(edge.metric("tidegate_edge_refusals_total").await, 4);
    log.unlock("thief@example.org");
    until("the unlock is in force", async || try_mail(&edge, 0, "thief@example.org").await == Reply::Continue).await;
}

#[tokio::test]
async fn a_session_that_was_open_is_refused_at_its_next_command() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _control, edge) = attached(directory.path(), |_| {}).await;
    let mut at_recipient = MilterClient::open(edge.milter()).await;
    let mut at_data = MilterClient::open(edge.milter()).await;
    let mut at_end = MilterClient::open(edge.milter()).await;
    for milter in [&mut at_recipient, &mut at_data, &mut at_end] {
        assert_eq!(milter.mail("thief@example.org", "thief@example.org", "OPEN").await, Reply::Continue);
        assert_eq!(milter.recipient("a@dest.test").await, Reply::Continue);
    }
    assert_eq!(at_end.data().await, Reply::Continue);
    log.lock("thief@example.org");
    until("the lock is in force", async || try_mail(&edge, 0, "thief@example.org").await != Reply::Continue).await;
    let refused = Reply::ReplyCode(REFUSED.into());
    assert_eq!(at_recipient.recipient("b@dest.test").await, refused);
    assert_eq!(at_data.data().await, refused);
    assert_eq!(at_end.end().await, refused);
    assert!(log.counted().iter().all(|(_, submission)| submission.queue_id != "OPEN"));
}

#[tokio::test]
async fn a_locked_account_can_write_to_the_administrator() {
    let directory = tempfile::tempdir().unwrap();
    let admins =
        |config: &mut tidegate_edge::EdgeConfig| config.admin_addresses = vec!["Postmaster@example.org".into()];
    let (log, _control, edge) = attached(directory.path(), admins).await;
    log.lock("thief@example.org");
    until("the lock is in force", async || try_mail(&edge, 0, "thief@example.org").await != Reply::Continue).await;
    let mut milter = MilterClient::open(edge.milter()).await;
    let reply = milter.message("thief@example.org", "thief@example.org", "4Q", &["postmaster@example.org"]).await;
    assert_eq!(reply, Reply::Continue);
    let refused = milter.message("thief@example.org", "thief@example.org", "4Q", &["else@example.org"]).await;
    assert_eq!(refused, Reply::ReplyCode(REFUSED.into()));
}

#[tokio::test]
async fn states_are_in_force_before_control_is_reached_and_are_resumed_from() {
    let directory = tempfile::tempdir().unwrap();
    let (log, control, edge) = attached(directory.path(), |_| {}).await;
    log.lock("thief@example.org");
    until("the lock is in force", async || try_mail(&edge, 0, "thief@example.org").await != Reply::Continue).await;
    let address = control.address;
    control.stop().await;
    let mut running = edge;
    // Locks hold while cut off, and over a restart.
    until("it says that it is cut off", async || {
        let (status, text) = running.ops("/readyz").await;
        status == 503 && text.contains("cut off since")
    })
    .await;
    assert_eq!(try_mail(&running, 0, "thief@example.org").await, Reply::ReplyCode(REFUSED.into()));
    running.stop().await;
    running = Edge::start(config(directory.path(), address)).await;
    assert_eq!(try_mail(&running, 1, "thief@example.org").await, Reply::ReplyCode(REFUSED.into()));
    assert_eq!(try_mail(&running, 1, "honest@example.org").await, Reply::Continue);
    // What changed meanwhile comes from where it was.
    log.lock("second@example.org");
    let _control = Control::start(&log, address);
    running.wait_ready().await;
    until("the change is in force", async || try_mail(&running, 0, "second@example.org").await != Reply::Continue)
        .await;
    let hello = log.hellos.lock().last().unwrap().clone();
    assert_eq!((hello.log_id.as_str(), hello.positions[0].next_offset), ("log-a", 1));
}

#[tokio::test]
async fn another_log_replaces_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (log, control, edge) = attached(directory.path(), |_| {}).await;
    log.lock("thief@example.org");
    until("the lock is in force", async || try_mail(&edge, 0, "thief@example.org").await != Reply::Continue).await;
    let address = control.address;
    control.stop().await;
    let other = Log::new("log-b");
    other.lock("another@example.org");
    let _control = Control::start(&other, address);
    until("the other log is in force", async || try_mail(&edge, 0, "another@example.org").await != Reply::Continue)
        .await;
    until("the lock is gone", async || try_mail(&edge, 0, "thief@example.org").await == Reply::Continue).await;
}

#[tokio::test]
async fn a_control_that_hangs_slows_nobody() {
    let directory = tempfile::tempdir().unwrap();
    // It accepts, and never says a word.
    let silent = tokio::net::TcpListener::bind(ANY_PORT).await.unwrap();
    let edge = Edge::start(config(directory.path(), silent.local_addr().unwrap())).await;
    let (connection, _) = silent.accept().await.unwrap();
    for n in 0..20 {
        let reply = try_mail(&edge, n % 2, "honest@example.org").await;
        assert_eq!(reply, Reply::Continue);
    }
    until("the events are safe", async || edge.metric("tidegate_edge_events_spooled_total").await > 0).await;
    drop(connection);
    edge.stop().await;
}
