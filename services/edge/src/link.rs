//! Whether control is there.

use crate::clock::Clock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, UNIX_EPOCH};
use tidegate_runtime::Health;

/// The part of the process's readiness.
const HEALTH_PART: &str = "control";

/// Whether control is there, and since when not.
#[derive(Debug)]
pub(crate) struct Link {
    connected: AtomicBool,
    /// When control was heard last, or the start.
    heard_ms: AtomicI64,
    clock: Clock,
    health: Health,
}

impl Link {
    /// Not connected yet.
    pub fn new(clock: Clock, health: Health) -> Self {
        let link = Self { connected: AtomicBool::new(false), heard_ms: AtomicI64::new(clock.now_ms()), clock, health };
        link.tell();
        link
    }

    /// Control said something.
    pub fn heard(&self) {
        self.heard_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        if !self.connected.swap(true, Ordering::Relaxed) {
            self.health.ready(HEALTH_PART);
        }
    }

    /// The connection is gone.
    pub fn lost(&self) {
        if self.connected.swap(false, Ordering::Relaxed) {
            self.tell();
        }
    }

    /// Whether control is there.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// When control was heard last; the start, when never.
    pub fn heard_ms(&self) -> i64 {
        self.heard_ms.load(Ordering::Relaxed)
    }

    /// For how long control has not been heard; 0 while it is there.
    pub fn cut_off_ms(&self, now_ms: i64) -> i64 {
        if self.is_connected() { 0 } else { now_ms.saturating_sub(self.heard_ms()).max(0) }
    }

    fn tell(&self) {
        let since = UNIX_EPOCH + Duration::from_millis(self.heard_ms().try_into().unwrap_or(0));
        let since = humantime::format_rfc3339_seconds(since);
        self.health.not_ready(HEALTH_PART, format!("cut off since {since}; known locks stay in force"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn it_says_since_when_it_is_cut_off() {
        let now = Arc::new(AtomicI64::new(1_000));
        let read = Arc::clone(&now);
        let health = Health::new();
        let link = Link::new(Clock::new(move || read.load(Ordering::Relaxed)), health.clone());
        assert_eq!(link.cut_off_ms(5_000), 4_000);
        now.store(60_000, Ordering::Relaxed);
        link.heard();
        assert_eq!(link.cut_off_ms(900_000), 0);
        assert!(health.report().0);
        link.lost();
        assert_eq!(link.cut_off_ms(61_000), 1_000);
        let (ready, text) = health.report();
        assert!(!ready && text.contains("cut off since 1970-01-01T00:01:00Z"), "{text}");
    }
}
