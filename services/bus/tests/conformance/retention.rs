//! What is gone, and what stays.

use crate::lab::{Lab, from, key_of, message, read, read_until, value};
use std::time::Duration;
use tidegate_bus::{Bounds, Topic};

pub async fn an_empty_log_has_bounds(lab: impl Lab) {
    let bus = lab.open().await;
    for topic in Topic::ALL {
        assert_eq!(bus.bounds(topic, 0).await.unwrap(), Bounds { first: 0, next: 0 });
    }
    bus.append(Topic::Events, vec![message(&key_of(0, 0), "1"), message(&key_of(0, 1), "2")]).await.unwrap();
    assert_eq!(bus.bounds(Topic::Events, 0).await.unwrap(), Bounds { first: 0, next: 2 });
    assert_eq!(bus.bounds(Topic::Events, 1).await.unwrap(), Bounds { first: 0, next: 0 });
}

pub async fn an_emptied_partition_goes_on_where_it_was(lab: impl Lab) {
    let bus = lab.open().await;
    let key = key_of(1, 0);
    bus.append(Topic::Events, vec![message(&key, "1"), message(&key, "2")]).await.unwrap();
    let mut waiting = bus.read(&[from(Topic::Events, 1, 0)]).await.unwrap();
    read(&mut *waiting, 2).await;
    lab.expire(Topic::Events, 1).await;
    assert_eq!(bus.bounds(Topic::Events, 1).await.unwrap(), Bounds { first: 2, next: 2 });
    assert_eq!(bus.offset_for_time(Topic::Events, 1, 0).await.unwrap(), 2);
    // Where to read on is told although there is no record to read.
    let mut reader = bus.read(&[from(Topic::Events, 1, 0)]).await.unwrap();
    let gone = read_until(&mut *reader, |_, reached| reached.contains(&from(Topic::Events, 1, 2))).await;
    assert_eq!(gone, []);
    let place = bus.append(Topic::Events, vec![message(&key, "3")]).await.unwrap()[0];
    assert_eq!(place.offset, 2);
    assert_eq!(value(&read(&mut *reader, 1).await[0]), "3");
    assert_eq!(value(&read(&mut *waiting, 1).await[0]), "3");
    let mut late = bus.read(&[from(Topic::Events, 1, 1)]).await.unwrap();
    assert_eq!(value(&read(&mut *late, 1).await[0]), "3");
}

pub async fn compaction_keeps_the_newest(lab: impl Lab) {
    let bus = lab.open().await;
    let (one, two) = (key_of(0, 0), key_of(0, 1));
    let mut owner = bus.own("stream", 0).await.unwrap();
    for n in 0..10 {
        let messages = vec![(Topic::Accounts, message(&one, &format!("one {n}")))];
        owner.commit(messages, vec![(Topic::Events, n)]).await.unwrap();
    }
    owner.commit(vec![(Topic::Accounts, message(&two, "two"))], Vec::new()).await.unwrap();
    lab.compact(0).await;
    let end = bus.bounds(Topic::Accounts, 0).await.unwrap().next;
    let mut reader = bus.read(&[from(Topic::Accounts, 0, 0)]).await.unwrap();
    let records = read_until(&mut *reader, |_, reached| reached.first().is_some_and(|at| at.offset >= end)).await;
    // What had to be written to have it compacted does not count.
    let newest: Vec<_> = records.iter().map(value).filter(|value| *value != "filler").collect();
    assert_eq!(newest, ["one 9", "two"]);
}

pub async fn a_position_past_the_end_begins_again(lab: impl Lab) {
    let bus = lab.open().await;
    bus.append(Topic::Events, vec![message(&key_of(0, 0), "1")]).await.unwrap();
    let mut reader = bus.read(&[from(Topic::Events, 0, 1_000), from(Topic::Commands, 0, 0)]).await.unwrap();
    assert_eq!(value(&read(&mut *reader, 1).await[0]), "1");
    assert!(reader.next(Duration::from_millis(20)).await.unwrap().records.is_empty());
    bus.append(Topic::Events, vec![message(&key_of(0, 0), "2")]).await.unwrap();
    assert_eq!(value(&read(&mut *reader, 1).await[0]), "2");
}
