//! Writes the audit: who asked what, and what came of it.

use crate::clock::now_ms;
use crate::metrics::Metrics;
use crate::replica_feed::error_line;
use bytes::Bytes;
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tidegate_bus::{Bus, Message, Topic};
use tidegate_proto::v1;
use tonic::Status;

/// How long a write may take before it counts as failed.
pub(crate) const WRITE_WAIT: Duration = Duration::from_secs(10);
/// Longest text kept of what somebody asked, in octets.
const MAX_TEXT_OCTETS: usize = 1_024;

/// Writes audit records.
#[derive(Clone)]
pub(crate) struct Audit {
    bus: Arc<dyn Bus>,
    metrics: Metrics,
}

impl Audit {
    /// Writes to `bus`.
    pub fn new(bus: Arc<dyn Bus>, metrics: Metrics) -> Self {
        Self { bus, metrics }
    }

    /// Writes `record` with an id and the time of its own, durably.
    ///
    /// # Errors
    /// `UNAVAILABLE` when it is not known to be written: then what it tells of is not to be done.
    pub async fn write(&self, mut record: v1::AuditRecord) -> Result<(), Status> {
        record.id = new_id();
        record.time_ms = now_ms();
        for text in [&mut record.actor, &mut record.account, &mut record.reason, &mut record.result] {
            text.truncate(text.floor_char_boundary(MAX_TEXT_OCTETS));
        }
        // A request that names no account is kept under its method: every record needs a key.
        let key = if record.account.is_empty() { &record.method } else { &record.account };
        let key = Bytes::copy_from_slice(key.as_bytes());
        let message = Message { key, value: Some(record.encode_to_vec().into()) };
        let why = match tokio::time::timeout(WRITE_WAIT, self.bus.append(Topic::Audit, vec![message])).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error_line(&error),
            Err(_) => format!("it took more than {} s", WRITE_WAIT.as_secs()),
        };
        self.metrics.audit_failures.inc();
        tracing::error!(
            error = why,
            method = record.method,
            account = record.account,
            actor = record.actor,
            result = record.result,
            "an audit record could not be written"
        );
        Err(Status::unavailable(format!("the audit record could not be written, so nothing was done: {why}")))
    }
}

/// A random id in the form of a UUID of version 4 (RFC 9562).
pub(crate) fn new_id() -> String {
    let random = rand::random::<u128>() & !(0xf000 << 64) & !(0xc000 << 48) | (0x4000 << 64) | (0x8000 << 48);
    let hex = format!("{random:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_4() {
        let id = new_id();
        assert_ne!(id, new_id());
        let parts: Vec<&str> = id.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(parts[2].starts_with('4') && "89ab".contains(&parts[3][..1]), "{id}");
    }
}
