//! The edge: its parts, wired.

use crate::addresses::Addresses;
use crate::clock::Clock;
use crate::config::{ConnectionConfig, EdgeConfig, PublishKind};
use crate::control_client::ControlClient;
use crate::error::EdgeError;
use crate::gate::EdgeGate;
use crate::hash_key;
use crate::intake::Intake;
use crate::link::Link;
use crate::listen::{Accepting, ListenAddress, Listener};
use crate::metrics::{Metrics, Protocol};
use crate::publish::{Drain, KafkaPublisher, LiveLane, Numbers, Sender, Spool};
use crate::rspamd::VerdictServer;
use crate::session::Sessions;
use crate::states::{HeldStates, StatesDisk};
use crate::steps::Steps;
use crate::upkeep::Upkeep;
use prometheus_client::registry::Registry;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::Duration;
use tidegate_bus::{GrpcPublisher, Publisher};
use tidegate_mta::policy::PolicyJoiner;
use tidegate_mta::{SessionSettings, VerdictJoiner};
use tidegate_proto::v1;
use tidegate_runtime::traces::{TraceExporter, Tracer};
use tidegate_runtime::{Health, OpsServer};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a batch on its way has to be settled at the end, beyond its own timeout.
const GRACE: Duration = Duration::from_secs(5);

/// The edge, listening but not yet serving. Connections made before [`Service::run`] wait.
pub struct Service {
    config: EdgeConfig,
    addresses: Addresses,
    milter: Vec<Listener>,
    policy: Vec<Listener>,
    verdicts: Option<VerdictServer>,
    ops: OpsServer,
    settings: Arc<SessionSettings>,
    gate: Arc<EdgeGate>,
    intake: Arc<Intake>,
    states: Arc<HeldStates>,
    disk: StatesDisk,
    control: ControlClient,
    live: LiveLane,
    kept: Vec<v1::Event>,
    drain: Drain,
    upkeep: Upkeep,
    clock: Clock,
    metrics: Metrics,
    exporter: Option<TraceExporter>,
}

impl Service {
    /// Loads what was held before, then listens. `config` must have been found right by its `validate`.
    ///
    /// # Errors
    /// When the state directory cannot be used (another edge uses it, no permission), a secret or a certificate cannot
    /// be read, or an address cannot be had.
    pub async fn bind(config: EdgeConfig) -> Result<Self, EdgeError> {
        Self::bind_with(config, Clock::system()).await
    }

