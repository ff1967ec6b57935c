//! Edges: snapshot, deltas, coming back, being slow, being replaced.

use crate::harness::{Control, accounts_of, active, locked, now_ms, soon, until};
use tidegate_bus::{Bus, Message, Topic};
use tidegate_control::ControlConfig;
use tidegate_domain::Exemption;
use tidegate_proto::v1;
use tidegate_proto::v1::attach_request::Kind as Said;
use tidegate_proto::v1::attach_response::Kind as Says;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

#[tokio::test]
async fn an_edge_gets_everything_and_then_each_change() {
    let control = Control::start(vec![locked("a@example.org", 1), active("b@example.org", 1)]).await;
    let mut edge = control.attach("mx1", "", Vec::new()).await;
    assert!(edge.welcome.snapshot);
    assert_eq!(edge.welcome.log_id, control.bus.log_id());
    let batch = edge.batch().await;
    assert_eq!(accounts_of(&batch), ["a@example.org", "b@example.org"]);
    assert!(batch.snapshot_complete);
    assert_eq!(batch.sequence, 1);
    for placed in &batch.states {
        let after = |at: &v1::PartitionPosition| at.partition == placed.partition && at.next_offset > placed.offset;
        assert!(batch.positions.iter().any(after), "{batch:?}");
    }

    control.put(vec![locked("b@example.org", 2)]).await;
    let batch = edge.batch().await;
    assert_eq!(accounts_of(&batch), ["b@example.org"]);
    assert!(!batch.snapshot_complete);
    assert!((control.metric("tidegate_control_states_pushed_total") - 3.0).abs() < 0.1);
}

#[tokio::test]
async fn an_edge_that_comes_back_gets_only_what_it_lacks() {
    let control = Control::start(vec![locked("a@example.org", 1), locked("b@example.org", 1)]).await;
    let mut edge = control.attach("mx1", "", Vec::new()).await;
    let held = edge.batch().await.positions;
    drop(edge);
    control.put(vec![active("b@example.org", 2), locked("c@example.org", 1)]).await;
    let log_id = control.bus.log_id().to_owned();
    // The edge may come before control has read on: positions decide, not who is first.
    let mut edge = control.attach("mx1", &log_id, held.clone()).await;
    assert!(!edge.welcome.snapshot);
    let mut got = accounts_of(&edge.batch().await);
    while got.len() < 2 {
        got.extend(accounts_of(&edge.batch().await));
    }
    got.sort();
    assert_eq!(got, ["b@example.org", "c@example.org"]);

    let edge = control.attach("mx1", "another-log", held.clone()).await;
    assert!(edge.welcome.snapshot, "positions of another log mean nothing");
    let beyond = held.iter().map(|at| v1::PartitionPosition { next_offset: at.next_offset + 1_000, ..*at }).collect();
    let edge = control.attach("mx1", &log_id, beyond).await;
    assert!(edge.welcome.snapshot, "positions beyond the log are of another life of it");
}

#[tokio::test]
async fn an_account_that_is_deleted_is_told_as_active() {
    let control = Control::start(vec![locked("a@example.org", 4)]).await;
    let mut edge = control.attach("mx1", "", Vec::new()).await;
    edge.batch().await;
    control.bus.append(Topic::Accounts, vec![Message::new("a@example.org".into(), None)]).await.unwrap();
    let state = edge.batch().await.states.remove(0).state.unwrap();
    assert_eq!(
        (state.account.as_str(), state.status(), state.version),
        ("a@example.org", v1::AccountStatus::Active, 0)
    );
}

#[tokio::test]
async fn a_slow_edge_waits_in_no_queue_and_gets_the_newest_states() {
    let config = ControlConfig { max_unacked_batches: 2, max_batch_states: 1, ..ControlConfig::default() };
    let control = Control::start_with(config, Vec::new()).await;
    let mut edge = control.attach("mx1", "", Vec::new()).await;
    assert!(edge.batch().await.snapshot_complete);
    edge.ack(1).await;
    // Each seen before the next is written, until the window is full.
    for version in 1..=2 {
        control.put(vec![locked("a@example.org", version)]).await;
        assert_eq!(edge.batch().await.states[0].state.as_ref().unwrap().version, version);
    }
    for version in 3..=200 {
        control.put(vec![locked("a@example.org", version)]).await;
    }
    let newest = || async {
        let request = v1::GetAccountRequest { account: "a@example.org".into() };
        let answer = control.admin().get_account(request).await.unwrap().into_inner();
        assert!(!answer.edges[0].in_force);
        answer.state.unwrap().version == 200
    };
    until("control has read it all", newest).await;
    assert_eq!(control.admin().list_edges(v1::ListEdgesRequest {}).await.unwrap().into_inner().edges[0].behind, 2);
    edge.ack(2).await;
    let batch = edge.batch().await;
    assert_eq!(batch.states[0].state.as_ref().unwrap().version, 200, "what was in between is not sent");
}

