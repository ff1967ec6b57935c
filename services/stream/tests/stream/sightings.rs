//! A lock tells from where and with which subjects the account sent.

use crate::lab::{BEGIN_MS, event, partition, record, rules, unlock};
use prost::Message as _;
use tidegate_bus::{Record, Topic};
use tidegate_domain::Lock;
use tidegate_proto::v1;
use tidegate_stream::Output;

/// A message from an address, with a subject.
fn sent(offset: u64, last_octet: u8, subject: &str) -> Record {
    let at_ms = BEGIN_MS + offset.cast_signed();
    let plain = event(offset, "jo@example.org", offset + 1, at_ms, at_ms);
    let mut event = v1::Event::decode(plain.value.as_deref().unwrap()).unwrap();
    let Some(v1::event::Kind::Submission(submission)) = &mut event.kind else { panic!("{event:?}") };
    submission.client_address = vec![192, 0, 2, last_octet];
    subject.clone_into(&mut submission.subject);
    record(Topic::Events, offset, "jo@example.org", event.encode_to_vec(), at_ms)
}

fn lock(output: &Output) -> &Lock {
    output.states[0].status.lock().unwrap()
}

fn clients(lock: &Lock) -> Vec<(String, u32, i64)> {
    let clients = lock.clients.iter();
    clients.map(|client| (client.address.to_string(), client.messages, client.last_ms - BEGIN_MS)).collect()
}

#[test]
fn a_lock_tells_who_sent_since_the_last_clean_slate() {
    let mut partition = partition(&rules(), 0);
    let first: Vec<Record> = (0..3).map(|offset| sent(offset, 1, "Lunch")).collect();
    assert!(partition.events(&first).unwrap().states.is_empty());
    let output = partition.events(&[sent(3, 2, "Offer 1"), sent(4, 2, ""), sent(5, 2, "Offer 2")]).unwrap();
    assert_eq!(clients(lock(&output)), [("192.0.2.2".to_owned(), 3, 5), ("192.0.2.1".to_owned(), 3, 2)]);
    assert_eq!(lock(&output).subjects, ["Offer 1", "Offer 2"], "those of the batch");

    partition.command(&unlock(0, "jo@example.org", BEGIN_MS + 10));
    let again: Vec<Record> = (20..25).map(|offset| sent(offset, 3, "")).collect();
    let output = partition.events(&again).unwrap();
    assert_eq!(clients(lock(&output)), [("192.0.2.3".to_owned(), 5, 24)]);
    assert!(lock(&output).subjects.is_empty());
}
