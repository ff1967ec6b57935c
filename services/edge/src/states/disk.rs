//! Account states on disk, so that a restarted edge enforces before it has reached control.
//!
//! A journal (`states.db`) with one compacted topic: a record for each account (`PlacedState`), and one under a key that
//! no account can have, with the log and the positions that they reflect (`Hello`). States are written behind: first in
//! force, then on disk. Since positions are written with or after the states, what was missed by a kill comes again from
//! control. When a snapshot has replaced everything, the positions are taken back first; a kill in between then makes
//! control send a snapshot again.

use super::HeldStates;
use crate::clock::Clock;
use crate::error::EdgeError;
use crate::metrics::{Metrics, set_gauge};
use bytes::Bytes;
use prost::Message as _;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate_domain::{Account, AccountState, Position, Positions, Replica};
use tidegate_journal::{Batch, Journal, JournalError, NewRecord, Options, Retention, Synchronous};
use tidegate_proto::{state_to_proto, v1};
use tidegate_runtime::error_line;
use tokio_util::sync::CancellationToken;

pub(super) const FILE: &str = "states.db";
const TOPIC: &str = "states";
/// A control character cannot be in an account's name.
const POSITIONS_KEY: &[u8] = b"\0positions";
/// States written in one transaction.
const WRITE_AT_A_TIME: usize = 1_000;
/// How often superseded records are removed.
const MAINTENANCE: Duration = Duration::from_mins(1);
/// Pause after a failure, e.g. while the disk is full.
const PAUSE: Duration = Duration::from_secs(5);

/// The states on disk.
pub(crate) struct StatesDisk {
    journal: Journal,
    clock: Clock,
    metrics: Metrics,
    /// What is on disk.
    accounts: HashSet<Account>,
    generation: u64,
    positions: Positions,
    log_id: String,
}

/// What was on disk.
pub(crate) struct Loaded {
    /// The log that the positions belong to; empty: they cannot be resumed from.
    pub log_id: String,
    /// The states.
    pub replica: Replica,
}

impl StatesDisk {
    /// Opens the file in `directory`, and reads what is there. What is damaged is passed over and counted: control
    /// then sends all states again.
    pub fn open(directory: &Path, clock: Clock, metrics: Metrics) -> Result<(Self, Loaded), EdgeError> {
        let path = directory.join(FILE);
        let failed = |source| EdgeError::Journal { path: path.clone(), source: Box::new(source) };
        // What a power failure takes away comes again from control.
        let options =
            Options { synchronous: Synchronous::Normal, compact_lag_ms: 0, tombstone_ms: 0, ..Options::default() };
        let journal = Journal::open(&path, options).map_err(failed)?;
        journal.create_topic(TOPIC, 1, Retention::Compact).map_err(failed)?;
        let mut disk = Self {
            journal,
            clock,
            metrics,
            accounts: HashSet::new(),
            generation: 0,
            positions: Positions::new(),
            log_id: String::new(),
        };
        let loaded = disk.load().map_err(failed)?;
        Ok((disk, loaded))
    }

