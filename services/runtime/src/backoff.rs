//! Pauses between attempts that grow, have a bound, and are never the same for two processes.

use std::time::Duration;

/// The pause before attempt number `attempt` is made again (the first is 0): doubled from `first` with each attempt up
/// to `longest`, then shortened by up to half as `random`, from 0 to 1, says. So fifty edges that lost the same control
/// do not come back at the same moment.
pub fn pause(first: Duration, longest: Duration, attempt: u32, random: f64) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(attempt));
    doubled.min(longest).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

/// Counts attempts that failed, and gives the [`pause`] after each.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempt: u32,
}

impl Backoff {
    /// From `first` to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, attempt: 0 }
    }

    /// The pause before the next attempt.
    pub fn pause(&mut self) -> Duration {
        self.pause_with(rand::random())
    }

    /// The same with a random number, from 0 to 1, of the caller's.
    pub fn pause_with(&mut self, random: f64) -> Duration {
        let pause = pause(self.first, self.longest, self.attempt, random);
        self.attempt = self.attempt.saturating_add(1);
        pause
    }

    /// An attempt went well.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_grow_within_their_bounds_and_differ_by_chance(
            first_ms in 1_u64..10_000,
            longest_ms in 1_u64..600_000,
            attempt in 0_u32..10_000,
            (one, other) in (0.0..=1.0_f64, 0.0..=1.0_f64),
        ) {
            let (first, longest) = (Duration::from_millis(first_ms), Duration::from_millis(longest_ms));
            let pause = |attempt, random| pause(first, longest, attempt, random);
            prop_assert!(pause(attempt, one) <= longest);
            prop_assert!(pause(attempt, one) >= first.min(longest) / 2);
            prop_assert!(pause(attempt + 1, one) >= pause(attempt, one));
            // All pauses of an attempt are below all of the next but one, until the bound is reached.
            if pause(attempt + 2, 1.0) < longest {
                prop_assert!(pause(attempt + 2, other) > pause(attempt, one));
            }
            // Two that draw differently pause differently: by half of the whole pause from end to end.
            let apart = pause(attempt, one).abs_diff(pause(attempt, other)).as_secs_f64();
            let expected = pause(attempt, 1.0).as_secs_f64() * (one - other).abs() / 2.0;
            prop_assert!((apart - expected).abs() < 1e-6, "{apart} {expected}");
        }

        #[test]
        fn it_counts_attempts_until_one_goes_well(randoms in proptest::collection::vec(0.0..=1.0_f64, 1..40)) {
            let (first, longest) = (Duration::from_millis(100), Duration::from_secs(15));
            let mut backoff = Backoff::new(first, longest);
            for (attempt, random) in (0..).zip(&randoms) {
                prop_assert_eq!(backoff.pause_with(*random), pause(first, longest, attempt, *random));
            }
            backoff.reset();
            prop_assert_eq!(backoff.pause_with(randoms[0]), pause(first, longest, 0, randoms[0]));
        }
    }

    #[test]
    fn chance_is_drawn_anew_each_time() {
        let mut backoff = Backoff::new(Duration::from_hours(1), Duration::from_hours(1));
        let pauses: std::collections::BTreeSet<Duration> = (0..20).map(|_| backoff.pause()).collect();
        assert!(pauses.len() > 10, "{pauses:?}");
    }
}
