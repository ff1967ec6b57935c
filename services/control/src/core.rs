//! What is behind all of control's methods, whichever way they are called.

use crate::admin::{AdminApi, Parts};
use crate::admission::Admission;
use crate::audit_service::AuditApi;
use crate::config::ControlConfig;
use crate::edge_registry::EdgeRegistry;
use crate::edge_service::EdgeApi;
use crate::enrol_service::EnrolApi;
use crate::error::ControlError;
use crate::event_rate::EventRate;
use crate::event_service::EventApi;
use crate::metrics::Metrics;
use crate::replica_feed::ReplicaFeed;
use crate::tails::Tails;
use crate::unlock_evidence::Evidence;
use crate::view::View;
use std::sync::Arc;
use tidegate_access::Access;
use tidegate_bus::Bus;
use tidegate_gate::Audit;
use tidegate_gate::Gate;
use tidegate_proto::v1::admin_service_server::AdminServiceServer;
use tidegate_proto::v1::audit_service_server::AuditServiceServer;
use tidegate_proto::v1::edge_service_server::EdgeServiceServer;
use tidegate_proto::v1::enrol_service_server::EnrolServiceServer;
use tidegate_proto::v1::event_service_server::EventServiceServer;
use tidegate_runtime::Health;
use tidegate_runtime::traces::Tracer;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// Largest request, in octets: a thousand events of usual size are a tenth of it.
const MAX_REQUEST_OCTETS: usize = 8 << 20;
/// Largest request for a certificate, in octets: two names and a signing request.
const MAX_ENROL_OCTETS: usize = 16 << 10;
/// Largest answer, in octets; gRPC clients take 4 MiB by default.
const MAX_ANSWER_OCTETS: usize = 4 << 20;

/// What is behind all methods.
pub(crate) struct Core {
    /// The settings.
    pub config: Arc<ControlConfig>,
    /// What is known of accounts, rules and settings.
    pub view: Arc<View>,
    /// What is counted.
    pub metrics: Metrics,
    /// Tells who calls.
    pub access: Arc<Access>,
    /// Takes the steps of pushes and commands.
    pub tracer: Tracer,
    /// Ends everything.
    pub ending: CancellationToken,
    bus: Arc<dyn Bus>,
    tails: Arc<Tails>,
    registry: Arc<EdgeRegistry>,
    event_rate: Arc<EventRate>,
    evidence: Arc<Evidence>,
    admission: Admission,
    watchers: Arc<Semaphore>,
}

impl Core {
    /// Knows nothing until [`Core::spawn`].
    ///
    /// # Errors
    /// When the place where evidence for unlocks comes from cannot be used.
    pub fn new(
        config: ControlConfig,
        bus: Arc<dyn Bus>,
        metrics: Metrics,
        access: Arc<Access>,
    ) -> Result<Self, ControlError> {
        let evidence = Evidence::new(config.unlock.clone()).map_err(|error| ControlError::Evidence(error.into()))?;
        Ok(Self {
            view: Arc::new(View::new(bus.log_id().to_owned(), bus.partitions(), config.watch_buffer)),
            tails: Arc::new(Tails::new(config.audit_records, config.watch_buffer)),
            registry: Arc::new(EdgeRegistry::new(config.max_edges)),
            event_rate: Arc::default(),
            evidence: Arc::new(evidence),
            admission: Admission::new(Audit::new(Arc::clone(&bus), metrics.gate.clone()), metrics.clone()),
            watchers: Arc::new(Semaphore::new(config.max_watchers)),
            config: Arc::new(config),
            access,
            bus,
            metrics,
            tracer: Tracer::off(),
            ending: CancellationToken::new(),
        })
    }

    /// Begins to read what it has to know, until the end.
    pub fn spawn(&self, health: Health) {
        let ending = || self.ending.clone();
        let (bus, metrics) = (|| Arc::clone(&self.bus), || self.metrics.clone());
        tokio::spawn(ReplicaFeed::new(bus(), Arc::clone(&self.view), metrics(), health).run(ending()));
        tokio::spawn(Arc::clone(&self.tails).run(bus(), metrics(), ending()));
        tokio::spawn(Arc::clone(&self.event_rate).run(bus(), ending()));
    }

    /// What stands in front of all services.
    pub fn gate(&self) -> Gate {
        Gate { access: Arc::clone(&self.access), audit: self.audit() }
    }

    /// Where the audit is written.
    pub fn audit(&self) -> Audit {
        self.admission.audit().clone()
    }

    /// All services. They do not know who calls: that is for who stands in front of them.
    pub fn routes(&self) -> Routes {
        let admin = AdminApi::new(Parts {
            view: Arc::clone(&self.view),
            tails: Arc::clone(&self.tails),
            registry: Arc::clone(&self.registry),
            bus: Arc::clone(&self.bus),
            admission: self.admission.clone(),
            evidence: Arc::clone(&self.evidence),
            event_rate: Arc::clone(&self.event_rate),
            config: Arc::clone(&self.config),
            metrics: self.metrics.clone(),
            tracer: self.tracer.clone(),
            watchers: Arc::clone(&self.watchers),
            shutdown: self.ending.clone(),
        });
        let audit = AuditApi {
            tails: Arc::clone(&self.tails),
            admission: self.admission.clone(),
            form: Arc::new(self.config.account_form()),
            metrics: self.metrics.clone(),
            watchers: Arc::clone(&self.watchers),
            shutdown: self.ending.clone(),
        };
        let edges = EdgeApi {
            view: Arc::clone(&self.view),
            registry: Arc::clone(&self.registry),
            bus: Arc::clone(&self.bus),
            config: Arc::clone(&self.config),
            access: Arc::clone(&self.access),
            admission: self.admission.clone(),
            metrics: self.metrics.clone(),
            tracer: self.tracer.clone(),
            shutdown: self.ending.clone(),
        };
        let events =
            EventApi { bus: Arc::clone(&self.bus), admission: self.admission.clone(), metrics: self.metrics.clone() };
        let enrol = EnrolApi {
            access: Arc::clone(&self.access),
            admission: self.admission.clone(),
            metrics: self.metrics.clone(),
        };
        Routes::default()
            .add_service(
                AdminServiceServer::new(admin)
                    .max_decoding_message_size(MAX_REQUEST_OCTETS)
                    .max_encoding_message_size(MAX_ANSWER_OCTETS),
            )
            .add_service(AuditServiceServer::new(audit).max_encoding_message_size(MAX_ANSWER_OCTETS))
            .add_service(
                EdgeServiceServer::new(edges)
                    .max_decoding_message_size(MAX_REQUEST_OCTETS)
                    .max_encoding_message_size(MAX_ANSWER_OCTETS),
            )
            .add_service(EnrolServiceServer::new(enrol).max_decoding_message_size(MAX_ENROL_OCTETS))
            .add_service(EventServiceServer::new(events).max_decoding_message_size(MAX_REQUEST_OCTETS))
    }
}
