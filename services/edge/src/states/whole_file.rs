//! The file of account states as a whole, without an edge around it: for tests of what damage does to it.

use super::{HeldStates, StatesDisk};
use crate::clock::Clock;
use crate::error::EdgeError;
use crate::metrics::Metrics;
use prometheus_client::registry::Registry;
use std::path::Path;
use std::sync::Arc;
use tidegate_domain::{AccountState, Position, Replica};

/// What an edge that starts with a file has of it.
#[derive(Debug)]
pub struct StatesFile {
    /// The log that the states can be resumed from; empty when control has to send all.
    pub log_id: String,
    /// The states that are in force.
    pub states: Vec<Arc<AccountState>>,
    /// Whether damage was found and counted.
    pub damaged: bool,
}

/// Reads the file in `directory` as an edge does when it starts.
///
/// # Errors
/// When the file cannot be opened, or belongs to another program.
pub fn read(directory: &Path) -> Result<StatesFile, EdgeError> {
    let metrics = Metrics::register(&mut Registry::default());
    let (_, loaded) = StatesDisk::open(directory, Clock::system(), metrics.clone())?;
    let states = loaded.replica.iter().map(Arc::clone).collect();
    Ok(StatesFile { log_id: loaded.log_id, states, damaged: metrics.states_damaged.get() > 0 })
}

/// Writes `states` into the file in `directory` as an edge does, as if they were all of log `log_id`. The same states
/// give the same file, but for the file's own id.
///
/// # Errors
/// When the file cannot be opened or written.
pub fn write(directory: &Path, log_id: &str, states: Vec<AccountState>) -> Result<(), EdgeError> {
    let metrics = Metrics::register(&mut Registry::default());
    let (mut disk, _) = StatesDisk::open(directory, Clock::new(|| 1_700_000_000_000), metrics.clone())?;
    let mut replica = Replica::new();
    for (offset, state) in (0..).zip(states) {
        let account = state.account.clone();
        replica.apply(Position { partition: 0, offset }, &account, Some(state));
    }
    let held = HeldStates::new(log_id.to_owned(), replica, metrics);
    disk.write(&held)
        .map_err(|source| EdgeError::Journal { path: directory.join(super::disk::FILE), source: Box::new(source) })
}
