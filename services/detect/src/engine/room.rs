//! Which accounts a batch has to be judged for: those whose room (see `crate::rules::Gates`) is used up.

use super::judges::Judges;
use super::store::{Id, Store};
use super::update::Touched;
use crate::event::EventBatch;
use crate::rules::{Counter, Gates, Variant};
use crate::statistics::StatisticsPlan;
use arrow::array::{ArrayRef, AsArray};

/// Takes what the events of a batch add at most from the room of their accounts. `inputs` are the plan's over the
/// batch, `ids` its accounts.
pub(super) fn charge(
    store: &mut Store,
    plan: &StatisticsPlan,
    judges: &Judges,
    batch: &EventBatch,
    inputs: &[ArrayRef],
    ids: &[Id],
) {
    let mut variants: Vec<Variant> = Vec::new();
    let mut place = |variant| {
        variants.iter().position(|known| *known == variant).unwrap_or_else(|| {
            variants.push(variant);
            variants.len() - 1
        })
    };
    let places: Vec<usize> =
        ids.iter().enumerate().map(|(account, id)| place(judges.prepare(store, account, *id))).collect();
    let gates: Vec<&Gates> = variants.iter().map(|variant| judges.gates(*variant)).collect();
    // What the events add to each counter; variants share most of them.
    let mut counters: Vec<Counter> = gates.iter().flat_map(|gates| gates.counters.iter().copied()).collect();
    counters.sort_unstable();
    counters.dedup();
    let growth = |counter: &Counter| {
        let aggregate = &plan.aggregates[counter.aggregate];
        let argument = aggregate.arguments.first().map(|input| &inputs[*input]);
        let filter = aggregate.filter.map(|input| inputs[input].as_boolean());
        counter.growth.of_rows(argument, filter, batch.len())
    };
    let added: Vec<Vec<f64>> = counters.iter().map(growth).collect();
    let of_counter = |counter: &Counter| counters.binary_search(counter).map_or(&[][..], |place| &added[place]);
    let added: Vec<Vec<&[f64]>> = gates.iter().map(|gates| gates.counters.iter().map(of_counter).collect()).collect();
    for (event, account) in batch.account_of.iter().enumerate() {
        let (id, place) = (ids[*account as usize], places[*account as usize]);
        // Empty where it is not known: it will be measured.
        gates[place].charge(&mut store.entry_mut(id).room, &added[place], event);
    }
}

/// For each account of a batch, whether a rule may hold for it.
pub(super) fn due(store: &Store, judges: &Judges, touched: &[Touched], accounts: usize) -> Vec<bool> {
    let mut due = vec![false; accounts];
    for touched in touched {
        let entry = store.entry(touched.id);
        // As of a time before the room was measured windows reach further back than was looked at.
        let is_before = touched.slot < entry.room_slot;
        due[touched.account as usize] |= is_before || judges.is_due(entry);
    }
    due
}
