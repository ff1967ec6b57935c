//! Accounts and their panes as octets, so that an engine can be written down and made again.
//!
//! The octets are a run of accounts; a later one of the same name stands for the account, an earlier one no more.
//! Numbers are unsigned LEB128 varints.
//!
//! | part | what |
//! |---|---|
//! | name | length, then UTF-8 |
//! | panes | their number and 1; 0 says that the account is forgotten, and nothing follows |
//! | newest | time of the newest event, in milliseconds since 1970, zigzag |
//! | late | slot of the last late event, 0 for none |
//! | for each pane, by its place in time: | |
//! | start | slots of 3 s since the start of the pane before (of the first: since 1970) |
//! | tier | one octet: 0 for 3 s, 1 for 15 s, 2 for 1 min, 3 for 15 min, 4 for 1 h |
//! | row | length, then the aggregates' states (see `crate::row`), laid out as [`crate::AggregateState`]s say |

use super::Engine;
use super::store::{Entry, Pane, Store};
use crate::statistics::{AggregateState, Fit};
use crate::varint;
use crate::window::{PaneKey, slot_of};
use datafusion::common::DataFusionError;
use tidegate_domain::Account;

/// What [`Engine::take_changes`] gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// As much as was asked for; there is more.
    More,
    /// The last.
    Last,
    /// Changes were not noted, because nobody took them: begin again.
    Lost,
}

/// What [`Engine::load`] made of what was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Accounts that were read, each time they stand there.
    pub accounts: u64,
    /// Aggregates of the statistics that were not written: they begin empty.
    pub started_empty: Vec<String>,
    /// Aggregates that were written, and that no statistic wants any more.
    pub dropped: Vec<String>,
}

/// Why an engine could not be made again from what was written.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The octets are not what an engine wrote.
    #[error("octet {at} of the accounts is damaged: {what}")]
    Damaged {
        /// Where, at the latest.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The layout is not one.
    #[error(
        "the layout is damaged: the state of `{aggregate}` is `{state}`; known are int, uint, float, bool and bytes"
    )]
    Layout {
        /// The aggregate.
        aggregate: String,
        /// Its state.
        state: String,
    },
    /// DataFusion could not make an empty state.
    #[error("making an empty state")]
    DataFusion(#[source] DataFusionError),
}

impl Engine {
    /// Begins to note which accounts change, for [`Engine::take_changes`]. Everything counts as changed when that is
    /// asked for, the first time, and when not all could be noted; gives whether it does: then nothing that was taken
    /// before is needed any more.
    pub fn begin_changes(&mut self, everything: bool) -> bool {
        let everything = everything || !self.store.has_all_changes();
        self.store.note_changes(everything);
        everything
    }

    /// Appends accounts that changed and were not taken yet to `octets`, about `max_octets` of them at most.
    pub fn take_changes(&mut self, max_octets: usize, octets: &mut Vec<u8>) -> Taken {
        if !self.store.has_all_changes() {
            return Taken::Lost;
        }
        let end = octets.len().saturating_add(max_octets);
        // What was removed first: it may have come back since.
        while octets.len() < end
            && let Some(account) = self.store.take_removed()
        {
            write_forgotten(&account, octets);
        }
        while octets.len() < end {
            let Some((account, entry)) = self.store.take_changed() else { return Taken::Last };
            write(account, entry, octets);
        }
        Taken::More
    }

    /// Reads accounts that an engine with statistics of this `layout` wrote. To be called for each run of octets, in
    /// the order in which they were taken. What is read does not count as changed; what changes from then on is noted.
    ///
    /// # Errors
    /// When the octets are damaged. Accounts before the damage are there then: make another engine.
    pub fn load(&mut self, layout: &[AggregateState], octets: &[u8]) -> Result<Loaded, LoadError> {
        let fit = Fit::new(self.statistics.plan(), layout)?;
        let mut loaded =
            Loaded { accounts: 0, started_empty: fit.started_empty().to_vec(), dropped: fit.dropped().to_vec() };
        let mut reading = Reading { octets, at: 0 };
        while reading.at < octets.len() {
            read(&mut reading, &fit, &mut self.store)?;
            loaded.accounts += 1;
        }
        self.evicted += self.store.shrink_to(self.limits.max_accounts);
        self.store.nothing_changed();
        Ok(loaded)
    }

