//! Judging: which rules hold for which accounts, as of which times.

use super::read::AsOf;
use super::store::Store;
use crate::rules::{AccountColumn, CompiledRule, Gates, Mode, Room, Rules, SecondStep, StepPlan, Variant, action_name};
use crate::window::slot_of;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Float64Type, SchemaRef};
use datafusion::common::{Result, exec_err};
use datafusion::physical_expr::PhysicalExpr;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_domain::{Account, AccountKind, Action, Evidence, Match, RuleRef};

/// An account to judge, as of a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'a> {
    pub account: &'a Account,
    pub as_of: AsOf,
    pub variant: Variant,
}

/// What [`judge`] found.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// For each case, the rules that hold, in the order of the rule set.
    pub matches: Vec<Vec<Match>>,
    /// For each case as of its account's newest time, the room that is left to the account.
    pub rooms: Vec<Option<Room>>,
}

/// Evaluates all rules for all cases, each by its variant of them.
pub(super) fn judge(store: &Store, rules: &Rules, cases: &[Case]) -> Result<Judged> {
    let first = cases.first().map_or(0, |case| case.variant);
    if cases.iter().all(|case| case.variant == first) {
        return judge_alike(store, rules, first, cases);
    }
    let mut by_variant: BTreeMap<Variant, Vec<usize>> = BTreeMap::new();
    for (index, case) in cases.iter().enumerate() {
        by_variant.entry(case.variant).or_default().push(index);
    }
    let mut all = Judged { matches: vec![Vec::new(); cases.len()], rooms: vec![None; cases.len()] };
    for (variant, indices) in by_variant {
        let alike: Vec<Case> = indices.iter().map(|index| cases[*index]).collect();
        let judged = judge_alike(store, rules, variant, &alike)?;
        for ((index, matches), room) in indices.into_iter().zip(judged.matches).zip(judged.rooms) {
            (all.matches[index], all.rooms[index]) = (matches, room);
        }
    }
    Ok(all)
}

/// The same for cases of one variant. Rules that need digests are evaluated only where the room for them is used up.
fn judge_alike(store: &Store, rules: &Rules, variant: Variant, cases: &[Case]) -> Result<Judged> {
    let plan = rules.variants().plan(variant);
    let mut found: Vec<Vec<Match>> = vec![Vec::new(); cases.len()];
    if cases.is_empty() || plan.rules.is_empty() {
        return Ok(Judged { matches: found, rooms: vec![None; cases.len()] });
    }
    let points: Vec<AsOf> = cases.iter().map(|case| case.as_of).collect();
    let mut columns = read(store, rules, &plan.numbers, &points)?;
    columns.extend(plan.account.iter().map(|column| account_column(*column, cases)));
    let first = batch(&plan.first_schema, columns, cases.len())?;
    let mut rooms: Vec<Option<Room>> =
        cases.iter().enumerate().map(|(row, case)| measured(store, &plan.gates, case, &first, row)).collect();
    for (index, rule) in plan.rules.iter().enumerate() {
        let candidates = truths(&holds(rule.first.as_ref(), &first)?);
        let Some(second) = &rule.second else {
            for case in candidates {
                found[case].extend(matched(rules, rule, cases[case].account, &first, case));
            }
            continue;
        };
        let is_due = |case: &usize| rooms[*case].as_ref().is_none_or(|room| plan.gates.is_rule_due(index, room));
        let candidates: Vec<usize> = candidates.into_iter().filter(is_due).collect();
        if candidates.is_empty() {
            continue;
        }
        let full = with_digests(store, rules, second, cases, &first, &candidates)?;
        for (row, case) in candidates.iter().enumerate() {
            if let Some(room) = &mut rooms[*case] {
                plan.gates.measure_digests(index, room, &full, row);
            }
        }
        for row in truths(&holds(Some(&second.predicate), &full)?) {
            let case = candidates[row];
            found[case].extend(matched(rules, rule, cases[case].account, &full, row));
        }
    }
    Ok(Judged { matches: found, rooms })
}

