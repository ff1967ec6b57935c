//! The bounded queue before the writer.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What waits, bounded by count and by bytes.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    drained: Condvar,
    max_items: usize,
    max_bytes: usize,
}

struct State<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    closed: bool,
}

/// Why something could not be queued; the thing comes back.
pub(crate) enum Refused<T> {
    Full(T),
    Closed(T),
}

impl<T> Queue<T> {
    pub(crate) fn new(max_items: usize, max_bytes: usize) -> Self {
        let state = State { items: VecDeque::new(), bytes: 0, closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), drained: Condvar::new(), max_items, max_bytes }
    }

    /// Queues without waiting.
    pub(crate) fn try_push(&self, item: T, bytes: usize) -> Result<(), Refused<T>> {
        let state = self.lock();
        if state.closed {
            return Err(Refused::Closed(item));
        }
        if self.is_full(&state, bytes) {
            return Err(Refused::Full(item));
        }
        self.put(state, item, bytes);
        Ok(())
    }

    /// Queues, and waits for room when there is none. Gives the item back if the queue is closed.
    pub(crate) fn push(&self, item: T, bytes: usize) -> Result<(), T> {
        let mut state = self.lock();
        while !state.closed && self.is_full(&state, bytes) {
            state = self.drained.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Err(item);
        }
        self.put(state, item, bytes);
        Ok(())
    }

    /// Waits for something and takes it; `None` when the queue is closed and empty.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some((item, bytes)) = state.items.pop_front() {
                state.bytes -= bytes;
                self.drained.notify_all();
                return Some(item);
            }
            if state.closed {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes the first item if there is one that `wanted` accepts.
    pub(crate) fn pop_if(&self, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut state = self.lock();
        if !wanted(&state.items.front()?.0) {
            return None;
        }
        let (item, bytes) = state.items.pop_front()?;
        state.bytes -= bytes;
        self.drained.notify_all();
        Some(item)
    }

    /// Takes nothing new from now on; what is queued can still be popped.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
        self.drained.notify_all();
    }

    /// Items and bytes that wait.
    pub(crate) fn level(&self) -> (usize, usize) {
        let state = self.lock();
        (state.items.len(), state.bytes)
    }

    fn is_full(&self, state: &State<T>, bytes: usize) -> bool {
        state.items.len() >= self.max_items || state.bytes.saturating_add(bytes) > self.max_bytes
    }

    fn put(&self, mut state: MutexGuard<'_, State<T>>, item: T, bytes: usize) {
        state.items.push_back((item, bytes));
        state.bytes += bytes;
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_by_count_and_by_bytes() {
        let queue = Queue::new(2, 10);
        assert!(queue.try_push('a', 6).is_ok());
        assert!(matches!(queue.try_push('b', 5), Err(Refused::Full('b'))));
        assert!(queue.try_push('c', 4).is_ok());
        assert!(matches!(queue.try_push('d', 0), Err(Refused::Full('d'))));
        assert_eq!(queue.level(), (2, 10));
        assert_eq!(queue.pop(), Some('a'));
        assert_eq!(queue.pop_if(|item| *item == 'x'), None);
        assert_eq!(queue.pop_if(|item| *item == 'c'), Some('c'));
    }

    #[test]
    fn hands_out_what_was_queued_before_it_was_closed() {
        let queue = Queue::new(2, 10);
        assert!(queue.try_push('a', 1).is_ok());
        queue.close();
        assert!(matches!(queue.try_push('b', 1), Err(Refused::Closed('b'))));
        assert_eq!(queue.push('b', 1), Err('b'));
        assert_eq!(queue.pop(), Some('a'));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn a_waiting_pusher_goes_on_when_there_is_room() {
        let queue = Queue::new(1, 10);
        assert!(queue.push('a', 1).is_ok());
        std::thread::scope(|scope| {
            let pusher = scope.spawn(|| queue.push('b', 1));
            assert_eq!(queue.pop(), Some('a'));
            assert_eq!(queue.pop(), Some('b'));
            assert!(pusher.join().unwrap().is_ok());
        });
    }
}
