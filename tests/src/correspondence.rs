//! People who write letters all the time, whatever happens, with everything noted in a ledger.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::ledger::{Kind, Ledger};
use crate::mail::person;

/// Threads that send, one for each person.
#[derive(Debug)]
pub struct Correspondence {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Held for reading while a letter is sent.
    gate: RwLock<()>,
    /// Letters that were not accepted.
    refused: Mutex<Vec<String>>,
}

impl Correspondence {
    /// Each of `people` sends through the site with the person's number, modulo `sites`; a letter every `pause`.
    pub fn start(ledger: &Arc<Ledger>, people: usize, sites: usize, pause: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..people).map(|number| {
            let (shared, ledger) = (Arc::clone(&shared), Arc::clone(ledger));
            thread::spawn(move || {
                let mut letter = number;
                while !shared.stop.load(Ordering::Relaxed) {
                    letter += people;
                    let held = shared.gate.read().unwrap_or_else(PoisonError::into_inner);
                    let failure = match ledger.send(number % sites, &person(number), letter, Kind::Letter) {
                        Ok(outcome) if outcome.is_accepted() => None,
                        Ok(outcome) => Some(format!("{}: {outcome:?}", person(number))),
                        Err(error) => Some(format!("{}: {error:#}", person(number))),
                    };
                    drop(held);
                    shared.refused.lock().unwrap_or_else(PoisonError::into_inner).extend(failure);
                    thread::sleep(pause);
                }
            })
        });
        let threads = threads.collect();
        Self { shared, threads }
    }

    /// Nobody sends while this is held.
    pub fn quiet(&self) -> RwLockWriteGuard<'_, ()> {
        self.shared.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was not accepted so far.
    pub fn refused(&self) -> Vec<String> {
        self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Correspondence {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked is missed by the counts.
            let _ = thread.join();
        }
    }
}