    /// Writes what changes in `states`, until shutdown.
    pub async fn run(mut self, states: Arc<HeldStates>, shutdown: CancellationToken) {
        let mut versions = states.versions();
        let mut maintenance = tokio::time::interval(MAINTENANCE);
        loop {
            let ends = shutdown.is_cancelled();
            let (held, maintain) = (
                Arc::clone(&states),
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => false,
                    _ = maintenance.tick() => true,
                    // The sender lives in `states`.
                    _ = versions.changed() => false,
                },
            );
            let task = tokio::task::spawn_blocking(move || {
                let written = self.write(&held).and_then(|()| if maintain { self.maintain() } else { Ok(()) });
                (self, written)
            });
            let Ok((disk, written)) = task.await else { return };
            self = disk;
            if ends {
                return;
            }
            if let Err(error) = written {
                self.metrics.states_write_failures.inc();
                tracing::warn!(error = error_line(&error), "account states could not be written to disk");
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = tokio::time::sleep(PAUSE) => versions.mark_changed(),
                }
            }
        }
    }

    /// Writes what the disk lacks of `states`.
    pub(super) fn write(&mut self, states: &HeldStates) -> Result<(), JournalError> {
        loop {
            let lacking = states.lacking(self.generation, &self.positions, WRITE_AT_A_TIME);
            if lacking.generation != self.generation {
                self.begin_anew(states, lacking.generation)?;
                continue;
            }
            let changed = lacking.positions != self.positions || lacking.log_id != self.log_id;
            if !lacking.states.is_empty() || (lacking.whole && changed) {
                let mut records: Vec<_> = lacking.states.iter().map(|(at, state)| self.state(*at, state)).collect();
                if lacking.whole {
                    records.push(self.positions_record(&lacking.log_id, &lacking.positions));
                }
                self.journal.commit(Batch::new().append(TOPIC, 0, records))?;
                self.accounts.extend(lacking.states.iter().map(|(_, state)| state.account.clone()));
                self.positions = lacking.positions;
                set_gauge(&self.metrics.states_on_disk, self.accounts.len() as u64);
            }
            if lacking.whole {
                self.log_id = lacking.log_id;
                return Ok(());
            }
        }
    }

    /// A snapshot has replaced everything.
    fn begin_anew(&mut self, states: &HeldStates, generation: u64) -> Result<(), JournalError> {
        let mut records = vec![self.positions_record("", &Positions::new())];
        let gone = states.not_held(self.accounts.iter());
        records.extend(gone.iter().map(|account| self.record(account.as_str().as_bytes(), Bytes::new())));
        while !records.is_empty() {
            let rest = records.split_off(records.len().min(WRITE_AT_A_TIME));
            self.journal.commit(Batch::new().append(TOPIC, 0, records))?;
            records = rest;
        }
        for account in &gone {
            self.accounts.remove(account);
        }
        self.generation = generation;
        self.positions = Positions::new();
        self.log_id.clear();
        Ok(())
    }

    fn maintain(&self) -> Result<(), JournalError> {
        self.journal.maintain(self.clock.now_ms()).map(drop)
    }

    fn load(&mut self) -> Result<Loaded, JournalError> {
        let mut placed: Vec<(Position, AccountState)> = Vec::new();
        let mut at = std::collections::HashMap::new();
        let mut resume = v1::Hello::default();
        let stats = self.journal.stats();
        let mut damaged = stats.salvaged_records > 0;
        // Counted before reading, which sets damaged ones aside.
        let mut missing = self.journal.topic_size(TOPIC)?.records;
        let (mut offset, end) = (0, self.journal.bounds(TOPIC, 0)?.next_offset);
        while offset < end {
            let batch = self.journal.read(TOPIC, 0, offset, 10_000, 16 << 20)?;
            offset = batch.next_offset;
            damaged |= batch.skipped_damaged > 0;
            missing = missing.saturating_sub(batch.records.len() as u64);
            for record in batch.records {
                let key = record.key.unwrap_or_default();
                if key == POSITIONS_KEY {
                    resume = v1::Hello::decode(record.value).unwrap_or_default();
                    continue;
                }
                let Some(state) = decode(&record.value) else {
                    damaged |= !record.value.is_empty();
                    at.remove(&key);
                    continue;
                };
                // The newest record of a key counts.
                at.insert(key, placed.len());
                placed.push(state);
            }
        }
        damaged |= missing > 0;
        let mut newest: Vec<_> = at.into_values().collect();
        newest.sort_unstable_by_key(|index| placed[*index].0);
        let mut replica = Replica::new();
        for index in newest {
            let (position, state) = &placed[index];
            self.accounts.insert(state.account.clone());
            replica.apply(*position, &state.account, Some(state.clone()));
        }
        for at in &resume.positions {
            replica.advance(at.partition, at.next_offset);
        }
        if damaged {
            self.metrics.states_damaged.inc();
            tracing::warn!(states = replica.len(), "account states on disk are damaged; control sends all again");
            // At once, or a kill before they have come would hide it.
            self.journal.commit(Batch::new().append(TOPIC, 0, vec![self.positions_record("", &Positions::new())]))?;
            resume.log_id.clear();
        }
        set_gauge(&self.metrics.states_on_disk, self.accounts.len() as u64);
        self.log_id = resume.log_id;
        self.positions = replica.positions().clone();
        Ok(Loaded { log_id: self.log_id.clone(), replica })
    }

    fn state(&self, position: Position, state: &AccountState) -> NewRecord {
        let placed = v1::PlacedState {
            partition: position.partition,
            offset: position.offset,
            state: Some(state_to_proto(state)),
            trace_parent: String::new(),
        };
        self.record(state.account.as_str().as_bytes(), placed.encode_to_vec().into())
    }

    fn positions_record(&self, log_id: &str, positions: &Positions) -> NewRecord {
        let positions = positions
            .iter()
            .map(|(partition, next_offset)| v1::PartitionPosition { partition: *partition, next_offset: *next_offset })
            .collect();
        let resume = v1::Hello {
            log_id: log_id.to_owned(),
            positions,
            // An empty value would be a tombstone.
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..v1::Hello::default()
        };
        self.record(POSITIONS_KEY, resume.encode_to_vec().into())
    }

    fn record(&self, key: &[u8], value: Bytes) -> NewRecord {
        NewRecord { time_ms: self.clock.now_ms(), key: Some(Bytes::copy_from_slice(key)), value }
    }
}

