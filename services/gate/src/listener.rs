//! Accepts connections, at most so many at a time, and does TLS on them.

use crate::metrics::GateMetrics;
use prometheus_client::metrics::gauge::Gauge;
use rustls::pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tidegate_runtime::tls::{Handshaken, ReloadingTls};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

/// How long accepting pauses when the system has no more file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that counts against the bound while it is open.
pub(crate) struct CountedStream {
    stream: Stream,
    peer: Peer,
    _open: Counted,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The network address.
    pub address: SocketAddr,
    /// The client's certificate and those below its authority, verified; none: it showed none.
    pub certificates: Option<Arc<[CertificateDer<'static>]>>,
}

/// Told of a handshake that failed: from where, and why.
pub(crate) type HandshakeFailed = Arc<dyn Fn(SocketAddr, String) + Send + Sync>;

/// How connections are secured; none: not at all.
#[derive(Clone)]
pub(crate) struct Security {
    /// The server's side of TLS.
    pub tls: Arc<ReloadingTls>,
    /// Told of handshakes that failed.
    pub failed: HandshakeFailed,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// One connection of those that may be open.
struct Counted {
    open: Gauge,
    _permit: OwnedSemaphorePermit,
}

/// How long a connection may be open before it has begun to speak.
const BEGINNING_WAIT: Duration = Duration::from_secs(10);
/// What is its beginning: HTTP/2's preface. What TLS begins with is longer.
const BEGINNING_OCTETS: usize = 24;
/// Between two looks at a beginning that comes in pieces.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// How long a TLS handshake may take.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

/// Accepts until `shutdown`. Beyond `most` connections the next ones wait in the system's queue; a connection that
/// cannot be accepted does not end the others.
pub(crate) fn accept(
    listener: TcpListener,
    most: usize,
    metrics: &GateMetrics,
    security: Option<Security>,
    shutdown: CancellationToken,
) -> ReceiverStream<io::Result<CountedStream>> {
    let (accepted, stream) = mpsc::channel(1);
    let (open, full) = (metrics.connections.clone(), metrics.connections_full.clone());
    let silent = metrics.connections_silent.clone();
    let permits = Arc::new(Semaphore::new(most));
    tokio::spawn(async move {
        let accepting = async {
            // The semaphore is never closed.
            loop {
                if permits.available_permits() == 0 {
                    full.inc();
                }
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((stream, address)) => {
                        // Heartbeats and states are small and must not wait for company.
                        let _ = stream.set_nodelay(true);
                        open.inc();
                        let counted = Counted { open: open.clone(), _permit: permit };
                        let (accepted, silent, security) = (accepted.clone(), silent.clone(), security.clone());
                        tokio::spawn(async move {
                            // One that says nothing, or never all of a beginning, must not hold a place for ever.
                            let begun = tokio::time::timeout(BEGINNING_WAIT, begun(&stream));
                            if !matches!(begun.await, Ok(Ok(()))) {
                                silent.inc();
                                return;
                            }
                            if let Some((stream, peer)) = secured(stream, address, security).await {
                                // When the server has ended, so does the connection.
                                let _ = accepted.send(Ok(CountedStream { stream, peer, _open: counted })).await;
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(error = error.to_string(), "a connection could not be accepted");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = accepting => {}
        }
    });
    ReceiverStream::new(stream)
}

/// Waits until a connection has said its beginning, which stays to be read.
async fn begun(stream: &TcpStream) -> io::Result<()> {
    let mut beginning = [0; BEGINNING_OCTETS];
    loop {
        match stream.peek(&mut beginning).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            BEGINNING_OCTETS => return Ok(()),
            _ => tokio::time::sleep(BETWEEN_LOOKS).await,
        }
    }
}

/// Does the handshake, if there is TLS. None when it failed, which is told.
async fn secured(stream: TcpStream, address: SocketAddr, security: Option<Security>) -> Option<(Stream, Peer)> {
    let Some(Security { tls, failed }) = security else {
        return Some((Stream::Plain(stream), Peer { address, certificates: None }));
    };
    match tls.accept(stream, HANDSHAKE_WAIT).await {
        Ok(Handshaken { stream, certificates }) => {
            Some((Stream::Tls(Box::new(stream)), Peer { address, certificates }))
        }
        Err(error) => {
            failed(address, error.to_string());
            None
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl Connected for CountedStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// The same on either kind of stream.
macro_rules! on_stream {
    ($self:ident, $method:ident ( $($argument:expr),* )) => {
        match &mut $self.stream {
            Stream::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Tls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for CountedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, poll_read(cx, buffer))
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        on_stream!(self, poll_write(cx, buffer))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, poll_write_vectored(cx, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, poll_shutdown(cx))
    }
}
