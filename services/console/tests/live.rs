//! Pages that tell of changes by themselves.

#![allow(clippy::unwrap_used, missing_docs)]

mod api;
mod client;

use api::Api;
use client::{Browser, serve};
use reqwest::StatusCode;
use tidegate_console::ConsoleConfig;
use tonic::Status;

fn quick() -> ConsoleConfig {
    ConsoleConfig { live_interval_ms: 100, live_poll_ms: 500, ..ConsoleConfig::default() }
}

#[tokio::test]
async fn a_lock_arrives_on_every_page_that_shows_it_and_is_said() {
    let api = Api::empty(false);
    let served = serve(&api, quick()).await;
    let browser = Browser::signed_in(&served, "admin").await;
    for (number, (of, id)) in
        [("/", "newest"), ("/accounts?status=locked", "list"), ("/account?name=a2%40example.org", "state")]
            .into_iter()
            .enumerate()
    {
        let mut live = browser.live(of).await;
        let name = format!("a{number}@example.org");
        let is_told = |data: &str| {
            let part: serde_json::Value = serde_json::from_str(data).unwrap();
            part["id"] == id
                && part["html"].as_str().unwrap().contains("Locked</span>")
                && (id == "state" || part["html"].as_str().unwrap().contains(&format!("a{number}<wbr>@example.org")))
        };
        live.until("fresh", |_| true).await;
        api.locked(&name);
        live.until("part", is_told).await;
        live.until("said", |said| said == format!("{name} is now locked.")).await;
    }
    let mut live = browser.live("/audit").await;
    live.until("fresh", |_| true).await;
    api.record(tidegate_proto::v1::AuditRecord {
        actor: "olaf".into(),
        reason: "seen live".into(),
        allowed: true,
        ..Default::default()
    });
    live.until("part", |data| data.contains("seen live")).await;
}

#[tokio::test]
async fn ten_thousand_locks_are_a_few_parts() {
    let api = Api::empty(false);
    let served = serve(&api, quick()).await;
    let browser = Browser::signed_in(&served, "viewer").await;
    let mut live = browser.live("/").await;
    live.until("fresh", |_| true).await;
    for number in 0..10_000 {
        api.locked(&format!("a{number}@example.org"));
    }
    let parts = live.until("part", |data| data.contains("10,000")).await;
    assert!(parts < 100, "{parts} parts");
}

#[tokio::test]
async fn a_failing_api_is_told_and_when_it_is_back_the_page_goes_on() {
    let api = Api::empty(false);
    let served = serve(&api, quick()).await;
    let browser = Browser::signed_in(&served, "viewer").await;
    let mut live = browser.live("/accounts").await;
    live.until("fresh", |_| true).await;
    api.fail(Some(Status::unavailable("the replica is\nnot whole yet")));
    api.locked("jo@example.org");
    live.until("trouble", |said| said == "the replica is not whole yet").await;
    api.fail(None);
    live.until("part", |data| data.contains("jo<wbr>@example.org")).await;
}

#[tokio::test]
async fn a_stream_ends_with_its_session_and_with_its_token() {
    let api = Api::empty(false);
    let served = serve(&api, quick()).await;
    let mut browser = Browser::signed_in(&served, "viewer").await;
    let mut live = browser.live("/").await;
    live.until("fresh", |_| true).await;
    browser.submit("/", "/sign-out", &[]).await;
    live.until("ended", |_| true).await;
    assert_eq!(live.next().await, None);

    let browser = Browser::signed_in(&served, "viewer").await;
    let mut live = browser.live("/").await;
    live.until("fresh", |_| true).await;
    api.revoke("viewer");
    live.until("ended", |_| true).await;
    assert_eq!(browser.live("/").await.response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn streams_are_bounded_and_only_of_pages_that_are() {
    let config = ConsoleConfig { max_live_streams: 3, max_live_streams_per_session: 2, ..quick() };
    let served = serve(&Api::empty(false), config).await;
    let (one, other) = (Browser::signed_in(&served, "viewer").await, Browser::signed_in(&served, "viewer").await);
    let (first, _second) = (one.live("/").await, one.live("/accounts").await);
    assert_eq!(one.live("/").await.response.status(), StatusCode::SERVICE_UNAVAILABLE, "its own bound");
    let _third = other.live("/").await;
    assert_eq!(other.live("/").await.response.status(), StatusCode::SERVICE_UNAVAILABLE, "the bound of all");
    assert_eq!(one.live("/nowhere").await.response.status(), StatusCode::NOT_FOUND);
    drop(first);
    while one.live("/").await.response.status() != StatusCode::OK {
        tokio::task::yield_now().await;
    }
}
