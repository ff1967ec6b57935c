//! Accepts connections, at most so many at a time.

use crate::metrics::Metrics;
use prometheus_client::metrics::gauge::Gauge;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// How long accepting pauses when the system has no more file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that counts against the bound while it is open.
#[derive(Debug)]
pub(crate) struct CountedStream {
    stream: TcpStream,
    open: Gauge,
    _permit: OwnedSemaphorePermit,
}

/// How long a connection may be open before it has begun to speak.
const BEGINNING_WAIT: Duration = Duration::from_secs(10);
/// What is its beginning: HTTP/2's preface. What TLS begins with is longer.
const BEGINNING_OCTETS: usize = 24;
/// Between two looks at a beginning that comes in pieces.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Accepts until `shutdown`. Beyond `most` connections the next ones wait in the system's queue; a connection that
/// cannot be accepted does not end the others.
pub(crate) fn accept(
    listener: TcpListener,
    most: usize,
    metrics: &Metrics,
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
                    Ok((stream, _)) => {
                        // Heartbeats and states are small and must not wait for company.
                        let _ = stream.set_nodelay(true);
                        open.inc();
                        let counted = CountedStream { stream, open: open.clone(), _permit: permit };
                        let (accepted, silent) = (accepted.clone(), silent.clone());
                        tokio::spawn(async move {
                            // One that says nothing, or never all of a beginning, must not hold a place for ever.
                            let begun = tokio::time::timeout(BEGINNING_WAIT, begun(&counted.stream));
                            if let Ok(Ok(())) = begun.await {
                                // When the server has ended, so does the connection.
                                let _ = accepted.send(Ok(counted)).await;
                            } else {
                                silent.inc();
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

impl Drop for CountedStream {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl Connected for CountedStream {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
