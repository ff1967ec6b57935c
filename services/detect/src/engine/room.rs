//! Which accounts a batch has to be judged for: those whose room (see `crate::rules::GatePlan`) is used up.

use super::store::{Id, Store};
use super::update::Touched;
use crate::event::EventBatch;
use crate::rules::GatePlan;
use crate::statistics::StatisticsPlan;
use arrow::array::{ArrayRef, AsArray};

/// Takes what the events of a batch add at most from the room of their accounts. `inputs` are the plan's over the
/// batch, `ids` its accounts.
pub(super) fn charge(
    store: &mut Store,
    plan: &StatisticsPlan,
    gates: &GatePlan,
    batch: &EventBatch,
    inputs: &[ArrayRef],
    ids: &[Id],
) {
    for (index, counter) in gates.counters.iter().enumerate() {
        let aggregate = &plan.aggregates[counter.aggregate];
        let argument = aggregate.arguments.first().map(|input| &inputs[*input]);
        let filter = aggregate.filter.map(|input| inputs[input].as_boolean());
        let added = counter.growth.of_rows(argument, filter, batch.len());
        for (account, added) in batch.account_of.iter().zip(added) {
            // Empty: its room is not known, and will be measured.
            if let Some(room) = store.entry_mut(ids[*account as usize]).room.get_mut(index) {
                *room -= added;
            }
        }
    }
}

/// For each account of a batch, whether a rule may hold for it.
pub(super) fn due(store: &Store, gates: Option<&GatePlan>, touched: &[Touched], accounts: usize) -> Vec<bool> {
    if gates.is_none() {
        return vec![true; accounts];
    }
    let mut due = vec![false; accounts];
    for touched in touched {
        let entry = store.entry(touched.id);
        // As of a time before the room was measured windows reach further back than was looked at.
        let is_before = touched.slot < entry.room_slot;
        due[touched.account as usize] |= is_before || entry.is_room_used_up();
    }
    due
}
