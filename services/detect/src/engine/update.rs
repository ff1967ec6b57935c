//! Writing: the events of a batch into the panes that they belong to, and old panes into longer ones.

use super::judges::Judges;
use super::room::charge;
use super::store::{Id, Pane, ROLL_UP_AT, Store};
use crate::event::EventBatch;
use crate::row::{Decoder, Encoder};
use crate::statistics::StatisticsPlan;
use crate::window::{PaneKey, is_late, is_too_old, slot_of};
use arrow::array::{ArrayRef, AsArray};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use hashbrown::HashMap;
use std::collections::BTreeSet;

/// The group of events that are too old, until it has a number. It is aggregated with the others and thrown away.
const TOO_OLD: usize = usize::MAX;

/// One pane of one account that a batch touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Touched {
    /// Index of the account in the batch.
    pub account: u32,
    pub id: Id,
    pub slot: u32,
    /// The last event in it that asks for a decision: its index in the batch.
    pub decides: Option<usize>,
}

/// What [`add_events`] did.
#[derive(Debug, Default)]
pub(super) struct Update {
    pub touched: Vec<Touched>,
    /// Events that were too old for every window.
    pub too_old: u64,
}

/// Adds a batch of events to the panes of their accounts.
pub(super) fn add_events(
    store: &mut Store,
    plan: &StatisticsPlan,
    judges: &Judges,
    batch: &EventBatch,
) -> Result<Update> {
    let inputs = plan
        .inputs
        .iter()
        .map(|input| input.evaluate(&batch.columns)?.into_array(batch.len()))
        .collect::<Result<Vec<ArrayRef>>>()?;
    let ids: Vec<Id> = batch.accounts.iter().map(|account| store.touch(account)).collect();
    let mut update = Update::default();
    let mut groups: HashMap<(Id, u32), usize> = HashMap::new();
    let mut group_of = vec![TOO_OLD; batch.len()];
    for (row, group_of) in group_of.iter_mut().enumerate() {
        let (account, at_ms) = (batch.account_of[row], batch.times_ms[row]);
        let id = ids[account as usize];
        let slot = slot_of(at_ms);
        let entry = store.entry_mut(id);
        let newest = slot_of(entry.newest_ms);
        if is_too_old(slot, newest) {
            update.too_old += 1;
            continue;
        }
        if is_late(slot, newest) {
            entry.late_slot = slot;
        }
        entry.newest_ms = entry.newest_ms.max(at_ms);
        let group = *groups.entry((id, slot)).or_insert_with(|| {
            update.touched.push(Touched { account, id, slot, decides: None });
            update.touched.len() - 1
        });
        *group_of = group;
        if batch.decides[row] {
            let last = &mut update.touched[group].decides;
            if last.is_none_or(|last| batch.offsets[last] <= batch.offsets[row]) {
                *last = Some(row);
            }
        }
    }
    known_first(store, &mut update.touched, &mut group_of);
    let states = aggregate(store, plan, &inputs, &group_of, &update.touched)?;
    let mut encoder = Encoder::new(&states)?;
    for (group, touched) in update.touched.iter().enumerate() {
        store.put(touched.id, PaneKey::of_slot(touched.slot), encoder.row(group));
    }
    charge(store, plan, judges, batch, &inputs, &ids);
    Ok(update)
}

/// Puts the groups that have a stored state before the others, and the one for events that are too old last.
fn known_first(store: &Store, touched: &mut Vec<Touched>, group_of: &mut [usize]) {
    let is_known = |touched: &Touched| store.row(touched.id, PaneKey::of_slot(touched.slot)).is_some();
    let (known, new): (Vec<_>, Vec<_>) = touched.drain(..).enumerate().partition(|(_, touched)| is_known(touched));
    let mut place_of = vec![0; known.len() + new.len()];
    for (place, (group, of)) in known.into_iter().chain(new).enumerate() {
        place_of[group] = place;
        touched.push(of);
    }
    for group in group_of {
        *group = place_of.get(*group).copied().unwrap_or(touched.len());
    }
}

/// The states of all groups: what was stored for them, and the batch's events.
fn aggregate(
    store: &Store,
    plan: &StatisticsPlan,
    inputs: &[ArrayRef],
    group_of: &[usize],
    touched: &[Touched],
) -> Result<Vec<ArrayRef>> {
    let mut merging = Merging::new(plan, |_| true);
    for (group, touched) in touched.iter().enumerate() {
        if let Some(row) = store.row(touched.id, PaneKey::of_slot(touched.slot)) {
            merging.push(row, group)?;
        }
    }
    let known = merging.groups.len();
    let mut accumulators = merging.into_accumulators(known)?;
    let groups = touched.len() + usize::from(group_of.contains(&touched.len()));
    let mut states = Vec::with_capacity(plan.state.len());
    for (aggregate, accumulator) in plan.aggregates.iter().zip(&mut accumulators) {
        let arguments: Vec<ArrayRef> = aggregate.arguments.iter().map(|input| inputs[*input].clone()).collect();
        let filter = aggregate.filter.map(|input| inputs[input].as_boolean());
        accumulator.update_batch(&arguments, group_of, filter, groups)?;
        states.extend(accumulator.state(EmitTo::All)?);
    }
    Ok(states)
}

