//! Random numbers from a seed that is printed, so that a run can be repeated.

use std::ops::Range;
use std::time::SystemTime;

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From the seed in the environment's `variable`, or from the clock; prints it as `VARIABLE=SEED`.
    #[allow(clippy::print_stdout, reason = "the seed is what a failed run is repeated with")]
    pub fn from_environment(variable: &str) -> Self {
        let clock = || {
            let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            since_1970.as_nanos() as u64
        };
        let seed = number_of(variable).unwrap_or_else(clock);
        println!("{variable}={seed}");
        Self(seed)
    }

    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number of a range that is not empty.
    pub fn within(&mut self, range: Range<usize>) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        range.start + ((mixed ^ mixed >> 31) % range.len().max(1) as u64) as usize
    }

    /// One of these, which are not none.
    pub fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.within(0..all.len())].clone()
    }
}

/// The number in the environment's `variable`, if it is one.
pub fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_all_of_a_range() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..200).map(|_| random.within(3..7)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(5), numbers(5));
        assert_ne!(numbers(5), numbers(6));
        assert_eq!(numbers(5).into_iter().collect::<std::collections::BTreeSet<_>>(), (3..7).collect());
    }
}
