//! Appending, reading, positions, waking, and who may open what.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};

use support::{ALL_BYTES, append, directory, keyed, offsets, one_topic, open, options, read_all, record};
use tidegate_journal::{Batch, Bounds, Journal, JournalError, NewRecord, Options, Retention};

#[test]
fn records_come_back_as_they_were_across_reopening() {
    let directory = directory();
    let written = vec![
        record(5, "plain"),
        keyed(4, "a@example.org", "keyed"),
        NewRecord { time_ms: i64::MIN, key: Some(bytes::Bytes::new()), value: bytes::Bytes::new() },
        record(i64::MAX, vec![0xff_u8; 100_000]),
    ];
    let journal = one_topic(directory.path(), Retention::KEEP);
    let log_id = journal.log_id().to_owned();
    assert_eq!(append(&journal, written.clone()), 0);
    drop(journal);

    let journal = open(directory.path());
    assert_eq!((log_id.len(), journal.log_id()), (16, log_id.as_str()));
    let read: Vec<NewRecord> = read_all(&journal)
        .into_iter()
        .map(|record| NewRecord { time_ms: record.time_ms, key: record.key, value: record.value })
        .collect();
    assert_eq!(read, written);
    assert_eq!(append(&journal, vec![record(6, "next")]), 4);
    assert!(directory.path().join("journal.db").exists());
}

#[test]
fn one_batch_spans_topics_partitions_and_positions() {
    let directory = directory();
    let journal = open(&directory.path().join("new/deep/log.db"));
    journal.create_topic("events", 3, Retention::KEEP).unwrap();
    journal.create_topic("accounts", 3, Retention::Compact).unwrap();
    let batch = Batch::new()
        .append("events", 2, vec![record(1, "e0"), record(2, "e1")])
        .append("accounts", 2, vec![keyed(2, "a", "s0")])
        .append("events", 2, vec![record(3, "e2")])
        .append("events", 0, Vec::new())
        .position("stream", "events", 2, 3);
    assert_eq!(journal.commit(batch).unwrap().base_offsets, [0, 0, 2, 0]);
    assert_eq!(journal.bounds("events", 2).unwrap(), Bounds { first_offset: 0, next_offset: 3 });
    assert_eq!(journal.bounds("events", 0).unwrap(), Bounds { first_offset: 0, next_offset: 0 });
    assert_eq!(journal.position("stream", "events", 2).unwrap(), Some(3));
    assert_eq!(journal.position("stream", "events", 1).unwrap(), None);
    assert_eq!(journal.position("other", "events", 2).unwrap(), None);

    // Nothing of a batch with something wrong in it is kept.
    let wrong = Batch::new().append("events", 1, vec![record(1, "x")]).position("stream", "events", 3, 9);
    assert!(matches!(journal.commit(wrong), Err(JournalError::UnknownPartition { partition: 3, .. })));
    let wrong = Batch::new().position("stream", "events", 2, 9).append("accounts", 1, vec![record(1, "no key")]);
    assert!(matches!(journal.commit(wrong), Err(JournalError::MissingKey { partition: 1, .. })));
    assert_eq!(journal.bounds("events", 1).unwrap().next_offset, 0);
    assert_eq!(journal.position("stream", "events", 2).unwrap(), Some(3));
}

#[test]
fn reads_stop_at_their_limits_and_name_where_to_go_on() {
    let directory = directory();
    let journal = one_topic(directory.path(), Retention::KEEP);
    append(&journal, (0..10).map(|n| record(n, [0; 100])).collect());
    let read = |from, records, bytes| {
        let batch = journal.read("t", 0, from, records, bytes).unwrap();
        (batch.records.len(), batch.next_offset)
    };
    assert_eq!(read(0, 3, ALL_BYTES), (3, 3));
    assert_eq!(read(3, 100, 250), (2, 5));
    assert_eq!(read(5, 100, 1), (1, 6), "one record at least");
    assert_eq!(read(6, 100, ALL_BYTES), (4, 10));
    assert_eq!(read(10, 100, ALL_BYTES), (0, 10));
    let past = journal.read("t", 0, 11, 1, 1).unwrap_err();
    assert!(matches!(past, JournalError::OffsetPastEnd { offset: 11, next_offset: 10, .. }));
    assert!(matches!(journal.read("t", 1, 0, 1, 1), Err(JournalError::UnknownPartition { partitions: 1, .. })));
    assert!(matches!(journal.read("u", 0, 0, 1, 1), Err(JournalError::UnknownTopic { .. })));
}

