//! Kafka and control are away under traffic: mail flows and known locks hold. When they are back, every event counts
//! exactly once, and a burst from meanwhile is found.
#![allow(clippy::unwrap_used, missing_docs)]

use prost::Message as _;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate_bus::{Bus as _, KafkaBus, KafkaConfig, ReadFrom, Topic};
use tidegate_proto::v1;
use tidegate_tests::hijack::Sites;
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use tidegate_tests::mail::{BURST_RULES, PASSWORD, THIEF, person};
use xtask::kafka::KafkaRig;
use xtask::smtp::{Outcome, SmtpClient};
use xtask::wait::wait_until;

const PARTITIONS: u32 = 4;
/// The account that is locked before.
const KNOWN: usize = 5;
/// Messages that are sent while everything is away.
const MEANWHILE: usize = 120;

/// What was accepted: queue ids, for each mail server.
#[derive(Default)]
struct Accepted(BTreeMap<usize, BTreeSet<String>>);

impl Accepted {
    fn send(&mut self, sites: &Sites, site: usize, account: &str, number: usize) -> Outcome {
        let mut client = SmtpClient::login(sites.postfixes[site].address(), account, PASSWORD).unwrap();
        let recipient = format!("someone{number}@domain{}.example", number % 60);
        let text = format!("Subject: Note {number:06}\n\nYour note {number:06} is here.\n");
        let outcome = client.send(account, &[&recipient], &text).unwrap();
        if let Some((_, id)) = outcome.reply.text.split_once("queued as ").filter(|_| outcome.is_accepted()) {
            assert!(self.0.entry(site).or_default().insert(id.trim().to_owned()), "queue id {id} came twice");
        }
        outcome
    }

    fn count(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }
}

#[test]
fn what_happens_while_kafka_and_control_are_away_counts_once_and_is_judged() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = KafkaRig::start(&dir.path().join("kafka")).unwrap();
    let brokers = kafka.bootstrap();
    let log = Log::kafka(&kafka);
    let mut control = Server::start(dir.path(), "control", "control", &log, BURST_RULES).unwrap();
    let stream = Server::start(dir.path(), "stream", "stream", &log, BURST_RULES).unwrap();
    // The first edge publishes straight to Kafka, the others through control.
    let straight = format!(
        "publish = {{ kind = \"kafka\", kafka = {{ bootstrap_servers = \"{brokers}\", partitions = {PARTITIONS} }} }}"
    );
    let sites = Sites::start(dir.path(), control.control, &straight).unwrap();
    let lock = ["accounts", "lock", &person(KNOWN), "--reason", "reported", "--reply", "Locked."];
    control.admin(&lock).unwrap().succeeded().unwrap();
    let mut accepted = Accepted::default();
    for site in 0..3 {
        wait_until("the known lock to be in force", TIMEOUT, || {
            !accepted.send(&sites, site, &person(KNOWN), 0).is_accepted()
        })
        .unwrap();
        assert!(accepted.send(&sites, site, &person(site), site).is_accepted());
    }
    let before = accepted.count() as f64;
    wait_until("what was sent before to be counted", TIMEOUT, || stream.counted("counted").unwrap() >= before).unwrap();

    kafka.kill();
    control.process.kill();
    for number in 0..MEANWHILE {
        // Half of it is the thief's, at one site.
        let (site, account) = if number % 2 == 0 { (0, THIEF.to_owned()) } else { (number % 3, person(number % 4)) };
        let outcome = accepted.send(&sites, site, &account, 100 + number);
        assert!(outcome.is_accepted(), "{account} at site {site}: {outcome:?}");
        if number % 20 == 0 {
            assert!(!accepted.send(&sites, number % 3, &person(KNOWN), 0).is_accepted(), "known locks hold");
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
        sites.wait_for_refusal(site, 9_000).unwrap();
    }
    let shown = control.admin(&["accounts", "show", THIEF, "--json"]).unwrap().succeeded().unwrap();
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!((&shown["status"], &shown["lock"]["rule"]), (&Value::from("locked"), &Value::from("burst")), "{shown}");

    // What the thief tried at the end was not seen by `accepted`, if any of it passed: count by people's mail.
    for edge in &sites.edges {
        let left = || edge.process.metric("tidegate_edge_spool_events", &[]).unwrap();
        wait_until("the spool to empty", TIMEOUT, || left() < 1.0).unwrap();
        assert_eq!(edge.process.metric("tidegate_edge_states", &[]).unwrap() as u64, 2, "both locks");
    }
    let events = events_of(&brokers, accepted.count());
    let passed_at_the_end = events.len() - accepted.count();
    wait_until("every event to be counted", TIMEOUT, || stream.counted("counted").unwrap() as usize >= events.len())
        .unwrap();
    assert_eq!(stream.counted("counted").unwrap() as usize, events.len(), "each once");
    for (site, ids) in &accepted.0 {
        let node = format!("mx{}", site + 1);
        let seen: BTreeSet<&str> = events
            .iter()
            .filter(|((of, ..), _)| *of == node)
            .filter_map(|(_, event)| match &event.kind {
                Some(v1::event::Kind::Submission(submission)) => Some(submission.queue_id.as_str()),
                _ => None,
            })
            .collect();
        let lost: Vec<&String> = ids.iter().filter(|id| !seen.contains(id.as_str())).collect();
        assert!(lost.is_empty(), "site {site} lost {lost:?}");
        assert!(seen.len() <= ids.len() + passed_at_the_end, "site {site} has more events than messages");
    }
}

/// All events of the topic by their numbers, once `at_least` different ones are there.
fn events_of(brokers: &str, at_least: usize) -> BTreeMap<(String, i32, u64), v1::Event> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let config = KafkaConfig {
            bootstrap_servers: brokers.to_owned(),
            partitions: PARTITIONS,
            create_topics: false,
            ..KafkaConfig::default()
        };
        let bus = KafkaBus::connect(config).await.unwrap();
        let from: Vec<ReadFrom> =
            (0..PARTITIONS).map(|partition| ReadFrom { topic: Topic::Events, partition, offset: 0 }).collect();
        let mut reader = bus.read(&from).await.unwrap();
        let mut events = BTreeMap::new();
        let mut idle = 0;
        // A little longer than needed: more than expected would be seen, too.
        while events.len() < at_least || idle < 3 {
            let batch = reader.next(Duration::from_millis(300)).await.unwrap();
            idle = if batch.records.is_empty() { idle + 1 } else { 0 };
            assert!(idle < 200, "only {} of {at_least} events are in the topic", events.len());
            for record in batch.records {
                let event = v1::Event::decode(record.value.unwrap()).unwrap();
                let id = event.id.clone().unwrap();
                events.insert((id.node, id.lane, id.sequence), event);
            }
        }
        events
    })
}
