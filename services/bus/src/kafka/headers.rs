//! Record headers: the traced step that a record comes from, in W3C Trace Context's header as OpenTelemetry's clients
//! write it.

use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use tidegate_runtime::traces::{TRACEPARENT, TraceContext};

/// The headers of a record that comes from a traced step.
pub(super) fn headers(trace: TraceContext) -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(1).insert(Header { key: TRACEPARENT, value: Some(&trace.to_string()) })
}

/// The traced step that a record comes from; none when it says nothing of one, or something else.
pub(super) fn trace(message: &BorrowedMessage<'_>) -> Option<TraceContext> {
    let header = message.headers()?.iter().find(|header| header.key == TRACEPARENT)?;
    TraceContext::from_header(header.value?)
}
