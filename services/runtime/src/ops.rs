//! `/healthz`, `/readyz` and `/metrics` over HTTP, for the people who operate the process.

use crate::http::{self, HttpBounds, HttpMetrics};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What has to be ready before the process is, by name. A clone shares it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    parts: Arc<Mutex<BTreeMap<&'static str, Part>>>,
    /// Whether what is told here is only told, and keeps the process ready.
    is_beside: bool,
}

#[derive(Debug, Clone)]
struct Part {
    state: Result<(), String>,
    is_beside: bool,
}

/// The HTTP server for operators. Health is the process answering at all; readiness is [`Health`].
pub struct OpsServer {
    listener: TcpListener,
    router: axum::Router,
    connections: HttpMetrics,
}

#[derive(Clone)]
struct Shared {
    registry: Arc<Registry>,
    /// What this server counts of itself.
    own: Arc<Registry>,
    health: Health,
}

impl Health {
    /// Nothing is needed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The process is not ready until `part` is.
    pub fn needs(&self, part: &'static str) {
        self.not_ready(part, "not started");
    }

    /// The same, for parts whose faults must not take the others with them: they are told, and the process stays ready.
    pub fn beside(&self) -> Self {
        Self { is_beside: true, ..self.clone() }
    }

    /// `part` is ready.
    pub fn ready(&self, part: &'static str) {
        self.tell(part, Ok(()));
    }

    /// `part` is not ready, and why.
    pub fn not_ready(&self, part: &'static str, why: impl Into<String>) {
        self.tell(part, Err(why.into()));
    }

    fn tell(&self, part: &'static str, state: Result<(), String>) {
        self.parts.lock().insert(part, Part { state, is_beside: self.is_beside });
    }

    /// Whether all parts are ready that have to be, and a line for each.
    pub fn report(&self) -> (bool, String) {
        let parts = self.parts.lock();
        let lines = parts.iter().map(|(part, Part { state, is_beside })| match (state, is_beside) {
            (Ok(()), _) => format!("{part}: ready\n"),
            (Err(why), false) => format!("{part}: {why}\n"),
            (Err(why), true) => format!("{part}: {why} (the others go on)\n"),
        });
        (parts.values().all(|part| part.is_beside || part.state.is_ok()), lines.collect())
    }
}

impl OpsServer {
    /// Listens on `address` (port 0 takes a free one).
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(address: SocketAddr, registry: Arc<Registry>, health: Health) -> std::io::Result<Self> {
        let mut own = Registry::with_prefix("tidegate");
        let connections = HttpMetrics::register("ops", &mut own);
        let own = Arc::new(own);
        let router = axum::Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(Shared { registry, own, health });
        Ok(Self { listener: TcpListener::bind(address).await?, router, connections })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`, within the bounds of [`HttpBounds::default`].
    pub async fn run(self, shutdown: CancellationToken) {
        http::serve(self.listener, self.router, HttpBounds::default(), self.connections, shutdown).await;
    }
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let (ready, lines) = shared.health.report();
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, lines).into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let mut body = String::new();
    let written = text::encode_registry(&mut body, &shared.registry)
        .and_then(|()| text::encode_registry(&mut body, &shared.own))
        .and_then(|()| text::encode_eof(&mut body));
    match written {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the metrics: {error}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_all_its_parts_are() {
        let health = Health::new();
        assert!(health.report().0);
        health.needs("log");
        health.ready("control");
        assert_eq!(health.report(), (false, "control: ready\nlog: not started\n".to_owned()));
        health.ready("log");
        assert!(health.report().0);
    }

    #[test]
    fn what_is_beside_is_told_and_does_not_decide() {
        let health = Health::new();
        health.ready("control");
        health.beside().needs("history");
        assert_eq!(health.report(), (true, "control: ready\nhistory: not started (the others go on)\n".to_owned()));
    }
}
