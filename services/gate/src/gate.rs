//! The gate before all services: finds out who calls, or refuses.
//!
//! Health is for everybody: load balancers ask for it. Everything else needs a credential, also what does not exist, so
//! that a stranger does not learn even that. What the caller may do is the services' own matter (control's admission, for one).
//! An answer that goes on, a watch, ends when the credential does.

use crate::audit::Audit;
use crate::clock::now_ms;
use crate::listener::{HandshakeFailed, Peer};
use crate::metrics::GateMetrics;
use crate::standing::HeldBody;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use prost::Message as _;
use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tidegate_access::{Access, ForwardedPeer, Principal, Refusal};
use tidegate_proto::v1;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

/// gRPC's own health service.
const HEALTH: &str = "/grpc.health.v1.Health/";
const EDGES: &str = "/tidegate.v1.EdgeService/";
/// Longest method of a stranger's that stands in the audit, in octets.
const MAX_METHOD_OCTETS: usize = 200;
/// Failed handshakes that stand in the audit, at most so many in so long: a port scanner makes thousands.
const HANDSHAKES: usize = 30;
const HANDSHAKE_WINDOW: Duration = Duration::from_mins(1);
/// What handshakes are called in the audit.
const HANDSHAKE_METHOD: &str = "tls/handshake";

/// Puts a [`Gated`] before services.
#[derive(Clone)]
pub struct Gate {
    /// Tells who calls.
    pub access: Arc<Access>,
    /// Where refusals stand.
    pub audit: Audit,
}

/// Services behind the gate. A request that gets to them has a [`Principal`] among its extensions,
/// beside the connection's [`Peer`].
#[derive(Clone)]
pub struct Gated<S> {
    inner: S,
    gate: Gate,
}

/// Writes the audit of failed TLS handshakes.
pub(crate) struct HandshakeAudit;

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.clone() }
    }
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let waiting = self.inner.clone();
        // The one that was asked whether it is ready is the one that is called.
        let mut inner = std::mem::replace(&mut self.inner, waiting);
        let gate = self.gate.clone();
        Box::pin(async move {
            let path = request.uri().path();
            if path.starts_with(HEALTH) {
                return inner.call(request).await;
            }
            // Edges' streams look after themselves, and count why they end.
            let is_edge = path.starts_with(EDGES);
            let principal = match gate.pass(&mut request).await {
                Ok(principal) => principal,
                Err(status) => return Ok(status.into_http()),
            };
            let answer = inner.call(request).await?;
            if is_edge || gate.access.is_off() {
                return Ok(answer);
            }
            Ok(answer.map(|body| Body::new(HeldBody::new(body, gate.access, principal))))
        })
    }
}

impl Gate {
    /// Finds out who calls, and tells the services.
    async fn pass(&self, request: &mut Request<Body>) -> Result<Principal, Status> {
        let connected = request.extensions().get::<Peer>().cloned();
        // Only a part of this process can put that there.
        let forwarded = request.extensions().get::<ForwardedPeer>();
        let forwarded = forwarded.map(|forwarded| Peer { address: forwarded.0, certificates: None });
        let Some(peer) = connected.or(forwarded) else {
            return Err(Status::internal("the connection does not tell from where it comes"));
        };
        request.extensions_mut().insert(peer.clone());
        let mut values = request.headers().get_all(AUTHORIZATION).iter();
        let identified = match (values.next().map(|value| value.to_str()), values.next()) {
            (None, _) => self.identify(&peer, None).await,
            (Some(Ok(value)), None) => self.identify(&peer, Some(&as_bearer(value))).await,
            // Which of two would count is not guessed. It is refused, and counts, as one that cannot be read.
            _ => self.identify(&peer, Some("")).await,
        };
        match identified {
            Ok(principal) => {
                request.extensions_mut().insert(principal.clone());
                Ok(principal)
            }
            Err(refusal) => {
                self.tell(request.uri().path(), &peer, &refusal).await;
                Err(status(&refusal))
            }
        }
    }

    async fn identify(&self, peer: &Peer, authorization: Option<&str>) -> Result<Principal, Refusal> {
        let address = peer.address.ip();
        self.access.identify(address, peer.certificates.as_deref(), authorization, now_ms()).await
    }

