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

/// How long a connection may be open before its first octet comes.
const FIRST_OCTET_WAIT: Duration = Duration::from_secs(10);

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
                        let accepted = accepted.clone();
                        tokio::spawn(async move {
                            // One that says nothing must not hold a place for ever.
                            let first = counted.stream.readable();
                            if let Ok(Ok(())) = tokio::time::timeout(FIRST_OCTET_WAIT, first).await {
                                // When the server has ended, so does the connection.
                                let _ = accepted.send(Ok(counted)).await;
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