#[test]
fn a_trimmed_topic_does_not_begin_at_zero_again() {
    let directory = directory();
    let journal = one_topic(directory.path(), Retention::KEEP);
    append(&journal, (0..5_000).map(|n| record(n, "v")).collect());
    assert_eq!(journal.trim("t", 0, 4_990).unwrap(), 4_990);
    assert_eq!(journal.bounds("t", 0).unwrap(), Bounds { first_offset: 4_990, next_offset: 5_000 });
    assert_eq!(journal.read("t", 0, 7, 1, ALL_BYTES).unwrap().records[0].offset, 4_990);
    assert_eq!(journal.trim("t", 0, u64::MAX).unwrap(), 10);
    assert_eq!(journal.trim("t", 0, 3).unwrap(), 0);
    assert_eq!(journal.topic_size("t").unwrap().bytes, 0);
    drop(journal);
    let journal = open(directory.path());
    assert_eq!(journal.bounds("t", 0).unwrap(), Bounds { first_offset: 5_000, next_offset: 5_000 });
    assert_eq!(append(&journal, vec![record(1, "v")]), 5_000);
}

#[test]
fn a_time_finds_its_first_offset_also_when_clocks_go_back() {
    let directory = directory();
    let journal = one_topic(directory.path(), Retention::KEEP);
    assert_eq!(journal.offset_for_time("t", 0, 5).unwrap(), 0);
    let times = [10, 20, 50, 30, 31, 32, 60, 60, 40];
    append(&journal, times.iter().map(|time| record(*time, "v")).collect());
    let naive = |time: i64, first: usize| {
        (first..times.len()).find(|index| times[*index] >= time).unwrap_or(times.len()) as u64
    };
    for time in 0..70 {
        assert_eq!(journal.offset_for_time("t", 0, time).unwrap(), naive(time, 0), "time {time}");
    }
    journal.trim("t", 0, 3).unwrap();
    for time in 0..70 {
        assert_eq!(journal.offset_for_time("t", 0, time).unwrap(), naive(time, 3), "time {time} after the trim");
    }
}

#[test]
fn many_threads_share_commits_and_keep_their_order() {
    let directory = directory();
    let journal = one_topic(directory.path(), Retention::KEEP);
    let (threads, each) = (4, 250);
    // Holds the writer up at the first batch, so that the others gather behind it.
    let (release, held) = sync_channel::<()>(0);
    let (entered, entering) = sync_channel::<()>(0);
    let hold = move |_| {
        entered.send(()).unwrap();
        held.recv().unwrap();
    };
    journal.submit(Batch::new().append("t", 0, vec![record(0, "first")]), Box::new(hold));
    entering.recv().unwrap();
    let (acknowledged, results) = channel();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (journal, acknowledged) = (journal.clone(), acknowledged.clone());
            scope.spawn(move || {
                for n in 0..each {
                    let value = format!("{thread}:{n}");
                    let batch = Batch::new().append("t", 0, vec![record(0, &value)]);
                    let acknowledged = acknowledged.clone();
                    let done = move |result: Result<_, _>| acknowledged.send((value, result)).unwrap();
                    journal.submit(batch, Box::new(done));
                }
            });
        }
    });
    assert_eq!(journal.stats().queued_batches, threads * each);
    release.send(()).unwrap();
    drop(acknowledged);
    let acknowledged: Vec<_> = results.iter().map(|(value, result)| (result.unwrap().base_offsets[0], value)).collect();
    assert_eq!(acknowledged.len() as u64, threads * each);
    let read = read_all(&journal);
    let values = |thread| {
        let prefix = format!("{thread}:");
        let of_thread = read.iter().filter_map(move |record| {
            std::str::from_utf8(&record.value).unwrap().strip_prefix(&prefix)?.parse::<u64>().ok()
        });
        of_thread.collect::<Vec<_>>()
    };
    for thread in 0..threads {
        assert_eq!(values(thread), (0..each).collect::<Vec<_>>());
    }
    for (offset, value) in acknowledged {
        assert_eq!(read[usize::try_from(offset).unwrap()].value, value.as_bytes());
    }
    let stats = journal.stats();
    assert_eq!((stats.batches, stats.appended_records), (threads * each + 1, threads * each + 1));
    assert_eq!(stats.commits, 2, "what gathered behind the first batch is one commit");
}

