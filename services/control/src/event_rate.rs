//! How many events come, from the ends of the topic: asked of the log only while somebody wants to know.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_bus::{Bus, BusError, Topic};
use tokio_util::sync::CancellationToken;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(2);
/// How many looks a rate is taken from.
const LOOKS: usize = 6;
/// Nobody has asked for so long: the log is left alone.
const FORGOTTEN: Duration = Duration::from_mins(1);

/// How many events come.
#[derive(Default)]
pub(crate) struct EventRate(Mutex<State>);

#[derive(Default)]
struct State {
    looks: VecDeque<(Instant, u64)>,
    asked: Option<Instant>,
}

impl EventRate {
    /// Events for each second, of the last ten or so; none: not known yet.
    pub fn per_second(&self) -> Option<f64> {
        let mut state = self.0.lock();
        state.asked = Some(Instant::now());
        let ((first, began), (last, ended)) = (state.looks.front()?, state.looks.back()?);
        let seconds = last.duration_since(*first).as_secs_f64();
        (seconds > 0.0).then(|| ended.saturating_sub(*began) as f64 / seconds)
    }

    /// Looks now and then, until `shutdown`.
    pub async fn run(self: Arc<Self>, bus: Arc<dyn Bus>, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if self.0.lock().asked.is_none_or(|asked| asked.elapsed() > FORGOTTEN) {
                self.0.lock().looks.clear();
                continue;
            }
            let end = tokio::select! {
                () = shutdown.cancelled() => return,
                end = end(&*bus) => end,
            };
            let mut state = self.0.lock();
            match end {
                Ok(end) => {
                    if state.looks.len() == LOOKS {
                        state.looks.pop_front();
                    }
                    state.looks.push_back((Instant::now(), end));
                }
                // It is not known then.
                Err(_) => state.looks.clear(),
            }
        }
    }
}

/// How many events were ever written.
async fn end(bus: &dyn Bus) -> Result<u64, BusError> {
    let mut end = 0;
    for partition in 0..bus.partitions() {
        end += bus.bounds(Topic::Events, partition).await?.next;
    }
    Ok(end)
}
