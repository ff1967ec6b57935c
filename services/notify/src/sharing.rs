//! Partitions that come and go: what is known of one is learnt when it is taken over, and forgotten when it is lost.

use crate::smtp::chain;
use crate::take_over::{Known, Owned, TakeOver};
use crate::worker::{PART, Worker};
use std::collections::BTreeSet;
use tidegate_bus::{BusError, partition_of};
use tidegate_runtime::shutdown::CancellationToken;
use tokio::task::{JoinError, JoinSet};

/// A partition, and how taking it over ended.
pub(crate) type Taken = (u32, Result<(Owned, Known), BusError>);

/// Partitions that are being taken over.
#[derive(Default)]
pub(crate) struct TakingOver {
    pub tasks: JoinSet<Taken>,
    pub numbers: BTreeSet<u32>,
}

impl Worker {
    /// Other partitions are to be owned from now on.
    pub async fn share(&mut self, wanted: BTreeSet<u32>, shutdown: &CancellationToken) {
        tracing::info!(partitions = ?wanted, "the notifications of these partitions are sent here now");
        let gone: Vec<u32> = self.partitions.keys().copied().filter(|number| !wanted.contains(number)).collect();
        for number in gone {
            self.commit_position(number, shutdown).await;
            self.lose(number);
        }
        self.wanted = wanted;
        self.take_over_missing();
        self.report_readiness();
    }

    pub fn take_over_missing(&mut self) {
        let task = TakeOver { bus: self.bus.clone(), config: self.config.clone(), now_ms: (self.clock)() };
        for number in self.missing() {
            if self.taking_over.numbers.insert(number) {
                let task = task.clone();
                self.taking_over.tasks.spawn(async move { (number, task.one(number).await) });
            }
        }
    }

    /// A partition was taken over, or cannot be had now: then it is tried again. Gives whether it is owned.
    pub fn taken_over(&mut self, taken: Result<Taken, JoinError>) -> bool {
        let (number, owned) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                // Which one it was is not known: all that are not here are tried again.
                tracing::error!(%error, "taking a partition over failed");
                self.taking_over.tasks.abort_all();
                self.taking_over.numbers.clear();
                return false;
            }
        };
        self.taking_over.numbers.remove(&number);
        match owned {
            Ok((owned, known)) if self.wanted.contains(&number) => {
                self.learn(number, known);
                self.partitions.insert(number, owned);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(
                    partition = number,
                    error = chain(&error),
                    "the partition could not be taken over; trying again"
                );
            }
        }
        self.report_readiness();
        self.partitions.contains_key(&number)
    }

    fn learn(&mut self, number: u32, known: Known) {
        let now_ms = (self.clock)();
        self.metrics.skipped.inc_by(known.skipped);
        known.told.iter().for_each(|(account, (version, at_ms))| self.told.note(account, *version, *at_ms));
        known.reminders.iter().for_each(|(id, at_ms)| self.reminders.note_told(id, *at_ms));
        for (subject, (version, exemptions)) in &known.exemptions {
            self.reminders.observe(number, subject, *version, exemptions);
        }
        for notification in known.sent.into_iter().chain(known.pending.into_values()) {
            self.outbox.restore(number, notification, now_ms);
        }
    }

    /// Forgets a partition: somebody else knows all of it.
    pub fn lose(&mut self, number: u32) {
        let (all, now_ms) = (self.bus.partitions(), (self.clock)());
        self.partitions.remove(&number);
        self.outbox.forget(number, now_ms);
        self.reminders.forget(number);
        self.told.forget(|account| partition_of(account.as_bytes(), all) == number);
        self.report_readiness();
    }

    fn report_readiness(&self) {
        self.metrics.owned.set(i64::try_from(self.partitions.len()).unwrap_or(i64::MAX));
        let missing = self.missing();
        if missing.is_empty() {
            self.health.ready(PART);
        } else {
            self.health.not_ready(PART, format!("partitions {missing:?} are not taken over"));
        }
    }

    fn missing(&self) -> Vec<u32> {
        self.wanted.iter().copied().filter(|number| !self.partitions.contains_key(number)).collect()
    }
}
