//! Which things come from traced steps, for a while.

use super::TraceContext;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Most things that are remembered.
pub const MAX_REMEMBERED: usize = 16_384;

/// The traced steps of the newest things; the oldest are forgotten first.
#[derive(Debug)]
pub struct Remembered<K> {
    /// With the number under which each was put last.
    steps: HashMap<K, (u64, TraceContext)>,
    /// What was put, with its number: also what was taken, or put again, since.
    oldest_first: VecDeque<(K, u64)>,
    count: u64,
}

impl<K> Default for Remembered<K> {
    fn default() -> Self {
        Self { steps: HashMap::new(), oldest_first: VecDeque::new(), count: 0 }
    }
}

impl<K: Clone + Eq + Hash> Remembered<K> {
    /// `key` comes from `step`; from now on it is the newest.
    pub fn put(&mut self, key: K, step: TraceContext) {
        self.count += 1;
        self.oldest_first.push_back((key.clone(), self.count));
        self.steps.insert(key, (self.count, step));
        while self.steps.len() > MAX_REMEMBERED
            && let Some((oldest, number)) = self.oldest_first.pop_front()
        {
            if self.is_newest(&oldest, number) {
                self.steps.remove(&oldest);
            }
        }
        if self.oldest_first.len() > 2 * MAX_REMEMBERED {
            let all = std::mem::take(&mut self.oldest_first);
            self.oldest_first = all.into_iter().filter(|(key, number)| self.is_newest(key, *number)).collect();
        }
    }

    /// The step that `key` comes from, if it is remembered.
    pub fn get(&self, key: &K) -> Option<TraceContext> {
        self.steps.get(key).map(|(_, step)| *step)
    }

    /// The same, and it is forgotten.
    pub fn take(&mut self, key: &K) -> Option<TraceContext> {
        self.steps.remove(key).map(|(_, step)| step)
    }

    fn is_newest(&self, key: &K, number: u64) -> bool {
        self.steps.get(key).is_some_and(|(newest, _)| *newest == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_taken_once_and_the_oldest_are_forgotten() {
        let mut remembered = Remembered::default();
        let steps: Vec<TraceContext> = (0..MAX_REMEMBERED + 2).map(|_| TraceContext::new_trace()).collect();
        for (number, step) in steps.iter().enumerate() {
            remembered.put(number, *step);
        }
        assert_eq!((remembered.steps.len(), remembered.oldest_first.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
        assert_eq!((remembered.get(&1), remembered.get(&2)), (None, Some(steps[2])));
        assert_eq!((remembered.take(&1), remembered.take(&2)), (None, Some(steps[2])));
        assert_eq!(remembered.take(&2), None);
        // Its older entry goes; the newer step stays.
        remembered.put(3, steps[0]);
        assert_eq!(remembered.take(&3), Some(steps[0]));
    }

    #[test]
    fn what_is_put_again_and_again_takes_no_room() {
        let mut remembered = Remembered::default();
        let step = TraceContext::new_trace();
        remembered.put(0, step);
        for number in 0..5 * MAX_REMEMBERED {
            remembered.put(1 + number % 7, step);
            remembered.take(&(1 + number % 3));
        }
        assert!(remembered.oldest_first.len() <= 2 * MAX_REMEMBERED);
        assert_eq!(remembered.get(&0), Some(step), "it is not the oldest of too many");
    }
}
