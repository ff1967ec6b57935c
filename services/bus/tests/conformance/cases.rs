//! Appending and reading.

use crate::lab::{Lab, PARTITIONS, PATIENCE, everything, from, key_of, message, read, read_until, value, wait_for};
use bytes::Bytes;
use futures::FutureExt as _;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use tidegate_bus::{BATCH_MAX_RECORDS, Batch, BusError, MESSAGE_MAX_BYTES, Message, Topic, partition_of};
use tidegate_runtime::traces::TraceContext;

pub async fn reads_in_the_order_of_each_partition(lab: impl Lab) {
    let bus = lab.open().await;
    let messages: Vec<_> = (0..60).map(|n| message(&format!("{}@example.org", n % 7), &n.to_string())).collect();
    let mut places = Vec::new();
    for part in messages.chunks(20) {
        places.extend(bus.append(Topic::Events, part.to_vec()).await.unwrap());
    }
    let mut reader = bus.read(&everything(Topic::Events)).await.unwrap();
    let records = read(&mut *reader, 60).await;
    assert_eq!(records.len(), 60);
    let mut last: HashMap<u32, (u64, usize)> = HashMap::new();
    for record in &records {
        let n: usize = value(record).parse().unwrap();
        assert_eq!((record.topic, &record.key), (Topic::Events, &messages[n].key));
        assert_eq!((record.partition, record.offset), (places[n].partition, places[n].offset));
        if let Some((offset, before)) = last.insert(record.partition, (record.offset, n)) {
            assert!(record.offset > offset && n > before);
        }
    }
    assert_eq!(records.iter().map(|record| record.partition).collect::<HashSet<_>>().len(), PARTITIONS as usize);
}

pub async fn keys_have_the_same_partition_in_all_topics(lab: impl Lab) {
    let bus = lab.open().await;
    assert_eq!(bus.partitions(), PARTITIONS);
    for topic in Topic::ALL {
        let keys: Vec<String> = (0..20).map(|n| format!("{n}@example.org")).collect();
        let places = bus.append(topic, keys.iter().map(|key| message(key, "v")).collect()).await.unwrap();
        for (key, place) in keys.iter().zip(places) {
            assert_eq!(place.partition, partition_of(key.as_bytes(), PARTITIONS), "{topic:?} {key}");
        }
        let mut reader = bus.read(&everything(topic)).await.unwrap();
        for record in read(&mut *reader, 20).await {
            assert_eq!(record.partition, partition_of(&record.key, PARTITIONS));
        }
    }
}

pub async fn values_and_tombstones_come_back(lab: impl Lab) {
    let bus = lab.open().await;
    let key = key_of(1, 0);
    let binary = Message::new(Bytes::from(key.clone()), Some(Bytes::from_static(&[0, 255, 10, 0])));
    let deleted = Message::new(Bytes::from(key), None);
    for topic in [Topic::Accounts, Topic::Events] {
        bus.append(topic, vec![binary.clone(), deleted.clone()]).await.unwrap();
        let mut reader = bus.read(&[from(topic, 1, 0)]).await.unwrap();
        let records = read(&mut *reader, 2).await;
        assert_eq!(records[0].value, binary.value);
        assert_eq!(records[1].value, None);
        assert!(records.iter().all(|record| record.key == binary.key && record.time_ms > 1_600_000_000_000));
    }
}

pub async fn the_step_that_a_record_comes_from_comes_back(lab: impl Lab) {
    let bus = lab.open().await;
    let (appended, committed) = (TraceContext::new_trace(), TraceContext::new_trace());
    let (first, second) = (message(&key_of(1, 0), "first"), message(&key_of(1, 1), "second"));
    let mut reader = bus.read(&[from(Topic::Events, 1, 0), from(Topic::Accounts, 1, 0)]).await.unwrap();
    bus.append(Topic::Events, vec![first.clone().with_trace(Some(appended)), second.clone()]).await.unwrap();
    let mut owner = bus.own("group", 1).await.unwrap();
    let states = [first.with_trace(Some(committed)), second].map(|message| (Topic::Accounts, message));
    owner.commit(states.to_vec(), Vec::new()).await.unwrap();
    let mut records = read(&mut *reader, 4).await;
    records.sort_by_key(|record| (record.topic != Topic::Events, record.offset));
    let traces: Vec<_> = records.iter().map(|record| record.trace).collect();
    assert_eq!(traces, [Some(appended), None, Some(committed), None]);
}

