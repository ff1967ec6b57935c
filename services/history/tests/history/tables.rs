//! What gets into the tables: each record once.

use crate::lab::{DAY_MS, Lab, submission};
use prost::Message as _;
use tidegate_bus::Topic;
use tidegate_proto::v1;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_can_be_queried_soon_with_all_that_it_tells() {
    let lab = Lab::start().await;
    lab.send([submission("jo@example.org", 1, DAY_MS + 1_500)]).await;
    lab.wait_for("SELECT count(*) FROM events", &["1"]).await;
    let told = "SELECT date, time, account, domain, kind, site, node, lane, sequence, client_address, helo, sender, \
                recipients, recipient_domains, recipient_hashes, size_bytes, queue_id, fingerprint, subject_hash, \
                is_message, disposition, log_offset FROM events";
    let expected = "2026-11-26|2026-11-26T00:00:01.500Z|jo@example.org|example.org|submission|ams|mx1|live|1|\
                    203.0.113.1|client.example|jo@example.org|2|[a.example, b.example]|[1, -2]|1001|4Z00000001|7|-|\
                    true|accepted|0";
    assert_eq!(lab.lines(told).await, [expected]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_set_aside_and_nothing_else_stops() {
    let lab = Lab::start().await;
    lab.append(Topic::Events, "jo@example.org", b"\xff\xff nonsense".to_vec()).await;
    lab.append(
        Topic::Audit,
        "jo@example.org",
        v1::AuditRecord { actor: "amy".to_owned(), ..v1::AuditRecord::default() }.encode_to_vec(),
    )
    .await;
    lab.send([submission("jo@example.org", 1, DAY_MS)]).await;
    lab.wait_for("SELECT count(*) FROM events", &["1"]).await;
    let told = "SELECT topic, reason, encode(value, 'hex') FROM rejected ORDER BY topic";
    lab.wait_for(
        told,
        &[
            "audit|it is no AuditRecord: its id or its method is missing|1a03616d79",
            "events|not a Event: failed to decode Protobuf message: invalid wire type value: 7|ffff206e6f6e73656e7365",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_neither_loses_nor_doubles() {
    let mut lab = Lab::start().await;
    for round in 0..4_u64 {
        let events = (0..50).map(|number| submission("jo@example.org", round * 50 + number + 1, DAY_MS));
        lab.send(events).await;
        if round % 2 == 0 {
            lab.wait_for(
                "SELECT count(*), count(DISTINCT sequence) FROM events",
                &[&format!("{0}|{0}", round * 50 + 50)],
            )
            .await;
        }
        lab.restart().await;
    }
    lab.wait_for("SELECT count(*), count(DISTINCT sequence) FROM events", &["200|200"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_edge_publishes_again_stands_once() {
    let mut lab = Lab::start().await;
    lab.send([submission("jo@example.org", 5, DAY_MS), submission("jo@example.org", 5, DAY_MS)]).await;
    lab.wait_for("SELECT count(*) FROM events", &["1"]).await;
    lab.restart().await;
    // The table itself tells what came before.
    lab.send([submission("jo@example.org", 5, DAY_MS), submission("jo@example.org", 6, DAY_MS)]).await;
    lab.wait_for("SELECT sequence FROM events ORDER BY sequence", &["5", "6"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_become_few_and_say_the_same() {
    let lab = Lab::start().await;
    for round in 0..12_u64 {
        lab.send((0..10).map(|number| submission("jo@example.org", round * 10 + number + 1, DAY_MS))).await;
        let count = (round * 10 + 10).to_string();
        lab.wait_for("SELECT count(*) FROM events", &[&count]).await;
    }
    crate::lab::until("files to be put together", || async {
        let log = std::fs::read_dir(lab.table("events").join("_delta_log")).unwrap();
        let texts = log.filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok());
        texts.into_iter().any(|text| text.contains("\"OPTIMIZE\""))
    })
    .await;
    assert_eq!(
        lab.lines("SELECT count(*), count(DISTINCT sequence), sum(sequence) FROM events").await,
        ["120|120|7260"]
    );
}
