//! Processes are killed at random moments under load. After each kill the locks are those that an oracle says, with the
//! ids they had; nobody else is refused; in the end every event counts once. A short run is part of the tests;
//! `cargo xtask chaos --minutes N` runs longer ones.
// The seed is printed, so that a run can be repeated.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use tidegate_bus::{BusConfig, EmbeddedConfig, KafkaConfig};
use tidegate_tests::hijack::Sites;
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use tidegate_tests::ledger::{Kind, Ledger, read_events};
use tidegate_tests::mail::{BURST_RULES, person};
use xtask::kafka::KafkaRig;
use xtask::wait::wait_until;

/// People who send all the time.
const PEOPLE: usize = 6;
/// Accounts that are hijacked, one after the other; a longer run begins with the first again.
const HIJACKED: usize = 60;
/// Messages of people in a round; a burst follows.
const CALM: usize = 30;
/// Messages of a burst at full speed.
const MAX_BURST: usize = 400;

#[derive(Debug, Clone, Copy)]
enum Victim {
    Kafka,
    Server(usize),
    Edge(usize),
}

struct Lab {
    kafka: Option<KafkaRig>,
    /// Control comes first, the stream worker last; they may be one.
    servers: Vec<Server>,
    sites: Sites,
    random: u64,
    sent: usize,
    ledger: Ledger,
    /// Sites whose edge was killed: what it had in memory is lost.
    lossy: [bool; 3],
    /// The oracle: who is locked, under which id.
    locked: BTreeMap<String, String>,
    dir: TempDir,
}

impl Lab {
    fn start(on_kafka: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kafka = on_kafka.then(|| KafkaRig::start(&dir.path().join("kafka")).unwrap());
        let log = kafka.as_ref().map_or(Log::Embedded, Log::kafka);
        let parts: &[&str] = if on_kafka { &["control", "stream"] } else { &["serve"] };
        let servers: Vec<Server> =
            parts.iter().map(|part| Server::start(dir.path(), part, part, &log, BURST_RULES).unwrap()).collect();
        let straight = kafka.as_ref().map_or_else(String::new, |kafka| {
            let brokers = kafka.bootstrap();
            format!("publish = {{ kind = \"kafka\", kafka = {{ bootstrap_servers = \"{brokers}\", partitions = 4 }} }}")
        });
        let sites = Sites::start(dir.path(), servers[0].control, &straight, PEOPLE + HIJACKED).unwrap();
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seed = number_of("TIDEGATE_CHAOS_SEED").unwrap_or(since_1970.as_nanos() as u64);
        println!("TIDEGATE_CHAOS_SEED={seed}");
        Self {
            kafka,
            servers,
            sites,
            random: seed,
            sent: 0,
            ledger: Ledger::default(),
            lossy: [false; 3],
            locked: BTreeMap::new(),
            dir,
        }
    }

