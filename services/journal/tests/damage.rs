//! Files and records that are no longer what was written.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use support::{ALL_BYTES, append, directory, keyed, offsets, one_topic, open, options, read_all, record, wait_until};
use tidegate_journal::{Batch, Bounds, Journal, JournalError, Options, Retention};

fn damaged_files(directory: &Path) -> Vec<PathBuf> {
    let entries = directory.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.to_str().unwrap().contains(".damaged-")).collect();
    found.sort();
    found
}

/// Changes the one place where `what` is in the file.
fn overwrite(path: &Path, what: &[u8], with: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let places: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(what)).collect();
    assert_eq!(places.len(), 1);
    bytes[places[0]..places[0] + with.len()].copy_from_slice(with);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_value_is_set_aside_and_the_rest_goes_on() {
    let directory = directory();
    let path = directory.path().join("journal.db");
    let journal = one_topic(&path, Retention::Compact);
    append(&journal, (0..9).map(|n| keyed(n, &format!("k{n}"), &format!("value number {n}"))).collect());
    drop(journal);
    overwrite(&path, b"value number 4", b"VALUE");
    let journal = open(&path);
    let batch = journal.read("t", 0, 0, 100, ALL_BYTES).unwrap();
    let read: Vec<_> = batch.records.iter().map(|record| record.offset).collect();
    assert_eq!((read, batch.next_offset, batch.skipped_damaged), (vec![0, 1, 2, 3, 5, 6, 7, 8], 9, 1));
    wait_until("it is set aside", || journal.stats().damaged_records == 1);
    let batch = journal.read("t", 0, 0, 100, ALL_BYTES).unwrap();
    assert_eq!((batch.records.len(), batch.skipped_damaged), (8, 0));
    assert_eq!(journal.topic_size("t").unwrap().records, 8);
    append(&journal, vec![keyed(10, "k4", "again")]);
    assert_eq!(journal.maintain(i64::MAX).unwrap().compacted, 0);
    assert!(damaged_files(directory.path()).is_empty());
    drop(journal);
    let file = rusqlite::Connection::open(&path).unwrap();
    let value: Vec<u8> = file.query_row("SELECT value FROM damaged WHERE offset = 4", [], |row| row.get(0)).unwrap();
    assert_eq!(value, b"VALUE number 4");
}

#[test]
fn a_damaged_record_alone_does_not_keep_a_reader_in_place() {
    let directory = directory();
    let path = directory.path().join("journal.db");
    let journal = one_topic(&path, Retention::KEEP);
    append(&journal, vec![record(0, "first value"), record(0, "second value")]);
    drop(journal);
    overwrite(&path, b"first value", b"F");
    let journal = open(&path);
    let batch = journal.read("t", 0, 0, 1, ALL_BYTES).unwrap();
    assert_eq!((batch.records.len(), batch.next_offset, batch.skipped_damaged), (0, 1, 1));
    assert_eq!(journal.read("t", 0, 1, 1, ALL_BYTES).unwrap().records.len(), 1);
}

#[test]
fn a_file_that_is_not_one_is_set_aside_and_a_fresh_log_begins() {
    let directory = directory();
    let path = directory.path().join("journal.db");
    let journal = one_topic(&path, Retention::KEEP);
    append(&journal, vec![record(0, "v")]);
    let log_id = journal.log_id().to_owned();
    drop(journal);
    for round in 1..=6 {
        fs::write(&path, vec![b'?'; 5_000 + round]).unwrap();
        let journal = open(&path);
        assert_ne!(journal.log_id(), log_id);
        assert!(journal.topics().is_empty());
        let kept = damaged_files(directory.path());
        assert_eq!(kept.last().unwrap(), &directory.path().join(format!("journal.db.damaged-{round}")));
        assert_eq!(fs::metadata(kept.last().unwrap()).unwrap().len(), 5_000 + round as u64);
        assert_eq!(kept.len(), round.min(4), "the oldest are dropped");
        let stats = journal.stats();
        assert_eq!((stats.damaged_files, stats.salvaged_records), (round.min(4) as u64, 0));
        journal.create_topic("t", 1, Retention::KEEP).unwrap();
        append(&journal, vec![record(0, "v")]);
    }
}

