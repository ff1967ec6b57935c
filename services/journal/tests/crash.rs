//! A process that is killed at any moment loses nothing that it acknowledged.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use support::{ALL_BYTES, directory, open, record};
use tidegate_journal::{Batch, Retention};

/// Where the child finds the journal; set for the child only.
const DIRECTORY: &str = "JOURNAL_CRASH_DIRECTORY";

/// The child: appends for as long as it lives, and says what is acknowledged. Run as a test by itself it
/// has nothing to do.
#[test]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let journal = open(Path::new(&directory));
    journal.create_topic("t", 2, Retention::Delete { max_age_ms: Some(500), max_bytes: None }).unwrap();
    let mut next = journal.bounds("t", 1).unwrap().next_offset;
    loop {
        // The position says the same as the records: both or none.
        let count = next % 7 + 1;
        let records = (next..next + count).map(|n| record(n.cast_signed(), format!("{n}"))).collect();
        let batch = Batch::new().append("t", 1, records).position("g", "t", 1, next + count);
        assert_eq!(journal.commit(batch).unwrap().base_offsets, [next]);
        next += count;
        let mut out = std::io::stdout();
        writeln!(out, "acknowledged {next}").unwrap();
        out.flush().unwrap();
        if next.is_multiple_of(50) {
            journal.maintain(next.cast_signed()).unwrap();
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    let directory = directory();
    let mut acknowledged = 0;
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let stop_after = acknowledged + 20 + 37 * round;
        while acknowledged < stop_after {
            let line = lines.next().expect("the child goes on until it is killed");
            // The test harness writes lines of its own, also before ours on the same line.
            if let Some((_, number)) = line.split_once("acknowledged ") {
                acknowledged = number.parse().unwrap();
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it still said before it was killed.
        for line in lines {
            if let Some((_, number)) = line.split_once("acknowledged ") {
                acknowledged = number.parse().unwrap_or(acknowledged);
            }
        }
        let journal = open(directory.path());
        let bounds = journal.bounds("t", 1).unwrap();
        assert!(bounds.next_offset >= acknowledged, "{acknowledged} were acknowledged, {bounds:?} are there");
        assert_eq!(journal.position("g", "t", 1).unwrap(), Some(bounds.next_offset));
        let batch = journal.read("t", 1, 0, usize::MAX, ALL_BYTES).unwrap();
        assert!(batch.records.iter().map(|record| record.offset).eq(bounds.first_offset..bounds.next_offset));
        assert!(batch.records.iter().all(|record| record.value == record.offset.to_string().as_bytes()));
        assert_eq!(journal.stats().damaged_files + batch.skipped_damaged, 0);
        acknowledged = bounds.next_offset;
    }
}
