//! What is kept, and what is forgotten.

use crate::lab::{Lab, quick, submission, until};
use arrow_flight::Action;
use arrow_flight::sql::client::FlightSqlServiceClient;
use prost::Message as _;
use std::fs;
use std::path::Path;
use tidegate_access::Access;
use tidegate_bus::Topic;
use tidegate_history::HistoryConfig;
use tidegate_proto::v1;

const A_DAY_MS: i64 = 86_400_000;

fn now_ms() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn days_that_are_too_old_go() {
    let lab = Lab::start_with(HistoryConfig { retention_days: 10, ..quick() }, Access::off()).await;
    let now = now_ms();
    for (sequence, days) in [(1, 30), (2, 11), (3, 9), (4, 0)] {
        lab.send([submission("jo@example.org", sequence, now - days * A_DAY_MS)]).await;
    }
    lab.wait_for("SELECT sequence FROM events ORDER BY 1", &["3", "4"]).await;
}

async fn erase(lab: &Lab, body: &str) -> Result<Vec<String>, String> {
    let action = Action { r#type: "tidegate.erase".to_owned(), body: body.to_owned().into() };
    let mut client = FlightSqlServiceClient::new(lab.channel.clone());
    let answer = client.inner_mut().do_action(action).await.map_err(|status| status.message().to_owned())?;
    let mut answer = answer.into_inner();
    let mut told = Vec::new();
    while let Some(result) = answer.message().await.map_err(|status| status.message().to_owned())? {
        told.push(String::from_utf8(result.body.to_vec()).unwrap());
    }
    Ok(told)
}

/// Whether any data file below a folder holds this text.
fn holds(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return !path.ends_with("_delta_log") && holds(&path, text);
        }
        let octets = fs::read(&path).unwrap_or_default();
        octets.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_forgotten_everywhere_while_others_come_in() {
    // Files that named it are deleted as soon as they may.
    let lab = Lab::start_with(HistoryConfig { vacuum_after_s: 1, ..quick() }, Access::off()).await;
    let mut sequence = 0;
    let mut next = |account: &str| {
        sequence += 1;
        submission(account, sequence, now_ms())
    };
    for _ in 0..5 {
        lab.send([next("gone@example.org"), next("stays@example.org"), next("gone@example.org")]).await;
    }
    let asked = v1::AuditRecord {
        id: "a1".to_owned(),
        time_ms: now_ms(),
        actor: "amy".to_owned(),
        method: "tidegate.v1.AdminService/LockAccount".to_owned(),
        account: "gone@example.org".to_owned(),
        reason: "gone@example.org wrote spam".to_owned(),
        allowed: true,
        ..v1::AuditRecord::default()
    };
    lab.append(Topic::Audit, "gone@example.org", asked.encode_to_vec()).await;
    lab.append(Topic::Events, "gone@example.org", b"\xffgone@example.org".to_vec()).await;
    lab.wait_for("SELECT count(*) FROM events", &["15"]).await;
    lab.wait_for("SELECT count(*) FROM audit WHERE actor = 'amy'", &["1"]).await;
    lab.wait_for("SELECT count(*) FROM rejected", &["1"]).await;
    assert!(holds(&lab.table("events"), "gone@example.org"));

    for (body, why) in [("{}", "account"), (r#"{"account":"gone@example.org","reason":" "}"#, "reason must be set")] {
        let error = erase(&lab, body).await.unwrap_err();
        assert!(error.contains(why), "{body}: {error}");
    }
    let events: Vec<_> = (0..20).map(|_| next("stays@example.org")).collect();
    let (told, ()) = tokio::join!(erase(&lab, r#"{"account":"gone@Example.ORG","reason":"asked to"}"#), async {
        for event in events {
            lab.send([event]).await;
        }
    });
    let told = told.unwrap();
    assert!(told[0].starts_with(r#"{"table":"events","rows":10,"#), "{told:?}");
    assert!(told[1].starts_with(r#"{"table":"account_changes","rows":0,"files":0"#), "{told:?}");
    assert!(told[2].starts_with(r#"{"table":"audit","rows":1,"#), "{told:?}");
    assert!(told[3].starts_with(r#"{"table":"rejected","rows":1,"#), "{told:?}");

    lab.wait_for("SELECT account, count(*) FROM events GROUP BY 1", &["stays@example.org|25"]).await;
    lab.wait_for("SELECT account, reason, actor FROM audit WHERE actor = 'amy'", &["(erased)|(erased)|amy"]).await;
    lab.wait_for("SELECT count(*) FROM rejected", &["0"]).await;
    let asked = "SELECT reason, account IS NULL, request LIKE '%SHA-256%' FROM audit WHERE method LIKE '%EraseAccount'";
    lab.wait_for(asked, &["asked to|true|true"]).await;
    // Once more changes nothing.
    assert!(erase(&lab, r#"{"account":"gone@example.org","reason":"again"}"#).await.unwrap()[0].contains("\"rows\":0"));
    until("the files that named it to be deleted", || async {
        !["events", "audit", "rejected"].iter().any(|name| holds(&lab.table(name), "gone@example.org"))
    })
    .await;
}