    /// Forgets an account's events up to and including `at_ms`, and what shares a pane with them.
    pub fn forget_up_to(&mut self, account: &Account, at_ms: i64) {
        let Some(id) = self.store.find(account) else { return };
        drop(self.store.take_bands(id));
        let mut panes = self.store.take_panes(id);
        panes.retain(|pane| pane.key.start > slot_of(at_ms));
        if panes.is_empty() {
            self.store.remove(id);
        } else {
            self.store.set_panes(id, panes);
            self.store.note_changed(id);
        }
    }
}

fn write_forgotten(account: &Account, octets: &mut Vec<u8>) {
    write_octets(account.as_str().as_bytes(), octets);
    varint::write(0, octets);
}

fn write(account: &Account, entry: &Entry, octets: &mut Vec<u8>) {
    if entry.panes().is_empty() {
        return write_forgotten(account, octets);
    }
    write_octets(account.as_str().as_bytes(), octets);
    varint::write(entry.panes().len() as u64 + 1, octets);
    varint::write(varint::zigzag(entry.newest_ms), octets);
    varint::write(entry.late_slot.into(), octets);
    let mut before = 0;
    for Pane { key, row } in entry.panes() {
        varint::write(u64::from(key.start - before), octets);
        before = key.start;
        octets.push(key.tier);
        write_octets(row, octets);
    }
}

fn write_octets(part: &[u8], octets: &mut Vec<u8>) {
    varint::write(part.len() as u64, octets);
    octets.extend_from_slice(part);
}

/// Reads one account.
fn read(reading: &mut Reading, fit: &Fit, store: &mut Store) -> Result<(), LoadError> {
    let name = std::str::from_utf8(reading.part()?).ok().and_then(|name| Account::parse(name).ok());
    let account = name.ok_or_else(|| reading.damaged("no account has such a name"))?;
    let panes = reading.number()?;
    if panes == 0 {
        if let Some(id) = store.find(&account) {
            store.remove(id);
        }
        return Ok(());
    }
    let newest_ms = varint::unzigzag(reading.number()?);
    let late_slot = reading.slot(0)?;
    let mut read: Vec<Pane> = Vec::new();
    for _ in 1..panes {
        let start = reading.slot(read.last().map_or(0, |pane| pane.key.start))?;
        let tier = reading.octet()?;
        let key = PaneKey::checked(start, tier).ok_or_else(|| reading.damaged("no pane begins there"))?;
        if read.last().is_some_and(|before| before.key >= key) {
            return Err(reading.damaged("panes are not in order"));
        }
        let row = reading.part()?;
        let row = fit.row(row).ok_or_else(|| reading.damaged("a pane's state is not of this layout"))?;
        read.push(Pane { key, row });
    }
    if read.is_empty() {
        return Err(reading.damaged("an account has no pane"));
    }
    store.load(&account, newest_ms, late_slot, read);
    Ok(())
}

struct Reading<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Reading<'a> {
    fn damaged(&self, what: &'static str) -> LoadError {
        LoadError::Damaged { at: self.at, what }
    }

    fn number(&mut self) -> Result<u64, LoadError> {
        let rest = &self.octets[self.at..];
        let (number, after) = varint::read(rest).ok_or_else(|| self.damaged("a number ends early"))?;
        self.at += rest.len() - after.len();
        Ok(number)
    }

    /// A slot that is so many after `before`.
    fn slot(&mut self, before: u32) -> Result<u32, LoadError> {
        let slot = self.number()?.checked_add(before.into()).and_then(|slot| u32::try_from(slot).ok());
        slot.ok_or_else(|| self.damaged("a time is too far"))
    }

    fn octet(&mut self) -> Result<u8, LoadError> {
        let octet = self.octets.get(self.at).copied().ok_or_else(|| self.damaged("it ends early"))?;
        self.at += 1;
        Ok(octet)
    }

    /// Octets with their length before them.
    fn part(&mut self) -> Result<&'a [u8], LoadError> {
        let length = self.number()?;
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        let part = end.and_then(|end| self.octets.get(self.at..end)).ok_or_else(|| self.damaged("it ends early"))?;
        self.at += part.len();
        Ok(part)
    }
}
