//! Bodies: signed, in the forms that their receivers take.

use crate::hooks::{Answer, Hooks};
use crate::lab::{Lab, config, locked, unlocked};
use serde_json::json;
use std::process::{Command, Stdio};
use tidegate_proto::v1::NotificationStatus;

/// What `openssl dgst` says, which is not our code.
fn hmac_sha256(secret: &str, text: &str) -> String {
    use std::io::Write as _;
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", secret])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = String::from_utf8(openssl.wait_with_output().unwrap().stdout).unwrap();
    output.trim().rsplit(' ').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_signed_with_its_time_and_its_id_is_the_notifications() {
    let hooks = Hooks::start();
    let mut lab = Lab::new();
    let secret = lab.file("secret", "a secret\n");
    let url = lab.file("url", &format!("http://{}/services/T1/B1/secret\n", hooks.address));
    lab.start(config(&format!(
        "[[webhook]]\nname = \"pager\"\nurl_file = {url:?}\nsecret_file = {secret:?}\nchanges = [\"lock\"]\n"
    )))
    .await;
    let state = locked("jo@example.org", 3);
    lab.publish([state.clone()]).await;
    lab.until_status(NotificationStatus::Sent, 1).await;
    lab.publish([unlocked(state)]).await;
    lab.publish([locked("amy@example.org", 1)]).await;
    lab.until_status(NotificationStatus::Sent, 2).await;

    let newest = lab.newest().await;
    let record = newest.values().find(|record| record.account == "jo@example.org").unwrap();
    assert_eq!(record.recipient, "webhook", "the URL is a secret");
    let posted = &hooks.taken()[0];
    assert_eq!(posted.header("tidegate-id"), record.id);
    assert_eq!(posted.header("content-type"), "application/json");
    let signed = format!("{}.{}", posted.header("tidegate-timestamp"), posted.body);
    assert_eq!(posted.header("tidegate-signature"), format!("v1={}", hmac_sha256("a secret", &signed)));
    let body = posted.json();
    assert_eq!(body["id"], record.id.as_str());
    let one = &body["notifications"][0];
    assert_eq!((&one["kind"], &one["change"], &one["version"]), (&json!("lock"), &json!("LOCKED"), &json!(3)));
    assert_eq!(one["evidence"], json!([{"column": "messages_1m", "value": "60"}]));
    assert_eq!((&one["rule"], &one["actor"], &one["domain"]), (&json!("burst"), &json!(null), &json!("example.org")));
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_fires_with_the_lock_and_is_resolved_with_the_same_labels() {
    let hooks = Hooks::start();
    let mut lab = Lab::new();
    lab.start(config(&format!(
        "[[webhook]]\nname = \"alerts\"\nurl = \"http://{}/api/v2/alerts\"\ntemplate = \"alertmanager\"\n",
        hooks.address
    )))
    .await;
    let state = locked("jo@example.org", 1);
    lab.publish([state.clone()]).await;
    lab.until_status(NotificationStatus::Sent, 1).await;
    lab.publish([unlocked(state)]).await;
    lab.until_status(NotificationStatus::Sent, 2).await;
    let alerts: Vec<_> = hooks.taken().iter().map(|posted| posted.json()[0].clone()).collect();
    assert_eq!(alerts[0]["labels"], alerts[1]["labels"]);
    assert_eq!(alerts[0]["labels"]["alertname"], "TidegateAccountLocked");
    let now = present();
    assert!(alerts[0]["endsAt"].as_str().unwrap() > now.as_str(), "it fires: {}", alerts[0]);
    assert!(alerts[1]["endsAt"].as_str().unwrap() <= now.as_str(), "it is resolved: {}", alerts[1]);
    assert!(alerts[1]["startsAt"].as_str().unwrap() <= alerts[1]["endsAt"].as_str().unwrap());
    lab.stop().await;
}

/// The present in RFC 3339, as `date` says it.
fn present() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.999Z"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_an_end_holds_nothing_up_and_404_is_the_end() {
    let hooks = Hooks::start();
    let mut lab = Lab::new();
    let url = format!("http://{}/x", hooks.address);
    lab.start(config(&format!("[[webhook]]\nname = \"pager\"\nurl = \"{url}\"\ngroup_window_ms = 0\n"))).await;
    hooks.answer(Answer::Endless);
    lab.publish([locked("jo@example.org", 1)]).await;
    lab.until_status(NotificationStatus::Sent, 1).await;

    hooks.answer(Answer::Status(404));
    lab.publish([locked("amy@example.org", 1)]).await;
    lab.until_status(NotificationStatus::Dead, 1).await;
    let newest = lab.newest().await;
    let dead = newest.values().find(|record| record.status() == NotificationStatus::Dead).unwrap();
    assert_eq!((dead.attempts, dead.error.as_str()), (1, "404 Not Found: so it is"));
    assert_eq!(hooks.posted().len(), 2, "it was not tried again");
    lab.stop().await;
}