    /// SplitMix64.
    fn below(&mut self, end: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % end as u64) as usize
    }

    fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Kafka => self.kafka.as_mut().unwrap().kill(),
            Victim::Server(index) => self.servers[index].process.kill(),
            Victim::Edge(index) => {
                self.lossy[index] = true;
                self.sites.edges[index].process.kill();
            }
        }
    }

    fn bring_back(&mut self, victim: Victim) {
        match victim {
            Victim::Kafka => self.kafka.as_mut().unwrap().start_again().unwrap(),
            Victim::Server(index) => self.servers[index].process.start_again().unwrap(),
            Victim::Edge(index) => {
                self.sites.edges[index].process.start_again().unwrap();
                self.sites.edges[index].wait_until_it_listens().unwrap();
            }
        }
    }

    fn send(&mut self, site: usize, account: &str, kind: Kind) -> bool {
        self.sent += 1;
        self.ledger.send(&self.sites, site, account, self.sent, kind).unwrap().is_accepted()
    }

    /// People send, then an account is hijacked; in between the victim is killed and brought back.
    fn round(&mut self, round: usize, victim: Victim) {
        let kill_at = self.below(CALM + 40);
        let back_at = kill_at + self.below(15);
        let thief = person(PEOPLE + round % HIJACKED);
        let (mut is_stopped, mut back) = (false, Instant::now());
        for step in 0.. {
            if step == kill_at {
                self.kill(victim);
            }
            if step == back_at {
                self.bring_back(victim);
                back = Instant::now();
            }
            if step < CALM {
                let account = person(self.below(PEOPLE));
                assert!(self.send(step % 3, &account, Kind::Letter), "{account} was refused");
            } else if !is_stopped {
                is_stopped = !self.send(round % 3, &thief, Kind::Spam);
                if step > CALM + MAX_BURST {
                    // All that is needed was sent; what is away may take a while to be back.
                    wait_until(&format!("{thief} to be locked"), TIMEOUT, || !self.send(round % 3, &thief, Kind::Spam))
                        .unwrap();
                    is_stopped = true;
                }
            } else if step > back_at {
                break;
            }
        }
        println!(
            "{victim:?}: killed at step {kill_at}, back at {back_at}, locked {:.1} s later",
            back.elapsed().as_secs_f64()
        );
        for server in &mut self.servers {
            server.process.wait_until_ready(TIMEOUT).unwrap();
        }
        let now = self.locked_now();
        let id = now.get(&thief).unwrap_or_else(|| panic!("{victim:?}: {thief} is not locked, but {now:?}")).clone();
        self.locked.insert(thief, id);
        assert_eq!(now, self.locked, "{victim:?} was killed at step {kill_at}");
        // Every other time one is unlocked, before something is killed again.
        if round % 2 == 1
            && let Some((account, _)) = self.locked.pop_first()
        {
            let unlock = ["accounts", "unlock", &account, "--reason", "called back", "--evidence", "by phone"];
            self.servers[0].admin(&unlock).unwrap().succeeded().unwrap();
            assert_eq!(self.locked_now(), self.locked);
        }
    }

    fn locked_now(&self) -> BTreeMap<String, String> {
        let list = ["accounts", "list", "--status", "locked", "--json"];
        let listed = self.servers[0].admin(&list).unwrap().succeeded().unwrap();
        let listed: Vec<Value> = serde_json::from_str(&listed.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        listed.iter().map(|one| (text(&one["account"]), text(&one["lock"]["id"]))).collect()
    }

    /// Every event counts once, also for a worker that reads all of them again.
    fn settle(mut self) {
        for edge in &self.sites.edges {
            let left = || edge.process.metric("tidegate_edge_spool_events", &[]).unwrap();
            wait_until("the spool to empty", TIMEOUT, || left() < 1.0).unwrap();
        }
        for (site, _) in self.lossy.into_iter().enumerate().filter(|(_, lossy)| *lossy) {
            self.ledger.forget(site);
        }
        let expected = self.ledger.count();
        let log = if let Some(kafka) = &self.kafka {
            let bootstrap_servers = kafka.bootstrap();
            BusConfig::Kafka(KafkaConfig { bootstrap_servers, partitions: 4, ..KafkaConfig::default() })
        } else {
            let directory = self.dir.path().join("serve/log");
            BusConfig::Embedded(EmbeddedConfig { directory, ..EmbeddedConfig::default() })
        };
        let worker = self.servers.last_mut().unwrap();
        worker.process.kill();
        let events = read_events(&log, expected).unwrap();
        assert_eq!(self.ledger.without_event(&events), []);
        worker.kill_and_start_again().unwrap();
        let sum = |results: &[&str]| results.iter().map(|one| worker.counted(one).unwrap_or(0.0)).sum::<f64>() as usize;
        wait_until("all records to be read", TIMEOUT, || {
            sum(&["counted", "rebuilt", "void", "duplicate"]) >= events.records
        })
        .unwrap();
        assert_eq!(sum(&["counted", "rebuilt", "void"]), events.by_number.len(), "each once");
        assert_eq!(self.locked_now(), self.locked);
        println!(
            "{} messages sent, {} events in {} records, {} accounts locked",
            self.sent,
            events.by_number.len(),
            events.records,
            self.locked.len()
        );
    }
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn run(on_kafka: bool, victims: &[Victim]) {
    let minutes = number_of("TIDEGATE_CHAOS_MINUTES").unwrap_or(0);
    let until = Instant::now() + Duration::from_mins(minutes);
    let mut lab = Lab::start(on_kafka);
    let mut round = 0;
    while round < victims.len() || Instant::now() < until {
        // Each once, then at random.
        let victim = victims.get(round).copied().unwrap_or_else(|| victims[lab.below(victims.len())]);
        lab.round(round, victim);
        round += 1;
    }
    println!("{round} kills");
    lab.settle();
}

#[test]
fn in_one_process_on_the_embedded_log() {
    run(false, &[Victim::Server(0), Victim::Edge(1), Victim::Server(0), Victim::Edge(2)]);
}

#[test]
fn on_kafka() {
    run(true, &[Victim::Server(0), Victim::Kafka, Victim::Server(1), Victim::Edge(1)]);
}
