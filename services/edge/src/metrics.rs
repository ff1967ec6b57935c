//! What is counted and measured, under the prefix `tidegate_edge`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use tidegate_runtime::http::HttpMetrics;

/// All metrics of the edge. A clone shares them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Connections taken.
    pub connections: Family<ProtocolLabel, Counter>,
    /// Connections that are open.
    pub connections_open: Family<ProtocolLabel, Gauge>,
    /// Connections closed at once because too many were open; their mail passed unchecked.
    pub connections_shed: Family<ProtocolLabel, Counter>,
    /// Connections that could not be accepted.
    pub accept_failures: Family<ProtocolLabel, Counter>,
    /// Connections ended because they said nothing for too long.
    pub connections_idle: Family<ProtocolLabel, Counter>,
    /// Connections ended because the peer does not speak the protocol.
    pub protocol_errors: Family<ProtocolLabel, Counter>,
    /// From reading what the mail server sent to having the answer.
    pub answer_seconds: Histogram,
    /// Answers of the gate, by verdict.
    decisions: Family<VerdictLabel, Counter>,
    /// Answers of the gate that let mail pass.
    pub passed: Counter,
    /// Answers of the gate that throttle.
    pub throttled: Counter,
    /// Answers of the gate that refuse.
    pub refused: Counter,
    /// Answers that throttle because of the local cap.
    pub capped: Counter,
    /// Accounts that the local cap could not count, because there were too many.
    pub cap_full: Counter,
    /// Commands that were refused, by stage and verdict.
    pub refusals: Family<RefusalLabel, Counter>,
    /// Messages that are nobody's, by reason.
    pub ignored: Family<ReasonLabel, Counter>,
    /// Verdicts that rspamd posted, by what became of them.
    pub verdicts: Family<ReasonLabel, Counter>,
    /// Connections of rspamd.
    pub rspamd_http: HttpMetrics,
    /// Messages and verdicts forgotten early because there were too many.
    pub joiner_evicted: Family<ReasonLabel, Counter>,
    /// Events handed to the publisher.
    pub events: Counter,
    /// Events that are durable in the log, by lane.
    pub published: Family<LaneLabel, Counter>,
    /// Events sent again under the same number, by lane: repeats that the stream drops where they had arrived.
    pub resent: Family<LaneLabel, Counter>,
    /// Batches that were not known to be durable in time, by lane.
    pub publish_failures: Family<LaneLabel, Counter>,
    /// From sending a batch of live events to its being durable.
    pub publish_seconds: Histogram,
    /// Events that the log will never take.
    pub rejected: Counter,
    /// Events written to the spool, by reason.
    pub spooled: Family<ReasonLabel, Counter>,
    /// Events lost, by reason.
    pub lost: Family<ReasonLabel, Counter>,
    /// Events that wait in memory.
    pub queue_events: Gauge,
    /// 1 while a batch of live events is not known to be durable.
    pub live_blocked: Gauge,
    /// Events on disk.
    pub spool_events: Gauge,
    /// Their octets.
    pub spool_bytes: Gauge,
    /// How long ago the oldest of them happened.
    pub spool_oldest_seconds: Gauge,
    /// Records of the spool that were damaged and passed over.
    pub spool_damaged: Counter,
    /// Account states held.
    pub states: Gauge,
    /// Account states on disk.
    pub states_on_disk: Gauge,
    /// States applied.
    pub states_applied: Counter,
    /// States that could not be read and were passed over.
    pub states_skipped: Counter,
    /// States lost on disk, found at the start: control sends all of them again.
    pub states_damaged: Counter,
    /// Times that states could not be written to disk.
    pub states_write_failures: Counter,
    /// Whether control is connected.
    pub control_connected: Gauge,
    /// When control was heard last, in seconds since 1970 UTC.
    pub control_heard_seconds: Gauge,
    /// Connections to control that ended or failed.
    pub control_failures: Counter,
    /// When the certificate for control ends, in seconds since 1970 UTC; 0: there is none.
    pub certificate_not_after: Gauge,
    /// Snapshots that were begun.
    pub snapshots: Counter,
    /// From control's sending of a change to its being in force here, by the two clocks.
    pub propagation_seconds: Histogram,
}

/// A protocol that mail servers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Milter.
    Milter,
    /// Postfix policy delegation.
    Policy,
}

