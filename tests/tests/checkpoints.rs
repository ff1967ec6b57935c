//! A restarted server has its windows from checkpoints, and reads no event a second time; when checkpoints are damaged,
//! from older ones, and without any, from the log. Whichever it is, a hijack that began before is found.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use tidegate_tests::installation::{Edge, Log, Server, TIMEOUT};
use tidegate_tests::mail::{BURST_RULES, PASSWORD, person, users};
use xtask::postfix::{PostfixOptions, PostfixRig};
use xtask::sink::Sink;
use xtask::smtp::SmtpClient;
use xtask::wait::wait_until;

/// Accounts that are hijacked: so many that they are in all partitions.
const THIEVES: usize = 6;
/// Messages of each before the server is killed. Together with those after, they are too many; each part is not.
const BEFORE: usize = 30;

struct Lab {
    server: Server,
    postfix: PostfixRig,
    sent: usize,
    _edge: Edge,
    _sink: Sink,
    dir: tempfile::TempDir,
}

impl Lab {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), "server", "serve", &Log::Embedded, BURST_RULES).unwrap();
        let edge = Edge::start(dir.path(), "mx1", server.control, "").unwrap();
        let sink = Sink::start().unwrap();
        let options = PostfixOptions {
            milters: vec![edge.milter()],
            users: users(4 * THIEVES),
            ..PostfixOptions::relaying_to(sink.address())
        };
        let postfix = PostfixRig::start(&dir.path().join("postfix"), &options).unwrap();
        Self { server, postfix, sent: 0, _edge: edge, _sink: sink, dir }
    }

    /// Each of the thieves of a round sends so many messages; gives how many were accepted.
    fn send(&mut self, round: usize, each: usize) -> usize {
        let mut accepted = 0;
        for number in round * THIEVES..(round + 1) * THIEVES {
            let account = person(number);
            let mut client = SmtpClient::login(self.postfix.address(), &account, PASSWORD).unwrap();
            for _ in 0..each {
                self.sent += 1;
                let recipient = format!("victim{0}@domain{0}.example", self.sent);
                let text = format!("Subject: Parcel {0:05}\n\nYour parcel {0:05} waits.\n", self.sent);
                accepted += usize::from(client.send(&account, &[&recipient], &text).unwrap().is_accepted());
            }
        }
        accepted
    }

    fn metric(&self, name: &str, result: &str) -> f64 {
        self.server.process.metric(name, &[("result", result)]).unwrap_or(0.0)
    }

    /// Waits until so many events are counted, and in a checkpoint.
    fn wait_until_written(&self, events: usize) {
        let counted = || self.metric("tidegate_stream_events_total", "counted");
        wait_until("all events to be counted", TIMEOUT, || counted() >= events as f64).unwrap();
        let covered = || checkpoints(self.dir.path()).iter().map(|one| covered_by(one)).sum::<u64>();
        wait_until("all events to be in checkpoints", TIMEOUT, || covered() == self.events_in_log()).unwrap();
    }

    fn events_in_log(&self) -> u64 {
        // Everything that was ever accepted: one event each.
        self.sent as u64
    }

    fn locked(&self, round: usize) -> usize {
        let thieves = (round * THIEVES..(round + 1) * THIEVES).map(person);
        let listed = self.server.admin(&["accounts", "list", "--status", "locked", "--json"]).unwrap();
        thieves.filter(|thief| listed.stdout.contains(&format!("\"{thief}\""))).count()
    }
}

/// The newest manifest of each partition.
fn checkpoints(dir: &Path) -> Vec<PathBuf> {
    let Ok(partitions) = fs::read_dir(dir.join("server/log/checkpoints/stream")) else { return Vec::new() };
    let newest = partitions.filter_map(|partition| {
        let files = fs::read_dir(partition.ok()?.path()).ok()?;
        files
            .filter_map(|file| Some(file.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .max()
    });
    newest.collect()
}

/// Events before this offset are in a checkpoint; they are kept, so that the first has offset 0.
fn covered_by(manifest: &Path) -> u64 {
    let text = fs::read_to_string(manifest).unwrap_or_default();
    let json = text.split_once('\n').map_or("", |(_, json)| json);
    let manifest: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    manifest["covered"]["events_next"].as_u64().unwrap_or(0)
}

/// Done to the files of a server that was killed.
type Spoil<'a> = &'a dyn Fn(&Lab);

#[test]
fn a_hijack_that_began_before_a_kill_is_found_after_it() {
    let mut lab = Lab::start();
    let restores = "tidegate_stream_restores_total";
    // Each life begins with what the one before left, and is killed with a hijack half done.
    let left_by_the_life_before: [(&str, Spoil<'_>); 3] = [
        ("newest", &|_| {}),
        ("older", &|lab| {
            for manifest in checkpoints(lab.dir.path()) {
                let mut octets = fs::read(&manifest).unwrap();
                let middle = octets.len() / 2;
                octets[middle] ^= 1;
                fs::write(&manifest, octets).unwrap();
            }
        }),
        ("log", &|lab| fs::remove_dir_all(lab.dir.path().join("server/log/checkpoints")).unwrap()),
    ];
    for (round, (from, spoil)) in left_by_the_life_before.into_iter().enumerate() {
        assert_eq!(lab.send(round, BEFORE), THIEVES * BEFORE, "nobody is over the limit yet");
        lab.wait_until_written(THIEVES * BEFORE);
        assert_eq!(lab.locked(round), 0);
        lab.server.process.kill();
        spoil(&lab);
        lab.server.process.start_again().unwrap();
        lab.server.process.wait_until_ready(TIMEOUT).unwrap();
        assert_eq!(lab.metric(restores, from) as u32, 4, "every partition's windows are from the {from}");
        let rebuilt = lab.metric("tidegate_stream_events_total", "rebuilt");
        match from {
            "newest" => assert!(rebuilt < 1.0, "{rebuilt} events were read again"),
            "log" => assert!(rebuilt >= 1.0),
            _ => {}
        }
        let (before, mut rest) = (lab.sent, 0);
        wait_until("everybody to be locked", TIMEOUT, || {
            rest += if rest < 40 * THIEVES { lab.send(round, 1) } else { 0 };
            lab.locked(round) == THIEVES
        })
        .unwrap();
        assert!(rest < BEFORE * THIEVES, "the messages of before count: {rest} more were enough");
        lab.sent = before + rest;
    }
}
