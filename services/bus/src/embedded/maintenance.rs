//! Deletes what need not be kept, every so often.

use super::EmbeddedBus;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tidegate_journal::MaintainReport;
use tidegate_runtime::shutdown::CancellationToken;

impl EmbeddedBus {
    /// Maintains the log every `maintain_interval_ms` until `shutdown`; a round that runs is finished first.
    pub async fn run_maintenance(&self, shutdown: CancellationToken) {
        let pause = Duration::from_millis(self.config.maintain_interval_ms);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.log.closed.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            self.maintain().await;
        }
    }

    /// Maintains the log in the background for as long as somebody else has it.
    pub(crate) fn maintain_while_in_use(self: &Arc<Self>) {
        let pause = Duration::from_millis(self.config.maintain_interval_ms);
        let (bus, closed) = (Arc::downgrade(self), self.log.closed.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = closed.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                let Some(bus) = bus.upgrade() else { return };
                bus.maintain().await;
            }
        });
    }

    /// One round: deletes what is too old, compacts, and gives unused space back. A failure is logged and counted; the
    /// next round tries again.
    pub async fn maintain(&self) -> MaintainReport {
        let (began, now_ms) = (Instant::now(), (self.log.clock)());
        let result = self.log.blocking(|| "maintaining it".to_owned(), move |journal| journal.maintain(now_ms)).await;
        let counters = &self.log.counters;
        match result {
            Ok(report) => {
                counters.maintenance_rounds.fetch_add(1, Ordering::Relaxed);
                if report != MaintainReport::default() {
                    tracing::debug!(
                        deleted_by_age = report.deleted_by_age,
                        dropped_by_bytes = report.dropped_by_bytes,
                        compacted = report.compacted,
                        tombstones_removed = report.tombstones_removed,
                        deleted_bytes = report.deleted_bytes,
                        took_ms = began.elapsed().as_millis() as u64,
                        "maintained the embedded log"
                    );
                }
                report
            }
            Err(error) => {
                counters.maintenance_failures.fetch_add(1, Ordering::Relaxed);
                let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(%error, source, "the embedded log could not be maintained; the next round tries again");
                MaintainReport::default()
            }
        }
    }
}
