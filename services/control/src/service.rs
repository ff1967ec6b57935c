//! The service: its parts, wired.

use crate::admin::AdminApi;
use crate::config::ControlConfig;
use crate::core::Core;
use crate::edge_service::EdgeApi;
use crate::error::ControlError;
use crate::event_service::EventApi;
use crate::gate::{Gated, HandshakeAudit};
use crate::listener::{Security, accept};
use crate::metrics::Metrics;
use crate::replica_feed::HEALTH_PART;
use crate::view::View;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidegate_access::Access;
use tidegate_bus::Bus;
use tidegate_proto::FILE_DESCRIPTOR_SET;
use tidegate_proto::v1::admin_service_server::AdminServiceServer;
use tidegate_proto::v1::edge_service_server::EdgeServiceServer;
use tidegate_proto::v1::event_service_server::EventServiceServer;
use tidegate_runtime::Health;
use tidegate_runtime::tls::{ClientCertificates, ReloadingTls, TlsOptions};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;
use tower::Layer as _;

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

/// The API for other parts of this process.
pub type Api = Gated<Routes>;

/// The control service, listening but not yet serving.
pub struct Service {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ReloadingTls>>,
    core: Core,
    health: Health,
}

impl Service {
    /// Listens, and registers metrics and the part `control` of `health`, which is ready when the replica of account
    /// states is whole. A connection made before [`Service::run`] waits. `access` tells who calls; who shares it among
    /// services runs it and registers its metrics.
    ///
    /// # Errors
    /// When the address cannot be had, certificates cannot be used, or others can reach the address and it is not
    /// secured.
    pub async fn bind(
        config: ControlConfig,
        bus: Arc<dyn Bus>,
        registry: &mut Registry,
        health: Health,
        access: Arc<Access>,
    ) -> Result<Self, ControlError> {
        health.needs(HEALTH_PART);
        if !config.listen.ip().is_loopback() && (config.tls.is_none() || access.is_off()) {
            return Err(ControlError::Unsecured { address: config.listen });
        }
        // Where nobody has to prove who they are, the certificate is all there is.
        let client_certificates =
            if access.is_off() { ClientCertificates::Required } else { ClientCertificates::Optional };
        let options = TlsOptions { alpn: &["h2"], client_certificates };
        let tls = config.tls.as_ref().map(|files| ReloadingTls::open(files, options)).transpose()?;
        if !access.is_off() && config.tls.as_ref().is_none_or(|files| files.client_ca.is_none()) {
            tracing::warn!("no edge can attach: [control.tls] has no client_ca, by which edges prove who they are");
        }
        let failed = |source| ControlError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let metrics = Metrics::register(registry);
        if let Some(tls) = &tls {
            tls.register(registry.sub_registry_with_prefix("tidegate_control"));
        }
        let core = Core::new(config, bus, metrics, access)?;
        Ok(Self { listener, address, tls, core, health })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The API for other parts of this process: the same methods behind the same gate. A request carries its
    /// credential as any other does, and a [`tidegate_access::ForwardedPeer`] among its extensions.
    pub fn api(&self) -> Api {
        self.core.gate().layer(self.core.routes())
    }

    /// Serves until `shutdown`, and then gives open connections a few seconds to end.
    ///
    /// # Errors
    /// When the server fails.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ControlError> {
        let Self { listener, address, tls, core, health } = self;
        let ending = core.ending.clone();
        let _end_on_drop = ending.clone().drop_guard();
        core.spawn(health);
        let (reporter, health_service) = tonic_health::server::health_reporter();
        tokio::spawn(report_health(reporter, Arc::clone(&core.view), ending.clone()));
        let security = tls.map(|tls| {
            tokio::spawn(Arc::clone(&tls).run(ending.clone()));
            Security { tls, failed: HandshakeAudit::start(core.audit(), core.metrics.clone()) }
        });
        let incoming = accept(listener, core.config.max_connections, &core.metrics, security, ending.clone());
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let routes = core
            .routes()
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
        let mut server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .http2_max_header_list_size(MAX_HEADER_OCTETS)
            .max_concurrent_streams(MAX_STREAMS)
            .concurrency_limit_per_connection(MAX_CONCURRENT)
            // Until the answer begins: streams live on.
            .timeout(Duration::from_millis(core.config.request_timeout_ms))
            .layer(core.gate());
        tracing::info!(%address, "gRPC is served");
        let serving =
            server.add_routes(routes).serve_with_incoming_shutdown(incoming, ending.clone().cancelled_owned());
        tokio::pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served,
            () = shutdown.cancelled() => {
                ending.cancel();
                tokio::time::timeout(GRACE, serving).await.unwrap_or_else(|_| {
                    tracing::warn!("connections are still open and are cut off");
                    Ok(())
                })
            }
        };
        served.map_err(|source| ControlError::Grpc { doing: "serving", source })
    }
}

/// Tells gRPC's own health service: serving once the replica is whole, until the end.
async fn report_health(reporter: HealthReporter, view: Arc<View>, shutdown: CancellationToken) {
    type Admin = AdminServiceServer<AdminApi>;
    type Edge = EdgeServiceServer<EdgeApi>;
    reporter.set_not_serving::<Admin>().await;
    reporter.set_not_serving::<Edge>().await;
    // Events can be written before anything has been read.
    reporter.set_serving::<EventServiceServer<EventApi>>().await;
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = view.whole() => {
            reporter.set_serving::<Admin>().await;
            reporter.set_serving::<Edge>().await;
            shutdown.cancelled().await;
        }
    }
    reporter.set_not_serving::<Admin>().await;
    reporter.set_not_serving::<Edge>().await;
    reporter.set_not_serving::<EventServiceServer<EventApi>>().await;
}