#[test]
fn what_can_be_read_of_a_damaged_file_is_kept_with_its_offsets() {
    let directory = directory();
    let path = directory.path().join("journal.db");
    let journal = one_topic(&path, Retention::KEEP);
    journal.create_topic("states", 2, Retention::Compact).unwrap();
    append(&journal, (0..2_000).map(|n| record(n, format!("value {n:0>90}"))).collect());
    let states = Batch::new()
        .append("states", 1, vec![keyed(1, "a", "1"), keyed(2, "b", "1"), keyed(3, "a", "2")])
        .position("g", "t", 0, 1_999);
    journal.commit(states).unwrap();
    journal.trim("t", 0, 100).unwrap();
    let log_id = journal.log_id().to_owned();
    drop(journal);

    // A page in the middle of the records of `t` loses its head.
    let mut bytes = fs::read(&path).unwrap();
    let needle = format!("value {:0>90}", 1_000);
    let at = bytes.windows(needle.len()).position(|window| window == needle.as_bytes()).unwrap();
    bytes[at / 4_096 * 4_096..][..64].fill(0xee);
    fs::write(&path, &bytes).unwrap();

    let journal = open(&path);
    let stats = journal.stats();
    assert_eq!((stats.damaged_files, journal.log_id()), (1, log_id.as_str()));
    assert!(fs::read(&damaged_files(directory.path())[0]).unwrap() == bytes, "the evidence is as it was");
    let kept = offsets(&journal);
    assert!(kept.len() > 1_800 && kept.len() < 1_900, "{} records", kept.len());
    assert_eq!(stats.salvaged_records, kept.len() as u64 + 3);
    assert!(!kept.contains(&1_000));
    assert_eq!((kept[0], kept[kept.len() - 1]), (100, 1_999));
    for record in read_all(&journal) {
        assert_eq!(record.value, format!("value {:0>90}", record.offset).as_bytes());
    }
    assert_eq!(journal.position("g", "t", 0).unwrap(), Some(1_999));
    assert_eq!(journal.bounds("t", 0).unwrap(), Bounds { first_offset: 100, next_offset: 2_000 });
    assert_eq!(journal.topic_size("t").unwrap().records, kept.len() as u64);
    journal.maintain(i64::MAX).unwrap();
    let states = journal.read("states", 1, 0, 10, ALL_BYTES).unwrap();
    assert_eq!(states.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(append(&journal, vec![record(0, "v")]), 2_000);
}

#[test]
fn damage_met_while_running_is_read_past_and_repaired_at_the_next_open() {
    let directory = directory();
    let path = directory.path().join("journal.db");
    // Too large to be checked at each open.
    let unchecked = || Journal::open(&path, Options { check_up_to_bytes: 0, ..options() }).unwrap();
    let journal = one_topic(&path, Retention::KEEP);
    append(&journal, (0..2_000).map(|n| record(n, format!("value {n:0>90}"))).collect());
    drop(journal);
    let mut bytes = fs::read(&path).unwrap();
    let needle = format!("value {:0>90}", 1_000);
    let at = bytes.windows(needle.len()).position(|window| window == needle.as_bytes()).unwrap();
    bytes[at / 4_096 * 4_096..][..64].fill(0xee);
    fs::write(&path, &bytes).unwrap();

    let journal = unchecked();
    assert_eq!(journal.stats().damaged_files, 0);
    let batch = journal.read("t", 0, 0, usize::MAX, ALL_BYTES).unwrap();
    assert_eq!(batch.records.len() as u64 + batch.skipped_damaged, 2_000);
    assert!(batch.skipped_damaged > 10 && batch.skipped_damaged < 100, "{}", batch.skipped_damaged);
    assert_eq!(append(&journal, vec![record(0, "goes on")]), 2_000);
    // Retention cannot pass a broken page: it says so.
    assert!(matches!(journal.trim("t", 0, u64::MAX), Err(JournalError::Damaged { .. })));
    drop(journal);

    let journal = unchecked();
    assert_eq!(journal.stats().damaged_files, 1);
    assert!(
        journal.read("t", 0, journal.bounds("t", 0).unwrap().first_offset, 10, ALL_BYTES).unwrap().skipped_damaged == 0
    );
    journal.trim("t", 0, u64::MAX).unwrap();
    assert_eq!(append(&journal, vec![record(0, "v")]), 2_001);
    drop(journal);
    assert_eq!(unchecked().stats().damaged_files, 1, "only once");
}

#[test]
fn a_salvage_that_was_interrupted_is_finished_or_begun_again() {
    let directory = directory();
    let path = directory.path().join("journal.db");
    let salvage = directory.path().join("journal.db.salvage");
    drop(one_topic(&path, Retention::KEEP));
    // Killed between setting the damaged file aside and putting the salvaged one in place.
    fs::rename(&path, &salvage).unwrap();
    assert_eq!(open(&path).topics(), ["t"]);
    // Killed while salvaging.
    fs::write(&salvage, "half").unwrap();
    assert_eq!(open(&path).topics(), ["t"]);
    assert!(!salvage.exists());
}

fn sound_file() -> &'static [u8] {
    static FILE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    FILE.get_or_init(|| {
        let directory = directory();
        let path = directory.path().join("journal.db");
        let journal = one_topic(&path, Retention::Compact);
        append(&journal, (0..200).map(|n| keyed(n, &format!("k{}", n % 50), &"v".repeat(100))).collect());
        drop(journal);
        fs::read(&path).unwrap()
    })
}

