//! Policy delegation, the filter's verdicts, and bounds.

use crate::lab::{ANY_PORT, Edge, attached, config, http, until};
use crate::mta::{MilterClient, ask_policy, connect, policy_request};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tidegate_edge::Clock;
use tidegate_edge::config::LocalCapConfig;
use tidegate_mta::milter::client::Reply;
use tidegate_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const THIEF: &str = "thief@example.org";

#[tokio::test]
async fn policy_delegation_counts_and_refuses_on_every_socket() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _control, edge) = attached(directory.path(), |_| {}).await;
    for (n, address) in edge.addresses.policy.iter().enumerate() {
        let mut stream = connect(address).await;
        for state in ["MAIL", "RCPT", "DATA", "END-OF-MESSAGE"] {
            let request = policy_request(state, THIEF, THIEF, "a@dest.test", &format!("i{n}"));
            assert_eq!(ask_policy(&mut stream, &request).await, "DUNNO");
        }
        until("the message has arrived", async || log.events.lock().len() == n + 1).await;
    }
    assert_eq!(log.counted()[0].1.size_bytes, 1234);
    log.lock(THIEF);
    let mut streams = Vec::new();
    for address in &edge.addresses.policy {
        streams.push(connect(address).await);
    }
    let request = policy_request("RCPT", THIEF, THIEF, "a@dest.test", "i9");
    until("the lock is in force", async || {
        let mut stream = connect(&edge.addresses.policy[0]).await;
        ask_policy(&mut stream, &request).await != "DUNNO"
    })
    .await;
    for stream in &mut streams {
        let refused = ask_policy(stream, &request).await;
        assert_eq!(refused, "550 5.7.1 Account locked, call the help desk (L-7K3QX2M9)");
        let honest = policy_request("RCPT", "jo@example.org", "jo@example.org", "a@dest.test", "i10");
        assert_eq!(ask_policy(stream, &honest).await, "DUNNO");
    }
}

#[tokio::test]
async fn a_client_that_closes_its_side_gets_its_answer() {
    let directory = tempfile::tempdir().unwrap();
    let (_log, _control, edge) = attached(directory.path(), |_| {}).await;
    for address in &edge.addresses.policy {
        let mut stream = connect(address).await;
        let request = policy_request("RCPT", THIEF, THIEF, "a@dest.test", "");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "action=DUNNO\n\n");
    }
}

async fn post_verdict(address: SocketAddr, body: &str) -> u16 {
    let request = format!(
        "POST /rspamd HTTP/1.1\r\nHost: edge\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    http(address, &request).await.0
}

#[tokio::test]
async fn verdicts_of_the_filter_join_their_messages() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _control, edge) = attached(directory.path(), |_| {}).await;
    let address = edge.addresses.rspamd.unwrap();
    let verdict = |queue_id: &str, action: &str| {
        format!(
            r#"{{"qid":"{queue_id}","user":"{THIEF}","ip":"203.0.113.7","from":"{THIEF}","rcpt":["a@dest.test"],
                 "score":8.5,"action":"{action}","subject":"hello"}}"#
        )
    };
    let mut milter = MilterClient::open(edge.milter()).await;
    // Marked: the message first, then the verdict.
    assert_eq!(milter.message(THIEF, THIEF, "Q1", &["a@dest.test"]).await, Reply::Continue);
    assert_eq!(post_verdict(address, &verdict("Q1", "add header")).await, 200);
    // Marked: the verdict first.
    assert_eq!(post_verdict(address, &verdict("Q2", "add header")).await, 200);
    assert_eq!(milter.message(THIEF, THIEF, "Q2", &["a@dest.test"]).await, Reply::Continue);
    // Refused by the filter: the milter sees DATA and an abort.
    for command in [milter.mail(THIEF, THIEF, "Q3").await, milter.recipient("a@dest.test").await, milter.data().await] {
        assert_eq!(command, Reply::Continue);
    }
    milter.abort().await;
    assert_eq!(post_verdict(address, &verdict("Q3", "reject")).await, 200);
    until("all have arrived", async || log.events.lock().len() == 4).await;
    let seen: Vec<_> = log.counted().into_iter().map(|(_, s)| (s.queue_id.clone(), s.disposition(), s.spam)).collect();
    let expected = [
        ("Q1".to_owned(), v1::Disposition::Accepted, false),
        ("Q1".to_owned(), v1::Disposition::LateVerdict, true),
        ("Q2".to_owned(), v1::Disposition::Accepted, true),
        ("Q3".to_owned(), v1::Disposition::RefusedByFilter, true),
    ];
    assert_eq!(seen, expected);
    // What is no verdict.
    assert_eq!(post_verdict(address, "{").await, 400);
    assert_eq!(post_verdict(address, r#"{"qid":"Q9"}"#).await, 200);
    assert_eq!(post_verdict(address, &"x".repeat(2 << 20)).await, 413);
}

#[tokio::test]
async fn too_many_connections_are_closed_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (_log, _control, edge) = attached(directory.path(), |config| config.milter.connections.max = 1).await;
    let held = MilterClient::open(edge.milter()).await;
    let mut shed = connect(&edge.addresses.milter[1]).await;
    assert_eq!(shed.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(edge.metric("tidegate_edge_connections_shed_total").await, 1);
    drop(held);
    until("there is room again", async || edge.metric("tidegate_edge_connections_open").await == 0).await;
    let mut again = MilterClient::open(&edge.addresses.milter[1]).await;
    assert_eq!(again.message(THIEF, THIEF, "4Q", &["a@dest.test"]).await, Reply::Continue);
}

#[tokio::test]
async fn a_client_that_speaks_something_else_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let (_log, _control, edge) = attached(directory.path(), |_| {}).await;
    let mut stream = connect(edge.milter()).await;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(edge.metric("tidegate_edge_protocol_errors_total").await, 1);
}

