//! What is counted and measured, under the prefix `tidegate_control`.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tidegate_gate::GateMetrics;

/// All metrics of the service. A clone shares them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Accounts of which something was decided.
    pub accounts: Gauge,
    /// Accounts that are locked.
    pub accounts_locked: Gauge,
    /// Records that were skipped, because they do not decode, by topic.
    pub records_skipped: Family<TopicLabel, Counter>,
    /// Times that reading the log failed and was begun anew.
    pub feed_failures: Counter,
    /// Edges that are connected.
    pub edges_connected: Gauge,
    /// Edges that were cut off or turned away, by reason.
    pub edges_ended: Family<ReasonLabel, Counter>,
    /// States pushed to edges.
    pub states_pushed: Counter,
    /// Snapshots begun.
    pub snapshots: Counter,
    /// From control's sending to the edge's application.
    pub propagation_seconds: Histogram,
    /// Events written for edges.
    pub events_published: Counter,
    /// Events of edges that could not be taken.
    pub events_rejected: Counter,
    /// Those of them that were another edge's.
    pub events_foreign: Counter,
    /// Publish requests that were refused as a whole, or whose events are not known to be durable.
    pub publishes_failed: Counter,
    /// Actions by method and result.
    pub actions: Family<ActionLabel, Counter>,
    /// Certificates for edges, by what became of the request.
    pub enrolments: Family<EnrolmentLabel, Counter>,
    /// Requests that were denied, by method.
    pub denied: Family<DeniedLabel, Counter>,
    /// Watches that are open.
    pub watchers: Gauge,
    /// Watches that fell too far behind and were ended.
    pub watchers_behind: Counter,
    /// Watches that were turned away, because there are too many.
    pub watchers_refused: Counter,
    /// Those of the gate.
    pub gate: GateMetrics,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TopicLabel {
    /// Its name without the prefix.
    pub topic: &'static str,
}

/// What became of a request for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EnrolmentLabel {
    /// `given`, `renewed` or `refused`.
    pub result: &'static str,
}

/// Why an edge's stream ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabel {
    /// Why.
    pub reason: EdgeEnd,
}

/// Why an edge's stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum EdgeEnd {
    /// It went.
    Closed,
    /// The same node connected anew.
    Replaced,
    /// It took nothing for too long.
    Stalled,
    /// It said what it may not.
    Protocol,
    /// There are too many edges.
    Full,
    /// The replica is not whole yet.
    NotReady,
    /// It may not attach, or not under this name.
    Denied,
    /// Its certificate does not count any more.
    Revoked,
    /// Control ends.
    Shutdown,
}

/// A method of the admin service and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ActionLabel {
    /// The method.
    pub method: &'static str,
    /// How it ended.
    pub result: ActionResult,
}

/// A method that somebody was denied.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct DeniedLabel {
    /// The method.
    pub method: &'static str,
}

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ActionResult {
    /// The state reflects it.
    Applied,
    /// The command is durable, the state was not seen in time.
    Pending,
    /// The state machine refused it.
    Refused,
    /// The request could not be taken.
    Invalid,
    /// The log could not be written.
    Failed,
}

impl EdgeEnd {
    const ALL: [Self; 9] = [
        Self::Closed,
        Self::Replaced,
        Self::Stalled,
        Self::Protocol,
        Self::Full,
        Self::NotReady,
        Self::Denied,
        Self::Revoked,
        Self::Shutdown,
    ];
}

impl EncodeLabelValue for EdgeEnd {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        let text = match self {
            Self::Closed => "closed",
            Self::Replaced => "replaced",
            Self::Stalled => "stalled",
            Self::Protocol => "protocol",
            Self::Full => "full",
            Self::NotReady => "not_ready",
            Self::Denied => "denied",
            Self::Revoked => "revoked",
            Self::Shutdown => "shutdown",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

impl EncodeLabelValue for ActionResult {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        let text = match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("tidegate_control");
        let metrics = Self {
            accounts: Gauge::default(),
            accounts_locked: Gauge::default(),
            records_skipped: Family::default(),
            feed_failures: Counter::default(),
            edges_connected: Gauge::default(),
            edges_ended: Family::default(),
            states_pushed: Counter::default(),
            snapshots: Counter::default(),
            // 0.5 ms to 16 s.
            propagation_seconds: Histogram::new(exponential_buckets(0.000_5, 2.0, 16)),
            events_published: Counter::default(),
            events_rejected: Counter::default(),
            events_foreign: Counter::default(),
            publishes_failed: Counter::default(),
            actions: Family::default(),
            enrolments: Family::default(),
            denied: Family::default(),
            watchers: Gauge::default(),
            watchers_behind: Counter::default(),
            watchers_refused: Counter::default(),
            gate: GateMetrics::register(registry),
        };
        registry.register("accounts", "Accounts of which something was decided", metrics.accounts.clone());
        registry.register("accounts_locked", "Accounts that are locked", metrics.accounts_locked.clone());
        registry.register("records_skipped", "Records that do not decode", metrics.records_skipped.clone());
        registry.register("feed_failures", "Times that reading the log failed", metrics.feed_failures.clone());
        registry.register("edges_connected", "Edges that are connected", metrics.edges_connected.clone());
        registry.register("edges_ended", "Edge streams that ended, by reason", metrics.edges_ended.clone());
        registry.register("states_pushed", "States pushed to edges", metrics.states_pushed.clone());
        registry.register("snapshots", "Snapshots begun", metrics.snapshots.clone());
        registry.register(
            "propagation_seconds",
            "From control's sending of a change to the edge's application",
            metrics.propagation_seconds.clone(),
        );
        registry.register("events_published", "Events written for edges", metrics.events_published.clone());
        registry.register("events_rejected", "Events that could not be taken", metrics.events_rejected.clone());
        registry.register("events_foreign", "Events that named another edge", metrics.events_foreign.clone());
        registry.register("publishes_failed", "Publish requests that failed", metrics.publishes_failed.clone());
        registry.register("actions", "Administrative actions, by method and result", metrics.actions.clone());
        let enrolments = "Requests for certificates of edges, by what became of them";
        registry.register("enrolments", enrolments, metrics.enrolments.clone());
        registry.register("denied", "Requests that were denied, by method", metrics.denied.clone());
        registry.register("watchers", "Watches of accounts that are open", metrics.watchers.clone());
        registry.register("watchers_behind", "Watches ended because they fell behind", metrics.watchers_behind.clone());
        registry.register("watchers_refused", "Watches turned away", metrics.watchers_refused.clone());
        metrics.begin_at_zero();
        metrics
    }

    /// A counter that appears with its first count tells Prometheus of no increase: those that alerts look at are there
    /// from the start.
    fn begin_at_zero(&self) {
        for topic in ["accounts", "audit", "commands", "rules", "settings", "inspections", "notifications", "damaged"] {
            drop(self.records_skipped.get_or_create(&TopicLabel { topic }));
        }
        for result in ["given", "renewed", "refused"] {
            drop(self.enrolments.get_or_create(&EnrolmentLabel { result }));
        }
        for reason in EdgeEnd::ALL {
            drop(self.edges_ended.get_or_create(&ReasonLabel { reason }));
        }
    }
}
