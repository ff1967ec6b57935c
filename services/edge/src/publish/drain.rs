//! Publishes the spool, in order, without delaying live events.

use super::spool::SpooledBatch;
use super::{Sender, Spool};
use crate::metrics::SPOOLED;
use std::sync::Arc;
use std::time::Duration;
use tidegate_journal::JournalError;
use tidegate_runtime::backoff::Backoff;
use tidegate_runtime::error_line;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between two batches that went well.
const MAX_BREATH: Duration = Duration::from_millis(100);

/// Publishes the spool.
pub(crate) struct Drain {
    /// What is drained.
    pub spool: Spool,
    /// Number of the spool's offset 0.
    pub base: u64,
    /// The way to the log.
    pub sender: Arc<Sender>,
    /// Longest pause after a failure.
    pub max_backoff: Duration,
    /// Whether live events get through; while not, nothing is drained.
    pub open: watch::Receiver<bool>,
}

impl Drain {
    /// Publishes until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.drain() => {}
        }
    }

    async fn drain(&mut self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, self.max_backoff);
        // Events from here on were never sent.
        let mut sent_to = 0;
        let mut told = false;
        loop {
            if self.spool.is_empty() {
                self.spool.written().await;
                continue;
            }
            if self.open.wait_for(|open| *open).await.is_err() {
                return;
            }
            let begun = Instant::now();
            match self.send_first(&mut sent_to).await {
                Ok(()) => {
                    backoff.reset();
                    told = false;
                    tokio::time::sleep(begun.elapsed().min(MAX_BREATH)).await;
                }
                Err(error) => {
                    if !told {
                        tracing::warn!(error, "the spool cannot be published now; trying again");
                        told = true;
                    }
                    let pause = backoff.pause();
                    // When live events get through again, so will these.
                    self.open.mark_unchanged();
                    let _ = tokio::time::timeout(pause, self.open.changed()).await;
                }
            }
        }
    }

    /// Sends the first batch and trims it.
    async fn send_first(&self, sent_to: &mut u64) -> Result<(), String> {
        let base = self.base;
        let SpooledBatch { events, next_offset } = self.blocking(move |spool| spool.first(base)).await?;
        let repeats = |event: &&tidegate_proto::v1::Event| {
            event.id.as_ref().is_some_and(|id| id.sequence.saturating_sub(base) < *sent_to)
        };
        self.sender.note_resent(events.iter().filter(repeats).count(), &SPOOLED);
        *sent_to = next_offset.max(*sent_to);
        if !events.is_empty() {
            self.sender.send(&events, &SPOOLED).await.map_err(|error| error_line(&error))?;
        }
        self.blocking(move |spool| spool.trim(next_offset)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Spool) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, String> {
        let spool = self.spool.clone();
        let done = tokio::task::spawn_blocking(move || work(&spool)).await;
        done.map_err(|error| error_line(&error))?.map_err(|error| error_line(&error))
    }
}
