//! The live lane: events as they happen, and the batch that is kept while its fate is not known.

use super::{BATCH_MAX_EVENTS, BATCH_MAX_OCTETS, Numbers, Sender, Spool};
use crate::metrics::{LIVE, Metrics};
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tidegate_proto::v1;
use tidegate_runtime::backoff::Backoff;
use tidegate_runtime::error_line;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// First pause before a kept batch is sent again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Publishes events from the queue.
pub(crate) struct LiveLane {
    /// Events without numbers.
    pub queue: mpsc::Receiver<v1::Event>,
    /// Where events go while a batch is kept.
    pub spool: Spool,
    /// The way to the log.
    pub sender: Arc<Sender>,
    /// Numbers of live events.
    pub numbers: Numbers,
    /// This host.
    pub node: String,
    /// Longest pause before a kept batch is sent again.
    pub max_backoff: Duration,
    /// Whether no batch is kept.
    pub open: watch::Sender<bool>,
    /// What is counted.
    pub metrics: Metrics,
}

impl LiveLane {
    /// Publishes until shutdown; what is in the queue then goes to the spool. `kept` is the batch that an earlier run
    /// left behind.
    pub async fn run(mut self, kept: Vec<v1::Event>, shutdown: CancellationToken) {
        if let Some(last) = kept.iter().filter_map(|event| event.id.as_ref()).map(|id| id.sequence).max() {
            self.numbers.used(last);
        }
        let mut kept = Some(kept).filter(|kept| !kept.is_empty());
        let mut taken = Vec::with_capacity(BATCH_MAX_EVENTS);
        loop {
            if let Some(batch) = kept.take()
                && !self.settle(&batch, &shutdown).await
            {
                break;
            }
            // Whatever is there is sent at once: while one batch is on its way, the next one gathers.
            let count = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                count = self.queue.recv_many(&mut taken, BATCH_MAX_EVENTS) => count,
            };
            if count == 0 {
                break;
            }
            while kept.is_none() && !taken.is_empty() {
                kept = self.publish(&mut taken).await;
            }
            self.spool.put(&taken, "blocked");
            taken.clear();
        }
        self.queue.close();
        while self.queue.recv_many(&mut taken, BATCH_MAX_EVENTS).await > 0 {
            self.spool.put(&taken, "shutdown");
            taken.clear();
        }
        self.spool.flush().await;
    }

    /// Numbers and sends the first of `taken`. Gives the batch when it is not known to be durable; it is kept then.
    async fn publish(&mut self, taken: &mut Vec<v1::Event>) -> Option<Vec<v1::Event>> {
        let mut octets = 0;
        let fits = |event: &&v1::Event| {
            octets += event.encoded_len();
            octets <= BATCH_MAX_OCTETS
        };
        let count = taken.iter().take_while(fits).count().max(1).min(taken.len());
        let mut batch: Vec<_> = taken.drain(..count).collect();
        let first = self.numbers.take(count as u64).await;
        for (sequence, event) in (first..).zip(&mut batch) {
            event.id = Some(v1::EventId { node: self.node.clone(), lane: v1::Lane::Live.into(), sequence });
        }
        let begun = Instant::now();
        let unsettled = match self.sender.send(&batch, &LIVE).await {
            Ok(()) => {
                self.metrics.publish_seconds.observe(begun.elapsed().as_secs_f64());
                return None;
            }
            Err(unsettled) => error_line(&unsettled),
        };
        tracing::warn!(events = batch.len(), error = unsettled, "publishing failed; events go to the spool");
        if let Err(error) = self.spool.keep(&batch).await {
            // It stays in memory, and is lost only if the process ends before the log is back.
            tracing::warn!(error = error_line(&error), "the batch in hand could not be written to disk");
        }
        Some(batch)
    }

    /// Sends the kept batch until the log has it. Newer events go to the spool. False: shutdown came first.
    async fn settle(&mut self, batch: &[v1::Event], shutdown: &CancellationToken) -> bool {
        self.open.send_replace(false);
        self.metrics.live_blocked.set(1);
        let mut backoff = Backoff::new(FIRST_PAUSE, self.max_backoff);
        let mut newer = Vec::new();
        loop {
            let sender = Arc::clone(&self.sender);
            let pause = backoff.pause();
            let attempt = async {
                tokio::time::sleep(pause).await;
                sender.note_resent(batch.len(), &LIVE);
                sender.send(batch, &LIVE).await
            };
            tokio::pin!(attempt);
            let sent = loop {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return false,
                    sent = &mut attempt => break sent,
                    count = self.queue.recv_many(&mut newer, BATCH_MAX_EVENTS) => {
                        if count == 0 {
                            return false;
                        }
                        self.spool.put(&newer, "blocked");
                        newer.clear();
                    }
                }
            };
            match sent {
                Ok(()) => break,
                Err(unsettled) => tracing::debug!(error = error_line(&unsettled), "publishing still fails"),
            }
        }
        tracing::info!("publishing works again");
        let spool = self.spool.clone();
        let forgotten = tokio::task::spawn_blocking(move || spool.forget_kept()).await;
        if let Ok(Err(error)) = forgotten {
            // It would be sent once more after a restart, and dropped there by its numbers.
            tracing::warn!(error = error_line(&error), "the kept batch could not be removed from disk");
        }
        self.open.send_replace(true);
        self.metrics.live_blocked.set(0);
        true
    }
}
