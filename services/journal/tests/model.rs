//! The journal against a model that is a list, through reopening and crashes.
//!
//! A crash is played by copying the files while the journal is open. The write-ahead log may be cut
//! anywhere, as when the power fails: then the copy must be what the journal was after some earlier step.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::{ALL_BYTES, directory, keyed, options};
use tidegate_journal::{Batch, Journal, JournalError, NewRecord, Options, RECORD_OVERHEAD_BYTES, Record, Retention};

const MAX_AGE_MS: i64 = 20;
const MAX_BYTES: u64 = 40 * RECORD_OVERHEAD_BYTES;
const COMPACT_LAG_MS: i64 = 5;
const TOMBSTONE_MS: i64 = 10;
const PARTITIONS: u32 = 2;
const TOPICS: [(&str, Retention); 3] = [
    ("kept", Retention::KEEP),
    ("bounded", Retention::Delete { max_age_ms: Some(MAX_AGE_MS), max_bytes: Some(MAX_BYTES) }),
    ("states", Retention::Compact),
];

/// Milliseconds since the last record, key, and length of the value.
type DrawnRecord = (i64, u8, usize);

#[derive(Debug, Clone)]
enum Step {
    /// Appends of (topic, partition, records), and a position.
    Commit {
        appends: Vec<(usize, u32, Vec<DrawnRecord>)>,
        position: Option<(usize, u32, u64)>,
    },
    Read {
        topic: usize,
        partition: u32,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    },
    FindTime {
        topic: usize,
        partition: u32,
        time_ms: i64,
    },
    Trim {
        topic: usize,
        partition: u32,
        up_to: u64,
    },
    Maintain {
        later_ms: i64,
    },
    Reopen,
    /// Go on with a copy; the log loses this share of its end.
    Crash {
        cut: Option<f64>,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let partition = || (0..TOPICS.len(), 0..PARTITIONS);
    let records = prop::collection::vec((-3..6_i64, 0..4_u8, prop_oneof![Just(0), 1..40_usize]), 0..8);
    let appends = prop::collection::vec((partition(), records), 0..4);
    let position = prop::option::of((partition(), 0..100_u64));
    let step = prop_oneof![
        10 => (appends, position).prop_map(|(appends, position)| Step::Commit {
            appends: appends.into_iter().map(|((topic, partition), records)| (topic, partition, records)).collect(),
            position: position.map(|((topic, partition), next)| (topic, partition, next)),
        }),
        4 => (partition(), 0..60_u64, 1..20_usize, 0..200_usize).prop_map(|((topic, partition), from, max_records, max_bytes)|
            Step::Read { topic, partition, from, max_records, max_bytes }),
        2 => (partition(), -5..120_i64).prop_map(|((topic, partition), time_ms)| Step::FindTime { topic, partition, time_ms }),
        1 => (partition(), 0..60_u64).prop_map(|((topic, partition), up_to)| Step::Trim { topic, partition, up_to }),
        3 => (0..30_i64).prop_map(|later_ms| Step::Maintain { later_ms }),
        1 => Just(Step::Reopen),
        1 => prop::option::of(0.0..1.0_f64).prop_map(|cut| Step::Crash { cut }),
    ];
    prop_oneof![9 => prop::collection::vec(step.clone(), 1..14), 1 => prop::collection::vec(step, 14..40)]
}

/// What a journal holds, as plainly as it can be said.
#[derive(Debug, Clone, Default)]
struct Model {
    partitions: BTreeMap<(usize, u32), ModelPartition>,
    positions: BTreeMap<(usize, u32), u64>,
}

/// All that was ever appended, and what is gone of it.
#[derive(Debug, Clone, Default)]
struct ModelPartition {
    appended: Vec<Record>,
    first: u64,
    /// Records whose key has a later record before this offset are gone.
    compacted_to: u64,
    swept_to: u64,
    swept: BTreeSet<u64>,
}

/// What can be seen of a journal: first offset, next offset and records of each partition; positions.
type Seen = (BTreeMap<(usize, u32), (u64, u64, Vec<Record>)>, BTreeMap<(usize, u32), u64>);

impl ModelPartition {
    fn next(&self) -> u64 {
        self.appended.len() as u64
    }

    fn successor(&self, record: &Record) -> Option<u64> {
        let later = &self.appended[usize::try_from(record.offset).unwrap() + 1..];
        later.iter().find(|later| later.key == record.key).map(|later| later.offset)
    }

