//! Writes the audit: who asked what, and what came of it.

use crate::append::append;
use crate::clock::now_ms;
use crate::metrics::GateMetrics;
use bytes::Bytes;
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tidegate_bus::{Bus, Message, Topic};
use tidegate_proto::v1;
use tokio::sync::mpsc;
use tonic::Status;

/// Longest text kept of what somebody asked, in octets.
const MAX_TEXT_OCTETS: usize = 1_024;

/// Most records of mere looking that wait to be written.
const QUEUE: usize = 1_024;
/// Most records in one write.
const BATCH: usize = 256;
/// How long who looks waits for a place in the queue, before the record counts as lost.
const QUEUE_WAIT: Duration = Duration::from_secs(1);

/// Writes audit records. A clone writes to the same place.
#[derive(Clone)]
pub struct Audit {
    bus: Arc<dyn Bus>,
    metrics: GateMetrics,
    queue: mpsc::Sender<v1::AuditRecord>,
}

impl Audit {
    /// Writes to `bus`. What is noted is written by a task of its own, which ends when all clones are gone.
    pub fn new(bus: Arc<dyn Bus>, metrics: GateMetrics) -> Self {
        let (queue, noted) = mpsc::channel(QUEUE);
        tokio::spawn(write_noted(Arc::clone(&bus), metrics.clone(), noted));
        Self { bus, metrics, queue }
    }

    /// Writes `record` with an id and the time of its own, durably.
    ///
    /// # Errors
    /// `UNAVAILABLE` when it is not known to be written: then what it tells of is not to be done.
    pub async fn write(&self, record: v1::AuditRecord) -> Result<(), Status> {
        self.write_all(vec![record]).await
    }

    /// Writes `records` likewise, together.
    ///
    /// # Errors
    /// As for [`Audit::write`].
    pub async fn write_all(&self, records: Vec<v1::AuditRecord>) -> Result<(), Status> {
        write(&self.bus, &self.metrics, records.into_iter().map(finished).collect()).await
    }

    /// Writes `record` soon: for what changes nothing, and is not held up by the audit. One that cannot be written is
    /// logged and counted.
    pub async fn note(&self, record: v1::AuditRecord) {
        if let Err(lost) = self.queue.send_timeout(finished(record), QUEUE_WAIT).await {
            self.metrics.audit_failures.inc();
            let record = lost.into_inner();
            tracing::error!(
                method = record.method,
                actor = record.actor,
                "an audit record found no place in the queue"
            );
        }
    }
}

async fn write_noted(bus: Arc<dyn Bus>, metrics: GateMetrics, mut noted: mpsc::Receiver<v1::AuditRecord>) {
    let mut records = Vec::new();
    while noted.recv_many(&mut records, BATCH).await > 0 {
        // That they are lacking is logged and counted.
        let _ = write(&bus, &metrics, std::mem::take(&mut records)).await;
    }
}

/// The record with its id and time, and no longer than it may be.
fn finished(mut record: v1::AuditRecord) -> v1::AuditRecord {
    record.id = new_id();
    record.time_ms = now_ms();
    let v1::AuditRecord { actor, account, reason, result, request, .. } = &mut record;
    for text in [actor, account, reason, result, request] {
        text.truncate(text.floor_char_boundary(MAX_TEXT_OCTETS));
    }
    record
}

async fn write(bus: &Arc<dyn Bus>, metrics: &GateMetrics, records: Vec<v1::AuditRecord>) -> Result<(), Status> {
    let messages = records.iter().map(message).collect();
    let Err(why) = append(&**bus, Topic::Audit, messages).await else { return Ok(()) };
    metrics.audit_failures.inc_by(records.len() as u64);
    for record in &records {
        tracing::error!(
            error = why,
            method = record.method,
            account = record.account,
            actor = record.actor,
            result = record.result,
            "an audit record could not be written"
        );
    }
    Err(Status::unavailable(format!("the audit record could not be written, so nothing was done: {why}")))
}

fn message(record: &v1::AuditRecord) -> Message {
    // A request that names no account is kept under its method: every record needs a key.
    let key = if record.account.is_empty() { &record.method } else { &record.account };
    Message::new(Bytes::copy_from_slice(key.as_bytes()), Some(record.encode_to_vec().into()))
}

/// A random id in the form of a UUID of version 4 (RFC 9562).
pub fn new_id() -> String {
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
