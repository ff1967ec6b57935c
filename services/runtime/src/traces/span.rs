//! One step of a trace, and how OTLP says it.

use super::TraceContext;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as otlp;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

/// The part that a step plays between processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Hands something over: a record, a state.
    Producer,
    /// Takes something that was handed over.
    Consumer,
    /// Answers somebody.
    Server,
}

/// A step that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    name: &'static str,
    role: Role,
    context: TraceContext,
    parent: Option<TraceContext>,
    start_ms: f64,
    end_ms: f64,
    attributes: Vec<KeyValue>,
    error: Option<String>,
}

impl Span {
    /// The step `context`, which followed from `parent` and took from `start_ms` to `end_ms` (milliseconds since 1970
    /// UTC). A clock that was set back in between makes it a moment.
    pub fn new(
        name: &'static str,
        role: Role,
        context: TraceContext,
        parent: Option<TraceContext>,
        (start_ms, end_ms): (f64, f64),
    ) -> Self {
        let end_ms = end_ms.max(start_ms);
        Self { name, role, context, parent, start_ms, end_ms, attributes: Vec::new(), error: None }
    }

    /// With a text about it; an empty one is left out.
    #[must_use]
    pub fn text(self, key: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.with(key, any_value::Value::StringValue(value.to_owned())) }
    }

    /// With a number about it.
    #[must_use]
    pub fn number(self, key: &str, value: u64) -> Self {
        self.with(key, any_value::Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    /// With the place of a record that it is about, as the messaging conventions of OpenTelemetry name it.
    #[must_use]
    pub fn record(self, topic: &str, partition: u32, offset: u64) -> Self {
        self.text("messaging.destination.name", topic)
            .text("messaging.destination.partition.id", &partition.to_string())
            .number("messaging.kafka.offset", offset)
    }

    /// It went wrong.
    #[must_use]
    pub fn failed(self, error: &str) -> Self {
        Self { error: Some(error.to_owned()), ..self }
    }

    fn with(mut self, key: &str, value: any_value::Value) -> Self {
        self.attributes.push(attribute(key, value));
        self
    }

    pub(super) fn into_otlp(self) -> otlp::Span {
        let kind = match self.role {
            Role::Producer => SpanKind::Producer,
            Role::Consumer => SpanKind::Consumer,
            Role::Server => SpanKind::Server,
        };
        let status = self.error.map(|message| otlp::Status { message, code: StatusCode::Error.into() });
        otlp::Span {
            trace_id: self.context.trace_id().to_vec(),
            span_id: self.context.span_id().to_vec(),
            parent_span_id: self.parent.map(|parent| parent.span_id().to_vec()).unwrap_or_default(),
            // It is recorded (bit 0), and it is known whether the parent is in another process: it is (bits 8 and 9).
            flags: if self.parent.is_some() { 0x301 } else { 0x101 },
            name: self.name.to_owned(),
            kind: kind.into(),
            start_time_unix_nano: nanoseconds(self.start_ms),
            end_time_unix_nano: nanoseconds(self.end_ms),
            attributes: self.attributes,
            status,
            ..otlp::Span::default()
        }
    }
}

pub(super) fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// To the microsecond, which is what a `f64` has of milliseconds in this century.
fn nanoseconds(ms: f64) -> u64 {
    (ms * 1_000.0).round().max(0.0) as u64 * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn otlp_says_what_the_span_says() {
        let parent = TraceContext::new_trace();
        let context = parent.new_span();
        let span =
            Span::new("decide", Role::Producer, context, Some(parent), (1_800_000_000_000.25, 1_800_000_000_001.0))
                .text("tidegate.rule", "burst")
                .text("tidegate.actor", "")
                .record("events", 3, 77)
                .failed("fenced")
                .into_otlp();
        assert_eq!((span.trace_id, span.parent_span_id), (parent.trace_id().to_vec(), parent.span_id().to_vec()));
        assert_eq!(span.span_id, context.span_id().to_vec());
        assert_eq!(span.start_time_unix_nano, 1_800_000_000_000_250_000);
        assert_eq!(span.end_time_unix_nano, 1_800_000_000_001_000_000);
        assert_eq!(span.kind, i32::from(SpanKind::Producer));
        let keys: Vec<_> = span.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        let place = ["messaging.destination.name", "messaging.destination.partition.id", "messaging.kafka.offset"];
        assert_eq!(keys, [&["tidegate.rule"][..], &place].concat());
        assert_eq!(span.status.unwrap().message, "fenced");
    }

    #[test]
    fn a_clock_that_went_back_makes_it_a_moment() {
        let span = Span::new("apply", Role::Consumer, TraceContext::new_trace(), None, (5.0, 3.0)).into_otlp();
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (5_000_000, 5_000_000));
        assert!(span.parent_span_id.is_empty());
    }
}
