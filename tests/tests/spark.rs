//! Large engines on the history's tables: Spark and DuckDB read them, after files were put together and an account was
//! erased, too. They are large to fetch, so this is no part of a run of all tests: `cargo xtask spark`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tidegate_tests::analyst::Analyst;
use tidegate_tests::command;
use tidegate_tests::hostile::{PolicyClient, hijack};
use tidegate_tests::installation::{Edge, Log, Server, TIMEOUT};
use tidegate_tests::mail::BURST_RULES;
use xtask::tools;
use xtask::wait::wait_until;

/// The first run fetches Spark's connector.
const SPARK_TIMEOUT: Duration = Duration::from_mins(15);
const ERASED: &str = "gone@example.test";
const KEPT: &str = "stays@example.test";
const THIEF: &str = "thief@example.test";

#[test]
fn spark_and_duckdb_read_the_tables_before_and_after_upkeep() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "server", "serve", &Log::Embedded, BURST_RULES).unwrap();
    let edge = Edge::start(dir.path(), "mx1", server.control, "").unwrap();
    let tables = dir.path().join("server/log/history");
    let analyst = Analyst::new(server.history).unwrap();
    let count = |sql: &str| analyst.ask(sql).map_or(usize::MAX, |rows| rows[0][0].parse().unwrap());
    let mut client = PolicyClient::connect(edge.policy_address).unwrap();
    // Commits one by one, so that there are files to put together.
    for round in 1..=12 {
        for account in [ERASED, KEPT] {
            let recipient = format!("friend{round}@elsewhere.example");
            client.message(account, &format!("{account}.{round}"), &recipient).unwrap();
        }
        wait_until("the events to be in the table", TIMEOUT, || count("SELECT count(*) FROM events") == 2 * round)
            .unwrap();
    }
    hijack(edge.policy_address, THIEF).unwrap();
    wait_until("files to be put together", TIMEOUT, || operations(&tables, "events").contains(&"OPTIMIZE".into()))
        .unwrap();
    wait_until("the lock", TIMEOUT, || count("SELECT count(*) FROM locks") == 1).unwrap();
    wait_until("the events of the theft", TIMEOUT, || count(&of(THIEF)) >= 60).unwrap();
    let lock = analyst.ask("SELECT lock_id, rule FROM locks").unwrap().remove(0);

    let before = spark(&tables);
    check(&before, &[(ERASED, 12), (KEPT, 12), (THIEF, count(&of(THIEF)))]);
    let line = format!("lock {THIEF} {} {} None", lock[0], lock[1]);
    assert!(before.lines().any(|told| told == line), "{line}\n{before}");
    assert!(
        before.lines().any(|told| told == "comment The client's IP address; NULL for local submission."),
        "{before}"
    );
    assert_eq!(duckdb(&tables), messages(&analyst, "duckdb"));

    for told in analyst.erase(ERASED).unwrap() {
        println!("{told}");
    }
    assert!(operations(&tables, "events").contains(&"DELETE".into()));
    let after = spark(&tables);
    assert!(!after.contains(ERASED), "{after}");
    check(&after, &[(KEPT, 12), (THIEF, count(&of(THIEF)))]);
    assert_eq!(duckdb(&tables), messages(&analyst, "duckdb"));
}

/// Whether Spark tells so many messages of these accounts, and finds all of today's events by partition.
fn check(told: &str, expected: &[(&str, usize)]) {
    println!("{told}");
    for (account, messages) in expected {
        let line = format!("messages {account} {messages}");
        assert!(told.lines().any(|told| told == line), "{line}\n{told}");
    }
    let number = |word: &str, at: usize| -> usize {
        let line = told.lines().find(|line| line.starts_with(word)).unwrap();
        line.split(' ').nth(at).unwrap().parse().unwrap()
    };
    let events = number("rows events ", 2);
    assert!(expected.iter().map(|(_, messages)| messages).sum::<usize>() <= events, "{told}");
    // At midnight they are of two days.
    assert!(number("today ", 1) <= events && number("today ", 3) >= 1, "{told}");
}

fn of(account: &str) -> String {
    format!("SELECT count(*) FROM events WHERE account = '{account}'")
}

/// What the service itself says, in the form of `delta.py`.
fn messages(analyst: &Analyst, engine: &str) -> String {
    let rows = analyst.ask("SELECT account, count(*) FROM events WHERE is_message GROUP BY 1 ORDER BY 1").unwrap();
    let rows: Vec<String> = rows.iter().map(|row| format!("('{}', {})", row[0], row[1])).collect();
    format!("{engine} {}", rows.join(" "))
}

/// What was done to a table, as its log says it.
fn operations(tables: &Path, table: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(tables.join(table).join("_delta_log")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        let actions = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        found.extend(actions.filter_map(|action| action["commitInfo"]["operation"].as_str().map(str::to_owned)));
    }
    found
}

fn spark(tables: &Path) -> String {
    let python = tools::python_with_spark().unwrap();
    let programs = python.parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(programs.to_owned()).chain(std::env::split_paths(&path))).unwrap();
    let mut submit = Command::new(programs.join("spark-submit"));
    // Its own programs look for Python by the path.
    submit.env("PATH", path).args(["--master", "local[2]", "--packages", tools::DELTA_SPARK]);
    for setting in
        ["spark.ui.enabled=false", "spark.sql.shuffle.partitions=4", "spark.databricks.delta.snapshotPartitions=2"]
    {
        submit.args(["--conf", setting]);
    }
    submit.arg(example("spark.py")).arg(tables);
    command::run(submit, SPARK_TIMEOUT).unwrap().succeeded().unwrap().stdout
}

fn duckdb(tables: &Path) -> String {
    let mut command = Command::new(tools::python_with_spark().unwrap());
    command.arg(example("delta.py")).arg(tables).args(["messages", "--duckdb"]);
    let told = command::run(command, TIMEOUT).unwrap().succeeded().unwrap().stdout;
    told.lines().find(|line| line.starts_with("duckdb ")).unwrap().to_owned()
}

fn example(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/analytics");
    folder.canonicalize().unwrap().join(name)
}
