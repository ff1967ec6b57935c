//! Judging: which rules hold for which accounts, as of which times.

use super::read::AsOf;
use super::store::Store;
use crate::rules::{AccountColumn, CompiledRule, Mode, Rules, action_name};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Float64Type, SchemaRef};
use datafusion::common::{Result, exec_err};
use datafusion::physical_expr::PhysicalExpr;
use std::sync::Arc;
use tidegate_domain::{Account, AccountKind, Action, Evidence, Match, RuleRef};

/// An account to judge, as of a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'a> {
    pub account: &'a Account,
    pub as_of: AsOf,
}

/// For each case, the rules that hold, in the order of the rule set.
pub(super) fn judge(store: &Store, rules: &Rules, cases: &[Case]) -> Result<Vec<Vec<Match>>> {
    let plan = rules.plan();
    let mut found: Vec<Vec<(usize, Match)>> = vec![Vec::new(); cases.len()];
    if cases.is_empty() || plan.rules.is_empty() {
        return Ok(vec![Vec::new(); cases.len()]);
    }
    let statistics = rules.statistics().plan();
    let points: Vec<AsOf> = cases.iter().map(|case| case.as_of).collect();
    let values = plan.numbers.read.read(store, statistics, &points)?;
    let numbers = plan
        .numbers
        .columns
        .iter()
        .map(|(statistic, window)| -> ArrayRef { Arc::new(values.column(*statistic, *window)) });
    let about = plan.account.iter().map(|column| account_column(*column, cases));
    let first = batch(&plan.first_schema, numbers.chain(about).collect(), cases.len())?;

    // Step one: rules that need no digest are decided, the others find their candidates.
    let mut candidates: Vec<(&CompiledRule, BooleanArray)> = Vec::new();
    let mut undecided = vec![false; cases.len()];
    for rule in &plan.rules {
        let holds = holds(rule.first.as_ref(), &first)?;
        if rule.second.is_none() {
            for case in truths(&holds) {
                found[case].extend(matched(rules, rule, cases[case].account, &first, case));
            }
        } else if holds.true_count() > 0 {
            truths(&holds).for_each(|case| undecided[case] = true);
            candidates.push((rule, holds));
        }
    }

    // Step two: digests, for the candidates only.
    let rest: Vec<usize> = undecided.iter().enumerate().filter(|(_, open)| **open).map(|(case, _)| case).collect();
    if !rest.is_empty() {
        let points: Vec<AsOf> = rest.iter().map(|case| cases[*case].as_of).collect();
        let values = plan.digests.read.read(store, statistics, &points)?;
        let rows = UInt32Array::from_iter_values(rest.iter().map(|case| *case as u32));
        let mut columns =
            first.columns().iter().map(|column| take(column, &rows, None)).collect::<Result<Vec<_>, _>>()?;
        columns.extend(
            plan.digests
                .columns
                .iter()
                .map(|(statistic, window)| -> ArrayRef { Arc::new(values.column(*statistic, *window)) }),
        );
        let full = batch(&plan.full_schema, columns, rest.len())?;
        for (rule, candidate) in candidates {
            for row in truths(&holds(rule.second.as_ref(), &full)?) {
                let case = rest[row];
                if candidate.value(case) {
                    found[case].extend(matched(rules, rule, cases[case].account, &full, row));
                }
            }
        }
    }
    Ok(found
        .into_iter()
        .map(|mut matches| {
            matches.sort_by_key(|(index, _)| *index);
            matches.into_iter().map(|(_, found)| found).collect()
        })
        .collect())
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

fn truths(holds: &BooleanArray) -> impl Iterator<Item = usize> + '_ {
    holds.values().set_indices()
}

/// The match of a rule, unless it is limited to other domains.
fn matched(
    rules: &Rules,
    rule: &CompiledRule,
    account: &Account,
    columns: &RecordBatch,
    row: usize,
) -> Option<(usize, Match)> {
    let info = &rules.list()[rule.index];
    let concerns = info.domains.is_empty()
        || account.domain().is_some_and(|domain| info.domains.iter().any(|allowed| allowed == domain));
    if !concerns {
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
    let found = Match { rule: rule_ref, action, reason, reply: info.reply.clone(), evidence: evidence.collect() };
    Some((rule.index, found))
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
