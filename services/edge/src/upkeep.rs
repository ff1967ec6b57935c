//! What happens every second: joiners, gauges, the spool's retention.

use crate::clock::Clock;
use crate::intake::Intake;
use crate::metrics::{Metrics, Protocol, because, set_gauge};
use crate::publish::{Spool, SpoolLevel};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tidegate_proto::v1;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_secs(1);
/// The spool's retention is looked after every so many periods.
const MAINTENANCE_PERIODS: u32 = 30;
/// Why events get lost.
const LOSSES: [&str; 3] = ["spool_refused", "spool_full", "spool_age"];

/// Looks after things.
pub(crate) struct Upkeep {
    queue: mpsc::Sender<v1::Event>,
    spool: Spool,
    level: Arc<Mutex<SpoolLevel>>,
    clock: Clock,
    metrics: Metrics,
}

impl Upkeep {
    /// Looks after `queue` and `spool`.
    pub fn new(queue: mpsc::Sender<v1::Event>, spool: Spool, clock: Clock, metrics: Metrics) -> Self {
        Self { queue, spool, level: Arc::default(), clock, metrics }
    }

    /// How the edge is, for control.
    pub fn health(&self) -> impl Fn() -> v1::EdgeHealth + Send + Sync + 'static {
        let (metrics, level, clock) = (self.metrics.clone(), Arc::clone(&self.level), self.clock.clone());
        move || {
            let open = |protocol: Protocol| metrics.connections_open.get_or_create(&protocol.label()).get();
            let (decisions, refusals) = metrics.decisions();
            let level = *level.lock();
            v1::EdgeHealth {
                now_ms: clock.now_ms(),
                sessions: u32::try_from(open(Protocol::Milter) + open(Protocol::Policy)).unwrap_or(0),
                decisions,
                refusals,
                spooled: level.events,
                lost: LOSSES.iter().map(|reason| metrics.lost.get_or_create(&because(reason)).get()).sum(),
                oldest_spooled_ms: level.oldest_ms,
            }
        }
    }

    /// Runs until shutdown.
    pub async fn run(self, intake: Arc<Intake>, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut period = 0_u32;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            intake.tick();
            let waiting = self.queue.max_capacity() - self.queue.capacity();
            set_gauge(&self.metrics.queue_events, waiting as u64);
            let maintain = period.is_multiple_of(MAINTENANCE_PERIODS);
            period = period.wrapping_add(1);
            self.look_at_spool(maintain).await;
        }
    }

    async fn look_at_spool(&self, maintain: bool) {
        let spool = self.spool.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let maintained = if maintain { spool.maintain() } else { Ok(()) };
            (spool.level(), maintained)
        });
        let Ok((level, maintained)) = looked.await else { return };
        if let Err(error) = maintained {
            tracing::warn!(error = tidegate_runtime::error_line(&error), "the spool could not be looked after");
        }
        *self.level.lock() = level;
        set_gauge(&self.metrics.spool_events, level.events);
        set_gauge(&self.metrics.spool_bytes, level.bytes);
        let age_ms = level.oldest_ms.map_or(0, |oldest_ms| self.clock.now_ms().saturating_sub(oldest_ms).max(0));
        self.metrics.spool_oldest_seconds.set(age_ms / 1_000);
    }
}