fn decode(value: &[u8]) -> Option<(Position, AccountState)> {
    super::decode(&v1::PlacedState::decode(value).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{account, batch, empty};
    use super::*;
    use prometheus_client::registry::Registry;

    fn open(directory: &Path) -> (StatesDisk, Loaded) {
        let metrics = Metrics::register(&mut Registry::default());
        StatesDisk::open(directory, Clock::system(), metrics).unwrap()
    }

    #[test]
    fn what_was_written_is_loaded_and_resumed_from() {
        let directory = tempfile::tempdir().unwrap();
        let states = empty();
        let (mut disk, loaded) = open(directory.path());
        assert!(loaded.replica.is_empty() && loaded.log_id.is_empty());
        states.begin("a", true).unwrap();
        states.apply(&batch(0, 0..2_500, true));
        disk.write(&states).unwrap();
        states.begin("a", false).unwrap();
        states.apply(&batch(1, 3_000..3_010, false));
        disk.write(&states).unwrap();
        disk.maintain().unwrap();
        drop(disk);
        let (mut disk, loaded) = open(directory.path());
        assert_eq!((loaded.log_id.as_str(), loaded.replica.len()), ("a", 2_510));
        assert_eq!(loaded.replica.positions(), &Positions::from([(0, 2_500), (1, 3_010)]));
        // Another log replaces everything, also on disk.
        let states = HeldStates::new(loaded.log_id, loaded.replica, disk.metrics.clone());
        states.begin("b", true).unwrap();
        states.apply(&batch(0, 1..4, true));
        disk.write(&states).unwrap();
        drop(disk);
        let (_, loaded) = open(directory.path());
        assert_eq!((loaded.log_id.as_str(), loaded.replica.len()), ("b", 3));
        assert!(loaded.replica.get(account(2).as_str()).is_some());
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_all_states_are_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let states = empty();
        let (mut disk, _) = open(directory.path());
        states.begin("a", true).unwrap();
        states.apply(&batch(0, 0..2_000, true));
        disk.write(&states).unwrap();
        drop(disk);
        let file = directory.path().join(FILE);
        let mut octets = std::fs::read(&file).unwrap();
        let middle = octets.len() / 2;
        octets[middle..middle + 8_192].fill(0xa5);
        std::fs::write(&file, octets).unwrap();
        let (disk, loaded) = open(directory.path());
        assert_eq!(loaded.log_id, "");
        assert!(loaded.replica.len() < 2_000);
        assert_eq!(disk.metrics.states_damaged.get(), 1);
        drop(disk);
        assert_eq!(open(directory.path()).1.log_id, "", "still, when it was killed before they came");
    }
}
