//! Whether who opened a stream may still have it.

use crate::clock::now_ms;
use http::HeaderMap;
use hyper::body::{Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tidegate_access::{Access, Principal};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;

/// How often the clock is looked at: a certificate or token ends by time, too.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Whether who opened a stream may still have it.
pub struct Standing {
    access: Arc<Access>,
    principal: Principal,
    changes: watch::Receiver<u64>,
}

impl Standing {
    /// Of `principal`, who was identified a moment ago.
    pub fn new(access: Arc<Access>, principal: Principal) -> Self {
        let changes = access.changes();
        Self { access, principal, changes }
    }

    /// Waits until it does not hold any more. May be dropped and called again.
    pub async fn lost(&mut self) {
        // Asked first, for what changed since it was identified.
        while self.access.still_holds(&self.principal, now_ms()) {
            tokio::select! {
                changed = self.changes.changed() => if changed.is_err() {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                },
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }
}

/// An answer that ends when its caller's credential does not count any more. So every stream does, whoever serves it.
pub(crate) struct HeldBody {
    inner: Body,
    access: Arc<Access>,
    principal: Principal,
    changes: watch::Receiver<u64>,
    /// Made when there is something to wait for: most answers are there at once.
    lost: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    ended: bool,
}

impl HeldBody {
    /// `inner`, for `principal`, who was identified a moment ago.
    pub fn new(inner: Body, access: Arc<Access>, principal: Principal) -> Self {
        let changes = access.changes();
        Self { inner, access, principal, changes, lost: None, ended: false }
    }

    fn end(&mut self) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        self.ended = true;
        // Whoever serves it sees it closed.
        self.inner = Body::empty();
        let mut trailers = HeaderMap::new();
        let status = Status::unauthenticated("the credential does not count any more");
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }
}

impl hyper::body::Body for HeldBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // Looked at here, too, for a stream that always has something to say.
        if self.changes.has_changed().unwrap_or(false) {
            self.changes.mark_unchanged();
            if !self.access.still_holds(&self.principal, now_ms()) {
                return self.end();
            }
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let (access, principal) = (Arc::clone(&self.access), self.principal.clone());
        let lost = self.lost.get_or_insert_with(|| {
            let mut standing = Standing::new(access, principal);
            Box::pin(async move { standing.lost().await })
        });
        ready!(lost.as_mut().poll(cx));
        self.end()
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
