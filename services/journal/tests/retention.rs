//! What goes when, and how large the file gets.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use support::{ALL_BYTES, append, directory, keyed, offsets, one_topic, open, options, read_all, record};
use tidegate_journal::{Batch, Bounds, Journal, JournalError, Options, RECORD_OVERHEAD_BYTES, Retention};

const BY_AGE: Retention = Retention::Delete { max_age_ms: Some(1_000), max_bytes: None };

fn by_bytes(max_bytes: u64) -> Retention {
    Retention::Delete { max_age_ms: None, max_bytes: Some(max_bytes) }
}

#[test]
fn old_records_go_in_chunks_and_offsets_go_on() {
    let directory = directory();
    let journal = one_topic(directory.path(), BY_AGE);
    append(&journal, (0..5_000).map(|time| record(time, "v")).collect());
    let report = journal.maintain(5_500).unwrap();
    assert_eq!(report.deleted_by_age, 4_501);
    assert_eq!(report.deleted_bytes, 4_501 * (1 + RECORD_OVERHEAD_BYTES));
    assert_eq!(journal.bounds("t", 0).unwrap(), Bounds { first_offset: 4_501, next_offset: 5_000 });
    assert_eq!(journal.maintain(5_500).unwrap().deleted_by_age, 0);
    journal.maintain(1_000_000).unwrap();
    assert_eq!(journal.bounds("t", 0).unwrap(), Bounds { first_offset: 5_000, next_offset: 5_000 });
    assert_eq!(journal.stats().deleted_by_age, 5_000);
    drop(journal);
    assert_eq!(append(&open(directory.path()), vec![record(0, "v")]), 5_000);
}

#[test]
fn a_clock_that_was_ahead_does_not_keep_everything_behind_it() {
    let directory = directory();
    let journal = one_topic(directory.path(), BY_AGE);
    append(&journal, [1, 9_000_000, 2, 3, 1_990].into_iter().map(|time| record(time, "v")).collect());
    journal.maintain(2_000).unwrap();
    assert_eq!(offsets(&journal), [4]);
}

#[test]
fn a_topic_over_its_bytes_drops_the_oldest_of_all_partitions_and_counts_them() {
    let directory = directory();
    let journal = open(directory.path());
    let one = 100 + RECORD_OVERHEAD_BYTES;
    journal.create_topic("t", 2, by_bytes(10 * one)).unwrap();
    for time in 0..100 {
        let partition = u32::from(time % 4 == 0);
        journal.commit(Batch::new().append("t", partition, vec![record(time, [0; 100])])).unwrap();
    }
    // Dropping follows the acknowledgement; the next request to the writer comes after it.
    journal.maintain(0).unwrap();
    let size = journal.topic_size("t").unwrap();
    assert_eq!((size.records, size.bytes, size.dropped_by_bytes), (10, 10 * one, 90));
    assert_eq!(journal.stats().dropped_by_bytes, 90);
    let mut times = Vec::new();
    for partition in 0..2 {
        let batch = journal.read("t", partition, 0, 100, ALL_BYTES).unwrap();
        times.extend(batch.records.iter().map(|record| record.time_ms));
    }
    times.sort_unstable();
    assert_eq!(times, (90..100).collect::<Vec<_>>());

    // A lower bound applies at the next maintenance.
    journal.create_topic("t", 2, by_bytes(3 * one)).unwrap();
    assert_eq!(journal.maintain(0).unwrap().dropped_by_bytes, 7);
    assert_eq!(journal.topic_size("t").unwrap().records, 3);
}

#[test]
fn the_file_stays_near_the_retention_however_much_passes_through() {
    let directory = directory();
    let kept = 1 << 20;
    let options = Options { wal_max_bytes: 1 << 20, ..options() };
    let journal = Journal::open(directory.path(), options).unwrap();
    journal.create_topic("t", 1, by_bytes(kept)).unwrap();
    let mut largest = 0;
    let batch_bytes = 100 * (500 + RECORD_OVERHEAD_BYTES);
    for batch in 0..30 * kept / batch_bytes {
        append(&journal, vec![record(batch.cast_signed(), [1; 500]); 100]);
        let stats = journal.stats();
        largest = largest.max(stats.file_bytes + stats.wal_bytes);
    }
    assert!(largest < 6 * kept, "{largest} bytes on disk to keep {kept}");
    assert!(journal.stats().appended_bytes > 28 * kept);

    journal.trim("t", 0, u64::MAX).unwrap();
    let before = journal.stats().file_bytes;
    journal.close();
    let small = journal.stats().file_bytes;
    let journal = open(directory.path());
    journal.create_topic("large", 1, Retention::KEEP).unwrap();
    journal.commit(Batch::new().append("large", 0, vec![record(0, [1; 1_000]); 20_000])).unwrap();
    journal.trim("large", 0, u64::MAX).unwrap();
    let report = journal.maintain(0).unwrap();
    assert!(report.reclaimed_file_bytes > 15_000_000, "{report:?}");
    journal.close();
    let shrunk = journal.stats().file_bytes;
    assert!(shrunk < 8 << 20, "{shrunk} after {before} and {small}");
}