#[tokio::test]
async fn random_octets_on_every_socket_do_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _control, edge) = attached(directory.path(), |_| {}).await;
    let rspamd = format!("inet:{}", edge.addresses.rspamd.unwrap());
    let sockets = edge.addresses.milter.iter().chain(&edge.addresses.policy).chain(Some(&rspamd));
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for address in sockets {
        for _ in 0..20 {
            let octets: Vec<u8> = std::iter::repeat_with(|| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random as u8
            })
            .take(3_000)
            .collect();
            let mut stream = connect(address).await;
            // It may be closed before all is written.
            let _ = stream.write_all(&octets).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
    let mut milter = MilterClient::open(edge.milter()).await;
    assert_eq!(milter.message(THIEF, THIEF, "4Q", &["a@dest.test"]).await, Reply::Continue);
    until("the message has arrived", async || log.events.lock().len() == 1).await;
    assert_eq!(edge.ops("/healthz").await.0, 200);
}

#[tokio::test]
async fn an_account_is_slowed_while_cut_off_when_that_is_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicI64::new(1_700_000_000_000));
    let read = Arc::clone(&now_ms);
    // Nobody listens there.
    let nowhere = std::net::TcpListener::bind(ANY_PORT).unwrap().local_addr().unwrap();
    let mut config = config(directory.path(), nowhere);
    let cap = LocalCapConfig { after_s: 60, messages_per_minute: 2, ..LocalCapConfig::default() };
    let text = format!("450 4.7.1 {}", cap.reply);
    config.local_cap = Some(cap);
    let edge = Edge::start_with(config, Clock::new(move || read.load(Ordering::Relaxed))).await;
    let mut milter = MilterClient::open(edge.milter()).await;
    for _ in 0..5 {
        assert_eq!(milter.message(THIEF, THIEF, "4Q", &["a@dest.test"]).await, Reply::Continue);
    }
    now_ms.fetch_add(60_000, Ordering::Relaxed);
    for _ in 0..2 {
        assert_eq!(milter.message(THIEF, THIEF, "4Q", &["a@dest.test"]).await, Reply::Continue);
    }
    assert_eq!(milter.message(THIEF, THIEF, "4Q", &["a@dest.test"]).await, Reply::ReplyCode(text));
    assert_eq!(milter.message("jo@example.org", "jo@example.org", "4Q", &["a@dest.test"]).await, Reply::Continue);
}
