//! Publishing events.

use crate::harness::Control;
use prost::Message as _;
use tidegate_bus::{Topic, partition_of};
use tidegate_proto::{event_from_proto, v1};

fn event(account: &str, sequence: u64) -> v1::Event {
    v1::Event {
        id: Some(v1::EventId { node: "mx1".into(), lane: v1::Lane::Live.into(), sequence }),
        site: "ams".into(),
        account: account.into(),
        time_ms: 1_700_000_000_000,
        trace_parent: String::new(),
        kind: Some(v1::event::Kind::Login(v1::Login {
            client_address: vec![203, 0, 113, 7],
            protocol: "submission".into(),
            success: true,
        })),
    }
}

#[tokio::test]
async fn what_is_answered_is_in_the_log_in_order_and_the_rest_is_named() {
    let control = Control::start(Vec::new()).await;
    let no_lane =
        v1::Event { id: Some(v1::EventId { node: "mx1".into(), ..Default::default() }), ..event("a@x.org", 2) };
    let events = vec![event("a@example.org", 1), event("", 9), no_lane, event("a@example.org", 2), event("b@x.org", 3)];
    let answer = control.events().publish(v1::PublishRequest { events }).await.unwrap().into_inner();
    assert_eq!(answer.written, 3);
    let indexes: Vec<u32> = answer.rejected.iter().map(|rejected| rejected.index).collect();
    assert_eq!(indexes, [1, 2]);
    assert!(answer.rejected[0].reason.contains("account"), "{answer:?}");
    assert!(answer.rejected[1].reason.contains("lane"), "{answer:?}");

    let records = control.records(Topic::Events).await;
    assert_eq!(records.len(), 3);
    for record in &records {
        assert_eq!(record.partition, partition_of(&record.key, 4));
    }
    let of_a: Vec<u64> = records
        .iter()
        .filter(|record| &record.key[..] == b"a@example.org")
        .map(|record| event_from_proto(record.value.as_ref().unwrap()).unwrap().id.sequence)
        .collect();
    assert_eq!(of_a, [1, 2]);
    assert!((control.metric("tidegate_control_events_published_total") - 3.0).abs() < 0.1);
    assert!((control.metric("tidegate_control_events_rejected_total") - 2.0).abs() < 0.1);
}

#[tokio::test]
async fn more_than_a_thousand_events_are_refused_as_a_whole() {
    let control = Control::start(Vec::new()).await;
    let events = (0..1_001).map(|n| event("a@example.org", n)).collect();
    let status = control.events().publish(v1::PublishRequest { events }).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert_eq!(status.message(), "events has 1001 entries; allowed: at most 1000");
    assert!(control.records(Topic::Events).await.is_empty());
    let empty = control.events().publish(v1::PublishRequest::default()).await.unwrap().into_inner();
    assert_eq!((empty.written, empty.rejected.len()), (0, 0));
}

#[tokio::test]
async fn an_event_too_large_for_the_log_is_rejected_and_does_not_hold_up_the_others() {
    let control = Control::start(Vec::new()).await;
    let mut large = event("a@example.org", 1);
    large.kind = Some(v1::event::Kind::Submission(v1::Submission {
        recipient_domains: vec!["d".repeat(1_024); 1_000],
        ..Default::default()
    }));
    assert!(large.encoded_len() > 1_000_000);
    let events = vec![large, event("a@example.org", 2)];
    let answer = control.events().publish(v1::PublishRequest { events }).await.unwrap().into_inner();
    assert_eq!((answer.written, answer.rejected.len()), (1, 1));
    assert!(answer.rejected[0].reason.contains("octets"), "{answer:?}");
}

#[tokio::test]
async fn a_log_that_is_closed_is_said_so() {
    let control = Control::start(Vec::new()).await;
    control.bus.close().await;
    let events = vec![event("a@example.org", 1)];
    let status = control.events().publish(v1::PublishRequest { events }).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(status.message().starts_with("the events are not known to be durable"), "{status}");
}