#[test]
fn compaction_keeps_the_newest_of_each_key() {
    let directory = directory();
    let journal =
        Journal::open(directory.path(), Options { compact_lag_ms: 100, tombstone_ms: 1_000, ..options() }).unwrap();
    journal.create_topic("t", 1, Retention::Compact).unwrap();
    append(&journal, vec![keyed(0, "a", "1"), keyed(10, "b", "1"), keyed(20, "a", "2")]);
    append(&journal, vec![keyed(300, "a", "3"), keyed(310, "b", "")]);
    // 0 is superseded by 2 (time 20), 2 by 3 (time 300), 1 by 4 (time 310).
    assert_eq!(journal.maintain(110).unwrap().compacted, 0);
    assert_eq!(journal.maintain(120).unwrap().compacted, 1);
    assert_eq!(offsets(&journal), [1, 2, 3, 4]);
    assert_eq!(journal.maintain(400).unwrap().compacted, 1);
    assert_eq!(offsets(&journal), [1, 3, 4]);
    assert_eq!(journal.maintain(1_309).unwrap().compacted, 1);
    assert_eq!(offsets(&journal), [3, 4]);
    assert_eq!(journal.maintain(1_310).unwrap().tombstones_removed, 1);
    assert_eq!(offsets(&journal), [3]);
    let batch = journal.read("t", 0, 0, 10, ALL_BYTES).unwrap();
    assert_eq!((batch.records[0].value.as_ref(), batch.next_offset), (&b"3"[..], 5));
    let size = journal.topic_size("t").unwrap();
    assert_eq!((size.records, size.bytes), (1, 2 + RECORD_OVERHEAD_BYTES));
    // The key that went can come again.
    append(&journal, vec![keyed(2_000, "b", "back"), keyed(2_001, "a", "4")]);
    drop(journal);
    let journal = Journal::open(directory.path(), Options { compact_lag_ms: 0, tombstone_ms: 0, ..options() }).unwrap();
    journal.maintain(3_000).unwrap();
    assert_eq!(offsets(&journal), [5, 6]);
}

#[test]
fn a_tombstone_does_not_go_before_what_it_deletes() {
    let directory = directory();
    let options = Options { compact_lag_ms: 1_000, tombstone_ms: 0, ..options() };
    let journal = Journal::open(directory.path(), options).unwrap();
    journal.create_topic("t", 1, Retention::Compact).unwrap();
    append(&journal, vec![keyed(0, "a", "1"), keyed(1, "a", "")]);
    journal.maintain(999).unwrap();
    assert_eq!(offsets(&journal), [0, 1]);
    journal.maintain(1_001).unwrap();
    assert_eq!(offsets(&journal), [0; 0]);
}

#[test]
fn a_compacted_topic_of_few_keys_stays_small() {
    let directory = directory();
    let journal = Journal::open(directory.path(), Options { compact_lag_ms: 0, ..options() }).unwrap();
    journal.create_topic("t", 1, Retention::Compact).unwrap();
    let mut largest = 0;
    for round in 0..100 {
        append(&journal, (0..100).map(|key| keyed(round, &format!("k{key}"), &"x".repeat(500))).collect());
        journal.maintain(round).unwrap();
        largest = largest.max(journal.stats().file_bytes);
    }
    assert_eq!(journal.topic_size("t").unwrap().records, 100);
    assert_eq!(journal.stats().compacted, 99 * 100);
    assert!(largest < 1 << 20, "{largest} bytes for 50 kB of states");
    assert!(read_all(&journal).iter().map(|record| record.offset).eq(9_900..10_000));
}

#[test]
fn a_full_disk_fails_the_batch_that_did_not_fit_and_no_other() {
    let directory = directory();
    let journal = Journal::open(directory.path(), Options { file_max_bytes: Some(1 << 20), ..options() }).unwrap();
    journal.create_topic("t", 1, Retention::KEEP).unwrap();
    let mut kept = 0;
    let error = loop {
        match journal.commit(Batch::new().append("t", 0, vec![record(0, vec![9; 20_000])])) {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 100, "1 MiB holds more than 2 MB");
    };
    assert!(matches!(error, JournalError::DiskFull { .. }), "{error}");
    assert!(kept > 30, "{kept} batches of 20 kB in 1 MiB");
    assert_eq!(journal.bounds("t", 0).unwrap().next_offset, kept);

    // Gathered with one that does not fit, a small one is still committed.
    let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
    let hold = move |_| held.recv().unwrap();
    journal.submit(Batch::new().position("g", "t", 0, 1), Box::new(hold));
    let (sender, outcomes) = std::sync::mpsc::channel();
    for bytes in [1, 500_000, 1] {
        let sender = sender.clone();
        let batch = Batch::new().append("t", 0, vec![record(0, vec![9; bytes])]);
        journal.submit(batch, Box::new(move |result| sender.send(result).unwrap()));
    }
    release.send(()).unwrap();
    let outcomes: Vec<_> = outcomes.iter().take(3).collect();
    assert_eq!(outcomes[0].as_ref().unwrap().base_offsets, [kept]);
    assert!(matches!(outcomes[1], Err(JournalError::DiskFull { .. })));
    assert_eq!(outcomes[2].as_ref().unwrap().base_offsets, [kept + 1]);
    assert_eq!(journal.stats().disk_full, 2);

    // With room again it goes on, in the same process and after reopening.
    journal.trim("t", 0, kept / 2).unwrap();
    append(&journal, vec![record(0, vec![9; 20_000]); 5]);
    drop(journal);
    let journal = open(directory.path());
    assert_eq!(append(&journal, vec![record(0, vec![9; 2_000_000])]), kept + 7);
    assert_eq!(offsets(&journal), (kept / 2..kept + 8).collect::<Vec<_>>());
}
