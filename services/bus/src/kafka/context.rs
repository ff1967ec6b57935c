//! What librdkafka has to say, into our logs and counters.

use super::stats::{Counters, add};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use std::sync::Arc;

/// The context of every client.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) counters: Arc<Counters>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(facility, "librdkafka: {message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, "librdkafka: {message}"),
            RDKafkaLogLevel::Debug => tracing::debug!(facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition and a position that is gone come this way, too, and are no faults of a connection.
        if matches!(error, KafkaError::Global(code) if is_of_a_partition(code)) {
            return;
        }
        add(&self.counters.client_errors, 1);
        tracing::warn!(%error, "Kafka: {reason}");
    }
}

impl ConsumerContext for Context {}

fn is_of_a_partition(code: rdkafka::types::RDKafkaErrorCode) -> bool {
    use rdkafka::types::RDKafkaErrorCode::{AutoOffsetReset, PartitionEOF};
    matches!(code, PartitionEOF | AutoOffsetReset)
}
