//! Sends one batch and says whether it is settled.

use crate::metrics::{LaneLabel, Metrics};
use crate::steps::Steps;
use std::sync::Arc;
use std::time::Duration;
use tidegate_bus::{BusError, Publisher};
use tidegate_proto::v1;
use tidegate_runtime::error_line;

/// Sends batches of events.
pub(crate) struct Sender {
    publisher: Arc<dyn Publisher>,
    timeout: Duration,
    metrics: Metrics,
    steps: Arc<Steps>,
}

/// It is not known whether the events are in the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsettled {
    /// The publisher failed.
    #[error("the events are not known to be in the log")]
    Failed(#[from] BusError),
    /// The publisher did not answer.
    #[error("the events were not durable within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

impl Sender {
    /// Sends over `publisher`; a batch may take `timeout`.
    pub fn new(publisher: Arc<dyn Publisher>, timeout: Duration, metrics: Metrics, steps: Arc<Steps>) -> Self {
        Self { publisher, timeout, metrics, steps }
    }

    /// Sends `events`. When that went well, each is durable, or was counted as one that the log will never take.
    ///
    /// When a batch is refused as a whole, for what one of its events is, it is halved until that event is alone.
    pub async fn send(&self, events: &[v1::Event], lane: &LaneLabel) -> Result<(), Unsettled> {
        // Parts to send, the next one last.
        let mut parts = vec![events];
        while let Some(part) = parts.pop() {
            match self.send_part(part, lane).await {
                Ok(()) => {}
                Err(Unsettled::Failed(error)) if is_permanent(&error) => {
                    if let [_] = part {
                        self.reject(&error_line(&error), 1);
                    } else {
                        let (first, second) = part.split_at(part.len() / 2);
                        parts.extend([second, first]);
                    }
                }
                Err(unsettled) => {
                    self.metrics.publish_failures.get_or_create(lane).inc();
                    return Err(unsettled);
                }
            }
        }
        Ok(())
    }

    /// Notes that `events` are sent again.
    pub fn note_resent(&self, events: usize, lane: &LaneLabel) {
        self.metrics.resent.get_or_create(lane).inc_by(events as u64);
    }

    async fn send_part(&self, events: &[v1::Event], lane: &LaneLabel) -> Result<(), Unsettled> {
        let publishing = self.publisher.publish(events.to_vec());
        let published =
            tokio::time::timeout(self.timeout, publishing).await.map_err(|_| Unsettled::TimedOut(self.timeout))??;
        self.metrics.published.get_or_create(lane).inc_by(published.written as u64);
        self.steps.published(events, &published);
        if let Some(first) = published.rejected.first() {
            self.reject(&first.reason, published.rejected.len() as u64);
        }
        Ok(())
    }

    fn reject(&self, reason: &str, events: u64) {
        self.metrics.rejected.inc_by(events);
        tracing::warn!(reason, events, "the log will never take these events");
    }
}

/// Whether the same events would be refused again, for what they are.
fn is_permanent(error: &BusError) -> bool {
    match error {
        BusError::Message { .. } => true,
        BusError::Grpc { status, .. } => {
            matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::OutOfRange)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::metrics::LIVE;
    use async_trait::async_trait;
    use parking_lot::Mutex;
    use prometheus_client::registry::Registry;
    use tidegate_bus::Published;
    use tidegate_runtime::traces::Tracer;

    /// Refuses every batch that has the event numbered 3.
    #[derive(Default)]
    struct Picky(Mutex<Vec<u64>>);

    #[async_trait]
    impl Publisher for Picky {
        async fn publish(&self, events: Vec<v1::Event>) -> Result<Published, BusError> {
            let numbers: Vec<_> = events.iter().filter_map(|event| event.id.as_ref()).map(|id| id.sequence).collect();
            if numbers.contains(&3) {
                return Err(BusError::Message { topic: "events".into(), problem: "too large".into() });
            }
            self.0.lock().extend(&numbers);
            Ok(Published { written: numbers.len(), rejected: Vec::new() })
        }
    }

    #[tokio::test]
    async fn an_event_that_is_never_taken_does_not_hold_up_the_others() {
        let metrics = Metrics::register(&mut Registry::default());
        let picky = Arc::new(Picky::default());
        let publisher = Arc::clone(&picky) as Arc<dyn Publisher>;
        let steps = Arc::new(Steps::new(Tracer::off(), "a", "b", Clock::system()));
        let sender = Sender::new(publisher, Duration::from_secs(5), metrics.clone(), steps);
        let event = |sequence| v1::Event {
            id: Some(v1::EventId { node: "a".into(), lane: v1::Lane::Live.into(), sequence }),
            ..v1::Event::default()
        };
        let events: Vec<_> = (1..=7).map(event).collect();
        sender.send(&events, &LIVE).await.unwrap();
        assert_eq!(*picky.0.lock(), [1, 2, 4, 5, 6, 7]);
        assert_eq!((metrics.rejected.get(), metrics.published.get_or_create(&LIVE).get()), (1, 6));
    }
}