#[test]
fn a_length_in_the_catalogue_that_cannot_be_is_damage() {
    let directory = directory();
    let path = directory.path().join("journal.db");
    let mut bytes = sound_file().to_vec();
    // The first table's cell, at the end of the first page: SQLite calls this length too big, not corrupt.
    bytes[3_995..4_010].copy_from_slice(&[0, 0, 128, 128, 136, 128, 128, 128, 7, 0, 7, 135, 186, 128, 128]);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(open(&path).stats().damaged_files, 1);
}

#[test]
fn a_catalogue_that_contradicts_itself_is_damage() {
    // Each was a journal that could not be opened any more, though most of it can be read.
    let sql = |what: &'static str| {
        move |path: &Path| {
            rusqlite::Connection::open(path)
                .unwrap()
                .execute(&format!("UPDATE topics SET {what}"), [])
                .map(drop)
                .unwrap();
        }
    };
    let in_the_table_only = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let at = bytes.windows(7).position(|name| name == b"a-topic").unwrap();
        bytes[at] = b'b';
        fs::write(path, bytes).unwrap();
    };
    let damages: [&dyn Fn(&Path); 3] = [&in_the_table_only, &sql("partitions = 1"), &sql("compact = 0")];
    for (number, damage) in damages.into_iter().enumerate() {
        let directory = directory();
        let path = directory.path().join("journal.db");
        let journal = open(&path);
        journal.create_topic("a-topic", 3, Retention::Compact).unwrap();
        journal.commit(Batch::new().append("a-topic", 0, vec![keyed(0, "k", "v")])).unwrap();
        drop(journal);
        damage(&path);
        let journal = open(&path);
        assert_eq!(journal.stats().damaged_files, 1, "{number}");
        journal.create_topic("a-topic", 3, Retention::Compact).unwrap();
        let kept = journal.read("a-topic", 0, 0, 9, ALL_BYTES).unwrap().records.len();
        // Whose a topic without its name was cannot be told.
        assert_eq!(kept, usize::from(number > 0), "{number}");
    }
}

