//! What the older panes of busy accounts add up to, kept so that not every reading has to merge them again.
//!
//! As of some time the panes of an account fall into bands: those that the shortest window counts, those that only the
//! next one does, and so on. The bands of the longer windows stay the same for a minute at least, while a busy account
//! is read many times. So what such a band adds up to is kept as one more row, from the second time on that the same
//! panes are met. It says of which panes it is, and counts for no others.

use super::read::AsOf;
use super::store::{Id, Pane, Store};
use super::update::Merging;
use crate::row::Encoder;
use crate::statistics::StatisticsPlan;
use crate::window::{PaneKey, WINDOWS, slot_of};
use datafusion::common::Result;
use datafusion::logical_expr::EmitTo;
use std::collections::BTreeMap;

/// The first window whose band is kept: those before change every few seconds.
const FIRST: usize = 2;
/// Bands of fewer panes are merged each time.
const MIN_PANES: usize = 3;

/// The kept bands of one account, by window from [`FIRST`] on.
#[derive(Debug, Default)]
pub(crate) struct Bands([Band; WINDOWS.len() - FIRST]);

/// The band of one window.
#[derive(Debug, Default)]
struct Band {
    of: Option<Panes>,
    /// What they add up to; none when they were met for the first time.
    row: Option<Box<[u8]>>,
}

/// Neighbouring panes of an account that did not change since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Panes {
    first: PaneKey,
    last: PaneKey,
    count: usize,
}

impl Bands {
    /// Whether a change of the pane `key` may concern one of them.
    pub fn concern(&self, key: PaneKey) -> bool {
        self.0.iter().filter_map(|band| band.of).any(|panes| key <= panes.last)
    }

    /// Octets of their rows.
    pub fn octets(&self) -> usize {
        size_of::<Self>() + self.0.iter().filter_map(|band| band.row.as_ref()).map(|row| row.len()).sum::<usize>()
    }

    fn row_of(&self, window: usize, panes: &[Pane]) -> Option<&[u8]> {
        let band = self.0.get(window.checked_sub(FIRST)?)?;
        if band.of? == Panes::of(panes)? { band.row.as_deref() } else { None }
    }
}

impl Panes {
    fn of(panes: &[Pane]) -> Option<Self> {
        Some(Self { first: panes.first()?.key, last: panes.last()?.key, count: panes.len() })
    }
}

/// Calls `visit` with rows that add up to the account's panes as of a time, and for each with the index of the shortest
/// of all windows that counts it.
pub(super) fn visit<'a>(
    store: &'a Store,
    point: AsOf,
    mut visit: impl FnMut(usize, &'a [u8]) -> Result<()>,
) -> Result<()> {
    let (panes, bands) = (store.panes_of(point.id), store.bands_of(point.id));
    let Some(bands) = bands else {
        for pane in panes {
            if let Some(window) = pane.key.first_window(&WINDOWS, point.slot) {
                visit(window, &pane.row)?;
            }
        }
        return Ok(());
    };
    for (window, panes) in runs(panes, point.slot) {
        if let Some(row) = bands.row_of(window, panes) {
            visit(window, row)?;
        } else {
            panes.iter().try_for_each(|pane| visit(window, &pane.row))?;
        }
    }
    Ok(())
}

/// Runs of neighbouring panes whose shortest window is the same one.
fn runs(panes: &[Pane], slot: u32) -> impl Iterator<Item = (usize, &[Pane])> {
    let window_of = move |pane: &Pane| pane.key.first_window(&WINDOWS, slot);
    panes
        .chunk_by(move |a, b| window_of(a) == window_of(b))
        .filter_map(move |run| Some((window_of(run.first()?)?, run)))
}

/// Makes sure that what was met before is kept, for the accounts of at least `busy_panes` panes that are to be read as of
/// their newest time.
pub(super) fn keep(
    store: &mut Store,
    plan: &StatisticsPlan,
    busy_panes: usize,
    points: impl Iterator<Item = AsOf>,
) -> Result<()> {
    let is_busy = |point: &AsOf| {
        let is_newest = point.slot == slot_of(store.entry(point.id).newest_ms);
        is_newest && store.panes_of(point.id).len() >= busy_panes
    };
    let busy: BTreeMap<Id, u32> = points.filter(is_busy).map(|point| (point.id, point.slot)).collect();
    let mut merging = Merging::new(plan, |_| true);
    let mut merged: Vec<(Id, usize)> = Vec::new();
    for (id, slot) in busy {
        let mut bands = store.take_bands(id).unwrap_or_default();
        let mut met = [false; WINDOWS.len() - FIRST];
        for (window, panes) in runs(store.panes_of(id), slot) {
            let Some(place) = window.checked_sub(FIRST).filter(|_| panes.len() >= MIN_PANES) else { continue };
            let (band, of) = (&mut bands.0[place], Panes::of(panes));
            if std::mem::replace(&mut met[place], true) {
                // A late event's pane lies between: no one run is the whole band.
                continue;
            }
            if band.of != of {
                *band = Band { of, row: None };
            } else if band.row.is_none() {
                panes.iter().try_for_each(|pane| merging.push(&pane.row, merged.len()))?;
                merged.push((id, place));
            }
        }
        store.set_bands(id, bands);
    }
    if merged.is_empty() {
        return Ok(());
    }
    let mut states = Vec::with_capacity(plan.state.len());
    for accumulator in &mut merging.into_accumulators(merged.len())? {
        states.extend(accumulator.state(EmitTo::All)?);
    }
    let mut encoder = Encoder::new(&states)?;
    for (group, (id, place)) in merged.into_iter().enumerate() {
        if let Some(mut bands) = store.take_bands(id) {
            bands.0[place].row = Some(encoder.row(group));
            store.set_bands(id, bands);
        }
    }
    Ok(())
}
