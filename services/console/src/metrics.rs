//! What is counted.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What the console counts of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// Sessions that are open.
    pub sessions: Gauge,
    /// Sessions that ended.
    pub sessions_ended: Family<EndLabel, Counter>,
    /// Sign-ins.
    pub sign_ins: Family<ResultLabel, Counter>,
    /// Requests that were refused before anything was asked of the API.
    pub refused: Family<EndLabel, Counter>,
    /// Live streams that are open.
    pub live: Gauge,
    /// Parts that were sent on live streams.
    pub live_parts: Counter,
}

/// Why something ended or was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EndLabel {
    pub why: &'static str,
}

/// What came of something.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ResultLabel {
    pub result: &'static str,
}

impl Metrics {
    /// Registers them as `console_...`, below the prefix `tidegate` of who calls.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("console");
        registry.register("sessions", "Sessions that are open", metrics.sessions.clone());
        registry.register("sessions_ended", "Sessions that ended, by why", metrics.sessions_ended.clone());
        registry.register("sign_ins", "Sign-ins, by result", metrics.sign_ins.clone());
        registry.register("refused", "Requests refused before the API was asked, by why", metrics.refused.clone());
        registry.register("live_streams", "Live streams that are open", metrics.live.clone());
        registry.register("live_parts", "Parts of pages sent on live streams", metrics.live_parts.clone());
        metrics
    }

    /// Counts a refusal.
    pub fn refuse(&self, why: &'static str) {
        self.refused.get_or_create(&EndLabel { why }).inc();
    }
}
