//! Partitions that come and go. A partition is taken over in a task of its own, while the others are worked on.

use crate::service::StreamError;
use crate::take_over::{Owned, TakeOver};
use crate::worker::{PART, Worker};
use futures::future::join_all;
use std::collections::BTreeSet;
use std::sync::Arc;
use tidegate_runtime::error_line;
use tokio::task::{JoinError, JoinSet};

/// The longest window, and an hour for edges that were cut off.
const REBUILD_MS: i64 = 25 * 60 * 60 * 1000;

/// Partitions that are being taken over.
#[derive(Default)]
pub(crate) struct TakingOver {
    tasks: JoinSet<Taken>,
    numbers: BTreeSet<u32>,
}

/// A partition, and how taking it over ended.
pub(crate) type Taken = (u32, Result<Owned, StreamError>);

impl TakingOver {
    /// The next that was taken over, or could not be; never, when none is being taken over.
    pub async fn next(&mut self) -> Result<Taken, JoinError> {
        match self.tasks.join_next().await {
            Some(taken) => taken,
            None => std::future::pending().await,
        }
    }
}

impl Worker {
    /// Takes over what is wanted and not owned, and waits for it: before the work begins.
    pub async fn take_over_wanted(&mut self) -> Result<(), StreamError> {
        let task = self.take_over();
        let missing = self.missing();
        let all = join_all(missing.into_iter().map(|number| {
            let task = task.clone();
            async move { (number, task.one(number).await) }
        }));
        for (number, owned) in all.await {
            self.partitions.insert(number, owned?);
        }
        Ok(())
    }

    /// Other partitions are to be owned from now on: lets those go that are not among them, and begins to take the new
    /// ones over.
    pub async fn share(&mut self, wanted: BTreeSet<u32>) {
        tracing::info!(partitions = ?wanted, "these partitions are this worker's now");
        let gone: Vec<u32> = self.partitions.keys().copied().filter(|number| !wanted.contains(number)).collect();
        for number in gone {
            self.let_go(number).await;
        }
        self.wanted = wanted;
        self.take_over_missing();
        self.report_readiness();
    }

    /// Begins to take over what is wanted and neither owned nor being taken over.
    pub fn take_over_missing(&mut self) {
        let task = self.take_over();
        for number in self.missing() {
            if self.taking_over.numbers.insert(number) {
                let task = task.clone();
                self.taking_over.tasks.spawn(async move { (number, task.one(number).await) });
            }
        }
    }

    /// A partition was taken over, or cannot be had now: then it is tried again. Gives whether it is owned.
    pub fn taken_over(&mut self, taken: Result<Taken, JoinError>) -> Result<bool, StreamError> {
        let (number, owned) = taken.map_err(StreamError::Thread)?;
        self.taking_over.numbers.remove(&number);
        let is_wanted = self.wanted.contains(&number);
        match owned {
            Ok(mut owned) if is_wanted => {
                // They may have changed meanwhile.
                owned.core.set_rules(self.in_force.rules.clone())?;
                owned.core.set_exemptions(Arc::clone(&self.in_force.exemptions));
                self.partitions.insert(number, owned);
                self.announce();
                self.report_readiness();
            }
            Ok(_) => {}
            Err(StreamError::TakeOver { partition, source }) => {
                let error = error_line(&source);
                tracing::warn!(partition, error, "the partition could not be taken over; trying again");
                self.report_readiness();
            }
            Err(error) => return Err(error),
        }
        Ok(self.partitions.contains_key(&number))
    }

    /// Gives a partition up. Its positions are not needed to be right, only for its next owner to start faster.
    pub async fn let_go(&mut self, number: u32) {
        if let Some(mut owned) = self.partitions.remove(&number)
            && owned.moved
            && owned.owner.commit(Vec::new(), owned.positions()).await.is_err()
        {
            self.metrics.commit_failures.inc();
        }
        self.metrics.forget(number);
        self.announcer.forget(number);
    }

    /// Tells the operator what is not here yet.
    pub fn report_readiness(&self) {
        self.metrics.owned.set(self.partitions.len().try_into().unwrap_or(i64::MAX));
        let missing = self.missing();
        let behind: u64 = self.partitions.values().map(|owned| owned.ready_at.saturating_sub(owned.events_next)).sum();
        if !missing.is_empty() {
            self.health.not_ready(PART, format!("partitions {missing:?} are not taken over"));
        } else if behind > 0 {
            self.health.not_ready(PART, format!("rebuilding windows: {behind} events to read"));
        } else {
            self.health.ready(PART);
        }
    }

    fn take_over(&self) -> TakeOver {
        TakeOver {
            bus: self.bus.clone(),
            config: self.config.clone(),
            statistics: self.files.statistics().clone(),
            rules: self.in_force.rules.clone(),
            exemptions: Arc::clone(&self.in_force.exemptions),
            metrics: self.metrics.clone(),
            checkpoints: self.checkpoints.clone(),
            since_ms: (self.clock)().saturating_sub(REBUILD_MS),
        }
    }

    /// Wanted partitions that are not owned.
    fn missing(&self) -> Vec<u32> {
        self.wanted.iter().copied().filter(|number| !self.partitions.contains_key(number)).collect()
    }
}