pub async fn a_waiting_reader_wakes_promptly(lab: impl Lab) {
    let bus = lab.open().await;
    let mut reader = bus.read(&everything(Topic::Commands)).await.unwrap();
    assert_eq!(reader.next(Duration::from_millis(1)).await.unwrap(), Batch::default());
    for n in 0..20 {
        let reading = tokio::spawn(async move {
            // Far longer than it may take: what comes must end the wait.
            let records = loop {
                let batch = reader.next(PATIENCE * 10).await.unwrap();
                if !batch.records.is_empty() {
                    break batch.records;
                }
            };
            (reader, records)
        });
        bus.append(Topic::Commands, vec![message(&key_of(n % PARTITIONS, 0), &n.to_string())]).await.unwrap();
        let (back, records) = tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap();
        reader = back;
        assert_eq!(records.iter().map(value).collect::<Vec<_>>(), [n.to_string()]);
    }
}

pub async fn reads_on_from_where_it_was(lab: impl Lab) {
    let bus = lab.open().await;
    let key = key_of(0, 0);
    let append = async |n: usize| bus.append(Topic::Events, vec![message(&key, &n.to_string())]).await.unwrap()[0];
    let first = append(0).await;
    let mut reader = bus.read(&[from(Topic::Events, 0, 0)]).await.unwrap();
    let mut next = None;
    read_until(&mut *reader, |records, reached| {
        next = reached.first().copied();
        !records.is_empty()
    })
    .await;
    drop(reader);
    let next = next.unwrap();
    assert!(next.offset > first.offset);
    append(1).await;
    append(2).await;
    let mut reader = bus.read(&[next]).await.unwrap();
    let records = read(&mut *reader, 2).await;
    assert_eq!(records.iter().map(value).collect::<Vec<_>>(), ["1", "2"]);
    let mut reader = bus.read(&[from(Topic::Events, 0, records[1].offset)]).await.unwrap();
    assert_eq!(read(&mut *reader, 1).await, records[1..]);
}

pub async fn finds_offsets_by_time(lab: impl Lab) {
    let bus = lab.open().await;
    let key = key_of(2, 0);
    for n in 0..3 {
        bus.append(Topic::Events, vec![message(&key, &n.to_string())]).await.unwrap();
        let taken = Instant::now();
        // So that the next one has another time.
        wait_for("the next milliseconds", async || taken.elapsed() >= Duration::from_millis(3)).await;
    }
    let mut reader = bus.read(&[from(Topic::Events, 2, 0)]).await.unwrap();
    let records = read(&mut *reader, 3).await;
    for record in &records {
        let found = bus.offset_for_time(Topic::Events, 2, record.time_ms).await.unwrap();
        assert_eq!(found, record.offset);
    }
    let after = bus.offset_for_time(Topic::Events, 2, records[0].time_ms + 1).await.unwrap();
    assert_eq!(after, records[1].offset);
    assert_eq!(bus.offset_for_time(Topic::Events, 2, 0).await.unwrap(), records[0].offset);
    let end = bus.bounds(Topic::Events, 2).await.unwrap().next;
    assert_eq!(bus.offset_for_time(Topic::Events, 2, records[2].time_ms + 3_600_000).await.unwrap(), end);
    assert_eq!(bus.offset_for_time(Topic::Events, 1, 0).await.unwrap(), 0, "an empty partition");
}

pub async fn ten_thousand_records_go_through(lab: impl Lab) {
    let bus = lab.open().await;
    let mut reader = bus.read(&everything(Topic::Events)).await.unwrap();
    let messages: Vec<_> = (0..10_000).map(|n| message(&format!("{n}@example.org"), &"x".repeat(200))).collect();
    let places = bus.append(Topic::Events, messages).await.unwrap();
    assert_eq!(places.iter().collect::<HashSet<_>>().len(), 10_000);
    let mut largest = 0;
    let mut records = Vec::new();
    let began = Instant::now();
    while records.len() < 10_000 {
        assert!(began.elapsed() < PATIENCE, "only {} records came", records.len());
        let batch = reader.next(Duration::from_millis(200)).await.unwrap();
        largest = largest.max(batch.records.len());
        records.extend(batch.records);
    }
    assert_eq!(records.len(), 10_000);
    assert!(largest <= BATCH_MAX_RECORDS);
    let got: HashSet<_> = records.iter().map(|record| (record.partition, record.offset)).collect();
    assert!(places.iter().all(|place| got.contains(&(place.partition, place.offset))));
}