#[test]
fn a_table_that_lost_its_shape_does_not_take_the_others_with_it() {
    let directory = directory();
    let path = directory.path().join("journal.db");
    let journal = one_topic(&path, Retention::KEEP);
    journal.create_topic("other", 1, Retention::KEEP).unwrap();
    append(&journal, vec![record(0, "v")]);
    journal.commit(Batch::new().append("other", 0, vec![record(0, "w")])).unwrap();
    drop(journal);
    // In the schema, of the first table that has it.
    let mut bytes = fs::read(&path).unwrap();
    let schema = b"CREATE TABLE records_1";
    let at = bytes.windows(schema.len()).position(|window| window == schema).unwrap();
    let column = bytes[at..].windows(8).position(|window| window == b"checksum").unwrap();
    bytes[at + column] = b'C';
    bytes[at + column + 1] = b'_';
    fs::write(&path, bytes).unwrap();
    let journal = open(&path);
    assert_eq!(journal.stats().damaged_files, 1);
    assert_eq!(journal.read("other", 0, 0, 9, ALL_BYTES).unwrap().records.len(), 1);
    assert_eq!(append(&journal, vec![record(0, "v")]), 1);
}

#[test]
fn counters_that_hide_records_are_damage() {
    // Fuzzing found an edge that had lost half of its account states without noticing.
    for damage in ["first_offset = 44", "records = 44", "next_offset = 44"] {
        let directory = directory();
        let path = directory.path().join("journal.db");
        let journal = one_topic(&path, Retention::KEEP);
        append(&journal, (0..100).map(|n| record(n, "v")).collect());
        drop(journal);
        let file = rusqlite::Connection::open(&path).unwrap();
        file.execute(&format!("UPDATE partitions SET {damage}"), []).unwrap();
        drop(file);
        let journal = open(&path);
        assert_eq!(journal.stats().damaged_files, 1, "{damage}");
        assert!(offsets(&journal).into_iter().eq(0..100), "{damage}");
        assert_eq!(journal.bounds("t", 0).unwrap(), Bounds { first_offset: 0, next_offset: 100 }, "{damage}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is done to the file, it opens or is set aside or is called another's, what it gives is what was
    /// written, and it takes new records.
    #[test]
    fn any_damage_is_survived(
        holes in prop::collection::vec((0.0..1.0_f64, prop::collection::vec(any::<u8>(), 1..200)), 1..4),
        in_header in any::<bool>(),
        cut in prop::option::weighted(0.2, 0.0..1.0_f64),
    ) {
        let directory = directory();
        let path = directory.path().join("journal.db");
        let mut bytes = sound_file().to_vec();
        for (at, hole) in holes {
            let range = if in_header { 100.0 } else { bytes.len() as f64 };
            let at = (at * range) as usize;
            let end = (at + hole.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&hole[..end - at]);
        }
        if let Some(cut) = cut {
            bytes.truncate((cut * bytes.len() as f64) as usize);
        }
        fs::write(&path, &bytes).unwrap();
        let journal = match Journal::open(&path, options()) {
            Ok(journal) => journal,
            Err(error) => {
                prop_assert!(matches!(error, JournalError::NotAJournal { .. } | JournalError::NewerFormat { .. }), "{}", error);
                return Ok(());
            }
        };
        let created = journal.create_topic("t", 1, Retention::Compact);
        if let Err(error) = &created {
            // The catalogue is not checksummed: a topic may have lost its name, not its soundness.
            prop_assert!(matches!(error, JournalError::PartitionCount { .. } | JournalError::RetentionKind { .. }), "{}", error);
            return Ok(());
        }
        if let Ok(batch) = journal.read("t", 0, 0, 1_000, ALL_BYTES) {
            for record in batch.records {
                prop_assert!(record.offset < 200);
                prop_assert_eq!(record.time_ms, record.offset.cast_signed());
                prop_assert_eq!(record.value, "v".repeat(100));
            }
        }
        let before = journal.bounds("t", 0).unwrap();
        match journal.commit(Batch::new().append("t", 0, vec![keyed(0, "k1", "new")])) {
            Ok(committed) => prop_assert_eq!(committed.base_offsets, [before.next_offset]),
            Err(error) => prop_assert!(matches!(error, JournalError::Damaged { .. } | JournalError::Sql { .. }), "{}", error),
        }
        drop(journal.maintain(i64::MAX));
    }
}
