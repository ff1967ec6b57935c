//! A small HTTP server that nobody can tie up: connections, heads and time are bounded.
//!
//! `axum::serve` waits for a client for ever, and takes as many as there are file descriptors: a process that also
//! answers mail servers must not share those with whoever finds its metrics.

use crate::tls::ReloadingTls;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long accepting pauses when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections may take to end at shutdown.
const GRACE: Duration = Duration::from_secs(2);
/// How long a TLS handshake may take.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Most octets of a request's head.
const MAX_HEAD_OCTETS: usize = 16 * 1024;

/// What a server bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpBounds {
    /// Connections that may be open; those beyond are closed at once.
    pub max_connections: usize,
    /// A request's head must come whole within this time; so long may a kept connection be silent, too.
    pub head_timeout: Duration,
    /// No connection lasts longer, whatever it does.
    pub max_age: Duration,
}

impl Default for HttpBounds {
    fn default() -> Self {
        Self { max_connections: 64, head_timeout: Duration::from_secs(10), max_age: Duration::from_mins(5) }
    }
}

/// What is counted of one server.
#[derive(Debug, Clone, Default)]
pub struct HttpMetrics {
    open: Gauge,
    shed: Counter,
    failed: Family<FailureLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabel {
    reason: &'static str,
}

impl HttpMetrics {
    /// Registers the metrics of the server called `name`, e.g. `ops`: `<name>_http_connections_open`, ...
    pub fn register(name: &str, registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix(format!("{name}_http"));
        registry.register("connections_open", "HTTP connections that are open", metrics.open.clone());
        let shed = "HTTP connections closed at once because too many were open";
        registry.register("connections_shed", shed, metrics.shed.clone());
        let failed = "HTTP connections that were ended, by reason";
        registry.register("connections_failed", failed, metrics.failed.clone());
        metrics
    }

    fn failed(&self, reason: &'static str) {
        self.failed.get_or_create(&FailureLabel { reason }).inc();
    }
}

/// Where a request came from: an extension of each request that is served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Makes of a TCP connection what HTTP is spoken on.
pub trait Handshake: Clone + Send + Sync + 'static {
    /// What HTTP is spoken on.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Makes it, within the time that a request's head may take.
    fn shake(&self, stream: TcpStream) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// HTTP on the TCP connection itself.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

impl Handshake for Plain {
    type Stream = TcpStream;

    async fn shake(&self, stream: TcpStream) -> io::Result<TcpStream> {
        Ok(stream)
    }
}

/// HTTPS: TLS with whatever certificate is in force when a connection comes.
impl Handshake for Arc<ReloadingTls> {
    type Stream = TlsStream<TcpStream>;

    async fn shake(&self, stream: TcpStream) -> io::Result<Self::Stream> {
        self.accept(stream, HANDSHAKE_WAIT).await.map(|handshaken| handshaken.stream).map_err(io::Error::other)
    }
}

/// Serves `router` on `listener` until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: HttpBounds,
    metrics: HttpMetrics,
    shutdown: CancellationToken,
) {
    serve_over(Plain, listener, router, bounds, metrics, shutdown).await;
}

/// The same after a handshake, e.g. over TLS.
pub async fn serve_over<H: Handshake>(
    handshake: H,
    listener: TcpListener,
    router: Router,
    bounds: HttpBounds,
    metrics: HttpMetrics,
    shutdown: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(bounds.max_connections));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                metrics.failed("accept");
                tracing::warn!(error = error.to_string(), "an HTTP connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            metrics.shed.inc();
            continue;
        };
        metrics.open.inc();
        let router = router.clone().layer(Extension(Peer(peer)));
        let serving = connection(handshake.clone(), stream, router, bounds, metrics.clone(), shutdown.clone());
        connections.spawn(async move {
            let metrics = serving.await;
            metrics.open.dec();
            drop(permit);
        });
    }
    connections.close();
    // One that has not ended by then is cut off with the process.
    let _ = tokio::time::timeout(GRACE, connections.wait()).await;
}

async fn connection<H: Handshake>(
    handshake: H,
    stream: TcpStream,
    router: Router,
    bounds: HttpBounds,
    metrics: HttpMetrics,
    shutdown: CancellationToken,
) -> HttpMetrics {
    let stream = match tokio::time::timeout(bounds.head_timeout, handshake.shake(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => {
            metrics.failed("handshake");
            return metrics;
        }
        Err(_) => {
            metrics.failed("too_slow");
            return metrics;
        }
    };
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_OCTETS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    let aged = tokio::time::sleep(bounds.max_age);
    tokio::select! {
        ended = serving.as_mut() => match ended {
            Ok(()) => {}
            Err(error) if error.is_timeout() => metrics.failed("too_slow"),
            Err(error) if error.is_parse() => metrics.failed("no_http"),
            Err(_) => metrics.failed("broken"),
        },
        () = aged => metrics.failed("too_old"),
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn started(bounds: HttpBounds) -> (SocketAddr, HttpMetrics, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, shutdown) = (HttpMetrics::default(), CancellationToken::new());
        let router = Router::new().route("/", get(|| async { "here\n" }));
        tokio::spawn(serve(listener, router, bounds, metrics.clone(), shutdown.clone()));
        (address, metrics, shutdown)
    }

    async fn say(address: SocketAddr, request: &str) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may be closed before all is written.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        (stream, answer)
    }

    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn slow_and_broken_clients_are_ended_and_counted() {
        let bounds = HttpBounds { head_timeout: Duration::from_millis(100), ..HttpBounds::default() };
        let (address, metrics, _shutdown) = started(bounds).await;
        let failed = |reason| metrics.failed.get_or_create(&FailureLabel { reason }).get();
        assert!(say(address, REQUEST).await.1.ends_with("here\n"));
        let (_, answer) = say(address, "GET / HTTP/1.1\r\nHost: ").await;
        assert!(!answer.contains("here"), "{answer}");
        assert_eq!(failed("too_slow"), 1);
        say(address, "\0\u{1}\u{2}nonsense\r\n\r\n").await;
        say(address, &format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000))).await;
        let many = "x: y\r\n".repeat(1_000);
        say(address, &format!("GET / HTTP/1.1\r\n{many}\r\n")).await;
        assert_eq!(failed("no_http"), 3);
        assert!(say(address, REQUEST).await.1.ends_with("here\n"));
    }

    #[tokio::test]
    async fn no_connection_lasts_for_ever_and_those_beyond_the_bound_are_closed_at_once() {
        let bounds = HttpBounds { max_connections: 1, max_age: Duration::from_millis(300), ..HttpBounds::default() };
        let (address, metrics, shutdown) = started(bounds).await;
        let mut held = TcpStream::connect(address).await.unwrap();
        while metrics.open.get() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(say(address, REQUEST).await.1, "");
        assert_eq!(metrics.shed.get(), 1);
        assert_eq!(held.read(&mut [0; 1]).await.unwrap_or(0), 0, "it was closed");
        assert_eq!(metrics.failed.get_or_create(&FailureLabel { reason: "too_old" }).get(), 1);
        while metrics.open.get() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(say(address, REQUEST).await.1.ends_with("here\n"));
        shutdown.cancel();
    }
}
