//! Publishes straight to a log.

use super::{Published, Publisher, Rejected};
use crate::limits::check;
use crate::{Bus, BusError, Message, Topic};
use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use std::sync::Arc;
use tidegate_proto::v1;

/// Writes events to the topic `events` of a log, keyed by account.
#[derive(Clone)]
pub struct BusPublisher {
    bus: Arc<dyn Bus>,
}

impl BusPublisher {
    /// Publishes to `bus`.
    pub fn new(bus: Arc<dyn Bus>) -> Self {
        Self { bus }
    }
}

#[async_trait]
impl Publisher for BusPublisher {
    async fn publish(&self, events: Vec<v1::Event>) -> Result<Published, BusError> {
        let mut published = Published::default();
        let mut messages = Vec::with_capacity(events.len());
        for (index, event) in events.into_iter().enumerate() {
            match message_of(event) {
                Ok(message) => messages.push(message),
                Err(reason) => published.rejected.push(Rejected { index, reason }),
            }
        }
        if !messages.is_empty() {
            published.written = self.bus.append(Topic::Events, messages).await?.len();
        }
        Ok(published)
    }
}

/// The record of an event, or why the stream could make nothing of it.
fn message_of(mut event: v1::Event) -> Result<Message, String> {
    let trace = std::mem::take(&mut event.trace_parent).parse().ok();
    let value = event.encode_to_vec();
    let event = tidegate_domain::Event::try_from(event).map_err(|error| error.to_string())?;
    let key = Bytes::copy_from_slice(event.account.as_str().as_bytes());
    let message = Message::new(key, Some(Bytes::from(value))).with_trace(trace);
    check(Topic::Events.suffix(), std::slice::from_ref(&message)).map_err(|error| error.to_string())?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EmbeddedBus, EmbeddedConfig, ReadFrom, partition_of};
    use std::time::Duration;
    use tidegate_runtime::traces::TraceContext;

    fn event(account: &str, sequence: u64) -> v1::Event {
        v1::Event {
            id: Some(v1::EventId { node: "mx1".to_owned(), lane: v1::Lane::Live.into(), sequence }),
            site: "hamburg".to_owned(),
            account: account.to_owned(),
            time_ms: 1_800_000_000_000,
            trace_parent: String::new(),
            kind: Some(v1::event::Kind::Login(v1::Login {
                client_address: vec![192, 0, 2, 1],
                protocol: "imap".to_owned(),
                success: true,
            })),
        }
    }

    #[tokio::test]
    async fn writes_what_is_an_event_and_names_what_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { directory: directory.path().to_owned(), ..EmbeddedConfig::default() };
        let bus = EmbeddedBus::open(config).unwrap();
        let publisher = BusPublisher::new(bus.clone());
        let trace = TraceContext::new_trace();
        let good = event("jo@example.org", 1);
        let traced = v1::Event { trace_parent: trace.to_string(), ..good.clone() };
        let no_id = v1::Event { id: None, ..event("jo@example.org", 2) };
        let no_account = event("", 3);
        let published = publisher.publish(vec![no_id, traced, no_account]).await.unwrap();
        assert_eq!(published.written, 1);
        assert_eq!(published.rejected.iter().map(|rejected| rejected.index).collect::<Vec<_>>(), [0, 2]);
        assert!(published.rejected[0].reason.contains("id"), "{published:?}");
        let partition = partition_of(b"jo@example.org", bus.partitions());
        let mut reader = bus.read(&[ReadFrom { topic: Topic::Events, partition, offset: 0 }]).await.unwrap();
        let batch = reader.next(Duration::from_secs(10)).await.unwrap();
        assert_eq!(batch.records.len(), 1);
        assert_eq!(batch.records[0].key, "jo@example.org");
        assert_eq!(v1::Event::decode(batch.records[0].value.clone().unwrap()).unwrap(), good);
        assert_eq!(batch.records[0].trace, Some(trace));
        assert_eq!(publisher.publish(Vec::new()).await.unwrap(), Published::default());
    }
}
