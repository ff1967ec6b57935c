//! The console, listening and serving.

use crate::api::Api;
use crate::app::{App, router};
use crate::config::ConsoleConfig;
use crate::metrics::Metrics;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidegate_runtime::http::{self, HttpBounds, HttpMetrics};
use tidegate_runtime::tls::{ClientCertificates, ReloadingTls, ServerTls, TlsError, TlsOptions};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// Sessions that have had their time are looked for this often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// A browser's connection lasts at most this long: a live page takes a new one and goes on.
const MAX_AGE: Duration = Duration::from_hours(1);
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The console, listening but not yet serving.
pub struct Console {
    listener: TcpListener,
    address: SocketAddr,
    config: ConsoleConfig,
    tls: Option<Arc<ReloadingTls>>,
    api: Api,
    metrics: Metrics,
    connections: HttpMetrics,
}

/// Why there is no console.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The address cannot be had.
    #[error("cannot listen on {address} for the console ([console] listen)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its certificate cannot be used.
    #[error("cannot set up HTTPS for the console ([console.tls])")]
    Certificates(#[from] TlsError),
}

impl Console {
    /// Listens, and registers metrics as `console_...`. `api` answers the gRPC services `AdminService` and
    /// `AuditService`: of this process, or a channel to another one. It judges every call by the token that somebody
    /// signed in with (`authorization: Bearer`) and finds their address in the extension
    /// [`ForwardedPeer`](tidegate_access::ForwardedPeer).
    ///
    /// # Errors
    /// When the address cannot be had, or the certificate cannot be used.
    pub async fn bind<S>(config: ConsoleConfig, api: S, registry: &mut Registry) -> Result<Self, ConsoleError>
    where
        S: Service<::http::Request<tonic::body::Body>, Response = ::http::Response<tonic::body::Body>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
        S::Future: Send + 'static,
    {
        let tls = config.tls.as_ref().map(|files| {
            let without_clients = ServerTls { client_ca: None, ..files.clone() };
            let options = TlsOptions { alpn: &["http/1.1"], client_certificates: ClientCertificates::Optional };
            ReloadingTls::open(&without_clients, options)
        });
        let tls = tls.transpose()?;
        let failed = |source| ConsoleError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let api = Api::new(api, Duration::from_millis(config.call_timeout_ms));
        let registry = registry.sub_registry_with_prefix("tidegate");
        let (metrics, connections) = (Metrics::register(registry), HttpMetrics::register("console", registry));
        if let Some(tls) = &tls {
            tls.register(registry.sub_registry_with_prefix("console"));
        }
        Ok(Self { listener, address, config, tls, api, metrics, connections })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`; then live pages end at once, and requests that are being answered in two seconds.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { listener, address, config, tls, api, metrics, connections } = self;
        let ending = shutdown.child_token();
        let _end_on_drop = ending.clone().drop_guard();
        let bounds =
            HttpBounds { max_connections: config.max_connections, head_timeout: HEAD_TIMEOUT, max_age: MAX_AGE };
        let app = Arc::new(App::new(config, tls.is_some(), api, metrics, ending.clone()));
        let sessions = app.sessions.clone();
        let sweeping = ending.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
            while sweeping.run_until_cancelled(ticks.tick()).await.is_some() {
                sessions.sweep();
            }
        });
        tracing::info!(%address, "the web console is served");
        match tls {
            Some(tls) => {
                tokio::spawn(Arc::clone(&tls).run(ending.clone()));
                http::serve_over(tls, listener, router(app), bounds, connections, ending).await;
            }
            None => http::serve(listener, router(app), bounds, connections, ending).await,
        }
    }
}