#[test]
fn a_full_queue_refuses_at_once_and_loses_nothing_that_it_took() {
    let directory = directory();
    let journal = Journal::open(directory.path(), Options { queue_max_batches: 3, ..options() }).unwrap();
    journal.create_topic("t", 1, Retention::KEEP).unwrap();
    let (release, held) = sync_channel::<()>(0);
    let (entered, entering) = sync_channel::<()>(0);
    let hold = move |_| {
        entered.send(()).unwrap();
        held.recv().unwrap();
    };
    journal.submit(Batch::new().append("t", 0, vec![record(0, "held")]), Box::new(hold));
    entering.recv().unwrap();
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    for n in 0..5 {
        let outcomes = outcomes.clone();
        let done = move |result: Result<_, _>| outcomes.lock().unwrap().push((n, result));
        journal.submit(Batch::new().append("t", 0, vec![record(n, "v")]), Box::new(done));
    }
    {
        let refused = outcomes.lock().unwrap();
        let refused: Vec<_> = refused.iter().map(|(n, result)| (*n, result.is_err())).collect();
        assert_eq!(refused, [(3, true), (4, true)]);
    }
    release.send(()).unwrap();
    journal.close();
    let outcomes = outcomes.lock().unwrap();
    assert_eq!(outcomes.iter().filter(|(_, result)| result.is_ok()).count(), 3);
    assert!(matches!(outcomes[0].1, Err(JournalError::QueueFull { batches: 3, .. })));
    assert_eq!(journal.stats().queue_full, 2);
    let late = journal.commit(Batch::new().append("t", 0, vec![record(0, "v")]));
    assert!(matches!(late, Err(JournalError::Closed { .. })));
    assert!(matches!(journal.read("t", 0, 0, 1, 1), Err(JournalError::Closed { .. })));
    assert_eq!(offsets(&open(directory.path())), [0, 1, 2, 3]);
}

#[test]
fn records_and_batches_over_their_limits_are_refused() {
    let directory = directory();
    let small = Options { max_record_bytes: 100, queue_max_bytes: 1_000, ..options() };
    let journal = Journal::open(directory.path(), small).unwrap();
    journal.create_topic("t", 1, Retention::KEEP).unwrap();
    let commit = |records| journal.commit(Batch::new().append("t", 0, records));
    assert!(matches!(commit(vec![record(0, [0; 101])]), Err(JournalError::RecordTooLarge { bytes: 101, .. })));
    assert!(matches!(commit(vec![record(0, [0; 100]); 9]), Err(JournalError::BatchTooLarge { limit: 1_000, .. })));
    let past = Batch::new().position("g", "t", 0, u64::MAX);
    assert!(matches!(journal.commit(past), Err(JournalError::OffsetRange { .. })));
    assert_eq!(commit(vec![record(0, [0; 100]); 5]).unwrap().base_offsets, [0]);
}

#[test]
fn readers_are_woken_after_the_commit_until_they_unsubscribe() {
    let directory = directory();
    let journal = one_topic(directory.path(), Retention::KEEP);
    let (woken, wakes) = channel();
    let reader = journal.clone();
    let subscription = journal.on_append(move |topic, partition, next_offset| {
        // What is announced can be read.
        assert_eq!(reader.read(topic, partition, next_offset - 1, 1, 1).unwrap().records.len(), 1);
        woken.send((topic.to_owned(), partition, next_offset)).unwrap();
    });
    append(&journal, vec![record(1, "a"), record(2, "b")]);
    assert_eq!(wakes.recv().unwrap(), ("t".to_owned(), 0, 2));
    journal.commit(Batch::new().position("g", "t", 0, 1)).unwrap();
    append(&journal, vec![record(3, "c")]);
    assert_eq!(wakes.recv().unwrap(), ("t".to_owned(), 0, 3));
    drop(subscription);
    append(&journal, vec![record(4, "d")]);
    assert!(wakes.recv().is_err(), "the watcher is gone, and so is its sender");
}

#[test]
fn a_callback_that_panics_or_blocks_does_not_stop_the_journal() {
    let directory = directory();
    let journal = one_topic(directory.path(), Retention::KEEP);
    let batch = || Batch::new().append("t", 0, vec![record(1, "v")]);
    journal.submit(batch(), Box::new(|_| panic!("on purpose")));
    let (answered, answer) = channel();
    let inside = journal.clone();
    let nested = batch();
    journal.submit(batch(), Box::new(move |_| answered.send(inside.commit(nested)).unwrap()));
    assert!(matches!(answer.recv().unwrap(), Err(JournalError::OnWriterThread)));
    assert_eq!(append(&journal, vec![record(1, "after")]), 2);
    assert_eq!(journal.stats().callback_panics, 1);
}

