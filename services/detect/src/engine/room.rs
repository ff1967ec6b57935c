//! Which accounts a batch has to be judged for: those whose room (see `crate::rules::Gates`) is used up.

use super::store::{Id, Store};
use super::update::Touched;
use crate::event::EventBatch;
use crate::rules::Gates;
use crate::statistics::StatisticsPlan;
use arrow::array::{ArrayRef, AsArray};

/// Takes what the events of a batch add at most from the room of their accounts. `inputs` are the plan's over the
/// batch, `ids` its accounts.
pub(super) fn charge(
    store: &mut Store,
    plan: &StatisticsPlan,
    gates: &Gates,
    batch: &EventBatch,
    inputs: &[ArrayRef],
    ids: &[Id],
) {
    let added: Vec<Vec<f64>> = gates
        .counters
        .iter()
        .map(|counter| {
            let aggregate = &plan.aggregates[counter.aggregate];
            let argument = aggregate.arguments.first().map(|input| &inputs[*input]);
            let filter = aggregate.filter.map(|input| inputs[input].as_boolean());
            counter.growth.of_rows(argument, filter, batch.len())
        })
        .collect();
    for (event, account) in batch.account_of.iter().enumerate() {
        // Empty where it is not known: it will be measured.
        gates.charge(&mut store.entry_mut(ids[*account as usize]).room, &added, event);
    }
}

/// For each account of a batch, whether a rule may hold for it.
pub(super) fn due(store: &Store, gates: &Gates, touched: &[Touched], accounts: usize) -> Vec<bool> {
    let mut due = vec![false; accounts];
    for touched in touched {
        let entry = store.entry(touched.id);
        // As of a time before the room was measured windows reach further back than was looked at.
        let is_before = touched.slot < entry.room_slot;
        due[touched.account as usize] |= is_before || gates.is_due(&entry.room);
    }
    due
}
