//! What a span is called by, and how it travels: W3C Trace Context, level 1.

use std::fmt;
use std::str::FromStr;

/// Name of the record header, and of the HTTP header, that it travels in.
pub const TRACEPARENT: &str = "traceparent";

/// A span of a trace that is recorded. What is not recorded has no context here, and nothing travels.
///
/// As text it is a `traceparent` (W3C Trace Context, 3.2): `00-<trace id>-<span id>-01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
}

/// A text is no `traceparent` of a trace that is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no traceparent of a recorded trace; allowed: 00-<32 hexadecimal digits>-<16 hexadecimal digits>-01")]
pub struct NoTraceContext;

impl TraceContext {
    /// The first span of a new trace.
    pub fn new_trace() -> Self {
        Self { trace_id: rand::random_range(1..=u128::MAX), span_id: new_span_id() }
    }

    /// A new span of the same trace.
    pub fn new_span(self) -> Self {
        Self { span_id: new_span_id(), ..self }
    }

    /// The trace's 16 octets.
    pub fn trace_id(self) -> [u8; 16] {
        self.trace_id.to_be_bytes()
    }

    /// The span's 8 octets.
    pub fn span_id(self) -> [u8; 8] {
        self.span_id.to_be_bytes()
    }

    /// From a header's octets; none when it is not one, or the trace is not recorded.
    pub fn from_header(octets: &[u8]) -> Option<Self> {
        std::str::from_utf8(octets).ok()?.parse().ok()
    }
}

fn new_span_id() -> u64 {
    rand::random_range(1..=u64::MAX)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", self.trace_id, self.span_id)
    }
}

impl FromStr for TraceContext {
    type Err = NoTraceContext;

    fn from_str(text: &str) -> Result<Self, NoTraceContext> {
        let mut fields = text.split('-');
        let mut hex = |digits: usize| {
            let is_digit = |octet: u8| octet.is_ascii_digit() || (b'a'..=b'f').contains(&octet);
            fields.next().filter(|field| field.len() == digits && field.bytes().all(is_digit)).ok_or(NoTraceContext)
        };
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        // A later version may have more fields behind these; ff is none.
        if version == "ff" || (version == "00" && fields.next().is_some()) {
            return Err(NoTraceContext);
        }
        let trace_id = u128::from_str_radix(trace, 16).map_err(|_| NoTraceContext)?;
        let span_id = u64::from_str_radix(span, 16).map_err(|_| NoTraceContext)?;
        let is_recorded = u8::from_str_radix(flags, 16).map_err(|_| NoTraceContext)? & 1 == 1;
        if trace_id == 0 || span_id == 0 || !is_recorded { Err(NoTraceContext) } else { Ok(Self { trace_id, span_id }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_a_traceparent() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context: TraceContext = text.parse().unwrap();
        assert_eq!(context.to_string(), text);
        assert_eq!(context.span_id(), [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        assert_eq!(context.trace_id()[..2], [0x0a, 0xf7]);
        let child = context.new_span();
        assert!(child.trace_id() == context.trace_id() && child.span_id() != context.span_id());
        assert_ne!(TraceContext::new_trace().trace_id(), TraceContext::new_trace().trace_id());
        // Of a later version, with more behind it, and with flags that are not known here.
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-more";
        assert_eq!(later.parse(), Ok(context));
    }

    #[test]
    fn what_is_none_is_told() {
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(NoTraceContext), "{text}");
        }
        assert_eq!(TraceContext::from_header(&[0xff, 0xfe]), None);
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_harm(octets in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(context) = TraceContext::from_header(&octets) {
                prop_assert_eq!(TraceContext::from_header(context.to_string().as_bytes()), Some(context));
            }
        }
    }
}