/// The account's room as far as the first step tells it, if the case is as of the account's newest time.
fn measured(store: &Store, gates: &Gates, case: &Case, first: &RecordBatch, row: usize) -> Option<Room> {
    let entry = store.entry(case.as_of.id);
    if case.as_of.slot != slot_of(entry.newest_ms) {
        return None;
    }
    let is_known = entry.room_of == case.variant && !entry.room.is_empty();
    let mut room = if is_known { entry.room.clone() } else { gates.no_room() };
    gates.measure_numbers(&mut room, first, row);
    Some(room)
}

/// The first step's columns for the cases that a rule still may match, and the digests that it asks for.
fn with_digests(
    store: &Store,
    rules: &Rules,
    second: &SecondStep,
    cases: &[Case],
    first: &RecordBatch,
    candidates: &[usize],
) -> Result<RecordBatch> {
    let points: Vec<AsOf> = candidates.iter().map(|case| cases[*case].as_of).collect();
    let rows = UInt32Array::from_iter_values(candidates.iter().map(|case| *case as u32));
    let mut columns = first.columns().iter().map(|column| take(column, &rows, None)).collect::<Result<Vec<_>, _>>()?;
    columns.extend(read(store, rules, &second.digests, &points)?);
    batch(&second.schema, columns, candidates.len())
}

fn read(store: &Store, rules: &Rules, step: &StepPlan, points: &[AsOf]) -> Result<Vec<ArrayRef>> {
    let values = step.read.read(store, rules.statistics().plan(), points)?;
    let column = |(statistic, window): &(usize, usize)| -> ArrayRef { Arc::new(values.column(*statistic, *window)) };
    Ok(step.columns.iter().map(column).collect())
}

/// Where a predicate is true; NULL is not true. No predicate holds everywhere.
fn holds(predicate: Option<&Arc<dyn PhysicalExpr>>, columns: &RecordBatch) -> Result<BooleanArray> {
    let Some(predicate) = predicate else { return Ok(BooleanArray::from(vec![true; columns.num_rows()])) };
    let result = predicate.evaluate(columns)?.into_array(columns.num_rows())?;
    match result.as_boolean_opt() {
        Some(result) if result.null_count() == 0 => Ok(result.clone()),
        Some(result) => Ok(result.iter().map(|value| Some(value == Some(true))).collect()),
        None => exec_err!("a predicate gave {}", result.data_type()),
    }
}

fn truths(holds: &BooleanArray) -> Vec<usize> {
    holds.values().set_indices().collect()
}

/// The match of a rule, unless it is limited to other domains.
fn matched(rules: &Rules, rule: &CompiledRule, account: &Account, columns: &RecordBatch, row: usize) -> Option<Match> {
    let info = &rules.list()[rule.index];
    if !info.concerns(account) {
        return None;
    }
    let evidence = rule.evidence.iter().map(|(name, place)| {
        let column = columns.column(*place);
        let value = if column.is_null(row) { f64::NAN } else { column.as_primitive::<Float64Type>().value(row) };
        Evidence { column: name.clone(), value }
    });
    let (action, reason) = match rules.mode() {
        Mode::Enforce => (info.action, info.reason.clone()),
        Mode::Observe if info.action == Action::Observe => (Action::Observe, info.reason.clone()),
        Mode::Observe => {
            let would = format!("would have asked for {} (observe mode): {}", action_name(info.action), info.reason);
            (Action::Observe, would)
        }
    };
    let rule_ref = RuleRef { name: info.name.clone(), rule_set: rules.version().to_owned() };
    Some(Match { rule: rule_ref, action, reason, reply: info.reply.clone(), evidence: evidence.collect() })
}

fn account_column(column: AccountColumn, cases: &[Case]) -> ArrayRef {
    let value = |account: &'_ Account| match column {
        AccountColumn::Name => Some(account.as_str().to_owned()),
        AccountColumn::Domain => account.domain().map(str::to_owned),
        AccountColumn::Kind => Some(
            match account.kind() {
                AccountKind::Login => "login",
                AccountKind::LocalUser => "local",
                AccountKind::ClientAddress => "address",
            }
            .to_owned(),
        ),
    };
    Arc::new(cases.iter().map(|case| value(case.account)).collect::<StringArray>())
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
