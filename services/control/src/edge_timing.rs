//! How fast an edge applies what it is sent, and how far its clock is off.
//!
//! The clock is estimated as in NTP (RFC 5905, section 8): a batch leaves at T1, is applied at T2 by the edge's
//! clock, and its acknowledgement arrives at T4. Then T2 - (T1 + T4) / 2 is the clock's offset, wrong by at most
//! half the round trip; of the last samples the one with the shortest round trip counts.

use std::collections::VecDeque;

/// Acknowledgements that the percentiles are taken over.
const MAX_PROPAGATIONS: usize = 1_024;
/// Acknowledgements that the clock's offset is taken from.
const MAX_CLOCK_SAMPLES: usize = 64;
/// A clock that is so far from its estimate was set: what was known of it counts no more.
const CLOCK_STEP_MS: u64 = 2_000;

/// What acknowledgements tell of one edge.
#[derive(Debug, Default)]
pub(crate) struct EdgeTiming {
    propagations_ms: VecDeque<f64>,
    /// Round trip and offset, in milliseconds.
    clock: VecDeque<(i64, i64)>,
    /// The offset that hello told, too low by the way that it took.
    hello_offset_ms: i64,
}

impl EdgeTiming {
    /// The edge said what its clock shows; it arrived at `now_ms`.
    pub fn hello(&mut self, edge_now_ms: i64, now_ms: i64) {
        self.clock.clear();
        self.hello_offset_ms = edge_now_ms.saturating_sub(now_ms);
    }

    /// The edge says in passing what its clock shows; it arrived at `now_ms`, some way later. Between
    /// acknowledgements, this is how a clock that was set is noticed.
    pub fn heard(&mut self, edge_now_ms: i64, now_ms: i64) {
        if edge_now_ms.saturating_sub(now_ms).abs_diff(self.skew_ms()) > CLOCK_STEP_MS {
            self.hello(edge_now_ms, now_ms);
        }
    }

    /// A batch sent at `sent_ms` came into force at `applied_ms` by the edge's clock; the acknowledgement arrived at
    /// `now_ms`. Gives the time from sending to application in milliseconds, within the round trip.
    pub fn acknowledged(&mut self, sent_ms: i64, applied_ms: i64, now_ms: i64, counts: bool) -> f64 {
        let round_trip_ms = now_ms.saturating_sub(sent_ms).max(0);
        let offset_ms = applied_ms.saturating_sub(sent_ms + round_trip_ms / 2);
        push_bounded(&mut self.clock, (round_trip_ms, offset_ms), MAX_CLOCK_SAMPLES);
        let propagation_ms = applied_ms.saturating_sub(self.skew_ms()).saturating_sub(sent_ms).clamp(0, round_trip_ms);
        if counts {
            push_bounded(&mut self.propagations_ms, propagation_ms as f64, MAX_PROPAGATIONS);
        }
        propagation_ms as f64
    }

    /// The edge's clock minus ours, in milliseconds.
    pub fn skew_ms(&self) -> i64 {
        let best = self.clock.iter().min_by_key(|(round_trip_ms, _)| *round_trip_ms);
        best.map_or(self.hello_offset_ms, |(_, offset_ms)| *offset_ms)
    }

    /// The times from sending to application that half, and 99 %, of the last ones do not exceed, in milliseconds;
    /// none: nothing was acknowledged yet.
    pub fn propagation_ms(&self) -> Option<(f64, f64)> {
        let mut sorted: Vec<f64> = self.propagations_ms.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |share: f64| ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
        Some((*sorted.get(rank(0.5))?, *sorted.get(rank(0.99))?))
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, value: T, most: usize) {
    if queue.len() >= most {
        queue.pop_front();
    }
    queue.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_known_before_the_first_acknowledgement() {
        let mut timing = EdgeTiming::default();
        timing.hello(5_000, 4_000);
        assert_eq!((timing.skew_ms(), timing.propagation_ms()), (1_000, None));
    }

    #[test]
    fn a_clock_that_was_set_is_noticed() {
        let mut timing = EdgeTiming::default();
        timing.hello(0, 0);
        timing.acknowledged(1_000, 1_005, 1_010, true);
        timing.heard(2_000, 2_300);
        assert_eq!(timing.skew_ms(), 0, "that it was under way for some time changes nothing");
        timing.heard(62_000, 2_000);
        assert_eq!(timing.skew_ms(), 60_000);
    }

    #[test]
    fn percentiles_are_those_of_the_last_acknowledgements() {
        let mut timing = EdgeTiming::default();
        for n in 1..=2_000 {
            // A clock that is right, and answers that come back at once.
            timing.acknowledged(0, 0, 0, true);
            timing.acknowledged(n * 10_000, n * 10_000 + 100, n * 10_000 + 100, true);
        }
        assert_eq!(timing.propagation_ms(), Some((0.0, 100.0)));
        assert_eq!(timing.propagations_ms.len(), MAX_PROPAGATIONS);
    }

    proptest! {
        /// Any offset of the clock, any two ways: the estimate is wrong by at most half the shortest round trip.
        #[test]
        fn the_clocks_offset_is_found(
            offset_ms in -1_000_000i64..1_000_000,
            ways in proptest::collection::vec((0i64..500, 0i64..500), 1..64),
        ) {
            let mut timing = EdgeTiming::default();
            timing.hello(offset_ms, 0);
            let mut sent_ms = 0;
            for (there_ms, back_ms) in &ways {
                sent_ms += 10_000;
                let propagation = timing.acknowledged(sent_ms, sent_ms + there_ms + offset_ms, sent_ms + there_ms + back_ms, true);
                prop_assert!(propagation <= (there_ms + back_ms) as f64);
            }
            let shortest = ways.iter().map(|(there, back)| there + back).min().unwrap();
            prop_assert!((timing.skew_ms() - offset_ms).abs() <= shortest / 2 + 1);
        }

        #[test]
        fn absurd_times_do_no_harm(sent in any::<i64>(), applied in any::<i64>(), now in any::<i64>()) {
            let mut timing = EdgeTiming::default();
            timing.hello(applied, now);
            timing.acknowledged(sent.clamp(0, i64::MAX / 4), applied, now, true);
            prop_assert!(timing.propagation_ms().is_some());
        }
    }
}