#[test]
fn the_last_handle_may_go_inside_a_callback() {
    let directory = directory();
    let journal = one_topic(directory.path(), Retention::KEEP);
    let (done, finished) = channel();
    let last = journal.clone();
    let callback = move |result: Result<_, JournalError>| {
        drop(last);
        done.send(result.is_ok()).unwrap();
    };
    let batch = Batch::new().append("t", 0, vec![record(1, "v")]);
    journal.submit(batch, Box::new(callback));
    drop(journal);
    assert!(finished.recv().unwrap());
    support::wait_until("the file is free", || Journal::open(directory.path(), options()).is_ok());
}

#[test]
fn topics_are_created_once() {
    let directory = directory();
    let journal = one_topic(directory.path(), Retention::KEEP);
    journal.create_topic("t", 1, Retention::KEEP).unwrap();
    let bounded = Retention::Delete { max_age_ms: Some(5), max_bytes: Some(1 << 40) };
    journal.create_topic("t", 1, bounded).unwrap();
    let other = journal.create_topic("t", 2, Retention::KEEP).unwrap_err();
    assert!(matches!(other, JournalError::PartitionCount { existing: 1, asked: 2, .. }));
    assert!(matches!(journal.create_topic("t", 1, Retention::Compact), Err(JournalError::RetentionKind { .. })));
    for name in ["", "a b", "a\0", "é", &"x".repeat(201)] {
        assert!(matches!(journal.create_topic(name, 1, Retention::KEEP), Err(JournalError::TopicName { .. })));
    }
    for partitions in [0, 4_097] {
        let refused = journal.create_topic("u", partitions, Retention::KEEP);
        assert!(matches!(refused, Err(JournalError::PartitionLimit { .. })));
    }
    journal.create_topic("a.b-c_9", 16, Retention::Compact).unwrap();
    assert_eq!(journal.topics(), ["a.b-c_9", "t"]);
    assert_eq!(journal.partitions("a.b-c_9").unwrap(), 16);
}

#[test]
fn a_second_owner_is_refused() {
    let directory = directory();
    let journal = one_topic(directory.path(), Retention::KEEP);
    let Err(error) = Journal::open(directory.path(), options()) else { panic!("two owners") };
    assert!(matches!(error, JournalError::InUse { .. }));
    assert!(error.to_string().contains("journal.db is in use: a journal has one owner"), "{error}");
    let clone = journal.clone();
    drop(journal);
    assert!(Journal::open(directory.path(), options()).is_err());
    drop(clone);
    open(directory.path());
}

#[test]
fn files_of_others_and_of_the_future_are_left_alone() {
    let directory = directory();
    let path = directory.path().join("theirs.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(matches!(Journal::open(&path, options()), Err(JournalError::NotAJournal { .. })));

    let path = directory.path().join("newer.db");
    drop(one_topic(&path, Retention::KEEP));
    let newer = "PRAGMA user_version = 99; UPDATE meta SET value = '99' WHERE name = 'format'";
    rusqlite::Connection::open(&path).unwrap().execute_batch(newer).unwrap();
    let refused = Journal::open(&path, options());
    assert!(matches!(refused, Err(JournalError::NewerFormat { found: 99, supported: 1, .. })));
    let names: BTreeSet<_> = directory.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("damaged")), "{names:?}");
}

#[test]
fn readers_and_the_writer_do_not_wait_for_each_other_while_the_write_ahead_log_stays_bounded() {
    let directory = directory();
    let wal_max_bytes = 1 << 20;
    let journal = Journal::open(directory.path(), Options { wal_max_bytes, ..options() }).unwrap();
    journal.create_topic("t", 1, Retention::KEEP).unwrap();
    let last = 400;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut at = 0;
                while at < last {
                    let batch = journal.read("t", 0, at, 7, ALL_BYTES).unwrap();
                    assert!(batch.records.iter().map(|record| record.offset).eq(at..batch.next_offset));
                    at = batch.next_offset;
                }
            });
        }
        for n in 0..last {
            append(&journal, vec![record(n.cast_signed(), vec![7; 20_000])]);
        }
    });
    let stats = journal.stats();
    assert!(stats.file_bytes > 8_000_000 - 2 * wal_max_bytes, "{stats:?}");
    assert!(stats.wal_bytes <= 2 * wal_max_bytes, "{stats:?}");
    assert_eq!(stats.housekeeping_failures, 0);
}
