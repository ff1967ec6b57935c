//! Taking a partition over: whoever had it is fenced, its states are read, and where to read on is found.

use crate::config::StreamConfig;
use crate::metrics::Metrics;
use crate::partition::Partition;
use crate::service::StreamError;
use futures::future::join_all;
use std::time::Duration;
use tidegate_bus::{Bus, BusError, Owner, ReadFrom, Topic};
use tidegate_detect::{Engine, EngineLimits, Rules, Statistics};

/// A partition that this worker owns.
pub(crate) struct Owned {
    pub core: Partition,
    pub owner: Box<dyn Owner>,
    /// Where to read on, in `events` and `commands`.
    pub events_next: u64,
    pub commands_next: u64,
    /// Whether positions got on since the last commit.
    pub moved: bool,
    /// End of `events` when it was taken over: it is ready when it has read up to there.
    pub ready_at: u64,
}

impl Owned {
    pub fn positions(&self) -> Vec<(Topic, u64)> {
        vec![(Topic::Events, self.events_next), (Topic::Commands, self.commands_next)]
    }
}

/// What it takes to take partitions over.
pub(crate) struct TakeOver<'a> {
    pub bus: &'a dyn Bus,
    pub config: &'a StreamConfig,
    pub statistics: &'a Statistics,
    pub rules: &'a Rules,
    pub metrics: &'a Metrics,
    /// Windows are rebuilt from events since this time.
    pub since_ms: i64,
}

impl TakeOver<'_> {
    /// Takes these partitions over at the same time, since each waits for the log now and then.
    pub async fn all(&self, numbers: impl Iterator<Item = u32>) -> Vec<(u32, Result<Owned, StreamError>)> {
        join_all(numbers.map(|number| async move { (number, self.one(number).await) })).await
    }

    /// Takes a partition over: fences whoever had it, reads its states, and finds where to read on.
    async fn one(&self, number: u32) -> Result<Owned, StreamError> {
        let doing = |source| StreamError::TakeOver { partition: number, source };
        let mut owner = self.bus.own(&self.config.group, number).await.map_err(doing)?;
        let committed = owner.committed(Topic::Events).await.map_err(doing)?;
        let commands = owner.committed(Topic::Commands).await.map_err(doing)?;
        let rebuild_from = self.bus.offset_for_time(Topic::Events, number, self.since_ms).await.map_err(doing)?;
        let decided_to = committed.unwrap_or(rebuild_from);
        let events_next = rebuild_from.min(decided_to);
        let limits = EngineLimits { max_accounts: self.config.max_accounts, ..EngineLimits::default() };
        let engine = Engine::new(self.statistics.clone(), self.rules.clone(), limits)
            .map_err(|source| StreamError::Engine { source })?;
        let mut core = Partition::new(number, engine, decided_to).among(self.bus.partitions());
        let states = self.read_states(number, &mut core).await.map_err(doing)?;
        let end = self.bus.bounds(Topic::Events, number).await.map_err(doing)?.next;
        tracing::info!(
            partition = number,
            states,
            rebuild_from = events_next,
            decided_to,
            end,
            "took the partition over"
        );
        Ok(Owned { core, owner, events_next, commands_next: commands.unwrap_or(0), moved: false, ready_at: end })
    }

    async fn read_states(&self, number: u32, core: &mut Partition) -> Result<usize, BusError> {
        let bounds = self.bus.bounds(Topic::Accounts, number).await?;
        let mut at = ReadFrom { topic: Topic::Accounts, partition: number, offset: bounds.first };
        let mut reader = self.bus.read(&[at]).await?;
        let mut states = 0;
        while at.offset < bounds.next {
            let batch = reader.next(Duration::from_millis(500)).await?;
            for record in &batch.records {
                match core.load_state(record) {
                    Ok(()) => states += 1,
                    Err(error) => {
                        self.metrics.damaged.inc();
                        tracing::warn!(partition = number, offset = record.offset, error = %error.to_line(), "left out a record that is no state");
                    }
                }
            }
            if let Some(next) = batch.next.last() {
                at.offset = next.offset;
            }
        }
        Ok(states)
    }
}
