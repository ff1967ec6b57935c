//! The service: its parts, wired.

use crate::admin::AdminApi;
use crate::config::ControlConfig;
use crate::core::Core;
use crate::edge_service::EdgeApi;
use crate::error::ControlError;
use crate::event_service::EventApi;
use crate::metrics::Metrics;
use crate::replica_feed::HEALTH_PART;
use crate::view::View;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidegate_access::Access;
use tidegate_bus::Bus;
use tidegate_gate::{Door, DoorBounds, Gated};
use tidegate_proto::FILE_DESCRIPTOR_SET;
use tidegate_proto::v1::admin_service_server::AdminServiceServer;
use tidegate_proto::v1::edge_service_server::EdgeServiceServer;
use tidegate_proto::v1::event_service_server::EventServiceServer;
use tidegate_runtime::Health;
use tidegate_runtime::traces::Tracer;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;
use tower::Layer as _;

/// The API for other parts of this process.
pub type Api = Gated<Routes>;

/// The control service, listening but not yet serving.
pub struct Service {
    door: Door,
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
        if !access.is_off() && config.tls.as_ref().is_none_or(|files| files.client_ca.is_none()) {
            tracing::warn!("no edge can attach: [control.tls] has no client_ca, by which edges prove who they are");
        }
        let metrics = Metrics::register(registry);
        let registry = registry.sub_registry_with_prefix("tidegate_control");
        let door = Door::open("control", config.listen, config.tls.as_ref(), &access, registry).await?;
        let core = Core::new(config, bus, metrics, access)?;
        Ok(Self { door, core, health })
    }

    /// Has its steps traced. It must be said before the API is asked for.
    #[must_use]
    pub fn traced(mut self, tracer: Tracer) -> Self {
        self.core.tracer = tracer;
        self
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.door.local_addr()
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
        let Self { door, core, health } = self;
        let ending = core.ending.clone();
        let _end_on_drop = ending.clone().drop_guard();
        core.spawn(health);
        let (reporter, health_service) = tonic_health::server::health_reporter();
        tokio::spawn(report_health(reporter, Arc::clone(&core.view), ending.clone()));
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
        let bounds = DoorBounds {
            max_connections: core.config.max_connections,
            request_timeout: Duration::from_millis(core.config.request_timeout_ms),
        };
        let served = door.serve(routes, core.gate(), &core.metrics.gate, bounds, ending, shutdown).await;
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
