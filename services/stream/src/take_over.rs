//! Taking a partition over: whoever had it is fenced, its states are read, and where to read on is found.

use crate::checkpoint::{
    Checkpoints, EventPlace, Expected, Folder, Found, Manifest, Owner as CheckpointOwner, restore,
};
use crate::checkpointing::Checkpointing;
use crate::config::StreamConfig;
use crate::metrics::Metrics;
use crate::partition::Partition;
use crate::service::StreamError;
use crate::settings::DomainExemptions;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_bus::{Bounds, Bus, BusError, Owner, ReadFrom, Topic};
use tidegate_detect::{Engine, EngineLimits, Loaded, Rules, Statistics};

/// How long the last event of a checkpoint is looked for in the log.
const FIND_EVENT: Duration = Duration::from_secs(3);

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
    /// None: there are to be no checkpoints.
    pub checkpointing: Option<Checkpointing>,
}

impl Owned {
    pub fn positions(&self) -> Vec<(Topic, u64)> {
        vec![(Topic::Events, self.events_next), (Topic::Commands, self.commands_next)]
    }
}

/// What it takes to take partitions over.
#[derive(Clone)]
pub(crate) struct TakeOver {
    pub bus: Arc<dyn Bus>,
    pub config: StreamConfig,
    pub statistics: Statistics,
    pub rules: Rules,
    pub exemptions: Arc<DomainExemptions>,
    pub metrics: Metrics,
    pub checkpoints: Option<Checkpoints>,
    /// Windows are rebuilt from events since this time.
    pub since_ms: i64,
}

impl TakeOver {
    /// Takes a partition over: fences whoever had it, reads its states, and finds where to read on.
    pub async fn one(&self, number: u32) -> Result<Owned, StreamError> {
        let doing = |source| StreamError::TakeOver { partition: number, source };
        let mut owner = self.bus.own(&self.config.group, number).await.map_err(doing)?;
        let committed = owner.committed(Topic::Events).await.map_err(doing)?;
        let commands = owner.committed(Topic::Commands).await.map_err(doing)?;
        let folder = self.checkpoints.as_ref().map(|checkpoints| checkpoints.folder(number));
        let found = match &folder {
            Some(folder) => self.restore(number, folder).await?,
            None => None,
        };
        let (engine, manifest, everything) = match found {
            Some(Found { engine, manifest, loaded }) => {
                let everything = tell_what_did_not_fit(number, &loaded);
                (engine, Some(manifest), everything)
            }
            None => (self.new_engine()?, None, true),
        };
        let rebuild_from = match &manifest {
            Some(manifest) => manifest.covered.events_next,
            None => self.bus.offset_for_time(Topic::Events, number, self.since_ms).await.map_err(doing)?,
        };
        // What a checkpoint covers was decided upon before it was made.
        let decided_to = committed.unwrap_or(rebuild_from).max(manifest.as_ref().map_or(0, |_| rebuild_from));
        let events_next = rebuild_from.min(decided_to);
        let mut core = Partition::new(number, engine, decided_to).among(self.bus.partitions());
        core.set_exemptions(Arc::clone(&self.exemptions));
        let states = self.read_states(number, &mut core).await.map_err(doing)?;
        if let Some(manifest) = &manifest {
            core.resume(manifest.covered.clone());
        }
        let end = self.bus.bounds(Topic::Events, number).await.map_err(doing)?.next;
        let checkpoint = manifest.as_ref().map(|manifest| manifest.sequence);
        tracing::info!(
            partition = number,
            states,
            checkpoint,
            rebuild_from = events_next,
            decided_to,
            end,
            "took the partition over"
        );
        let checkpointing = folder.map(|folder| {
            let owner = CheckpointOwner {
                partition: number,
                partitions: self.bus.partitions(),
                statistics: self.statistics.clone(),
            };
            let interval = Duration::from_millis(self.config.checkpoints.interval_ms);
            let base = manifest.filter(|_| !everything);
            Checkpointing::new(folder, owner, base, interval, self.metrics.checkpoints.clone())
        });
        let commands_next = commands.unwrap_or(0);
        Ok(Owned { core, owner, events_next, commands_next, moved: false, ready_at: end, checkpointing })
    }

    fn new_engine(&self) -> Result<Engine, StreamError> {
        let limits = EngineLimits { max_accounts: self.config.max_accounts, ..EngineLimits::default() };
        Engine::new(self.statistics.clone(), self.rules.clone(), limits)
            .map_err(|source| StreamError::Engine { source })
    }

    /// The newest checkpoint that can be used.
    async fn restore(&self, number: u32, folder: &Folder) -> Result<Option<Found>, StreamError> {
        let doing = |source| StreamError::TakeOver { partition: number, source };
        let events = self.bus.bounds(Topic::Events, number).await.map_err(doing)?;
        let expected =
            Expected { partition: number, partitions: self.bus.partitions(), events, since_ms: self.since_ms };
        let began = Instant::now();
        let is_of_this_log =
            async |manifest: Manifest| self.has_event(number, events, manifest.covered.last_event).await.map_err(doing);
        let restored = restore(folder, expected, || self.new_engine(), is_of_this_log).await?;
        let from = match (&restored.taken, restored.passed_over) {
            (Some(_), 0) => "newest",
            (Some(_), _) => "older",
            (None, _) => "log",
        };
        self.metrics.checkpoints.restored(from);
        if let Some(found) = &restored.taken {
            let covered = found.manifest.covered.events_next;
            tracing::info!(
                partition = number,
                sequence = found.manifest.sequence,
                accounts = found.engine.stats().accounts,
                covered,
                milliseconds = began.elapsed().as_millis() as u64,
                "took the windows from a checkpoint"
            );
            if covered < events.first {
                tracing::warn!(
                    partition = number,
                    missing = events.first - covered,
                    "events after the checkpoint are gone from the log"
                );
            }
        }
        Ok(restored.taken)
    }

    /// Whether the log has this event, or may have had it.
    async fn has_event(&self, number: u32, events: Bounds, place: Option<EventPlace>) -> Result<bool, BusError> {
        let Some(EventPlace { offset, time_ms }) = place.filter(|place| place.offset >= events.first) else {
            return Ok(true);
        };
        let mut reader = self.bus.read(&[ReadFrom { topic: Topic::Events, partition: number, offset }]).await?;
        let end = Instant::now() + FIND_EVENT;
        while Instant::now() < end {
            let batch = reader.next(Duration::from_millis(500)).await?;
            if let Some(record) = batch.records.first() {
                return Ok(record.offset != offset || record.time_ms == time_ms);
            }
            if batch.next.last().is_some_and(|next| next.offset > offset) {
                break;
            }
        }
        Ok(true)
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

/// Tells what of a checkpoint the statistics do not want, and what they want besides. Gives whether there is any.
fn tell_what_did_not_fit(partition: u32, loaded: &Loaded) -> bool {
    let (started_empty, dropped) = (loaded.started_empty.join(", "), loaded.dropped.join(", "));
    let differs = !(started_empty.is_empty() && dropped.is_empty());
    if differs {
        tracing::warn!(
            partition,
            started_empty,
            dropped,
            "the statistics changed since the checkpoint: what fits is kept, the rest starts empty"
        );
    }
    differs
}