#[tokio::test]
async fn acknowledgements_and_health_show_in_the_list() {
    let control = Control::start(vec![locked("a@example.org", 1)]).await;
    let mut edge = control.attach("mx1", "", Vec::new()).await;
    edge.batch().await;
    edge.ack(1).await;
    let health = v1::EdgeHealth { now_ms: now_ms(), sessions: 3, decisions: 9, refusals: 2, ..Default::default() };
    edge.say.send(v1::AttachRequest { kind: Some(Said::Health(health)) }).await.unwrap();
    let get = || async {
        let request = v1::GetAccountRequest { account: "a@example.org".into() };
        let answer = control.admin().get_account(request).await.unwrap().into_inner();
        answer.edges.len() == 1 && answer.edges[0].in_force && answer.edges[0].applied_ms.is_some()
    };
    until("the edge is known to have it in force", get).await;

    control.put(vec![locked("b@example.org", 1)]).await;
    edge.batch().await;
    edge.ack(2).await;
    let list = || async {
        let edges = control.admin().list_edges(v1::ListEdgesRequest {}).await.unwrap().into_inner().edges;
        let one = &edges[0];
        assert_eq!((edges.len(), one.node.as_str(), one.site.as_str(), one.connected), (1, "mx1", "ams", true));
        one.propagation_p99_ms.is_some() && one.behind == 0 && one.status.is_some_and(|status| status.refusals == 2)
    };
    until("the list shows it", list).await;
    assert!(
        (control.metric("tidegate_control_propagation_seconds_count") - 1.0).abs() < 0.1,
        "the snapshot is no change"
    );
    assert!((control.metric("tidegate_control_edges_connected") - 1.0).abs() < 0.1);

    drop(edge);
    let gone = || async {
        let edges = control.admin().list_edges(v1::ListEdgesRequest {}).await.unwrap().into_inner().edges;
        !edges[0].connected
    };
    until("it shows as gone", gone).await;
}

#[tokio::test]
async fn heartbeats_come_when_nothing_changes() {
    let config = ControlConfig { heartbeat_ms: 100, ..ControlConfig::default() };
    let control = Control::start_with(config, Vec::new()).await;
    let mut edge = control.attach("mx1", "", Vec::new()).await;
    assert_eq!(edge.welcome.heartbeat_ms, 100);
    edge.batch().await;
    for _ in 0..3 {
        match soon(edge.hears.message()).await.unwrap().unwrap().kind {
            Some(Says::Heartbeat(heartbeat)) => assert_eq!(heartbeat.sequence, 1),
            other => panic!("instead of a heartbeat came {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_same_node_again_ends_the_older_connection() {
    let control = Control::start(Vec::new()).await;
    let mut first = control.attach("mx1", "", Vec::new()).await;
    let mut second = control.attach("mx1", "", Vec::new()).await;
    assert_eq!(first.end().await.code(), tonic::Code::Aborted);
    assert!(second.batch().await.snapshot_complete);
    let edges = control.admin().list_edges(v1::ListEdgesRequest {}).await.unwrap().into_inner().edges;
    assert_eq!((edges.len(), edges[0].connected), (1, true));
}

#[tokio::test]
async fn what_an_edge_may_not_say_ends_its_stream() {
    let control = Control::start(Vec::new()).await;
    let mut edge = control.attach("mx1", "", Vec::new()).await;
    edge.ack(77).await;
    let status = edge.end().await;
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().contains("batch 77 was acknowledged"), "{status}");

    for (first, expected) in [
        (Said::Ack(v1::Ack::default()), "must be hello"),
        (Said::Hello(v1::Hello { site: "ams".into(), ..Default::default() }), "hello.node is empty"),
        (Said::Hello(v1::Hello { node: "a\0".into(), site: "ams".into(), ..Default::default() }), "hello.node is not"),
    ] {
        let (say, said) = mpsc::channel(1);
        say.send(v1::AttachRequest { kind: Some(first) }).await.unwrap();
        let mut client = v1::edge_service_client::EdgeServiceClient::new(control.channel.clone());
        let mut hears = client.attach(ReceiverStream::new(said)).await.unwrap().into_inner();
        let status = soon(hears.message()).await.unwrap_err();
        assert!(status.message().contains(expected), "{status}");
    }
}

#[tokio::test]
async fn more_edges_than_allowed_are_turned_away() {
    let config = ControlConfig { max_edges: 1, ..ControlConfig::default() };
    let control = Control::start_with(config, Vec::new()).await;
    let _edge = control.attach("mx1", "", Vec::new()).await;
    let (say, said) = mpsc::channel(1);
    let hello = v1::Hello { node: "mx2".into(), site: "ams".into(), ..Default::default() };
    say.send(v1::AttachRequest { kind: Some(Said::Hello(hello)) }).await.unwrap();
    let mut client = v1::edge_service_client::EdgeServiceClient::new(control.channel.clone());
    let mut hears = client.attach(ReceiverStream::new(said)).await.unwrap().into_inner();
    assert_eq!(soon(hears.message()).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
}

#[tokio::test]
async fn an_edge_that_takes_nothing_is_cut_off() {
    let config = ControlConfig { heartbeat_ms: 100, edge_stall_ms: 1_000, ..ControlConfig::default() };
    // More than the buffers between take.
    let state = |n| {
        let mut state = active(&format!("user{n}@example.org"), 1);
        state.exemptions =
            vec![Exemption { rules: vec!["r".repeat(64); 64], until_ms: None, actor: "a".into(), reason: "b".into() }];
        state
    };
    let control = Control::start_with(config, (0..4_000).map(state).collect()).await;
    let mut edge = control.attach("mx1", "", Vec::new()).await;
    let control = &control;
    until("it is cut off", || async { control.metric("tidegate_control_edges_ended_total{reason=\"stalled\"}") > 0.5 })
        .await;
    // What is on the way comes still, but not everything.
    let mut got = 0;
    while let Ok(Some(message)) = soon(edge.hears.message()).await {
        if let Some(Says::States(batch)) = message.kind {
            got += batch.states.len();
        }
    }
    assert!(got < 4_000, "{got}");
}
