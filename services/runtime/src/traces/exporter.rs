//! Sends spans to a collector, in batches.

use super::span::attribute;
use super::{Span, Spans, TracesConfig, TracesError};
use crate::backoff::Backoff;
use crate::error_line;
use crate::tls::ClientTls;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Most spans in one request: some 200 KB.
const BATCH_MAX_SPANS: usize = 512;
/// How long spans gather, at most.
const GATHER: Duration = Duration::from_millis(500);
/// Pauses between attempts to send a batch.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// How often a batch is sent before it is given up.
const MAX_ATTEMPTS: u32 = 5;
/// How long the last spans may take at the end.
const LAST: Duration = Duration::from_secs(2);

/// A span on its way.
#[derive(Debug)]
pub(super) struct Queued {
    pub service: &'static str,
    pub span: Span,
}

/// Sends what a [`Tracer`](super::Tracer) takes.
pub struct TraceExporter {
    queue: mpsc::Receiver<Queued>,
    client: TraceServiceClient<Channel>,
    endpoint: String,
    instance: String,
    timeout: Duration,
    spans: Spans,
    /// The last batch could not be sent.
    failing: bool,
}

impl TraceExporter {
    pub(super) fn new(
        config: &TracesConfig,
        endpoint: &str,
        instance: &str,
        queue: mpsc::Receiver<Queued>,
        spans: Spans,
    ) -> Result<Self, TracesError> {
        let refused = |source| TracesError::Endpoint { endpoint: endpoint.to_owned(), source };
        let timeout = Duration::from_millis(config.timeout_ms);
        let mut address = Endpoint::from_shared(endpoint.to_owned()).map_err(refused)?.connect_timeout(timeout);
        if let Some(files) = config.tls.as_ref().map(ClientTls::read).transpose()? {
            address = address.tls_config(files.to_tonic()).map_err(refused)?;
        }
        let client = TraceServiceClient::new(address.connect_lazy());
        let (endpoint, instance) = (endpoint.to_owned(), instance.to_owned());
        Ok(Self { queue, client, endpoint, instance, timeout, spans, failing: false })
    }

    /// Sends until `shutdown`, and then what is left.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tracing::info!(collector = self.endpoint, "traces are on");
        let mut batch = Vec::with_capacity(BATCH_MAX_SPANS);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                more = self.gather(&mut batch) => if !more {
                    // Nobody is left who could end a step; who runs this counts on it until the end all the same.
                    shutdown.cancelled().await;
                    break;
                },
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.deliver(&batch) => {}
            }
            batch.clear();
        }
        // What still ends a step finds no room from now on.
        self.queue.close();
        let last = async {
            loop {
                self.queue.recv_many(&mut batch, BATCH_MAX_SPANS).await;
                if batch.is_empty() {
                    break;
                }
                self.deliver(&batch).await;
                batch.clear();
            }
        };
        if tokio::time::timeout(LAST, last).await.is_err() {
            self.spans.count("failed", batch.len() + self.queue.len());
        }
    }

    /// Waits for spans, and then a moment for company. Gives false when there will be none.
    async fn gather(&mut self, batch: &mut Vec<Queued>) -> bool {
        if batch.is_empty() && self.queue.recv_many(batch, BATCH_MAX_SPANS).await == 0 {
            return false;
        }
        let until = Instant::now() + GATHER;
        while batch.len() < BATCH_MAX_SPANS {
            let room = BATCH_MAX_SPANS - batch.len();
            match tokio::time::timeout_at(until, self.queue.recv_many(batch, room)).await {
                Ok(count) if count > 0 => {}
                Ok(_) | Err(_) => break,
            }
        }
        true
    }

    /// Sends a batch until the collector has taken or refused it, or it was tried often enough.
    async fn deliver(&mut self, batch: &[Queued]) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        for attempt in 1..=MAX_ATTEMPTS {
            let mut request = tonic::Request::new(request(batch, &self.instance));
            request.set_timeout(self.timeout);
            let answer = tokio::time::timeout(self.timeout, self.client.export(request)).await;
            let status = match answer {
                Ok(Ok(answer)) => return self.delivered(batch.len(), answer.into_inner().partial_success),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer within {} ms", self.timeout.as_millis())),
            };
            if !std::mem::replace(&mut self.failing, true) {
                let error = error_line(&status);
                tracing::warn!(
                    collector = self.endpoint,
                    error,
                    "traces cannot be sent; what finds no room is dropped"
                );
            }
            if attempt == MAX_ATTEMPTS || !is_retryable(&status) {
                break;
            }
            tokio::time::sleep(backoff.pause()).await;
        }
        self.spans.count("failed", batch.len());
    }

    fn delivered(
        &mut self,
        sent: usize,
        partial: Option<opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess>,
    ) {
        if std::mem::take(&mut self.failing) {
            tracing::info!(collector = self.endpoint, "traces are sent again");
        }
        let refused = partial.map_or(0, |partial| {
            if partial.rejected_spans > 0 {
                tracing::warn!(
                    spans = partial.rejected_spans,
                    reason = partial.error_message,
                    "the collector refused spans"
                );
            }
            usize::try_from(partial.rejected_spans).unwrap_or(0).min(sent)
        });
        self.spans.count("failed", refused);
        self.spans.count("exported", sent - refused);
    }
}

/// What OTLP calls retryable (OTLP 1.10, "Failures"), and a connection that broke: that has a cause on this side.
fn is_retryable(status: &Status) -> bool {
    let is_passing = matches!(
        status.code(),
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            | Code::ResourceExhausted
    );
    is_passing || std::error::Error::source(status).is_some()
}

/// One group of spans for each service.
fn request(batch: &[Queued], instance: &str) -> ExportTraceServiceRequest {
    let mut services: BTreeMap<&'static str, Vec<_>> = BTreeMap::new();
    for Queued { service, span } in batch {
        services.entry(service).or_default().push(span.clone().into_otlp());
    }
    let text = |key: &str, value: &str| attribute(key, any_value::Value::StringValue(value.to_owned()));
    let resource_spans = services.into_iter().map(|(service, spans)| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![
                text("service.name", service),
                text("service.namespace", "tidegate"),
                text("service.version", env!("CARGO_PKG_VERSION")),
                text("service.instance.id", instance),
            ],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope { name: "tidegate".to_owned(), ..InstrumentationScope::default() }),
            spans,
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}
