//! What operators watch of a gate.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A gate's metrics. A clone shares them.
#[derive(Debug, Clone, Default)]
pub struct GateMetrics {
    /// Connections that are open.
    pub connections: Gauge,
    /// Times that a connection had to wait, because there are too many.
    pub connections_full: Counter,
    /// Connections closed because they did not begin to speak.
    pub connections_silent: Counter,
    /// TLS handshakes that failed and are not in the audit, because there were too many.
    pub handshakes_unaudited: Counter,
    /// Audit records that could not be written.
    pub audit_failures: Counter,
}

impl GateMetrics {
    /// Registers them; the registry has the service's prefix.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("connections_full", "Times a connection had to wait", metrics.connections_full.clone());
        let silent = "Connections closed because they did not begin to speak";
        registry.register("connections_silent", silent, metrics.connections_silent.clone());
        registry.register("connections", "Connections that are open", metrics.connections.clone());
        let unaudited = "TLS handshakes that failed and are not in the audit, because there were too many";
        registry.register("handshakes_unaudited", unaudited, metrics.handshakes_unaudited.clone());
        registry.register("audit_failures", "Audit records that were not written", metrics.audit_failures.clone());
        metrics
    }
}
