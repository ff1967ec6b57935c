//! A day of mail through an embedded log that keeps half an hour of it.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tidegate_bus::{Bus, EmbeddedBus, EmbeddedConfig, Message, ReadFrom, Topic};

const BEGIN_MS: i64 = 1_800_000_000_000;
const MINUTE_MS: i64 = 60_000;
const DAY_MINUTES: i64 = 24 * 60;
/// One message a second, as large as an event of a message with a few recipients.
const EVENTS_A_MINUTE: u64 = 60;
const EVENT_OCTETS: usize = 500;
const KEPT_MINUTES: u64 = 30;
/// SQLite's write-ahead log, which begins again at 4 MiB and the commit that passed them.
const WRITE_AHEAD_OCTETS: u64 = 5 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_traffic_leaves_the_file_small_and_readers_undisturbed() {
    let directory = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicI64::new(BEGIN_MS));
    let clock = {
        let now_ms = Arc::clone(&now_ms);
        Arc::new(move || now_ms.load(Ordering::Relaxed))
    };
    let config = EmbeddedConfig {
        directory: directory.path().to_owned(),
        partitions: 1,
        events_max_age_s: KEPT_MINUTES * 60,
        ..EmbeddedConfig::default()
    };
    let bus = EmbeddedBus::open_with_clock(config, clock).unwrap();
    let from = [ReadFrom { topic: Topic::Events, partition: 0, offset: 0 }];
    // One reader keeps up; the other begins again where it stopped each time, like a worker that restarts.
    let mut steady = bus.read(&from).await.unwrap();
    let mut restarted_at = 0;
    let (mut read, mut largest) = (0, 0);
    let mut after_an_hour = 0;
    for minute in 0..DAY_MINUTES {
        now_ms.store(BEGIN_MS + minute * MINUTE_MS, Ordering::Relaxed);
        let messages = (0..EVENTS_A_MINUTE).map(|number| event(minute.unsigned_abs() * EVENTS_A_MINUTE + number));
        bus.append(Topic::Events, messages.collect()).await.unwrap();
        bus.maintain().await;
        let expected = (minute.unsigned_abs() + 1) * EVENTS_A_MINUTE;
        while read < expected {
            for record in steady.next(Duration::from_secs(10)).await.unwrap().records {
                assert_eq!((record.offset, &record.value), (read, &event(read).value), "each once, in order");
                read += 1;
            }
        }
        if minute % 10 == 9 {
            let mut restarted = bus.read(&[ReadFrom { offset: restarted_at, ..from[0] }]).await.unwrap();
            while restarted_at < expected {
                for record in restarted.next(Duration::from_secs(10)).await.unwrap().records {
                    assert_eq!(record.offset, restarted_at);
                    restarted_at += 1;
                }
            }
        }
        let size = octets_in(directory.path());
        largest = largest.max(size);
        if minute == 60 {
            after_an_hour = size;
        }
    }
    assert_eq!(read, DAY_MINUTES.unsigned_abs() * EVENTS_A_MINUTE);
    let bounds = bus.bounds(Topic::Events, 0).await.unwrap();
    let kept = bounds.next - bounds.first;
    assert!((EVENTS_A_MINUTE * KEPT_MINUTES..=EVENTS_A_MINUTE * (KEPT_MINUTES + 2)).contains(&kept), "{kept} kept");
    // It does not grow with the day: a day's events are 48 times as many as are kept.
    let allowed = 2 * kept * EVENT_OCTETS as u64 + WRITE_AHEAD_OCTETS;
    assert!(largest < allowed, "the files reached {largest} octets, {allowed} are allowed");
    assert!(largest <= 2 * after_an_hour, "{after_an_hour} octets after an hour, {largest} at most");
}

fn event(number: u64) -> Message {
    let mut value = format!("event {number} ").into_bytes();
    value.resize(EVENT_OCTETS, b'.');
    Message::new(Bytes::from_static(b"jo@example.org"), Some(value.into()))
}

/// What the log takes on the disk, with SQLite's own log beside it.
fn octets_in(directory: &Path) -> u64 {
    directory.read_dir().unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}