    fn records(&self) -> Vec<Record> {
        let kept = |record: &&Record| {
            record.offset >= self.first
                && !self.swept.contains(&record.offset)
                && (self.compacted_to == 0 || self.successor(record).is_none_or(|next| next >= self.compacted_to))
        };
        self.appended.iter().filter(kept).cloned().collect()
    }

    fn begin_at(&mut self, first: u64) {
        self.first = self.first.max(first.min(self.next()));
    }

    fn delete_old(&mut self, now_ms: i64) {
        if let Some(last) = ripe(&self.records(), now_ms, MAX_AGE_MS).last() {
            self.begin_at(last.offset + 1);
        }
    }

    /// A superseded record goes when its successor is older than the lag.
    fn compact(&mut self, now_ms: i64) {
        let from = self.compacted_to.max(self.first);
        let unseen: Vec<_> = self.records().into_iter().filter(|record| record.offset >= from).collect();
        if let Some(last) = ripe(&unseen, now_ms, COMPACT_LAG_MS).last() {
            self.compacted_to = last.offset + 1;
        }
    }

    /// A tombstone goes when it is old, unless it is superseded, or compaction has not come to it.
    fn sweep(&mut self, now_ms: i64) {
        let range = self.swept_to.max(self.first)..self.compacted_to;
        let unseen: Vec<_> = self.records().into_iter().filter(|record| range.contains(&record.offset)).collect();
        for record in ripe(&unseen, now_ms, TOMBSTONE_MS) {
            if record.value.is_empty() && self.successor(record).is_none() {
                self.swept.insert(record.offset);
            }
            self.swept_to = record.offset + 1;
        }
    }
}

/// The records up to the last old one before the first young one; a time to come is neither.
fn ripe(records: &[Record], now_ms: i64, age_ms: i64) -> &[Record] {
    let old = |record: &Record| record.time_ms <= now_ms - age_ms;
    let young = |record: &Record| !old(record) && record.time_ms <= now_ms;
    let before = &records[..records.iter().position(young).unwrap_or(records.len())];
    &before[..before.iter().rposition(old).map_or(0, |index| index + 1)]
}

fn size(record: &Record) -> u64 {
    (record.key.as_ref().map_or(0, bytes::Bytes::len) + record.value.len()) as u64 + RECORD_OVERHEAD_BYTES
}

/// The model, and all that it has been: each transaction's result.
struct History(Vec<Model>);

impl History {
    fn now(&self) -> &Model {
        self.0.last().unwrap()
    }

    /// One transaction.
    fn transact(&mut self, change: impl FnOnce(&mut Model)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.0.push(next);
    }

    fn change(&mut self, topic: usize, partition: u32, change: impl FnOnce(&mut ModelPartition)) {
        self.transact(|model| change(model.partitions.entry((topic, partition)).or_default()));
    }

    /// The partition whose first record is the oldest gives as much as is needed, until the topic fits.
    fn enforce_bytes(&mut self) {
        loop {
            let bounded: Vec<_> = (0..PARTITIONS).map(|partition| self.records(1, partition)).collect();
            let bytes: u64 = bounded.iter().flatten().map(size).sum();
            if bytes <= MAX_BYTES {
                return;
            }
            let heads = bounded.iter().enumerate().filter(|(_, records)| !records.is_empty());
            let (partition, records) = heads.min_by_key(|(index, records)| (records[0].time_ms, *index)).unwrap();
            let mut excess = bytes - MAX_BYTES;
            let dropped = records.iter().take_while(|record| {
                let needed = excess > 0;
                excess = excess.saturating_sub(size(record));
                needed
            });
            let last = dropped.last().unwrap().offset;
            self.change(1, u32::try_from(partition).unwrap(), |partition| partition.begin_at(last + 1));
        }
    }

    fn records(&self, topic: usize, partition: u32) -> Vec<Record> {
        self.now().partitions.get(&(topic, partition)).map(ModelPartition::records).unwrap_or_default()
    }

    fn maintain(&mut self, now_ms: i64) {
        for partition in 0..PARTITIONS {
            self.change(1, partition, |partition| partition.delete_old(now_ms));
        }
        self.enforce_bytes();
        for partition in 0..PARTITIONS {
            self.change(2, partition, |partition| partition.compact(now_ms));
            self.change(2, partition, |partition| partition.sweep(now_ms));
        }
    }

