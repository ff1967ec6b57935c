//! Where rspamd's metadata exporter posts its verdicts: `POST /rspamd` on loopback.

use crate::error::EdgeError;
use crate::gate::EdgeGate;
use crate::intake::Intake;
use crate::metrics::{Metrics, because};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidegate_mta::SessionSettings;
use tidegate_mta::rspamd::{FilterVerdict, MAX_BODY_OCTETS, VerdictError};
use tidegate_runtime::http::{self, HttpBounds};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// A body that does not come within this time is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that may be open; those beyond are closed at once, and rspamd goes on.
const MAX_CONNECTIONS: usize = 256;
/// Bodies that are read at a time; more are answered 503, and rspamd goes on.
const MAX_BODIES: usize = 64;

/// The HTTP server for verdicts.
pub(crate) struct VerdictServer {
    listener: TcpListener,
}

#[derive(Clone)]
struct Shared {
    settings: Arc<SessionSettings>,
    gate: Arc<EdgeGate>,
    intake: Arc<Intake>,
    bodies: Arc<Semaphore>,
    metrics: Metrics,
}

impl VerdictServer {
    /// Listens on `address`.
    pub async fn bind(address: SocketAddr) -> Result<Self, EdgeError> {
        let failed = |source| EdgeError::Listen { address: address.to_string(), source };
        Ok(Self { listener: TcpListener::bind(address).await.map_err(failed)? })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until shutdown.
    pub async fn run(
        self,
        settings: Arc<SessionSettings>,
        gate: Arc<EdgeGate>,
        intake: Arc<Intake>,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) {
        let connections = metrics.rspamd_http.clone();
        let shared = Shared { settings, gate, intake, bodies: Arc::new(Semaphore::new(MAX_BODIES)), metrics };
        let router = Router::new().route("/rspamd", post(take)).with_state(shared);
        let bounds = HttpBounds { max_connections: MAX_CONNECTIONS, ..HttpBounds::default() };
        http::serve(self.listener, router, bounds, connections, shutdown).await;
    }
}

async fn take(State(shared): State<Shared>, body: Body) -> (StatusCode, String) {
    let (status, result, text) = match shared.take(body).await {
        Ok(()) => (StatusCode::OK, "taken", "ok\n".to_owned()),
        Err((status, result, why)) => (status, result, format!("{why}\n")),
    };
    shared.metrics.verdicts.get_or_create(&because(result)).inc();
    (status, text)
}

impl Shared {
    async fn take(&self, body: Body) -> Result<(), (StatusCode, &'static str, String)> {
        let Ok(_permit) = self.bodies.try_acquire() else {
            return Err((StatusCode::SERVICE_UNAVAILABLE, "shed", "too many verdicts at a time".to_owned()));
        };
        let reading = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_OCTETS));
        let body = match reading.await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) => {
                let why = format!("the body is broken, or longer than {MAX_BODY_OCTETS} octets");
                return Err((StatusCode::PAYLOAD_TOO_LARGE, "too_long", why));
            }
            Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not come".to_owned())),
        };
        match FilterVerdict::parse(&body, &self.settings, &*self.gate) {
            Ok(verdict) => {
                self.intake.verdict(verdict);
                Ok(())
            }
            // Nothing is wrong with it: it is of no use here.
            Err(error @ (VerdictError::Nobody(_) | VerdictError::NoQueueId)) => {
                Err((StatusCode::OK, "nobodys", error.to_string()))
            }
            Err(error) => {
                tracing::debug!(error = tidegate_runtime::error_line(&error), "a verdict could not be read");
                Err((StatusCode::BAD_REQUEST, "unreadable", tidegate_runtime::error_line(&error)))
            }
        }
    }
}