    /// Tells the audit. Those that come from an address that is blocked are only counted: each block begins after a
    /// number of refusals that stand there, and a flood of more would tell nothing and bury the rest.
    async fn tell(&self, path: &str, peer: &Peer, refusal: &Refusal) {
        if refusal.retry_after_ms().is_some() {
            return;
        }
        let method = path.trim_start_matches('/');
        let record = v1::AuditRecord {
            peer: peer.address.to_string(),
            method: method[..method.floor_char_boundary(MAX_METHOD_OCTETS)].to_owned(),
            result: refusal.audit_text(),
            ..v1::AuditRecord::default()
        };
        self.audit.note(record).await;
    }
}

impl HandshakeAudit {
    /// What to tell of failed handshakes. They are written by a task of its own, which ends when nobody tells any more.
    pub fn start(audit: Audit, metrics: GateMetrics) -> HandshakeFailed {
        let (failed, mut told) = mpsc::channel::<(SocketAddr, String)>(HANDSHAKES);
        let unaudited = metrics.handshakes_unaudited.clone();
        tokio::spawn(async move {
            let mut window = (Instant::now(), 0);
            while let Some((peer, why)) = told.recv().await {
                if window.0.elapsed() > HANDSHAKE_WINDOW {
                    window = (Instant::now(), 0);
                }
                window.1 += 1;
                if window.1 > HANDSHAKES {
                    metrics.handshakes_unaudited.inc();
                    continue;
                }
                let record = v1::AuditRecord {
                    peer: peer.to_string(),
                    method: HANDSHAKE_METHOD.to_owned(),
                    result: why,
                    ..v1::AuditRecord::default()
                };
                audit.note(record).await;
            }
        });
        Arc::new(move |peer, why| {
            tracing::debug!(%peer, why, "a TLS handshake failed");
            if failed.try_send((peer, why)).is_err() {
                unaudited.inc();
            }
        })
    }
}

/// A name and a password, as tools for databases ask for them, mean the token that stands for the password.
pub fn as_bearer(authorization: &str) -> Cow<'_, str> {
    let token = authorization.split_once(' ').filter(|(kind, _)| kind.eq_ignore_ascii_case("basic"));
    let decoded = token.and_then(|(_, encoded)| BASE64_STANDARD.decode(encoded.trim()).ok());
    let text = decoded.and_then(|octets| String::from_utf8(octets).ok());
    match text.as_deref().and_then(|text| text.split_once(':')) {
        Some((_, password)) => Cow::Owned(format!("Bearer {password}")),
        None => Cow::Borrowed(authorization),
    }
}

/// What the caller is told.
fn status(refusal: &Refusal) -> Status {
    let text = refusal.client_text();
    match refusal.retry_after_ms() {
        Some(retry_after_ms) => {
            let details = retry_details(&text, retry_after_ms);
            Status::with_details(Code::ResourceExhausted, text, details.into())
        }
        None => Status::unauthenticated(text),
    }
}

/// google.rpc.Status with a google.rpc.RetryInfo, as clients of gRPC read it.
fn retry_details(text: &str, retry_after_ms: i64) -> Vec<u8> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct RpcStatus {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
        #[prost(message, repeated, tag = "3")]
        details: Vec<prost_types::Any>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        retry_delay: Option<prost_types::Duration>,
    }
    let (seconds, millis) = (retry_after_ms / 1_000, retry_after_ms % 1_000);
    // Less than a second in nanoseconds fits.
    let delay = prost_types::Duration { seconds, nanos: (millis * 1_000_000) as i32 };
    let info = RetryInfo { retry_delay: Some(delay) };
    let any = prost_types::Any {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
        value: info.encode_to_vec(),
    };
    let code = Code::ResourceExhausted as i32;
    RpcStatus { code, message: text.to_owned(), details: vec![any] }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_a_token() {
        let basic = format!("Basic {}", BASE64_STANDARD.encode("ann:tg_x:y"));
        assert_eq!(as_bearer(&basic), "Bearer tg_x:y");
        for other in ["Bearer tg_x", "Basic ???", "Basic", "Basic YW5u"] {
            assert_eq!(as_bearer(other), other);
        }
    }
}
