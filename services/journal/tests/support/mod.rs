//! Short ways to say what most tests say.
#![allow(dead_code)] // each test binary uses a part

use std::path::Path;

use tidegate_journal::{Batch, Journal, NewRecord, Options, Record, Retention, Synchronous};

/// A directory of the test's own; in memory where that exists, since these tests kill processes, not disks.
pub fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

pub const ALL_BYTES: usize = usize::MAX;

/// Fast: these tests kill processes, not the power supply.
pub fn options() -> Options {
    Options { synchronous: Synchronous::Normal, ..Options::default() }
}

pub fn open(path: &Path) -> Journal {
    Journal::open(path, options()).unwrap()
}

/// A journal with one topic `t` of one partition.
pub fn one_topic(path: &Path, retention: Retention) -> Journal {
    let journal = open(path);
    journal.create_topic("t", 1, retention).unwrap();
    journal
}

pub fn record(time_ms: i64, value: impl AsRef<[u8]>) -> NewRecord {
    NewRecord { time_ms, key: None, value: value.as_ref().to_vec().into() }
}

pub fn keyed(time_ms: i64, key: &str, value: &str) -> NewRecord {
    NewRecord { time_ms, key: Some(key.to_owned().into()), value: value.to_owned().into() }
}

pub fn append(journal: &Journal, records: Vec<NewRecord>) -> u64 {
    journal.commit(Batch::new().append("t", 0, records)).unwrap().base_offsets[0]
}

pub fn read_all(journal: &Journal) -> Vec<Record> {
    journal.read("t", 0, 0, usize::MAX, ALL_BYTES).unwrap().records
}

pub fn offsets(journal: &Journal) -> Vec<u64> {
    read_all(journal).iter().map(|record| record.offset).collect()
}

/// Waits until a condition holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed().as_secs() < 60, "waited in vain until {what}");
        std::thread::yield_now();
    }
}
