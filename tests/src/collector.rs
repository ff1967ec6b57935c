//! A collector of traces: takes OTLP over gRPC, keeps all spans, and can refuse or hang.

use anyhow::{Context as _, Result};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

/// A collector that runs. Dropping it ends it.
pub struct Collector {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

/// How a collector answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Takes everything.
    Take,
    /// Refuses the request.
    Refuse(Code),
    /// Takes all but so many spans.
    TakeAllBut(i64),
    /// Does not answer.
    Hang,
}

/// A span that came.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The service's name.
    pub service: String,
    /// The process.
    pub instance: String,
    /// The span.
    pub span: Span,
}

struct Shared {
    answer: Mutex<Answer>,
    seen: Mutex<Vec<Seen>>,
    asked: Mutex<usize>,
}

impl Collector {
    /// Starts one on a port of its own.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start() -> Result<Self> {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Starts one at `address`.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub fn start_on(address: SocketAddr) -> Result<Self> {
        let listener = std::net::TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (answer, seen, asked) = (Mutex::new(Answer::Take), Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { answer, seen, asked });
        let service = TraceServiceServer::new(Service(Arc::clone(&shared)));
        let server = tonic::transport::Server::builder().add_service(service);
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(Self { address, shared, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it answers so.
    pub fn answer(&self, answer: Answer) {
        *lock(&self.shared.answer) = answer;
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        *lock(&self.shared.asked)
    }

    /// All spans that it has taken.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// The spans that it has taken with this name.
    pub fn named(&self, name: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.span.name == name).collect()
    }

    /// The spans that followed from `parent`.
    pub fn children(&self, parent: &Seen) -> Vec<Seen> {
        let is_child =
            |span: &Span| span.trace_id == parent.span.trace_id && span.parent_span_id == parent.span.span_id;
        self.seen().into_iter().filter(|seen| is_child(&seen.span)).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Also where waiting for its end is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Seen {
    /// An attribute as text; empty: it has none of that name.
    pub fn attribute(&self, key: &str) -> String {
        text(&self.span.attributes, key)
    }
}

struct Service(Arc<Shared>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        *lock(&self.0.asked) += 1;
        let answer = *lock(&self.0.answer);
        let partial_success = match answer {
            Answer::Take => None,
            Answer::TakeAllBut(rejected_spans) => {
                Some(ExportTracePartialSuccess { rejected_spans, error_message: "too many".to_owned() })
            }
            Answer::Refuse(code) => return Err(Status::new(code, "as the test wants it")),
            Answer::Hang => {
                tokio::time::sleep(Duration::from_hours(1)).await;
                None
            }
        };
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let (service, instance) = (text(&attributes, "service.name"), text(&attributes, "service.instance.id"));
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let seen = spans.map(|span| Seen { service: service.clone(), instance: instance.clone(), span });
            lock(&self.0.seen).extend(seen);
        }
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == key).and_then(|found| found.value.clone());
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
