//! Traces for OpenTelemetry: from a message, over the decision that it led to, to each edge that refuses.
//!
//! Steps are told when they are over, from what the services know anyway; nothing is held open, and nothing waits for
//! the collector. When it is away or slow, spans are dropped and counted.

mod config;
mod context;
mod exporter;
mod remembered;
mod span;

pub use config::TracesConfig;
pub use context::{NoTraceContext, TRACEPARENT, TraceContext};
pub use exporter::TraceExporter;
pub use remembered::{MAX_REMEMBERED, Remembered};
pub use span::{Role, Span};

use crate::tls::TlsError;
use exporter::Queued;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Takes the spans of one service. Clones share their queue.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<On>);

#[derive(Debug, Clone)]
struct On {
    service: &'static str,
    queue: mpsc::Sender<Queued>,
    sample_ratio: f64,
    accounts: bool,
    spans: Spans,
}

/// Spans by what became of them.
#[derive(Debug, Clone, Default)]
struct Spans(Family<Outcome, Counter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

/// Why there can be no traces.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// A file of `tls` cannot be used.
    #[error("setting up TLS for the collector")]
    Tls(#[from] TlsError),
    /// The endpoint is no address.
    #[error("using {endpoint:?} as the collector's address")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

impl Tracer {
    /// Takes nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// A tracer for the collector of `config`, and what sends its spans there, to be run beside; none: there are no
    /// traces. `instance` tells this process from others of its kind. Metrics are named `tidegate_traces_*`. It must be
    /// called on a tokio runtime. It is not connected yet: a collector that is away is tried again.
    ///
    /// # Errors
    /// When the endpoint or the certificates cannot be used.
    pub fn new(
        config: &TracesConfig,
        instance: &str,
        registry: &mut Registry,
    ) -> Result<(Self, Option<TraceExporter>), TracesError> {
        let Some(endpoint) = &config.endpoint else { return Ok((Self::off(), None)) };
        let spans = Spans::default();
        registry.sub_registry_with_prefix("tidegate_traces").register(
            "spans",
            "Spans, by what became of them: exported; dropped: the queue was full; failed: the collector did not take them",
            spans.0.clone(),
        );
        let (queue, queued) = mpsc::channel(config.queue_max_spans);
        let exporter = TraceExporter::new(config, endpoint, instance, queued, spans.clone())?;
        let (sample_ratio, accounts) = (config.sample_ratio, config.accounts);
        Ok((Self(Some(On { service: "tidegate", queue, sample_ratio, accounts, spans })), Some(exporter)))
    }

    /// The same queue for the service that traces call `service`.
    #[must_use]
    pub fn of(&self, service: &'static str) -> Self {
        Self(self.0.as_ref().map(|on| On { service, ..on.clone() }))
    }

    /// Whether spans are taken.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a trace, for the configured share of all.
    pub fn sample(&self) -> Option<TraceContext> {
        let on = self.0.as_ref()?;
        (rand::random::<f64>() < on.sample_ratio).then(TraceContext::new_trace)
    }

    /// The next step after `parent`; the first of a new trace when there is none. None when there are no traces.
    pub fn step(&self, parent: Option<TraceContext>) -> Option<TraceContext> {
        self.0.as_ref()?;
        Some(parent.map_or_else(TraceContext::new_trace, TraceContext::new_span))
    }

    /// The next step after `parent`, if that is traced.
    pub fn follow(&self, parent: Option<TraceContext>) -> Option<TraceContext> {
        self.0.as_ref()?;
        parent.map(TraceContext::new_span)
    }

    /// What a span may say of the account: nothing, unless names are allowed.
    pub fn account<'a>(&self, account: &'a str) -> &'a str {
        if self.0.as_ref().is_some_and(|on| on.accounts) { account } else { "" }
    }

    /// Takes a step that is over. Never waits.
    pub fn end(&self, span: Span) {
        let Some(on) = &self.0 else { return };
        if on.queue.try_send(Queued { service: on.service, span }).is_err() {
            on.spans.count("dropped", 1);
        }
    }
}

impl Spans {
    fn count(&self, result: &'static str, spans: usize) {
        self.0.get_or_create(&Outcome { result }).inc_by(spans as u64);
    }
}

/// The time as spans want it: milliseconds since 1970 UTC, and parts of them.
pub fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1_000.0)
}
