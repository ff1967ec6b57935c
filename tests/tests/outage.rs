//! Kafka and control are away under traffic: mail flows and known locks hold. When they are back, every event counts
//! exactly once, and a burst from meanwhile is found.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use tidegate_bus::{BusConfig, KafkaConfig};
use tidegate_tests::hijack::Sites;
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use tidegate_tests::ledger::{Kind, Ledger, read_events};
use tidegate_tests::mail::{BURST_RULES, THIEF, person};
use xtask::kafka::KafkaRig;
use xtask::wait::wait_until;

const PARTITIONS: u32 = 4;
/// The account that is locked before.
const KNOWN: usize = 5;
/// Messages that are sent while everything is away.
const MEANWHILE: usize = 120;

#[test]
fn what_happens_while_kafka_and_control_are_away_counts_once_and_is_judged() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = KafkaRig::start(&dir.path().join("kafka")).unwrap();
    let brokers = kafka.bootstrap();
    let log = Log::kafka(&kafka);
    let mut control = Server::start(dir.path(), "control", "control", &log, BURST_RULES).unwrap();
    let mut stream = Server::start(dir.path(), "stream", "stream", &log, BURST_RULES).unwrap();
    // The first edge publishes straight to Kafka, the others through control.
    let straight = format!(
        "publish = {{ kind = \"kafka\", kafka = {{ bootstrap_servers = \"{brokers}\", partitions = {PARTITIONS} }} }}"
    );
    let sites = Sites::start(dir.path(), control.control, &straight, KNOWN + 1).unwrap();
    let mut ledger = Ledger::default();
    let lock = ["accounts", "lock", &person(KNOWN), "--reason", "reported", "--reply", "Locked."];
    control.admin(&lock).unwrap().succeeded().unwrap();
    for site in 0..3 {
        wait_until("the known lock to be in force", TIMEOUT, || {
            !ledger.send(&sites, site, &person(KNOWN), 0, Kind::Letter).unwrap().is_accepted()
        })
        .unwrap();
        assert!(ledger.send(&sites, site, &person(site), site, Kind::Letter).unwrap().is_accepted());
    }
    let before = ledger.count() as f64;
    wait_until("what was sent before to be counted", TIMEOUT, || stream.counted("counted").unwrap() >= before).unwrap();

    kafka.kill();
    control.process.kill();
    for number in 0..MEANWHILE {
        // Half of it is the thief's, at one site.
        let (site, account, kind) = match number % 2 {
            0 => (0, THIEF.to_owned(), Kind::Spam),
            _ => (number % 3, person(number % 4), Kind::Letter),
        };
        let outcome = ledger.send(&sites, site, &account, 100 + number, kind).unwrap();
        assert!(outcome.is_accepted(), "{account} at site {site}: {outcome:?}");
        if number % 20 == 0 {
            let outcome = ledger.send(&sites, number % 3, &person(KNOWN), 0, Kind::Letter).unwrap();
            assert!(!outcome.is_accepted(), "known locks hold");
        }
    }
    for edge in &sites.edges {
        let spooled = || edge.process.metric("tidegate_edge_spool_events", &[]).unwrap();
        wait_until("events on disk", TIMEOUT, || spooled() >= 1.0).unwrap();
    }

    kafka.start_again().unwrap();
    control.process.start_again().unwrap();
    control.process.wait_until_ready(TIMEOUT).unwrap();
    for site in 0..3 {
        wait_until("the thief to be refused", TIMEOUT, || {
            !ledger.send(&sites, site, THIEF, 9_000, Kind::Spam).unwrap().is_accepted()
        })
        .unwrap();
    }
    let shown = control.admin(&["accounts", "show", THIEF, "--json"]).unwrap().succeeded().unwrap();
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!((&shown["status"], &shown["lock"]["rule"]), (&Value::from("locked"), &Value::from("burst")), "{shown}");

    for edge in &sites.edges {
        let left = || edge.process.metric("tidegate_edge_spool_events", &[]).unwrap();
        wait_until("the spool to empty", TIMEOUT, || left() < 1.0).unwrap();
        assert_eq!(edge.process.metric("tidegate_edge_states", &[]).unwrap() as u64, 2, "both locks");
    }
    let log = KafkaConfig { bootstrap_servers: brokers, partitions: PARTITIONS, ..KafkaConfig::default() };
    let events = read_events(&BusConfig::Kafka(log), ledger.count()).unwrap();
    assert_eq!(ledger.without_event(&events), []);
    assert_eq!(events.by_number.len(), ledger.count(), "one event for each message");
    // One that reads all of them anew counts each once.
    stream.process.kill();
    stream.process.start_again().unwrap();
    let sum = |results: &[&str]| results.iter().map(|one| stream.counted(one).unwrap_or(0.0)).sum::<f64>() as usize;
    wait_until("all records to be read", TIMEOUT, || sum(&["counted", "rebuilt", "duplicate"]) >= events.records)
        .unwrap();
    assert_eq!(sum(&["counted", "rebuilt"]), ledger.count(), "each once");
}
