//! What a worker does now and then.

use crate::config::StreamConfig;
use std::time::{Duration, Instant};

/// How often lag and sizes are measured.
const MEASURE_INTERVAL: Duration = Duration::from_secs(2);
/// How often it is told what the rules did, when they did something.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// How often a wanted partition that was lost, or could not be had, is taken over again.
const REGAIN_INTERVAL: Duration = Duration::from_secs(2);

/// What is done now and then.
pub(crate) struct Due {
    pub regain: Every,
    pub tick: Every,
    pub reload: Every,
    pub measure: Every,
    pub announce: Every,
}

/// Something that is done at an interval.
pub(crate) struct Every {
    interval: Duration,
    last: Instant,
}

impl Due {
    pub fn new(config: &StreamConfig) -> Self {
        let every = |interval| Every { interval, last: Instant::now() };
        Self {
            regain: every(REGAIN_INTERVAL),
            tick: every(Duration::from_millis(config.commit_interval_ms)),
            reload: every(Duration::from_millis(config.reload_interval_ms)),
            measure: every(MEASURE_INTERVAL),
            announce: every(ANNOUNCE_INTERVAL),
        }
    }
}

impl Every {
    /// Whether it is time; it is not again before the interval has passed.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = now.duration_since(self.last) >= self.interval;
        if due {
            self.last = now;
        }
        due
    }
}
