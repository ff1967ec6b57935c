//! A journal's file after anything was done to it.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use tempfile::TempDir;
use tidegate_journal::{Batch, Journal, JournalError, NewRecord, Options, Retention, Synchronous};

use crate::input::{Input, outcome};
use crate::{Outcome, Target};

const TOPIC: &str = "t";
const RECORDS: u64 = 120;

/// A sound file, and what is written over it.
pub const JOURNAL_FILE: Target = Target {
    name: "journal-file",
    run,
    seeds,
    words: &["SQLite format 3\0", "TDGJ", "t", "value ", "CREATE TABLE", "records", "\0\0\0\0"],
    max_octets: 512,
    test_inputs: 500,
};

/// The octets of a file and of the log beside it.
pub struct Files {
    main: Vec<u8>,
    log: Vec<u8>,
}

impl Files {
    /// As they lie in `directory`.
    pub fn read(directory: &Path, name: &str) -> Self {
        let octets = |suffix: &str| fs::read(directory.join(format!("{name}{suffix}"))).unwrap_or_default();
        Self { main: octets(""), log: octets("-wal") }
    }

    /// Writes them, damaged as `input` says: runs of octets over either, perhaps an end cut off; or another file.
    pub fn damaged(&self, input: &mut Input<'_>, directory: &Path, name: &str) {
        let (mut main, mut log) = (self.main.clone(), self.log.clone());
        match input.byte() {
            0 => main = input.rest().to_vec(),
            1 => main.truncate(main.len() * usize::from(input.byte()) / 255),
            2 => log.truncate(log.len() * usize::from(input.byte()) / 255),
            _ => {}
        }
        while !input.is_empty() {
            let choices = input.byte();
            let file = if choices & 1 == 0 || log.is_empty() { &mut main } else { &mut log };
            // Half of them fall on the first octets of a page, where its structure is.
            let page = usize::from(input.byte()) * 4_096;
            let within = if choices & 2 == 0 { usize::from(input.byte()) } else { usize::from(input.u16()) % 4_096 };
            let hole = input.take(usize::from(choices >> 2)).to_vec();
            let at = (page + within) % file.len().max(1);
            let end = (at + hole.len()).min(file.len());
            file[at.min(end)..end].copy_from_slice(&hole[..end - at.min(end)]);
        }
        fs::write(directory.join(name), main).unwrap();
        if !log.is_empty() {
            fs::write(directory.join(format!("{name}-wal")), log).unwrap();
        }
    }
}

/// An empty directory, in memory where that is possible.
pub fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn options() -> Options {
    Options { synchronous: Synchronous::Normal, ..Options::default() }
}

fn value(offset: u64) -> String {
    format!("value {offset:0>60}")
}

fn record(number: u64) -> NewRecord {
    NewRecord {
        time_ms: number.cast_signed(),
        key: Some(format!("k{}", number % 40).into()),
        value: value(number).into(),
    }
}

/// A sound journal, the second half of it still in the log.
fn sound() -> &'static Files {
    static SOUND: LazyLock<Files> = LazyLock::new(|| {
        let directory = directory();
        let append = |journal: &Journal, from: u64| {
            let records = (from..from + RECORDS / 2).map(record).collect();
            journal.commit(Batch::new().append(TOPIC, 0, records).position("g", TOPIC, 0, from)).unwrap();
        };
        let journal = Journal::open(directory.path(), options()).unwrap();
        journal.create_topic(TOPIC, 1, Retention::Compact).unwrap();
        append(&journal, 0);
        drop(journal);
        let journal = Journal::open(directory.path(), options()).unwrap();
        append(&journal, RECORDS / 2);
        Files::read(directory.path(), "journal.db")
    });
    &SOUND
}

fn run(octets: &[u8]) -> Outcome {
    let directory = directory();
    sound().damaged(&mut Input::new(octets), directory.path(), "journal.db");
    let journal = match Journal::open(directory.path(), options()) {
        Ok(journal) => journal,
        Err(JournalError::NotAJournal { .. }) => return 1,
        Err(JournalError::NewerFormat { .. }) => return 2,
        Err(error) => panic!("{error:?}"),
    };
    if let Err(error) = journal.create_topic(TOPIC, 1, Retention::Compact) {
        panic!("{error:?}");
    }
    let read = journal.read(TOPIC, 0, 0, usize::MAX, usize::MAX);
    let mut kept = 0;
    if let Ok(batch) = &read {
        kept = batch.records.len() as u64;
        for found in &batch.records {
            let written = record(found.offset);
            assert!(found.offset < RECORDS, "record {} was never written", found.offset);
            assert_eq!((found.time_ms, &found.key, &found.value), (written.time_ms, &written.key, &written.value));
        }
    }
    let stats = journal.stats();
    let before = journal.bounds(TOPIC, 0).unwrap();
    let appended = journal.commit(Batch::new().append(TOPIC, 0, vec![record(0)]));
    match &appended {
        Ok(committed) => assert_eq!(committed.base_offsets, [before.next_offset]),
        Err(JournalError::Damaged { .. } | JournalError::Sql { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    let maintained = journal.maintain(i64::MAX);
    outcome((
        kept / 20,
        stats.damaged_files,
        stats.salvaged_records / 20,
        read.is_ok(),
        appended.is_ok(),
        maintained.is_ok(),
    ))
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![], vec![0], vec![0, b'?', b'?'], vec![1, 100], vec![2, 100], vec![1, 254], vec![2, 254]];
    seeds.push(include_bytes!("../findings/journal-file-text-of-a-damaged-page").to_vec());
    for page in 0..8 {
        seeds.push(vec![9, 8 << 2, page, 0, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee]);
        seeds.push(vec![9, 4 << 2 | 2, page, 8, 77, 1, 2, 3, 4]);
        seeds.push(vec![9, 4 << 2 | 3, page, 8, 77, 1, 2, 3, 4]);
    }
    seeds
}