/// A protocol that mail servers speak.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ProtocolLabel {
    /// `milter` or `policy`.
    pub protocol: &'static str,
}

/// What was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RefusalLabel {
    /// At which command.
    pub stage: &'static str,
    /// `throttle` or `refuse`.
    pub verdict: &'static str,
}

/// What the gate answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct VerdictLabel {
    /// `pass`, `throttle` or `refuse`.
    pub verdict: &'static str,
}

/// Why, or what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabel {
    /// A word.
    pub reason: &'static str,
}

/// The way an event took.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LaneLabel {
    /// `live` or `spooled`.
    pub lane: &'static str,
}

/// Events published as they happen.
pub(crate) const LIVE: LaneLabel = LaneLabel { lane: "live" };
/// Events published from the spool.
pub(crate) const SPOOLED: LaneLabel = LaneLabel { lane: "spooled" };

/// The label for `reason`.
pub(crate) const fn because(reason: &'static str) -> ReasonLabel {
    ReasonLabel { reason }
}

/// Sets a gauge.
pub(crate) fn set_gauge(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// Sets a counter that another part keeps.
pub(crate) fn set_counter(counter: &Counter<u64, AtomicU64>, value: u64) {
    counter.inner().store(value, std::sync::atomic::Ordering::Relaxed);
}

impl Protocol {
    /// The label for it.
    pub fn label(self) -> ProtocolLabel {
        let protocol = match self {
            Self::Milter => "milter",
            Self::Policy => "policy",
        };
        ProtocolLabel { protocol }
    }
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("tidegate_edge");
        let decisions = Family::<VerdictLabel, Counter>::default();
        let decided = |verdict| decisions.get_or_create_owned(&VerdictLabel { verdict });
        let metrics = Self {
            connections: Family::default(),
            connections_open: Family::default(),
            connections_shed: Family::default(),
            accept_failures: Family::default(),
            connections_idle: Family::default(),
            protocol_errors: Family::default(),
            // 1 us to 2 s.
            answer_seconds: Histogram::new(exponential_buckets(0.000_001, 2.0, 22)),
            passed: decided("pass"),
            throttled: decided("throttle"),
            refused: decided("refuse"),
            decisions,
            capped: Counter::default(),
            cap_full: Counter::default(),
            refusals: Family::default(),
            ignored: Family::default(),
            verdicts: Family::default(),
            rspamd_http: HttpMetrics::register("rspamd", registry),
            joiner_evicted: Family::default(),
            events: Counter::default(),
            published: Family::default(),
            resent: Family::default(),
            publish_failures: Family::default(),
            // 0.25 ms to 8 s.
            publish_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            rejected: Counter::default(),
            spooled: Family::default(),
            lost: Family::default(),
            queue_events: Gauge::default(),
            live_blocked: Gauge::default(),
            spool_events: Gauge::default(),
            spool_bytes: Gauge::default(),
            spool_oldest_seconds: Gauge::default(),
            spool_damaged: Counter::default(),
            states: Gauge::default(),
            states_on_disk: Gauge::default(),
            states_applied: Counter::default(),
            states_skipped: Counter::default(),
            states_damaged: Counter::default(),
            states_write_failures: Counter::default(),
            control_connected: Gauge::default(),
            control_heard_seconds: Gauge::default(),
            control_failures: Counter::default(),
            certificate_not_after: Gauge::default(),
            snapshots: Counter::default(),
            // 0.5 ms to 16 s.
            propagation_seconds: Histogram::new(exponential_buckets(0.000_5, 2.0, 16)),
        };
        metrics.register_sessions(registry);
        metrics.register_events(registry);
        metrics.register_states(registry);
        metrics.begin_at_zero();
        metrics
    }

    /// A counter that appears with its first count tells Prometheus of no increase: those that alerts look at are there
    /// from the start.
    fn begin_at_zero(&self) {
        for protocol in [Protocol::Milter, Protocol::Policy] {
            for counters in [
                &self.connections,
                &self.connections_shed,
                &self.accept_failures,
                &self.connections_idle,
                &self.protocol_errors,
            ] {
                drop(counters.get_or_create(&protocol.label()));
            }
        }
        for lane in [LIVE, SPOOLED] {
            for counters in [&self.published, &self.resent, &self.publish_failures] {
                drop(counters.get_or_create(&lane));
            }
        }
    }

    fn register_sessions(&self, registry: &mut Registry) {
        let m = self;
        registry.register("connections", "Connections of mail servers", m.connections.clone());
        registry.register("connections_open", "Connections that are open", m.connections_open.clone());
        registry.register(
            "connections_shed",
            "Connections closed at once because too many were open; their mail passed unchecked",
            m.connections_shed.clone(),
        );
        registry.register("accept_failures", "Connections that could not be accepted", m.accept_failures.clone());
        registry.register("connections_idle", "Connections that said nothing for too long", m.connections_idle.clone());
        registry.register(
            "protocol_errors",
            "Connections ended because the peer does not speak the protocol",
            m.protocol_errors.clone(),
        );
        registry.register("answer_seconds", "From reading a command to having the answer", m.answer_seconds.clone());
        registry.register("decisions", "Answers of the gate, by verdict", m.decisions.clone());
        registry.register("capped", "Answers that throttle because of the local cap", m.capped.clone());
        registry.register("cap_full", "Messages that the local cap could not count", m.cap_full.clone());
        registry.register("refusals", "Commands refused, by stage and verdict", m.refusals.clone());
        registry.register("ignored", "Messages that are nobody's, by reason", m.ignored.clone());
        registry.register("verdicts", "Verdicts posted by the filter, by what became of them", m.verdicts.clone());
        registry.register(
            "joiner_evicted",
            "Messages and verdicts forgotten early because there were too many",
            m.joiner_evicted.clone(),
        );
    }

    fn register_events(&self, registry: &mut Registry) {
        let m = self;
        registry.register("events", "Events to publish", m.events.clone());
        registry.register("events_published", "Events durable in the log, by lane", m.published.clone());
        registry.register(
            "events_resent",
            "Events sent again under the same number, by lane: duplicates avoided where they had arrived",
            m.resent.clone(),
        );
        registry.register("publish_failures", "Batches not durable in time, by lane", m.publish_failures.clone());
        registry.register(
            "publish_seconds",
            "From sending live events to their being durable",
            m.publish_seconds.clone(),
        );
        registry.register("events_rejected", "Events that the log will never take", m.rejected.clone());
        registry.register("events_spooled", "Events written to the spool, by reason", m.spooled.clone());
        registry.register("events_lost", "Events lost, by reason", m.lost.clone());
        registry.register("queue_events", "Events that wait in memory", m.queue_events.clone());
        registry.register(
            "live_blocked",
            "1 while a batch of live events is not known to be durable",
            m.live_blocked.clone(),
        );
        registry.register("spool_events", "Events on disk", m.spool_events.clone());
        registry.register("spool_bytes", "Octets of events on disk", m.spool_bytes.clone());
        registry.register("spool_oldest_seconds", "Age of the oldest event on disk", m.spool_oldest_seconds.clone());
        registry.register("spool_damaged", "Damaged records of the spool", m.spool_damaged.clone());
    }

    fn register_states(&self, registry: &mut Registry) {
        let m = self;
        registry.register("states", "Account states held", m.states.clone());
        registry.register("states_on_disk", "Account states on disk", m.states_on_disk.clone());
        registry.register("states_applied", "Account states applied", m.states_applied.clone());
        registry.register("states_skipped", "Account states that could not be read", m.states_skipped.clone());
        registry.register("states_damaged", "Account states lost on disk", m.states_damaged.clone());
        registry.register(
            "states_write_failures",
            "Times that states could not be written to disk",
            m.states_write_failures.clone(),
        );
        registry.register("control_connected", "1 while control is connected", m.control_connected.clone());
        registry.register(
            "control_heard_seconds",
            "When control was heard last, since 1970 UTC",
            m.control_heard_seconds.clone(),
        );
        registry.register("control_failures", "Connections to control that ended", m.control_failures.clone());
        registry.register(
            "certificate_not_after_seconds",
            "When the certificate with which control is reached ends, since 1970 UTC; 0: there is none",
            m.certificate_not_after.clone(),
        );
        registry.register("snapshots", "Snapshots of all states that were begun", m.snapshots.clone());
        registry.register(
            "propagation_seconds",
            "From control's sending of a change to its being in force here",
            m.propagation_seconds.clone(),
        );
    }

    /// Answers of the gate, and of them those that do not let pass.
    pub fn decisions(&self) -> (u64, u64) {
        let refusals = self.throttled.get() + self.refused.get();
        (self.passed.get() + refusals, refusals)
    }
}