    fn trim(&mut self, topic: usize, partition: u32, up_to: u64) {
        let records = self.records(topic, partition);
        if let Some(last) = records.iter().rfind(|record| record.offset < up_to) {
            self.change(topic, partition, |partition| partition.begin_at(last.offset + 1));
        }
        self.change(topic, partition, |partition| partition.begin_at(up_to));
    }
}

fn seen_of_model(model: &Model) -> Seen {
    let places = (0..TOPICS.len()).flat_map(|topic| (0..PARTITIONS).map(move |partition| (topic, partition)));
    let partitions = places.map(|place| {
        let partition = model.partitions.get(&place).cloned().unwrap_or_default();
        (place, (partition.first, partition.next(), partition.records()))
    });
    (partitions.collect(), model.positions.clone())
}

fn seen_of_journal(journal: &Journal) -> Seen {
    let (mut partitions, mut positions) = (BTreeMap::new(), BTreeMap::new());
    for (index, (topic, _)) in TOPICS.into_iter().enumerate() {
        let mut bytes = 0;
        for partition in 0..PARTITIONS {
            let bounds = journal.bounds(topic, partition).unwrap();
            let batch = journal.read(topic, partition, 0, usize::MAX, ALL_BYTES).unwrap();
            assert_eq!((batch.next_offset, batch.skipped_damaged), (bounds.next_offset, 0));
            bytes += batch.records.iter().map(size).sum::<u64>();
            partitions.insert((index, partition), (bounds.first_offset, bounds.next_offset, batch.records));
            if let Some(position) = journal.position("g", topic, partition).unwrap() {
                positions.insert((index, partition), position);
            }
        }
        assert_eq!(journal.topic_size(topic).unwrap().bytes, bytes);
    }
    (partitions, positions)
}

fn open(directory: &Path) -> Journal {
    let options = Options { compact_lag_ms: COMPACT_LAG_MS, tombstone_ms: TOMBSTONE_MS, ..options() };
    let journal = Journal::open(directory, options).unwrap();
    for (topic, retention) in TOPICS {
        journal.create_topic(topic, PARTITIONS, retention).unwrap();
    }
    journal
}

/// Returns when the writer has nothing more to do: dropping for `max_bytes` follows the acknowledgement.
fn settle(journal: &Journal) {
    journal.trim("kept", 0, 0).unwrap();
}

/// A copy of the files as a crash leaves them. `cut`: the share of the log's end that never reached the disk.
fn crash_copy(from: &Path, cut: Option<f64>) -> tempfile::TempDir {
    let to = directory();
    fs::copy(from.join("journal.db"), to.path().join("journal.db")).unwrap();
    let mut log = fs::read(from.join("journal.db-wal")).unwrap_or_default();
    log.truncate((log.len() as f64 * (1.0 - cut.unwrap_or(0.0))) as usize);
    fs::write(to.path().join("journal.db-wal"), log).unwrap();
    to
}

fn new_records(clock_ms: &mut i64, records: &[(i64, u8, usize)]) -> Vec<NewRecord> {
    let make = |(later_ms, key, bytes): &(i64, u8, usize)| {
        *clock_ms += later_ms;
        keyed(*clock_ms, &format!("k{key}"), &"v".repeat(*bytes))
    };
    records.iter().map(make).collect()
}

/// Takes one step with both, and compares what they answer.
fn step(journal: &Journal, history: &mut History, clock_ms: &mut i64, step: &Step) {
    match step {
        Step::Commit { appends, position } => {
            let mut batch = Batch::new();
            let mut bases = Vec::new();
            history.transact(|model| {
                for (topic, partition, records) in appends {
                    let records = new_records(clock_ms, records);
                    let target = model.partitions.entry((*topic, *partition)).or_default();
                    bases.push(target.next());
                    for NewRecord { time_ms, key, value } in records.clone() {
                        target.appended.push(Record { offset: target.next(), time_ms, key, value });
                    }
                    batch = std::mem::take(&mut batch).append(TOPICS[*topic].0, *partition, records);
                }
                if let Some((topic, partition, next)) = position {
                    model.positions.insert((*topic, *partition), *next);
                    batch = std::mem::take(&mut batch).position("g", TOPICS[*topic].0, *partition, *next);
                }
            });
            assert_eq!(journal.commit(batch).unwrap().base_offsets, bases);
            history.enforce_bytes();
        }
        Step::Read { topic, partition, from, max_records, max_bytes } => {
            let next = history.now().partitions.get(&(*topic, *partition)).map_or(0, ModelPartition::next);
            let answer = journal.read(TOPICS[*topic].0, *partition, *from, *max_records, *max_bytes);
            if *from > next {
                assert!(matches!(answer, Err(JournalError::OffsetPastEnd { .. })));
                return;
            }
            let answer = answer.unwrap();
            let mut room = *max_bytes as u64;
            let mut expected = Vec::new();
            let all: Vec<_> = history.records(*topic, *partition).into_iter().filter(|r| r.offset >= *from).collect();
            for record in &all {
                let bytes = size(record) - RECORD_OVERHEAD_BYTES;
                if expected.len() == *max_records || !expected.is_empty() && bytes > room {
                    break;
                }
                room = room.saturating_sub(bytes);
                expected.push(record.clone());
            }
            assert_eq!(answer.records, expected);
            // Reading on from there misses nothing and repeats nothing.
            let rest = all.iter().find(|record| record.offset >= answer.next_offset);
            assert_eq!(rest, all.get(expected.len()));
        }
        Step::FindTime { topic, partition, time_ms } => {
            let next = history.now().partitions.get(&(*topic, *partition)).map_or(0, ModelPartition::next);
            let records = history.records(*topic, *partition);
            let expected =
                records.iter().find(|record| record.time_ms >= *time_ms).map_or(next, |record| record.offset);
            assert_eq!(journal.offset_for_time(TOPICS[*topic].0, *partition, *time_ms).unwrap(), expected);
        }
        Step::Trim { topic, partition, up_to } => {
            let before = history.records(*topic, *partition).len();
            history.trim(*topic, *partition, *up_to);
            let gone = before - history.records(*topic, *partition).len();
            assert_eq!(journal.trim(TOPICS[*topic].0, *partition, *up_to).unwrap(), gone as u64);
        }
        Step::Maintain { later_ms } => {
            history.maintain(*clock_ms + later_ms);
            journal.maintain(*clock_ms + later_ms).unwrap();
        }
        Step::Reopen | Step::Crash { .. } => unreachable!("these replace the journal"),
    }
}

/// A journal with its topics and nothing in them: to copy it is cheaper than to make it anew for each case.
static EMPTY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let home = directory();
    drop(open(home.path()));
    fs::read(home.path().join("journal.db")).unwrap()
});

