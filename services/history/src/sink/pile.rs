//! Rows of one table that are not written yet, and which records they are from.

use crate::columns::Rows;
use crate::tables::{Rejected, Table};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Instant;
use tidegate_bus::Record;

/// Rows that wait for the next commit of their table.
pub(crate) struct Pile {
    table: Table,
    rows: Rows,
    rejected: Vec<Rejected>,
    /// For each partition: where its records began, and where the next one begins.
    claims: BTreeMap<u32, Claim>,
    since: Option<Instant>,
    /// Octets of the records in it.
    octets: usize,
}

/// A pile takes no more when its records have so many octets together: those that cannot be read can be large.
const MAX_OCTETS: usize = 64 << 20;

/// Records of one partition: from an offset (none: from where the log begins) up to, not including, another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    /// What the table says up to now.
    pub from: Option<u64>,
    /// What it is to say.
    pub next: u64,
}

/// What a pile had in it.
pub(crate) struct Taken {
    pub rows: RecordBatch,
    pub rejected: Vec<Rejected>,
    pub claims: BTreeMap<u32, Claim>,
}

impl Pile {
    /// An empty one.
    pub fn new(table: Table) -> Self {
        Self { table, rows: table.rows(), rejected: Vec::new(), claims: BTreeMap::new(), since: None, octets: 0 }
    }

    /// Adds the row of a record; gives false when it could not be read, and is set aside.
    pub fn add(&mut self, record: Record, now: Instant) -> bool {
        self.since.get_or_insert(now);
        self.octets += record.key.len() + record.value.as_ref().map_or(0, Bytes::len);
        match self.table.add(&record, &mut self.rows) {
            Ok(()) => true,
            Err(reason) => {
                self.rejected.push(Rejected { record, reason });
                false
            }
        }
    }

    /// Records of `partition` were taken up to `next`; `from` is what the table says of it.
    pub fn reach(&mut self, partition: u32, from: Option<u64>, next: u64) {
        let claim = self.claims.entry(partition).or_insert(Claim { from, next });
        claim.next = claim.next.max(next);
    }

    /// A commit of these claims was made: what is in the pile rests on it.
    pub fn rest_on(&mut self, made: &BTreeMap<u32, Claim>) {
        for (partition, claim) in &mut self.claims {
            if let Some(made) = made.get(partition) {
                claim.from = Some(made.next);
            }
        }
    }

    /// Records in it.
    pub fn len(&self) -> usize {
        self.rows.len() + self.rejected.len()
    }

    /// Whether it is to be written before more is added. A few large records more do no harm.
    pub fn is_full(&self, most: usize) -> bool {
        self.len() >= most || self.octets >= MAX_OCTETS
    }

    /// Since when the oldest record waits; none: there is none.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Empties it.
    ///
    /// # Errors
    /// When there is more than Arrow can address: the bound of records keeps it far from that.
    pub fn take(&mut self) -> Result<Taken, ArrowError> {
        (self.since, self.octets) = (None, 0);
        Ok(Taken {
            rows: self.rows.take()?,
            rejected: std::mem::take(&mut self.rejected),
            claims: std::mem::take(&mut self.claims),
        })
    }

    /// Forgets everything in it.
    pub fn clear(&mut self) {
        *self = Self::new(self.table);
    }
}
