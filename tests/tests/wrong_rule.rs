//! A wrong rule locks ten thousand accounts at once: it is switched off, a dry run says which accounts are meant, and all
//! of it is undone.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use serde_json::Value;
use std::time::Instant;
use tidegate_proto::v1;
use tidegate_proto::v1::event_service_client::EventServiceClient;
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use xtask::wait::wait_until;

const ACCOUNTS: u64 = 10_000;
const BATCH: u64 = 1_000;
const RULES: &str = r#"
mode = "enforce"

[[rule]]
name = "wrong"
when = "messages_1h >= 1"
action = "lock"
reason = "Sends mail."
reply = "This account is locked."
source = "a mistake"

[[rule]]
name = "right"
when = "recipients_1h >= 1000"
action = "lock"
reason = "Sends very much mail."
reply = "This account is locked."
source = "a test"
"#;

#[test]
fn ten_thousand_wrong_locks_are_undone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "server", "serve", &Log::Embedded, RULES).unwrap();
    // One that was locked with good reason, long before.
    let lock = ["accounts", "lock", "thief@example.test", "--reason", "reported"];
    server.admin(&lock).unwrap().succeeded().unwrap();

    let began = Instant::now();
    publish(&server, 0);
    wait_until("all are locked", TIMEOUT, || locked(&server) == ACCOUNTS + 1).unwrap();
    eprintln!("{ACCOUNTS} accounts were locked within {:.1?}", began.elapsed());

    let began = Instant::now();
    let disable = ["rules", "disable", "wrong", "--reason", "locks everybody", "--json"];
    let disabled: Value = json(&server, &disable);
    assert_eq!(disabled["applied"], true, "{disabled}");
    let unlock =
        ["accounts", "bulk", "unlock", "--rule", "wrong", "--reason", "wrong rule", "--evidence", "by mistake"];
    let planned = json(&server, &[&unlock[..], &["--json"]].concat());
    assert_eq!((&planned["applied"], planned["total"].as_u64()), (&Value::Bool(false), Some(ACCOUNTS)));
    assert_eq!(locked(&server), ACCOUNTS + 1, "a dry run changes nothing");
    let done = json(&server, &[&unlock[..], &["--apply", "--json"]].concat());
    assert_eq!((done["changed"].as_u64(), done["refused"].as_u64()), (Some(ACCOUNTS), Some(0)), "{done}");
    assert_eq!(locked(&server), 1, "the thief stays locked");
    eprintln!("all was undone within {:.1?}", began.elapsed());

    // Mail goes on, the rule stays off, the other rule and the audit know of everything.
    publish(&server, ACCOUNTS);
    wait_until("the mail was counted", TIMEOUT, || server.counted("counted").unwrap() >= (2 * ACCOUNTS) as f64)
        .unwrap();
    assert_eq!(locked(&server), 1);
    let rules = json(&server, &["rules", "list", "--json"]);
    let wrong = rules[0]["rules"].as_array().unwrap().iter().find(|rule| rule["name"] == "wrong").unwrap();
    assert_eq!((&wrong["enabled"], &wrong["switched_off"]), (&Value::Bool(false), &Value::Bool(true)), "{wrong}");
    let one = ["audit", "list", "--account", &account(7), "--actions", "--json"];
    let audit = json(&server, &one);
    assert_eq!((&audit[0]["actor"], &audit[0]["reason"]), (&"amy".into(), &"wrong rule".into()), "{audit}");
    let shown = json(&server, &["accounts", "show", &account(7), "--json"]);
    let timeline: Vec<&str> =
        shown["timeline"].as_array().unwrap().iter().map(|one| one["change"].as_str().unwrap()).collect();
    assert_eq!(timeline, ["locked", "unlocked"], "{shown}");
}

#[test]
fn a_plan_that_no_longer_holds_is_not_carried_out() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "server", "serve", &Log::Embedded, "mode = \"observe\"\n").unwrap();
    let file = dir.path().join("leaked.txt");
    std::fs::write(&file, "# from the leak\njo@example.test\n\nal@example.test\nJo@Example.TEST\n").unwrap();
    let lock = ["accounts", "bulk", "lock", "--file", file.to_str().unwrap(), "--reason", "leak", "--json"];
    let planned = json(&server, &lock);
    assert_eq!((planned["total"].as_u64(), planned["changed"].as_u64()), (Some(2), Some(2)), "{planned}");
    assert_eq!(locked(&server), 0);
    let done = json(&server, &[&lock[..], &["--apply"]].concat());
    assert_eq!(done["changed"].as_u64(), Some(2), "{done}");
    let again = json(&server, &[&lock[..], &["--apply"]].concat());
    assert_eq!((again["changed"].as_u64(), again["refused"].as_u64()), (Some(0), Some(2)), "{again}");
    // Without evidence they stay locked, and it is said why.
    let unlock = ["accounts", "bulk", "unlock", "--status", "locked", "--reason", "over", "--json"];
    let refused = json(&server, &unlock);
    assert!(
        refused["accounts"][0]["refused"].as_str().unwrap().contains("say when the password was changed"),
        "{refused}"
    );
    let nothing = server.admin(&["accounts", "bulk", "unlock", "--reason", "over"]).unwrap();
    assert!(nothing.code() == 1 && nothing.stderr.contains("not said which accounts"), "{}", nothing.report());
}

/// One message of each account.
fn publish(server: &Server, first_sequence: u64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = EventServiceClient::connect(format!("http://{}", server.control)).await.unwrap();
        for first in (0..ACCOUNTS).step_by(BATCH as usize) {
            let events = (first..first + BATCH).map(|number| event(number, first_sequence + number + 1)).collect();
            let answer = client.publish(v1::PublishRequest { events }).await.unwrap().into_inner();
            assert_eq!(u64::from(answer.written), BATCH);
        }
    });
}

fn event(number: u64, sequence: u64) -> v1::Event {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let submission = v1::Submission { recipient_count: 1, size_bytes: 1_000, ..v1::Submission::default() };
    v1::Event {
        id: Some(v1::EventId { node: "mx1".into(), lane: v1::Lane::Live.into(), sequence }),
        site: "ams".into(),
        account: account(number),
        time_ms: now.as_millis() as i64,
        trace_parent: String::new(),
        kind: Some(v1::event::Kind::Submission(submission)),
    }
}

fn account(number: u64) -> String {
    format!("user{number}@example.test")
}

fn locked(server: &Server) -> u64 {
    json(server, &["overview", "--json"])["locked"].as_u64().unwrap()
}

fn json(server: &Server, arguments: &[&str]) -> Value {
    serde_json::from_str(&server.admin(arguments).unwrap().succeeded().unwrap().stdout).unwrap()
}
