//! An address where gRPC is served, behind a gate.

use crate::gate::{Gate, HandshakeAudit};
use crate::listener::{Security, accept};
use crate::metrics::GateMetrics;
use prometheus_client::registry::Registry;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidegate_access::Access;
use tidegate_runtime::tls::{ClientCertificates, ReloadingTls, ServerTls, TlsError, TlsOptions};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

/// Most requests that one connection has open at a time.
const MAX_STREAMS: u32 = 256;
/// Most requests of one connection that are worked on at a time, but for streams that are open.
const MAX_CONCURRENT: usize = 64;
const MAX_HEADER_OCTETS: u32 = 16 << 10;
/// A connection that says nothing is asked whether it is there, and given up when it does not answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connections have to end when the service does.
const GRACE: Duration = Duration::from_secs(5);

/// An address that is listened on; a connection made before [`Door::serve`] waits.
pub struct Door {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ReloadingTls>>,
}

/// What a door bears.
#[derive(Debug, Clone, Copy)]
pub struct DoorBounds {
    /// Most connections at a time; more wait to be accepted.
    pub max_connections: usize,
    /// How long a request may take until its answer begins.
    pub request_timeout: Duration,
}

/// Why an address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Others than this host could reach it, and would not have to prove who they are.
    #[error("gRPC is not served on {address}, which others can reach, without [{section}.tls] and [access]")]
    Unsecured {
        /// The address.
        address: SocketAddr,
        /// Section of the configuration.
        section: &'static str,
    },
    /// The address cannot be had.
    #[error("cannot listen for gRPC on {address} ({section}.listen); is another process there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Section of the configuration.
        section: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A certificate file cannot be used.
    #[error("cannot set up TLS for gRPC")]
    Tls(#[from] TlsError),
}

impl Door {
    /// Listens. `section` is where the configuration says it, e.g. `control`. TLS registers its metrics.
    ///
    /// # Errors
    /// When the address cannot be had, certificates cannot be used, or others can reach the address and it is not
    /// secured.
    pub async fn open(
        section: &'static str,
        address: SocketAddr,
        files: Option<&ServerTls>,
        access: &Access,
        registry: &mut Registry,
    ) -> Result<Self, DoorError> {
        if !address.ip().is_loopback() && (files.is_none() || access.is_off()) {
            return Err(DoorError::Unsecured { address, section });
        }
        // Where nobody has to prove who they are, the certificate is all there is.
        let client_certificates =
            if access.is_off() { ClientCertificates::Required } else { ClientCertificates::Optional };
        let options = TlsOptions { alpn: &["h2"], client_certificates };
        let tls = files.map(|files| ReloadingTls::open(files, options)).transpose()?;
        let failed = |source| DoorError::Listen { address, section, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if let Some(tls) = &tls {
            tls.register(registry);
        }
        Ok(Self { listener, address, tls })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves `routes` behind `gate` until `shutdown`, and then cancels `ending` and gives open connections a few
    /// seconds to end.
    ///
    /// # Errors
    /// When the server fails.
    pub async fn serve(
        self,
        routes: Routes,
        gate: Gate,
        metrics: &GateMetrics,
        bounds: DoorBounds,
        ending: CancellationToken,
        shutdown: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        let Self { listener, address, tls } = self;
        let security = tls.map(|tls| {
            tokio::spawn(Arc::clone(&tls).run(ending.clone()));
            Security { tls, failed: HandshakeAudit::start(gate.audit.clone(), metrics.clone()) }
        });
        let incoming = accept(listener, bounds.max_connections, metrics, security, ending.clone());
        let mut server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .http2_max_header_list_size(MAX_HEADER_OCTETS)
            .max_concurrent_streams(MAX_STREAMS)
            .concurrency_limit_per_connection(MAX_CONCURRENT)
            // Until the answer begins: streams live on.
            .timeout(bounds.request_timeout)
            .layer(gate);
        tracing::info!(%address, "gRPC is served");
        let serving =
            server.add_routes(routes).serve_with_incoming_shutdown(incoming, ending.clone().cancelled_owned());
        tokio::pin!(serving);
        tokio::select! {
            served = &mut serving => served,
            () = shutdown.cancelled() => {
                ending.cancel();
                tokio::time::timeout(GRACE, serving).await.unwrap_or_else(|_| {
                    tracing::warn!("connections are still open and are cut off");
                    Ok(())
                })
            }
        }
    }
}
