//! Wall time and CPU time beside each other.

use std::time::{Duration, Instant};

/// Hertz of the counters in `/proc/self/stat`, on every Linux of today.
const TICKS_PER_S: f64 = 100.0;

/// Measures from its start on.
pub struct Stopwatch {
    began: Instant,
    cpu_s: Option<f64>,
}

/// What a [`Stopwatch`] measured.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// Wall time.
    pub wall_s: f64,
    /// CPU time of all threads of this process; none where the system does not tell.
    pub cpu_s: Option<f64>,
}

impl Stopwatch {
    /// Starts.
    pub fn start() -> Self {
        Self { began: Instant::now(), cpu_s: process_cpu_s() }
    }

    /// Time since the start.
    pub fn spent(&self) -> Spent {
        let cpu_s = self.cpu_s.zip(process_cpu_s()).map(|(start, end)| end - start);
        Spent { wall_s: self.began.elapsed().as_secs_f64(), cpu_s }
    }
}

fn process_cpu_s() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name before it may have spaces in it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_S)
}

/// CPU time of this thread; none where the system does not tell.
pub fn thread_cpu() -> Option<Duration> {
    let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    schedule.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// The value that a share `q` of `sorted` does not exceed.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|q| quantile(&values, q) as u32), [50, 99, 100]);
        assert_eq!(quantile(&[7.0], 0.01) as u32, 7);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn cpu_time_grows_with_work() {
        let watch = Stopwatch::start();
        let Some(before) = thread_cpu() else { return };
        let mut sum = 0_u64;
        while thread_cpu().is_some_and(|now| now.saturating_sub(before) < Duration::from_millis(30)) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        assert!(sum > 0 && watch.spent().cpu_s.is_some_and(|cpu_s| cpu_s > 0.0));
    }
}
