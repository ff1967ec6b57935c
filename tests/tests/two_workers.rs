//! Two stream workers share the partitions. One is killed, or stopped for longer than its session: the other goes on
//! with all of them, and the one that comes back undoes nothing.
// How long a hand-over took is a figure to look at, not to assert.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use serde_json::Value;
use std::time::Instant;
use tidegate_tests::installation::{Edge, Log, Server, TIMEOUT};
use tidegate_tests::mail::{BURST_RULES, PASSWORD, person, users};
use xtask::kafka::KafkaRig;
use xtask::postfix::{PostfixOptions, PostfixRig};
use xtask::sink::Sink;
use xtask::smtp::SmtpClient;
use xtask::wait::wait_until;

/// Accounts that are hijacked in each round: enough to be in all partitions.
const ROUND: usize = 8;
/// A group in which a killed member is missed soon.
const CLASSIC: &str = "\"session.timeout.ms\" = \"3000\"\n\"heartbeat.interval.ms\" = \"500\"";

struct Lab {
    control: Server,
    workers: [Server; 2],
    postfix: PostfixRig,
    // Held, so that they live as long.
    _edge: Edge,
    _sink: Sink,
    _kafka: KafkaRig,
    _dir: tempfile::TempDir,
}

impl Lab {
    fn start(properties: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kafka = KafkaRig::start(&dir.path().join("kafka")).unwrap();
        let log = Log::Kafka { bootstrap_servers: kafka.bootstrap(), properties: properties.to_owned(), replicas: 1 };
        let control = Server::start(dir.path(), "control", "control", &log, BURST_RULES).unwrap();
        let workers = ["one", "two"].map(|name| Server::launch(dir.path(), name, "stream", &log, BURST_RULES).unwrap());
        let edge = Edge::start(dir.path(), "mx1", control.control, "").unwrap();
        let sink = Sink::start().unwrap();
        let options = PostfixOptions {
            milters: vec![edge.milter()],
            users: users(4 * ROUND),
            ..PostfixOptions::relaying_to(sink.address())
        };
        let postfix = PostfixRig::start(&dir.path().join("postfix"), &options).unwrap();
        Self { control, workers, postfix, _edge: edge, _sink: sink, _kafka: kafka, _dir: dir }
    }

    /// Waits until the workers own so many partitions each.
    fn wait_for_shares(&self, shares: [Option<u64>; 2]) {
        for (worker, share) in self.workers.iter().zip(shares) {
            let Some(share) = share else { continue };
            let owned = || worker.process.metric("tidegate_stream_partitions_owned", &[]).ok();
            wait_until(&format!("a worker to own {share} partitions"), TIMEOUT, || {
                owned().is_some_and(|owned| owned as u64 == share)
            })
            .unwrap();
        }
    }

    /// The accounts of a round each send a burst; all of them must be locked.
    fn hijack_round(&self, round: usize) {
        for number in round * ROUND..(round + 1) * ROUND {
            let account = person(number);
            let mut client = SmtpClient::login(self.postfix.address(), &account, PASSWORD).unwrap();
            for message in 0..45 {
                let recipient = format!("victim{message}@domain{message}.example");
                let text = format!("Subject: Parcel {message:05}\n\nYour parcel {message:05} waits.\n");
                client.send(&account, &[&recipient], &text).unwrap();
            }
        }
        for number in round * ROUND..(round + 1) * ROUND {
            let what = format!("{} to be locked", person(number));
            wait_until(&what, TIMEOUT, || self.status(number) == "locked").unwrap();
        }
    }

    fn status(&self, number: usize) -> String {
        let shown = self.control.admin(&["accounts", "show", &person(number), "--json"]).unwrap();
        let shown: Value = serde_json::from_str(&shown.stdout).unwrap_or_default();
        shown["status"].as_str().unwrap_or_default().to_owned()
    }
}

fn partitions_change_hands(properties: &str) {
    let mut lab = Lab::start(properties);
    lab.wait_for_shares([Some(2), Some(2)]);
    lab.hijack_round(0);
    let counted = lab.workers.each_ref().map(|worker| worker.counted("counted").unwrap());
    assert!(counted[0] > 0.0 && counted[1] > 0.0, "each did a part: {counted:?}");

    // Killed.
    let began = Instant::now();
    lab.workers[0].process.kill();
    lab.wait_for_shares([None, Some(4)]);
    lab.hijack_round(1);
    eprintln!(
        "{properties:?}: killed, and a new round of accounts was locked {:.1} s later",
        began.elapsed().as_secs_f64()
    );
    lab.workers[0].process.start_again().unwrap();
    lab.wait_for_shares([Some(2), Some(2)]);
    assert_eq!(lab.status(0), "locked", "nothing was undone");

    // Stopped past its session; meanwhile locks and an unlock in what were its partitions.
    lab.workers[1].process.pause().unwrap();
    lab.wait_for_shares([Some(4), None]);
    lab.hijack_round(2);
    for number in 0..ROUND {
        let unlock = ["accounts", "unlock", &person(number), "--reason", "called back", "--evidence", "by phone"];
        lab.control.admin(&unlock).unwrap().succeeded().unwrap();
    }
    lab.workers[1].process.resume().unwrap();
    lab.wait_for_shares([Some(2), Some(2)]);
    lab.hijack_round(3);
    for number in 0..4 * ROUND {
        assert_eq!(lab.status(number), if number < ROUND { "active" } else { "locked" }, "{}", person(number));
    }
}

#[test]
fn in_a_classic_group() {
    partitions_change_hands(CLASSIC);
}

#[test]
fn in_a_group_that_the_brokers_manage() {
    partitions_change_hands("\"group.protocol\" = \"consumer\"");
}

#[test]
fn one_more_than_there_are_partitions_stands_by() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = KafkaRig::start(&dir.path().join("kafka")).unwrap();
    let properties = CLASSIC.to_owned();
    let log = Log::Kafka { bootstrap_servers: kafka.bootstrap(), properties, replicas: 1 };
    let start = |number: usize| Server::start(dir.path(), &format!("worker{number}"), "stream", &log, BURST_RULES);
    let mut workers: Vec<Server> = (0..5).map(|number| start(number).unwrap()).collect();
    let owned = |worker: &Server| worker.process.metric("tidegate_stream_partitions_owned", &[]).unwrap_or(-1.0) as i64;
    let shares = |workers: &[Server]| {
        let mut shares: Vec<i64> = workers.iter().map(owned).collect();
        shares.sort_unstable();
        shares
    };
    wait_until("each to have one, but the last", TIMEOUT, || shares(&workers) == [0, 1, 1, 1, 1]).unwrap();
    let busy = workers.iter().position(|worker| owned(worker) == 1).unwrap();
    workers.remove(busy).process.kill();
    wait_until("the one that stands by to take over", TIMEOUT, || shares(&workers) == [1, 1, 1, 1]).unwrap();
}
