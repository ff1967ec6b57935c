//! What is counted, under the prefix `tidegate_access`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// All metrics. A clone shares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    pub identified: Family<CredentialLabel, Counter>,
    pub refused: Family<ReasonLabel, Counter>,
    pub blocks: Counter,
    pub addresses: Gauge,
    pub addresses_evicted: Counter,
    pub known_evicted: Counter,
    pub reloads: Family<ReloadLabel, Counter>,
    pub jwks_keys: Gauge,
}

/// How somebody proved who they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CredentialLabel {
    pub credential: &'static str,
}

/// Why somebody was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabel {
    pub reason: &'static str,
}

/// What was loaded anew, and whether it could be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReloadLabel {
    pub what: &'static str,
    pub result: &'static str,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tidegate_access");
        registry.register("identified", "Calls whose caller was identified, by credential", self.identified.clone());
        registry.register("refused", "Calls whose credential was refused, by reason", self.refused.clone());
        registry.register("blocks", "Times that an address was blocked for its failures", self.blocks.clone());
        registry.register("failing_addresses", "Addresses with failures lately", self.addresses.clone());
        let evicted = "Addresses with failures that were forgotten early, because there are too many";
        registry.register("failing_addresses_evicted", evicted, self.addresses_evicted.clone());
        let evicted = "Credentials known at their address that were forgotten early, because there are too many";
        registry.register("known_credentials_evicted", evicted, self.known_evicted.clone());
        registry.register("reloads", "Files and keys that changed, by whether they were taken", self.reloads.clone());
        registry.register("jwks_keys", "Keys of the OIDC provider that are in force", self.jwks_keys.clone());
        // A counter that appears with its first count tells Prometheus of no increase.
        for what in ["people", "tokens", "jwks"] {
            for result in ["taken", "refused"] {
                drop(self.reloads.get_or_create(&ReloadLabel { what, result }));
            }
        }
    }

    /// `what` changed, and was taken or not.
    pub fn reloaded(&self, what: &'static str, taken: bool) {
        let result = if taken { "taken" } else { "refused" };
        self.reloads.get_or_create(&ReloadLabel { what, result }).inc();
    }
}
