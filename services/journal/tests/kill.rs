//! A process that is killed between any two system calls that change a file: nothing acknowledged is lost, what belongs
//! together is there or not, and the next process goes on.
//!
//! `strace` kills the child on its way into the n-th such call, for every n until the child comes to its end. Calls are
//! counted for each thread: the first few of the journal's writer are covered by those after them, which are the same.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use support::{ALL_BYTES, directory, keyed, options, record, wait_until};
use tidegate_journal::{Batch, Journal, JournalError, Options, Retention, Synchronous};

/// What the child is to do, and where; set for the child only.
const SCENARIO: &str = "JOURNAL_KILL_SCENARIO";
const DIRECTORY: &str = "JOURNAL_KILL_DIRECTORY";

/// Everything that changes a file or its name, or waits for the disk.
const CALLS: &str = "write,pwrite64,writev,fsync,fdatasync,ftruncate,rename,renameat,renameat2,unlink,unlinkat,mkdir";
/// A scenario has fewer calls than this.
const MAX_CALLS: usize = 2_000;

fn open(directory: &Path) -> Journal {
    // Waiting for the disk makes more calls to be killed between.
    let options = Options { synchronous: Synchronous::Full, wal_max_bytes: 64 << 10, compact_lag_ms: 0, ..options() };
    // A child that another thread starts holds all of this process's files for a moment, also a lock.
    let mut journal = None;
    wait_until("nobody holds the lock", || match Journal::open(directory, options.clone()) {
        Err(JournalError::InUse { .. }) => false,
        opened => {
            journal = Some(opened.unwrap());
            true
        }
    });
    let journal = journal.unwrap();
    journal.create_topic("t", 1, Retention::Delete { max_age_ms: Some(500), max_bytes: None }).unwrap();
    journal.create_topic("states", 1, Retention::Compact).unwrap();
    journal
}

/// Appends a batch to both topics, with a position that says the same, and tells of it when it is durable.
fn commit(journal: &Journal) {
    let next = journal.bounds("t", 0).unwrap().next_offset;
    let records = (next..next + 3).map(|n| record(n.cast_signed(), format!("{n:0>400}"))).collect();
    let states = vec![keyed(next.cast_signed(), &format!("k{}", next % 4), &format!("{next:0>400}"))];
    let batch = Batch::new().append("t", 0, records).append("states", 0, states).position("g", "t", 0, next + 3);
    journal.commit(batch).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "acknowledged {}", next + 3).unwrap();
    out.flush().unwrap();
}

/// The child. Run as a test by itself it has nothing to do.
#[test]
fn child() {
    let (Ok(scenario), Ok(directory)) = (std::env::var(SCENARIO), std::env::var(DIRECTORY)) else { return };
    let directory = Path::new(&directory);
    match scenario.as_str() {
        "create" => {
            let journal = open(directory);
            commit(&journal);
        }
        "write" => {
            let journal = open(directory);
            (0..10).for_each(|_| commit(&journal));
            let next = journal.bounds("t", 0).unwrap().next_offset;
            journal.maintain(next.cast_signed() + 520).unwrap();
            journal.trim("t", 0, next - 12).unwrap();
            (0..2).for_each(|_| commit(&journal));
        }
        "salvage" => drop(open(directory)),
        other => panic!("no scenario is called {other}"),
    }
    println!("came to its end");
}

/// Runs the child until it is killed on its way into call `number`: what it said, and whether it came to its end.
fn run(scenario: &str, directory: &Path, number: usize) -> (u64, bool) {
    let output = Command::new("strace")
        .args(["-f", "-qqq", "-o", "/dev/null", "-e", &format!("trace={CALLS}"), "-e", "signal=none"])
        .args(["-e", &format!("inject={CALLS}:signal=SIGKILL:when={number}")])
        .arg(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(SCENARIO, scenario)
        .env(DIRECTORY, directory)
        .stderr(Stdio::piped())
        .output()
        .expect("strace runs (apt-get install strace)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let problems = String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("panicked") && !problems.contains("panicked"), "{text}\n{problems}");
    assert!(!problems.contains("ptrace"), "strace may not trace here: {problems}");
    let acknowledged = text.split("acknowledged ").skip(1).filter_map(|rest| rest.split('\n').next()?.parse().ok());
    (acknowledged.last().unwrap_or(0), text.contains("came to its end"))
}

/// Everything that was acknowledged is there, and what belongs together is there or not.
fn check(directory: &Path, acknowledged: u64, what: &str) {
    let journal = open(directory);
    let bounds = journal.bounds("t", 0).unwrap();
    assert!(bounds.next_offset >= acknowledged, "{what}: {acknowledged} were acknowledged, {bounds:?} are there");
    let position = journal.position("g", "t", 0).unwrap().unwrap_or(0);
    assert_eq!(position, bounds.next_offset, "{what}: the position was committed with the records");
    let batch = journal.read("t", 0, 0, usize::MAX, ALL_BYTES).unwrap();
    let offsets = batch.records.iter().map(|record| record.offset);
    assert!(offsets.eq(bounds.first_offset..bounds.next_offset), "{what}: {bounds:?}");
    assert!(batch.records.iter().all(|record| record.value == format!("{:0>400}", record.offset)), "{what}");
    let states = journal.read("states", 0, 0, usize::MAX, ALL_BYTES).unwrap();
    let newest = bounds.next_offset.checked_sub(3).map(|last| format!("{last:0>400}"));
    assert_eq!(states.records.last().map(|record| record.value.to_vec()), newest.map(String::into_bytes), "{what}");
    assert_eq!(batch.skipped_damaged + states.skipped_damaged, 0, "{what}");
    commit(&journal);
}

/// Plays `scenario` on copies of `begin`, each killed at another call. Gives how many calls there were.
fn kill_everywhere(scenario: &str, begin: &[(&str, Vec<u8>)], damaged_files: u64) -> usize {
    let next = AtomicUsize::new(1);
    let calls = AtomicUsize::new(MAX_CALLS);
    let worker = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number > calls.load(Ordering::Relaxed) {
                return;
            }
            let directory = directory();
            for (name, octets) in begin {
                fs::write(directory.path().join(name), octets).unwrap();
            }
            let (acknowledged, ended) = run(scenario, directory.path(), number);
            if ended {
                calls.fetch_min(number, Ordering::Relaxed);
            }
            let what = format!("{scenario}, killed at call {number}");
            check(directory.path(), acknowledged, &what);
            assert_eq!(open(directory.path()).stats().damaged_files, damaged_files, "{what}");
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(worker))));
    let calls = calls.into_inner();
    assert!(calls < MAX_CALLS, "{scenario} never came to its end");
    println!("{scenario}: killed at each of {} calls", calls - 1);
    calls
}

/// A journal with some batches.
fn written() -> Vec<u8> {
    let directory = directory();
    let journal = open(directory.path());
    (0..6).for_each(|_| commit(&journal));
    drop(journal);
    fs::read(directory.path().join("journal.db")).unwrap()
}

#[test]
fn while_it_is_made() {
    assert!(kill_everywhere("create", &[], 0) > 10);
}

#[test]
fn while_it_is_written_to() {
    assert!(kill_everywhere("write", &[("journal.db", written())], 0) > 40);
}

#[test]
fn while_it_is_salvaged() {
    let mut octets = written();
    // The free list's head: all records can be read.
    octets[32..40].fill(0x7f);
    assert!(kill_everywhere("salvage", &[("journal.db", octets)], 1) > 10);
}
