//! Kafka and control are away under traffic: mail flows and known locks hold. When they are back, every event counts
//! exactly once and at the time when it happened: bursts from the beginning and the end of the outage are found, and
//! what came slowly is no burst, though it arrives at once. `TIDEGATE_OUTAGE_SECONDS` says how long they are away;
//! `cargo xtask outage` runs it for a good minute.
// How it went is a figure to look at in a long run.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tidegate_bus::{BusConfig, KafkaConfig};
use tidegate_tests::census::{Census, Counted};
use tidegate_tests::correspondence::Correspondence;
use tidegate_tests::hijack::{SITES, Sites};
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use tidegate_tests::ledger::{Kind, Ledger, Misfit};
use tidegate_tests::mail::{BURST_RULES, THIEF, person};
use tidegate_tests::random::number_of;
use tidegate_tests::topics::read_events;
use xtask::kafka::KafkaRig;
use xtask::wait::{wait_for, wait_until};

const PARTITIONS: u32 = 4;
/// People who write all the time; the accounts after theirs have other parts.
const PEOPLE: usize = 6;
/// The account that is locked before.
const KNOWN: usize = PEOPLE;
/// The one that is hijacked at the beginning; [`THIEF`] is at the end.
const EARLY: usize = PEOPLE + 1;
/// The one that sends as many messages of one size as a burst has, but slowly.
const SLOW: usize = PEOPLE + 2;
/// Messages of a burst; the rule wants 40 within a minute.
const BURST: usize = 60;
/// The slow one's messages, over the whole outage.
const SLOW_MESSAGES: usize = 44;
/// An outage must be so long that the slow one's are never 40 in a minute, not even with a pane more.
const SLOW_SECONDS: u64 = 75;
const SHORT_SECONDS: u64 = 8;

#[test]
fn what_happens_while_kafka_and_control_are_away_counts_once_and_is_judged() {
    let outage = Duration::from_secs(number_of("TIDEGATE_OUTAGE_SECONDS").unwrap_or(SHORT_SECONDS));
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
    let sites = Sites::start(dir.path(), control.control, &straight, SLOW + 1).unwrap();
    let ledger = Arc::new(Ledger::new(sites.addresses()));
    let accepted = |site: usize, account: &str, number: usize, kind: Kind| {
        ledger.send(site, account, number, kind).unwrap().is_accepted()
    };
    let lock = ["accounts", "lock", &person(KNOWN), "--reason", "reported", "--reply", "Locked."];
    control.admin(&lock).unwrap().succeeded().unwrap();
    for site in 0..SITES {
        let holds = || !accepted(site, &person(KNOWN), 0, Kind::Letter);
        wait_until("the known lock to be in force", TIMEOUT, holds).unwrap();
    }
    let people = Correspondence::start(&ledger, PEOPLE, SITES, Duration::from_millis(500));
    wait_until("mail before the outage", TIMEOUT, || stream.counted("counted").unwrap() >= 10.0).unwrap();

    kafka.kill();
    control.process.kill();
    let (began, before) = (Instant::now(), ledger.count());
    let burst = |site: usize, account: &str| {
        // Our commands write whole seconds.
        let begin = now_ms() / 1_000 * 1_000;
        for number in 0..BURST {
            assert!(accepted(site, account, number, Kind::Spam), "{account} is not known to be hijacked");
        }
        begin..=now_ms()
    };
    let early = burst(1, &person(EARLY));
    let (mut slow, mut probes) = (0, 0);
    while began.elapsed() < outage {
        if outage.as_secs() >= SLOW_SECONDS && began.elapsed() >= outage / SLOW_MESSAGES as u32 * slow {
            assert!(accepted(slow as usize % SITES, &person(SLOW), slow as usize, Kind::Spam));
            slow += 1;
        }
        assert!(!accepted(probes % SITES, &person(KNOWN), 0, Kind::Letter), "known locks hold");
        probes += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    let late = burst(0, THIEF);
    for edge in &sites.edges {
        let spooled = || edge.process.metric("tidegate_edge_spool_events", &[]).unwrap();
        wait_until("events on disk", TIMEOUT, || spooled() >= 1.0).unwrap();
    }
    let (away, meanwhile) = (began.elapsed(), ledger.count() - before);

    kafka.start_again().unwrap();
    control.process.start_again().unwrap();
    control.process.wait_until_ready(TIMEOUT).unwrap();
    let back = Instant::now();
    for (account, times) in [(person(EARLY), early), (THIEF.to_owned(), late)] {
        // It sends nothing more until it is locked: what it sent meanwhile must be enough.
        let show = || control.admin(&["accounts", "show", &account, "--json"]).unwrap().stdout;
        let shown = wait_for(&format!("{account} to be locked"), TIMEOUT, || {
            serde_json::from_str(&show()).ok().filter(|shown: &Value| shown["status"] == "locked")
        });
        let shown = shown.unwrap();
        for site in 0..SITES {
            let refused = || !accepted(site, &account, 9_000, Kind::Spam);
            wait_until(&format!("{account} to be refused at site {site}"), TIMEOUT, refused).unwrap();
        }
        let lock = &shown["lock"];
        assert_eq!(lock["rule"], "burst", "{shown}");
        // Judged as of the burst, not as of its arrival.
        let since = millis(lock["since"].as_str().unwrap());
        assert!(times.contains(&since), "{since} is not within the burst {times:?}: {shown}");
        let messages = lock["evidence"]["messages_1m"].as_f64().unwrap();
        assert!((40.0..=BURST as f64).contains(&messages), "{shown}");
    }
    let locked_after = back.elapsed();

    let quiet = people.quiet();
    assert_eq!(people.refused(), [""; 0]);
    for edge in &sites.edges {
        let left = || edge.process.metric("tidegate_edge_spool_events", &[]).unwrap();
        wait_until("the spool to empty", TIMEOUT, || left() < 1.0).unwrap();
        let states = || edge.process.metric("tidegate_edge_states", &[]).unwrap() as usize;
        wait_until("the three locks, and no fourth", TIMEOUT, || states() == 3).unwrap();
    }
    let log = KafkaConfig { bootstrap_servers: brokers, partitions: PARTITIONS, ..KafkaConfig::default() };
    let events = read_events(&BusConfig::Kafka(log), ledger.count()).unwrap();
    assert_eq!(ledger.compare(&events), Misfit::default());
    let accounts = (0..PEOPLE).map(|number| (person(number), number % SITES));
    let accounts = accounts.chain((slow > 0).then(|| (person(SLOW), 0)));
    let all: Vec<Counted> = accounts.map(|(account, site)| Counted { account, site, from: 0 }).collect();
    let sent = ledger.count();
    Census::default().compare(&[&stream], control.control, &ledger, &all).unwrap();
    drop(quiet);
    println!(
        "away for {:.0} s: {meanwhile} messages accepted meanwhile, {slow} of them slowly, {probes} of the locked \
         account refused; both bursts were locked at all sites {:.1} s after control was ready; {} messages, as many \
         events, {} repeats",
        away.as_secs_f64(),
        locked_after.as_secs_f64(),
        sent,
        events.records - sent,
    );
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A time as our commands write it.
fn millis(time: &str) -> i64 {
    let time = humantime::parse_rfc3339(time).unwrap();
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64
}
