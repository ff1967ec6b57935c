//! Watches of accounts.

use crate::harness::{Control, active, locked, soon, until};
use tidegate_control::ControlConfig;
use tidegate_proto::v1;
use tidegate_proto::v1::watch_accounts_response::Kind;

async fn next(watch: &mut tonic::Streaming<v1::WatchAccountsResponse>) -> String {
    match soon(watch.message()).await.unwrap().unwrap().kind.unwrap() {
        Kind::State(state) => format!("{} {}", state.account, state.version),
        Kind::InitialComplete(_) => "complete".to_owned(),
    }
}

#[tokio::test]
async fn first_what_matches_now_then_every_change() {
    let control = Control::start(vec![active("al@example.org", 1), locked("bo@example.org", 1)]).await;
    let filter = v1::AccountFilter { statuses: vec![v1::AccountStatus::Locked.into()], ..Default::default() };
    let request = v1::WatchAccountsRequest { filter: Some(filter), initial: true };
    let mut watch = control.admin().watch_accounts(request).await.unwrap().into_inner();
    assert_eq!(next(&mut watch).await, "bo@example.org 1");
    assert_eq!(next(&mut watch).await, "complete");
    control.put(vec![active("dee@example.org", 1), locked("al@example.org", 2)]).await;
    assert_eq!(next(&mut watch).await, "al@example.org 2");
    control.put(vec![active("bo@example.org", 2)]).await;
    assert_eq!(next(&mut watch).await, "bo@example.org 2", "that it no longer matches is told");

    assert!((control.metric("tidegate_control_watchers") - 1.0).abs() < 0.1);
    drop(watch);
    let control = &control;
    until("the watch is gone", || async { control.metric("tidegate_control_watchers") < 0.5 }).await;
}

#[tokio::test]
async fn without_initial_only_changes_are_told() {
    let control = Control::start(vec![active("al@example.org", 1)]).await;
    let request = v1::WatchAccountsRequest::default();
    let mut watch = control.admin().watch_accounts(request).await.unwrap().into_inner();
    assert_eq!(next(&mut watch).await, "complete");
    for version in 2..50 {
        control.put(vec![active("al@example.org", version)]).await;
        assert_eq!(next(&mut watch).await, format!("al@example.org {version}"));
    }
}

#[tokio::test]
async fn a_watch_that_falls_behind_is_ended_and_told_so() {
    let config = ControlConfig { watch_buffer: 4, ..ControlConfig::default() };
    let control = Control::start_with(config, Vec::new()).await;
    let request = v1::WatchAccountsRequest::default();
    let mut watch = control.admin().watch_accounts(request).await.unwrap().into_inner();
    assert_eq!(next(&mut watch).await, "complete");
    let behind = "tidegate_control_watchers_behind_total";
    let mut version = 0;
    // Nothing is taken from the watch: buffers fill, and then it is behind.
    while control.metric(behind) < 0.5 {
        let states = (0..500).map(|n| active(&format!("user{n}@example.org"), version + 1)).collect();
        version += 1;
        assert!(version < 1_000, "the watch never fell behind");
        control.put(states).await;
    }
    let status = loop {
        match soon(watch.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the watch ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert!(status.message().contains("watch anew"), "{status}");
}

#[tokio::test]
async fn more_watches_than_allowed_are_turned_away() {
    // More than one connection may work on at a time: a watch that is open does not count there.
    let config = ControlConfig { max_watchers: 100, ..ControlConfig::default() };
    let control = Control::start_with(config, Vec::new()).await;
    let mut watches = Vec::new();
    for _ in 0..100 {
        watches.push(control.admin().watch_accounts(v1::WatchAccountsRequest::default()).await.unwrap());
    }
    let status = control.admin().watch_accounts(v1::WatchAccountsRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
}
