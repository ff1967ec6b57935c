//! Owning a partition.

use crate::lab::{Lab, everything, from, key_of, message, read, value};
use std::time::Duration;
use tidegate_bus::{BusError, Topic};

pub async fn commits_records_and_positions_together(lab: impl Lab) {
    let bus = lab.open().await;
    let mut owner = bus.own("stream", 1).await.unwrap();
    assert_eq!(owner.committed(Topic::Events).await.unwrap(), None);
    let mut reader = bus.read(&everything(Topic::Accounts)).await.unwrap();
    for n in 1..=5_u64 {
        let messages = vec![
            (Topic::Accounts, message(&key_of(1, 0), &format!("a{n}"))),
            (Topic::Accounts, message(&key_of(1, 1), &format!("b{n}"))),
            (Topic::Audit, message(&key_of(1, 0), &format!("c{n}"))),
        ];
        let places = owner.commit(messages, vec![(Topic::Events, n * 10), (Topic::Commands, n)]).await.unwrap();
        assert_eq!(places.len(), 3);
        let records = read(&mut *reader, 2).await;
        assert_eq!(records.iter().map(value).collect::<Vec<_>>(), [format!("a{n}"), format!("b{n}")]);
        for (record, place) in records.iter().zip(&places) {
            assert_eq!((record.partition, record.offset), (place.partition, place.offset));
        }
        assert_eq!(owner.committed(Topic::Events).await.unwrap(), Some(n * 10));
        assert_eq!(owner.committed(Topic::Commands).await.unwrap(), Some(n));
        assert_eq!(owner.committed(Topic::Audit).await.unwrap(), None);
        let mut audit = bus.read(&[from(Topic::Audit, 1, places[2].offset)]).await.unwrap();
        assert_eq!(value(&read(&mut *audit, 1).await[0]), format!("c{n}"));
    }
}

pub async fn fences_the_owner_before(lab: impl Lab) {
    let bus = lab.open().await;
    let mut first = bus.own("stream", 2).await.unwrap();
    first.commit(vec![(Topic::Accounts, message(&key_of(2, 0), "first"))], vec![(Topic::Events, 1)]).await.unwrap();
    // As another process would, with its own connections.
    let mut second = bus.own("stream", 2).await.unwrap();
    assert_eq!(second.committed(Topic::Events).await.unwrap(), Some(1));
    for _ in 0..2 {
        let stale = vec![(Topic::Accounts, message(&key_of(2, 0), "stale"))];
        let error = first.commit(stale, vec![(Topic::Events, 77)]).await.unwrap_err();
        assert!(matches!(error, BusError::Fenced { partition: 2 }), "{error:?}");
    }
    second.commit(vec![(Topic::Accounts, message(&key_of(2, 0), "second"))], vec![(Topic::Events, 2)]).await.unwrap();
    assert_eq!(second.committed(Topic::Events).await.unwrap(), Some(2));
    let mut reader = bus.read(&[from(Topic::Accounts, 2, 0)]).await.unwrap();
    let records = read(&mut *reader, 2).await;
    assert_eq!(records.iter().map(value).collect::<Vec<_>>(), ["first", "second"]);
    assert!(reader.next(Duration::from_millis(20)).await.unwrap().records.is_empty());
}

pub async fn groups_do_not_fence_each_other(lab: impl Lab) {
    let bus = lab.open().await;
    let mut one = bus.own("stream", 0).await.unwrap();
    let mut other = bus.own("history", 0).await.unwrap();
    let mut neighbour = bus.own("stream", 1).await.unwrap();
    one.commit(Vec::new(), vec![(Topic::Events, 5)]).await.unwrap();
    other.commit(Vec::new(), vec![(Topic::Events, 6)]).await.unwrap();
    neighbour.commit(Vec::new(), vec![(Topic::Events, 7)]).await.unwrap();
    assert_eq!(one.committed(Topic::Events).await.unwrap(), Some(5));
    assert_eq!(other.committed(Topic::Events).await.unwrap(), Some(6));
    assert_eq!(neighbour.committed(Topic::Events).await.unwrap(), Some(7));
}

pub async fn positions_survive_a_restart(lab: impl Lab) {
    let bus = lab.open().await;
    let mut owner = bus.own("stream", 0).await.unwrap();
    let messages = vec![(Topic::Accounts, message(&key_of(0, 0), "locked"))];
    owner.commit(messages, vec![(Topic::Events, 41), (Topic::Commands, 7)]).await.unwrap();
    drop(owner);
    drop(bus);
    let bus = lab.open().await;
    let mut owner = bus.own("stream", 0).await.unwrap();
    assert_eq!(owner.committed(Topic::Events).await.unwrap(), Some(41));
    assert_eq!(owner.committed(Topic::Commands).await.unwrap(), Some(7));
    let mut reader = bus.read(&[from(Topic::Accounts, 0, 0)]).await.unwrap();
    assert_eq!(value(&read(&mut *reader, 1).await[0]), "locked");
}

pub async fn the_log_stays_the_same_after_a_restart(lab: impl Lab) {
    let bus = lab.open().await;
    let log_id = bus.log_id().to_owned();
    assert!(!log_id.is_empty());
    let place = bus.append(Topic::Events, vec![message(&key_of(0, 0), "1")]).await.unwrap()[0];
    drop(bus);
    let bus = lab.open().await;
    assert_eq!(bus.log_id(), log_id);
    let again = bus.append(Topic::Events, vec![message(&key_of(0, 0), "2")]).await.unwrap()[0];
    assert!(again.offset > place.offset);
    let mut reader = bus.read(&[from(Topic::Events, 0, 0)]).await.unwrap();
    assert_eq!(read(&mut *reader, 2).await.iter().map(value).collect::<Vec<_>>(), ["1", "2"]);
}

pub async fn an_owner_refuses_keys_of_others(lab: impl Lab) {
    let bus = lab.open().await;
    let mut owner = bus.own("stream", 0).await.unwrap();
    let messages =
        vec![(Topic::Accounts, message(&key_of(0, 0), "mine")), (Topic::Accounts, message(&key_of(1, 0), "theirs"))];
    let error = owner.commit(messages, vec![(Topic::Events, 1)]).await.unwrap_err();
    assert!(error.to_string().contains("belongs to partition 1, not to 0"), "{error}");
    assert_eq!(owner.committed(Topic::Events).await.unwrap(), None);
    // It can go on.
    owner.commit(vec![(Topic::Accounts, message(&key_of(0, 0), "mine"))], Vec::new()).await.unwrap();
}

pub async fn commits_positions_alone(lab: impl Lab) {
    let bus = lab.open().await;
    let mut owner = bus.own("stream", 0).await.unwrap();
    assert_eq!(owner.commit(Vec::new(), vec![(Topic::Events, 3)]).await.unwrap(), []);
    assert_eq!(owner.commit(Vec::new(), Vec::new()).await.unwrap(), []);
    assert_eq!(owner.committed(Topic::Events).await.unwrap(), Some(3));
    assert_eq!(owner.commit(Vec::new(), vec![(Topic::Events, 2)]).await.unwrap(), []);
    assert_eq!(owner.committed(Topic::Events).await.unwrap(), Some(2), "a position may go back");
}