/// Rolls up the panes of those touched accounts that have gathered many. To be done when the batch is judged: its
/// events may lie hours apart, and each is judged as of its own time.
pub(super) fn roll_up(store: &mut Store, plan: &StatisticsPlan, touched: &[Touched]) -> Result<()> {
    let many = |id: &Id| store.panes_of(*id).len() >= store.entry(*id).roll_up_at;
    let ids: BTreeSet<Id> = touched.iter().map(|touched| touched.id).filter(many).collect();
    if ids.is_empty() {
        return Ok(());
    }
    // First merge, then change the store: an error leaves it as it was.
    let mut merging = Merging::new(plan, |_| true);
    let mut groups: Vec<(Id, PaneKey, usize)> = Vec::new();
    for id in &ids {
        let (newest, late) = (slot_of(store.entry(*id).newest_ms), store.late_slot_of(*id));
        let rolled_up = |pane: &'_ Pane| pane.key.rolled_up(newest, late);
        let mut panes: Vec<(PaneKey, &Pane)> =
            store.panes_of(*id).iter().filter_map(|pane| Some((rolled_up(pane)?, pane))).collect();
        // A late event's pane may lie within a longer one, so those that come to the same need not be neighbours.
        panes.sort_by_key(|(key, _)| *key);
        for (key, pane) in panes {
            match groups.last_mut() {
                Some((last_id, last, parts)) if last_id == id && *last == key => *parts += 1,
                _ => groups.push((*id, key, 1)),
            }
            merging.push(&pane.row, groups.len() - 1)?;
        }
    }
    let mut states = Vec::with_capacity(plan.state.len());
    for accumulator in &mut merging.into_accumulators(groups.len())? {
        states.extend(accumulator.state(EmitTo::All)?);
    }
    let mut encoder = Encoder::new(&states)?;
    let mut group = 0;
    for id in ids {
        let mut panes = Vec::new();
        while let Some((_, key, _)) = groups.get(group).filter(|(of, ..)| *of == id) {
            panes.push(Pane { key: *key, row: encoder.row(group) });
            group += 1;
        }
        // Half as many again may gather before the next time, so that the work stays in proportion to the events.
        store.entry_mut(id).roll_up_at = ROLL_UP_AT.max(panes.len() + panes.len() / 2);
        drop(store.take_panes(id));
        store.set_panes(id, panes);
    }
    Ok(())
}

/// Stored rows, gathered to be merged by the plan's own accumulators.
pub(super) struct Merging<'a> {
    plan: &'a StatisticsPlan,
    wanted: Vec<usize>,
    decoder: Decoder<'a>,
    groups: Vec<usize>,
}

impl<'a> Merging<'a> {
    /// Merges those aggregates of `plan` that are `wanted`.
    pub fn new(plan: &'a StatisticsPlan, wanted: impl Fn(usize) -> bool) -> Self {
        let wanted: Vec<usize> = (0..plan.aggregates.len()).filter(|index| wanted(*index)).collect();
        let mut columns = vec![false; plan.state.len()];
        for index in &wanted {
            columns[plan.aggregates[*index].state.clone()].fill(true);
        }
        Self { plan, wanted, decoder: Decoder::new(&plan.state, |column| columns[column]), groups: Vec::new() }
    }

    /// Adds a stored row to a group.
    pub fn push(&mut self, row: &[u8], group: usize) -> Result<()> {
        self.groups.push(group);
        self.decoder.push(row)
    }

    /// The accumulators of the wanted aggregates, in order, with all rows merged. Each of the groups has to have a row:
    /// while it meets no NULL, DataFusion takes every group it is told of for one that has a value.
    pub fn into_accumulators(self, total_groups: usize) -> Result<Vec<Box<dyn GroupsAccumulator>>> {
        let columns = self.decoder.finish();
        let mut accumulators = Vec::with_capacity(self.wanted.len());
        for index in self.wanted {
            let aggregate = &self.plan.aggregates[index];
            let mut accumulator = aggregate.function.create_groups_accumulator()?;
            let Some(states) = columns[aggregate.state.clone()].iter().cloned().collect::<Option<Vec<_>>>() else {
                return exec_err!("the state of `{}` was not read", aggregate.name);
            };
            accumulator.merge_batch(&states, &self.groups, total_groups)?;
            accumulators.push(accumulator);
        }
        Ok(accumulators)
    }
}
