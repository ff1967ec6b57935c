//! Rows into a table without a log: for measuring, and for what is older than the log.

use crate::config::HistoryConfig;
use crate::files::{TARGET_OCTETS, write_sorted};
use crate::lake::{Lake, LakeError, LakeTable};
use crate::tables::Table;
use crate::upkeep::{Room, merge_all};
use arrow::error::ArrowError;
use deltalake::kernel::Action;
use std::sync::Arc;
use tidegate_bus::Record;

/// Fills one table.
pub struct Filler {
    table: Arc<LakeTable>,
    rows: crate::columns::Rows,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// Rows.
    pub rows: usize,
    /// Octets of the files.
    pub octets: u64,
}

impl Filler {
    /// Fills `table`.
    pub fn new(lake: &Lake, table: Table) -> Self {
        Self { table: Arc::clone(lake.table(table)), rows: table.rows() }
    }

    /// Adds the row of a record.
    ///
    /// # Errors
    /// Why it cannot be read; nothing was added then.
    pub fn add(&mut self, record: &Record) -> Result<(), String> {
        self.table.table().add(record, &mut self.rows)
    }

    /// Writes what was added, in one commit.
    ///
    /// # Errors
    /// When the store does not take it: what was added is gone then.
    pub async fn write(&mut self) -> Result<Filled, LakeError> {
        let failed = |error: ArrowError| self.table.failed("putting together rows of", error.into());
        let rows = self.rows.take().map_err(failed)?;
        let added = write_sorted(&self.table, &rows).await?;
        let octets = added.iter().map(|add| add.size.unsigned_abs()).sum();
        let mut state = self.table.newest();
        self.table.append(&mut state, added.into_iter().map(Action::Add).collect(), Vec::new()).await?;
        Ok(Filled { rows: rows.num_rows(), octets })
    }
}

/// Puts the small files of a table together until few are left. Gives how many were, and the octets of all that are
/// there then.
///
/// # Errors
/// In words, when files cannot be read or written.
pub async fn compact(lake: &Lake, table: Table, config: &HistoryConfig) -> Result<(usize, u64), String> {
    merge_all(lake.table(table), &Room::of(config), TARGET_OCTETS / 2).await
}
