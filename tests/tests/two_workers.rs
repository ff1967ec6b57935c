//! Two stream workers share the partitions. One is killed, or stopped for longer than its session: the other goes on
//! with all of them, and the one that comes back undoes nothing: what it still wants to write is refused by Kafka.
// How long a hand-over took is a figure to look at, not to assert.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use serde_json::Value;
use std::fs;
use std::ops::Range;
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
/// Messages of a burst; the rule wants 40.
const BURST: usize = 46;
/// How often a worker is stopped: it may notice that it has lost its partitions before it wants to write.
const ATTEMPTS: usize = 4;
/// What a worker logs when Kafka refuses a write because the partition has a newer owner.
const REFUSED: &str = "the partition has a newer owner";
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
            users: users((3 + ATTEMPTS) * ROUND),
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
        self.send(round, 0..BURST);
        self.wait_for_locks(round);
    }

    /// The accounts of a round each send these messages of a burst.
    fn send(&self, round: usize, messages: Range<usize>) {
        for number in round * ROUND..(round + 1) * ROUND {
            let account = person(number);
            let mut client = SmtpClient::login(self.postfix.address(), &account, PASSWORD).unwrap();
            for message in messages.clone() {
                let recipient = format!("victim{message}@domain{message}.example");
                let text = format!("Subject: Parcel {message:05}\n\nYour parcel {message:05} waits.\n");
                client.send(&account, &[&recipient], &text).unwrap();
            }
        }
    }

    fn wait_for_locks(&self, round: usize) {
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

    // Stopped past its session in the middle of bursts. It then wants to write the locks that follow from the rest of
    // them; but the other has locked these accounts meanwhile, and they were unlocked.
    let refused = (0..ATTEMPTS).any(|attempt| stop_in_the_middle(&mut lab, 2 + attempt));
    assert!(refused, "Kafka refused nothing of the worker that was stopped, in {ATTEMPTS} attempts");
    lab.hijack_round(2 + ATTEMPTS);
    for number in (2 + ATTEMPTS) * ROUND..(3 + ATTEMPTS) * ROUND {
        assert_eq!(lab.status(number), "locked", "{}", person(number));
    }
    assert_eq!(lab.status(0), "locked", "nothing was undone");
}

/// Gives whether Kafka refused a write of the second worker, which was stopped and has come back.
fn stop_in_the_middle(lab: &mut Lab, round: usize) -> bool {
    let accounts = round * ROUND..(round + 1) * ROUND;
    lab.send(round, 0..BURST / 2);
    lab.workers[1].process.pause().unwrap();
    lab.wait_for_shares([Some(4), None]);
    lab.send(round, BURST / 2..BURST);
    lab.wait_for_locks(round);
    for number in accounts.clone() {
        let unlock = ["accounts", "unlock", &person(number), "--reason", "called back", "--evidence", "by phone"];
        lab.control.admin(&unlock).unwrap().succeeded().unwrap();
    }
    let refusals = |lab: &Lab| fs::read_to_string(lab.workers[1].process.log()).unwrap().matches(REFUSED).count();
    let before = refusals(lab);
    lab.workers[1].process.resume().unwrap();
    // It had all of them: it is given its share of them anew.
    lab.wait_for_shares([Some(2), Some(2)]);
    for number in accounts {
        assert_eq!(lab.status(number), "active", "{} was unlocked", person(number));
    }
    refusals(lab) > before
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