    /// The same with a clock of the caller's.
    ///
    /// # Errors
    /// As for [`Service::bind`].
    pub async fn bind_with(config: EdgeConfig, clock: Clock) -> Result<Self, EdgeError> {
        let directory = &config.state_directory;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(EdgeError::file("make the state directory", directory))?;
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let (tracer, exporter) = Tracer::new(&config.traces, &config.node, &mut registry)?;
        let tracer = tracer.of("tidegate-edge");
        let steps = Arc::new(Steps::new(tracer, &config.node, &config.site, clock.clone()));
        let health = Health::new();
        let link = Arc::new(Link::new(clock.clone(), health.clone()));
        let settings = Arc::new(SessionSettings::new(&config.session, &hash_key::load(&config)?));

        let (disk, loaded) = StatesDisk::open(directory, clock.clone(), metrics.clone())?;
        tracing::info!(states = loaded.replica.len(), "account states loaded; they are in force");
        let states = Arc::new(HeldStates::new(loaded.log_id, loaded.replica, metrics.clone()));
        let gate =
            Arc::new(EdgeGate::new(&config, Arc::clone(&states), Arc::clone(&link), clock.clone(), metrics.clone()));

        let spool = Spool::open(directory, &config.spool, &config.node, clock.clone(), metrics.clone())?;
        let kept = spool.kept().unwrap_or_else(|error| {
            tracing::warn!(error = tidegate_runtime::error_line(&error), "a kept batch could not be read");
            Vec::new()
        });
        let numbers = Numbers::open(directory, spool.log_id(), clock.now_ms())?;
        let (queue, events) = mpsc::channel(config.publish.queue_max_events);
        let (live, drain) = lanes(&config, numbers, &spool, events, &metrics, &steps)?;

        let joiners = (
            PolicyJoiner::new(Arc::clone(&settings), config.policy.joiner.clone()),
            VerdictJoiner::new(config.verdicts.clone()),
        );
        let upkeep = Upkeep::new(queue.clone(), spool.clone(), clock.clone(), metrics.clone());
        let destination = (queue, spool);
        let traced = Arc::clone(&steps);
        let intake =
            Intake::new(joiners, Arc::clone(&gate), &config.site, destination, clock.clone(), metrics.clone(), traced);
        let (held, counted) = (Arc::clone(&states), metrics.clone());
        let control = ControlClient::new(&config, held, link, upkeep.health(), clock.clone(), counted, steps)?;

        let milter = listen(&config.milter.listen, &config.milter.connections).await?;
        let policy = listen(&config.policy.listen, &config.policy.connections).await?;
        let verdicts = match config.rspamd.listen {
            Some(address) => Some(VerdictServer::bind(address).await?),
            None => None,
        };
        let ops = OpsServer::bind(config.ops.listen, Arc::new(registry), health);
        let failed = |source| EdgeError::Listen { address: config.ops.listen.to_string(), source };
        let ops = ops.await.map_err(failed)?;
        let shown = |listeners: &[Listener]| listeners.iter().map(|listener| listener.address().to_owned()).collect();
        let addresses = Addresses {
            milter: shown(&milter),
            policy: shown(&policy),
            rspamd: verdicts.as_ref().map(VerdictServer::local_addr).transpose().map_err(failed)?,
            ops: ops.local_addr().map_err(failed)?,
        };
        addresses.tell(directory)?;
        Ok(Self {
            config,
            addresses,
            milter,
            policy,
            verdicts,
            ops,
            settings,
            gate,
            intake: Arc::new(intake),
            states,
            disk,
            control,
            live,
            kept,
            drain,
            upkeep,
            clock,
            metrics,
            exporter,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Serves until `shutdown`, then writes what is not published to the spool.
    pub async fn run(self, shutdown: CancellationToken) {
        let sessions = TaskTracker::new();
        let background = TaskTracker::new();
        // Sessions and the control stream end first; the publisher takes what they have left.
        let (ending, last) = (shutdown.child_token(), CancellationToken::new());
        let (_end_sessions, end_background) = (ending.clone().drop_guard(), last.clone().drop_guard());

        for (protocol, listeners, bounds) in [
            (Protocol::Milter, self.milter, &self.config.milter.connections),
            (Protocol::Policy, self.policy, &self.config.policy.connections),
        ] {
            let shared = Arc::new(Sessions {
                settings: Arc::clone(&self.settings),
                gate: Arc::clone(&self.gate),
                intake: Arc::clone(&self.intake),
                idle: Duration::from_millis(bounds.idle_ms),
                protocol,
                clock: self.clock.clone(),
                metrics: self.metrics.clone(),
            });
            let accepting = Accepting {
                protocol,
                permits: Arc::new(Semaphore::new(bounds.max)),
                metrics: self.metrics.clone(),
                shutdown: ending.clone(),
                sessions: sessions.clone(),
            };
            for listener in listeners {
                let shared = Arc::clone(&shared);
                let session = move |connection| Arc::clone(&shared).serve(connection);
                sessions.spawn(accepting.clone().run(listener, session));
            }
        }
        if let Some(verdicts) = self.verdicts {
            let (settings, gate, intake) = (self.settings, self.gate, Arc::clone(&self.intake));
            sessions.spawn(verdicts.run(settings, gate, intake, self.metrics, ending.clone()));
        }
        sessions.spawn(self.control.run(ending.clone()));
        sessions.spawn(self.upkeep.run(self.intake, ending.clone()));
        background.spawn(self.disk.run(self.states, last.clone()));
        background.spawn(self.live.run(self.kept, last.clone()));
        background.spawn(self.drain.run(last.clone()));
        background.spawn(self.ops.run(last.clone()));
        if let Some(exporter) = self.exporter {
            background.spawn(exporter.run(last.clone()));
        }

        shutdown.cancelled().await;
        sessions.close();
        sessions.wait().await;
        drop(end_background);
        background.close();
        let patience = Duration::from_millis(self.config.publish.timeout_ms) + GRACE;
        if tokio::time::timeout(patience, background.wait()).await.is_err() {
            tracing::warn!("the end took too long; events in memory may be lost");
        }
    }
}

/// The two ways to the log.
fn lanes(
    config: &EdgeConfig,
    numbers: Numbers,
    spool: &Spool,
    queue: mpsc::Receiver<v1::Event>,
    metrics: &Metrics,
    steps: &Arc<Steps>,
) -> Result<(LiveLane, Drain), EdgeError> {
    let timeout = Duration::from_millis(config.publish.timeout_ms);
    let max_backoff = Duration::from_millis(config.publish.max_backoff_ms);
    let publisher: Arc<dyn Publisher> = match config.publish.kind {
        PublishKind::Grpc => Arc::new(GrpcPublisher::new(&config.publish.grpc_publisher(&config.control))?),
        PublishKind::Kafka => Arc::new(KafkaPublisher::new(config.publish.kafka.clone(), max_backoff)),
    };
    let sender = Arc::new(Sender::new(publisher, timeout, metrics.clone(), Arc::clone(steps)));
    let (open, is_open) = watch::channel(true);
    let drain = Drain {
        spool: spool.clone(),
        base: numbers.spool_base(),
        sender: Arc::clone(&sender),
        max_backoff,
        open: is_open,
    };
    let live = LiveLane {
        queue,
        spool: spool.clone(),
        sender,
        numbers,
        node: config.node.clone(),
        max_backoff,
        open,
        metrics: metrics.clone(),
    };
    Ok((live, drain))
}

async fn listen(addresses: &[String], bounds: &ConnectionConfig) -> Result<Vec<Listener>, EdgeError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for text in addresses {
        let setting = |problem| EdgeError::Setting { key: "listen", problem };
        let address: ListenAddress = text.parse().map_err(setting)?;
        let mode = bounds.mode().ok_or_else(|| setting("socket_mode is not octal".to_owned()))?;
        listeners.push(Listener::bind(&address, mode).await?);
    }
    Ok(listeners)
}
