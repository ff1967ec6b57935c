//! Tells on a terminal how far a long query is.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// What is quicker is told nothing of.
const QUIET: Duration = Duration::from_secs(1);
/// How often it is told.
const PERIOD: Duration = Duration::from_millis(250);

/// One line on standard error, written over again and again.
pub struct Progress {
    is_shown: bool,
    is_there: bool,
    began: Instant,
    ticks: Interval,
    /// Rows that came so far.
    pub rows: u64,
}

impl Progress {
    /// Of a query that begins now.
    pub fn begin() -> Self {
        let mut ticks = interval_at(tokio::time::Instant::now() + QUIET, PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let is_shown = std::io::stderr().is_terminal();
        Self { is_shown, is_there: false, began: Instant::now(), ticks, rows: 0 }
    }

    /// Waits until it is time to tell, and tells.
    pub async fn tick(&mut self) {
        self.ticks.tick().await;
        if self.is_shown {
            let text = format!("\r\x1b[2K{} (Ctrl-C cancels)", line(self.rows, self.began.elapsed()));
            let _ = std::io::stderr().write_all(text.as_bytes());
            self.is_there = true;
        }
    }

    /// How long it has taken.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Makes room for what is printed.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_there) {
            let _ = std::io::stderr().write_all(b"\r\x1b[2K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// `1234567 rows, 12 s`
fn line(rows: u64, elapsed: Duration) -> String {
    format!("{rows} rows, {} s", elapsed.as_secs())
}

/// `12.3 ms`, or `4.56 s`.
pub fn span(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1000.0) } else { format!("{seconds:.2} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_people_write_them() {
        assert_eq!(line(12, Duration::from_millis(3_900)), "12 rows, 3 s");
        assert_eq!(span(Duration::from_micros(12_345)), "12.3 ms");
        assert_eq!(span(Duration::from_millis(4_560)), "4.56 s");
    }
}