pub async fn refuses_what_it_could_not_keep(lab: impl Lab) {
    let bus = lab.open().await;
    let key = key_of(0, 0);
    let large = Message::new(Bytes::from(key.clone()), Some(vec![b'x'; MESSAGE_MAX_BYTES].into()));
    let empty = Message::new(Bytes::from(key.clone()), Some(Bytes::new()));
    for (bad, expected) in [(large.clone(), "is over the limit of 900000"), (empty, "an empty value")] {
        let error = bus.append(Topic::Events, vec![message(&key, "good"), bad.clone()]).await.unwrap_err();
        assert!(matches!(&error, BusError::Message { .. }) && error.to_string().contains(expected), "{error}");
        let mut owner = bus.own("stream", 0).await.unwrap();
        let error = owner.commit(vec![(Topic::Accounts, bad)], Vec::new()).await.unwrap_err();
        assert!(matches!(&error, BusError::Message { .. }) && error.to_string().contains(expected), "{error}");
    }
    assert_eq!(bus.bounds(Topic::Events, 0).await.unwrap().next, 0, "nothing was written");
    let mut largest = large;
    largest.value.as_mut().unwrap().truncate(MESSAGE_MAX_BYTES - key.len());
    bus.append(Topic::Events, vec![largest.clone(), largest.clone()]).await.unwrap();
    let mut reader = bus.read(&[from(Topic::Events, 0, 0)]).await.unwrap();
    assert_eq!(read(&mut *reader, 2).await[1].value, largest.value);
}

pub async fn refuses_partitions_that_are_not_there(lab: impl Lab) {
    let bus = lab.open().await;
    let errors = [
        bus.bounds(Topic::Events, PARTITIONS).await.err().unwrap(),
        bus.offset_for_time(Topic::Events, PARTITIONS, 0).await.err().unwrap(),
        bus.read(&[from(Topic::Events, PARTITIONS, 0)]).await.err().unwrap(),
        bus.own("stream", PARTITIONS).await.err().unwrap(),
    ];
    for error in errors {
        assert!(error.to_string().contains("there is no partition 3, only 0 to 2"), "{error}");
    }
}

pub async fn a_dropped_next_loses_nothing(lab: impl Lab) {
    let bus = lab.open().await;
    let mut reader = bus.read(&everything(Topic::Events)).await.unwrap();
    assert!(reader.next(PATIENCE).now_or_never().is_none(), "there is nothing yet: this one is dropped while it waits");
    let writing = tokio::spawn({
        let bus = bus.clone();
        async move {
            for n in 0..200 {
                bus.append(Topic::Events, vec![message(&format!("{n}"), &n.to_string())]).await.unwrap();
            }
        }
    });
    let (mut numbers, began) = (Vec::new(), Instant::now());
    while numbers.len() < 200 {
        assert!(began.elapsed() < PATIENCE, "only {} records came", numbers.len());
        // Polled once or for a moment, then dropped in whatever state it is.
        let batch = if let Some(batch) = reader.next(PATIENCE).now_or_never() {
            batch.unwrap()
        } else if let Ok(batch) = tokio::time::timeout(Duration::from_micros(300), reader.next(PATIENCE)).await {
            batch.unwrap()
        } else {
            continue;
        };
        numbers.extend(batch.records.iter().map(|record| value(record).parse::<usize>().unwrap()));
    }
    writing.await.unwrap();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
}

pub async fn waits_without_records(lab: impl Lab) {
    let bus = lab.open().await;
    let mut reader = bus.read(&everything(Topic::Audit)).await.unwrap();
    let began = Instant::now();
    for _ in 0..3 {
        let batch = reader.next(Duration::from_millis(30)).await.unwrap();
        assert!(batch.records.is_empty());
    }
    assert!(began.elapsed() >= Duration::from_millis(90), "it waits while there is nothing");
    let mut nothing = bus.read(&[]).await.unwrap();
    assert_eq!(nothing.next(Duration::from_millis(5)).await.unwrap(), Batch::default());
}
