//! The history service: start and run.

use crate::config::HistoryConfig;
use crate::flight::{Desk, FlightApi, PreparedStatements, RunningQueries, Statements};
use crate::lake::{Lake, LakeError};
use crate::metrics::Metrics;
use crate::query::Engine;
use crate::sink::Sink;
use crate::upkeep::{Eraser, Room, Upkeep};
use arrow_flight::flight_service_server::FlightServiceServer;
use datafusion::error::DataFusionError;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidegate_access::Access;
use tidegate_bus::{Bus, BusError};
use tidegate_gate::{Audit, Door, DoorBounds, DoorError, Gate, GateMetrics, now_ms};
use tidegate_runtime::Health;
use tidegate_runtime::shutdown::CancellationToken;
use tonic::service::Routes;

/// Tells the time, in milliseconds since 1970 UTC.
pub(crate) type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Largest message that a client may send, in octets.
const MAX_MESSAGE_OCTETS: usize = 4 << 20;

/// A history service with its tables open, listening but not yet serving.
pub struct Service {
    sink: Sink,
    upkeep: Upkeep,
    eraser: Eraser,
    door: Door,
    gate: Gate,
    gate_metrics: GateMetrics,
    statements: Statements,
    bounds: DoorBounds,
}

/// Why the history service cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The tables cannot be had.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// Which partitions are to be owned is not told.
    #[error("sharing the partitions with other processes")]
    Membership {
        /// Why.
        #[source]
        source: BusError,
    },
    /// There can be no queries.
    #[error("setting up queries")]
    Queries(#[source] DataFusionError),
    /// There can be no threads.
    #[error("setting up threads for upkeep")]
    Threads(#[source] std::io::Error),
    /// The address cannot be served.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// The server failed.
    #[error("serving Flight SQL")]
    Serve(#[source] tonic::transport::Error),
}

impl Service {
    /// Opens the tables, joins the processes that share the partitions, and listens. `access` tells who calls; who
    /// shares it among services runs it and registers its metrics.
    ///
    /// # Errors
    /// When the tables or the address cannot be had, or the log cannot be reached.
    pub async fn bind(
        config: HistoryConfig,
        bus: Arc<dyn Bus>,
        registry: &mut Registry,
        health: Health,
        access: Arc<Access>,
    ) -> Result<Self, HistoryError> {
        let lake = Lake::open(&config).await?;
        Self::bind_over(lake, config, bus, registry, health, access).await
    }

    /// The same over tables that are open already, wherever they are.
    ///
    /// # Errors
    /// As [`Service::bind`].
    pub async fn bind_over(
        lake: Lake,
        config: HistoryConfig,
        bus: Arc<dyn Bus>,
        registry: &mut Registry,
        health: Health,
        access: Arc<Access>,
    ) -> Result<Self, HistoryError> {
        let metrics = Metrics::new(registry);
        let registry = registry.sub_registry_with_prefix("tidegate_history");
        let door = Door::open("history", config.listen, config.tls.as_ref(), &access, registry).await?;
        let gate_metrics = GateMetrics::register(registry);
        let membership = bus.join(&config.group).await.map_err(|source| HistoryError::Membership { source })?;
        let audit = Audit::new(Arc::clone(&bus), gate_metrics.clone());
        let engine = Engine::new(&config, lake.clone(), metrics.clone()).map_err(HistoryError::Queries)?;
        let statements = Statements {
            engine: Arc::new(engine),
            desk: Desk::new(audit.clone()),
            prepared: Arc::new(PreparedStatements::new(config.queries.max_prepared, metrics.clone())),
            running: Arc::new(RunningQueries::default()),
            ending: CancellationToken::new(),
        };
        let bounds = DoorBounds {
            max_connections: config.max_connections,
            request_timeout: Duration::from_millis(config.queries.timeout_ms),
        };
        let clock: Clock = Arc::new(now_ms);
        let rewriting = Arc::default();
        let sink = Sink::new(&config, bus, lake.clone(), membership, metrics.clone(), health, Arc::clone(&clock));
        let (keeper, lock) = (sink.is_keeper(), Arc::clone(&rewriting));
        let upkeep = Upkeep::new(&config, lake.clone(), metrics.clone(), clock, keeper, lock);
        let upkeep = upkeep.map_err(HistoryError::Threads)?;
        let eraser = Eraser { lake, room: Room::of(&config), metrics, rewriting, threads: upkeep.threads() };
        Ok(Self { sink, upkeep, eraser, door, gate: Gate { access, audit }, gate_metrics, statements, bounds })
    }

    /// Where Flight SQL is served.
    pub fn local_addr(&self) -> SocketAddr {
        self.door.local_addr()
    }

    /// Works until `shutdown`.
    ///
    /// # Errors
    /// When the log was closed, or the server fails.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), HistoryError> {
        let Self { sink, upkeep, eraser, door, gate, gate_metrics, statements, bounds } = self;
        let ending = statements.ending.clone();
        let _end_on_drop = ending.clone().drop_guard();
        let (desk, access) = (statements.desk.clone(), Arc::clone(&gate.access));
        let api = FlightApi { statements, desk, eraser, access };
        let flight = FlightServiceServer::new(api).max_decoding_message_size(MAX_MESSAGE_OCTETS);
        let (reporter, health_service) = tonic_health::server::health_reporter();
        reporter.set_serving::<FlightServiceServer<FlightApi>>().await;
        let routes = Routes::new(flight).add_service(health_service);
        let serving = async {
            let served = door.serve(routes, gate, &gate_metrics, bounds, ending, shutdown.clone()).await;
            served.map_err(HistoryError::Serve)
        };
        let tidying = async {
            upkeep.run(shutdown.clone()).await;
            Ok(())
        };
        tokio::try_join!(sink.run(shutdown.clone()), serving, tidying).map(|_| ())
    }
}
