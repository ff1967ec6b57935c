//! `EventService`: takes events from edges that do not speak to Kafka themselves.

use crate::admission::{Admission, Call};
use crate::methods::PUBLISH;
use crate::metrics::Metrics;
use bytes::Bytes;
use prost::Message as _;
use std::sync::Arc;
use tidegate_access::{Edge, Principal};
use tidegate_bus::{Bus, MESSAGE_MAX_BYTES, Message, Topic};
use tidegate_domain::Event;
use tidegate_proto::{event_to_proto, v1};
use tidegate_runtime::error_line;
use tonic::{Request, Response, Status};

/// Most events in one request.
const MAX_EVENTS: usize = 1_000;

/// Writes edges' events to the log.
pub(crate) struct EventApi {
    /// The log.
    pub bus: Arc<dyn Bus>,
    /// Lets edges in.
    pub admission: Admission,
    /// What is counted.
    pub metrics: Metrics,
}

#[tonic::async_trait]
impl v1::event_service_server::EventService for EventApi {
    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::PublishResponse>, Status> {
        let call = self.admission.admit(&request, PUBLISH, "", "").await?;
        let events = request.into_inner().events;
        if events.len() > MAX_EVENTS {
            self.metrics.publishes_failed.inc();
            let count = events.len();
            return Err(Status::invalid_argument(format!("events has {count} entries; allowed: at most {MAX_EVENTS}")));
        }
        let foreign = |event: &v1::Event| !may_publish(&call.caller.principal, event);
        let foreigners = events.iter().filter(|event| foreign(event)).count();
        let (messages, rejected) = check(events, foreign);
        self.metrics.events_rejected.inc_by(rejected.len() as u64);
        if let Some(first) = rejected.first() {
            tracing::warn!(count = rejected.len(), first = first.reason, "events of an edge could not be taken");
        }
        if foreigners > 0 {
            self.tell_foreign(call, foreigners).await;
        }
        let written = messages.len();
        if written > 0 {
            // Until the answer the edge keeps them, and sends them again when it is this one.
            self.bus.append(Topic::Events, messages).await.map_err(|error| {
                self.metrics.publishes_failed.inc();
                Status::unavailable(format!("the events are not known to be durable: {}", error_line(&error)))
            })?;
        }
        self.metrics.events_published.inc_by(written as u64);
        Ok(Response::new(v1::PublishResponse { written: written as u32, rejected }))
    }
}

impl EventApi {
    /// Counts events of another edge, and tells the audit of them once for the batch.
    async fn tell_foreign(&self, call: Call, count: usize) {
        self.metrics.events_foreign.inc_by(count as u64);
        let mut record = call.record;
        record.allowed = false;
        record.result = format!("{count} events named another node or site than the certificate, and were not taken");
        self.admission.audit().note(record).await;
    }
}

/// Whether the caller may publish `event`: an edge publishes its own events only.
fn may_publish(principal: &Principal, event: &v1::Event) -> bool {
    let Principal::Edge(Edge { node, site, .. }) = principal else {
        return matches!(principal, Principal::Person(_));
    };
    let event_node = event.id.as_ref().map_or("", |id| &id.node);
    node.as_ref().is_none_or(|node| node == event_node) && site.as_ref().is_none_or(|site| *site == event.site)
}

/// The messages to write, in the order of the events, and what could not be taken.
fn check(events: Vec<v1::Event>, foreign: impl Fn(&v1::Event) -> bool) -> (Vec<Message>, Vec<v1::RejectedEvent>) {
    let mut messages = Vec::with_capacity(events.len());
    let mut rejected = Vec::new();
    for (index, event) in (0..).zip(events) {
        let message = if foreign(&event) {
            Err("the event names another node or site than the certificate".to_owned())
        } else {
            message(event)
        };
        match message {
            Ok(message) => messages.push(message),
            Err(reason) => rejected.push(v1::RejectedEvent { index, reason }),
        }
    }
    (messages, rejected)
}

/// What is written is the event as the domain understood it: within its bounds.
fn message(event: v1::Event) -> Result<Message, String> {
    let trace = event.trace_parent.parse().ok();
    let event = Event::try_from(event).map_err(|error| error.to_line())?;
    let key = Bytes::copy_from_slice(event.account.as_str().as_bytes());
    let value = event_to_proto(&event).encode_to_vec();
    let octets = key.len() + value.len();
    if octets > MESSAGE_MAX_BYTES {
        return Err(format!("the event has {octets} octets; allowed: at most {MESSAGE_MAX_BYTES}"));
    }
    Ok(Message::new(key, Some(value.into())).with_trace(trace))
}