/// One case: whatever steps are taken, what can be seen is what the model has.
fn case(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut home = directory();
    fs::write(home.path().join("journal.db"), &*EMPTY).unwrap();
    let mut journal = open(home.path());
    let mut history = History(vec![Model::default()]);
    let mut clock_ms = 0;
    for each in steps {
        match each {
            Step::Reopen => {
                drop(journal);
                journal = open(home.path());
            }
            Step::Crash { cut } => {
                let copy = crash_copy(home.path(), *cut);
                drop(journal);
                home = copy;
                journal = open(home.path());
                let seen = seen_of_journal(&journal);
                let was = history.0.iter().rposition(|model| seen_of_model(model) == seen);
                let Some(was) = was else { return Err(TestCaseError::fail(format!("never was {seen:?}"))) };
                prop_assert!(cut.is_some() || seen == seen_of_model(history.now()), "lost what was acknowledged");
                history.0.truncate(was + 1);
            }
            each => step(&journal, &mut history, &mut clock_ms, each),
        }
        settle(&journal);
        prop_assert_eq!(seen_of_journal(&journal), seen_of_model(history.now()));
    }
    prop_assert_eq!(journal.stats().damaged_files, 0);
    Ok(())
}

/// The cases take turns: each waits most of the time for its journal's writer.
#[test]
fn the_journal_is_what_the_model_is() {
    let (cases, threads) = (10_000, 8);
    let config = ProptestConfig { cases: cases / threads, failure_persistence: None, ..ProptestConfig::default() };
    std::thread::scope(|scope| {
        let run = || TestRunner::new(config.clone()).run(&steps(), |steps| case(&steps));
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        for runner in running {
            if let Err(error) = runner.join().unwrap() {
                panic!("{error}");
            }
        }
    });
}
