//! `tidegate demo`: the first thing that a newcomer runs.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::process::Command;
use std::time::Duration;
use tidegate_tests::{command, programs};

#[test]
fn the_demo_locks_the_hijacked_account_at_three_sites_and_nobody_else() {
    programs::tidegate_edge().unwrap();
    let mut demo = Command::new(programs::tidegate().unwrap());
    demo.args(["demo", "--json", "--accounts", "1000", "--rate", "120", "--warm-up", "2s", "--seed", "7"]);
    let ended = command::run(demo, Duration::from_mins(3)).unwrap().succeeded().unwrap();
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["locked"]["account"], "erin.hughes@example.org", "{report}");
    assert!(!report["locked"]["evidence"].as_object().unwrap().is_empty(), "{report}");
    assert!(report["locked"]["reply"].as_str().unwrap().starts_with("550 5.7.1 "), "{report}");
    let edges = report["edges"].as_array().unwrap();
    assert_eq!(edges.len(), 3);
    assert!(edges.iter().all(|edge| edge["first_refusal_ms"].is_number()), "{report}");
    assert_eq!(report["ordinary_refused"], 0, "{report}");
    assert!(report["unlocked_ms"].is_number() && report["slipped_through"].is_u64(), "{report}");
    // What an analyst asks afterwards is answered from the history of the run.
    let answer = &report["history"];
    let rows = answer["rows"].as_array().unwrap();
    let messages = |account: &str| {
        let of_it = rows.iter().filter(|row| row["account"] == account);
        of_it.map(|row| row["messages"].as_u64().unwrap()).sum::<u64>()
    };
    assert!(answer["sql"].as_str().unwrap().starts_with("SELECT "), "{report}");
    assert!(messages("erin.hughes@example.org") >= 30 && messages("clara.2@mail.example") == 2, "{report}");
    let counted = report["events"].as_u64().unwrap();
    assert!(counted >= 100, "{report}");
}

#[test]
fn a_wrong_option_is_a_usage_error() {
    let mut demo = Command::new(programs::tidegate().unwrap());
    demo.args(["demo", "--accounts", "1"]);
    let ended = command::run(demo, Duration::from_mins(1)).unwrap();
    assert_eq!(ended.code(), 2, "{}", ended.report());
    assert!(ended.stderr.contains("100..=100000"), "{}", ended.report());
}
