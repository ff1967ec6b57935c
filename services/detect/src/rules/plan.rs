//! A rule set as the engine runs it: physical expressions, in two steps so that costly statistics are read last.

use super::RuleInfo;
use super::predicate::{ACCOUNT_COLUMNS, Predicate, all_of, column_name};
use crate::engine::ReadPlan;
use crate::sql::plan::Planner;
use crate::statistics::Statistics;
use crate::window::{WINDOWS, Window};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Two steps: the first reads numbers only and evaluates the conjuncts that need no more; the second reads digests,
/// for those accounts only that a rule still may match.
#[derive(Debug)]
pub(crate) struct RulesPlan {
    pub numbers: StepPlan,
    pub digests: StepPlan,
    /// Columns about the account itself; they stand between the two steps' columns.
    pub account: Vec<AccountColumn>,
    /// Columns of the first step, then the account's.
    pub first_schema: SchemaRef,
    /// All columns.
    pub full_schema: SchemaRef,
    /// Enabled rules, in the order of the file.
    pub rules: Vec<CompiledRule>,
}

/// What one step reads.
#[derive(Debug)]
pub(crate) struct StepPlan {
    pub read: ReadPlan,
    /// For each column, its place among the statistics and windows of `read`.
    pub columns: Vec<(usize, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccountColumn {
    Name,
    Domain,
    Kind,
}

#[derive(Debug)]
pub(crate) struct CompiledRule {
    /// Index of the rule in the file.
    pub index: usize,
    /// The conjuncts over the first step's columns.
    pub first: Option<Arc<dyn PhysicalExpr>>,
    /// The others, over all columns.
    pub second: Option<Arc<dyn PhysicalExpr>>,
    /// The statistics columns that it names: name, and place in the full schema.
    pub evidence: Vec<(String, usize)>,
}

impl RulesPlan {
    pub(super) fn new(
        planner: &Planner,
        statistics: &Statistics,
        infos: &[RuleInfo],
        all: &[Predicate],
    ) -> Result<Self> {
        let enabled: Vec<usize> = (0..infos.len()).filter(|index| infos[*index].enabled).collect();
        let named: BTreeSet<String> =
            enabled.iter().flat_map(|index| all[*index].conjuncts.iter().flat_map(names_of)).collect();
        let mut number_columns: Vec<(usize, Window)> = Vec::new();
        let mut digest_columns: Vec<(usize, Window)> = Vec::new();
        for (index, info) in statistics.list().iter().enumerate() {
            for window in WINDOWS.into_iter().filter(|window| named.contains(&column_name(&info.name, *window))) {
                let digest = statistics.plan().statistics[index].digest;
                if digest { &mut digest_columns } else { &mut number_columns }.push((index, window));
            }
        }
        let account: Vec<usize> = (0..ACCOUNT_COLUMNS.len()).filter(|i| named.contains(ACCOUNT_COLUMNS[*i])).collect();
        let field = |(statistic, window): &(usize, Window)| {
            Field::new(column_name(&statistics.list()[*statistic].name, *window), DataType::Float64, true)
        };
        let mut fields: Vec<Field> = number_columns.iter().map(field).collect();
        fields.extend(account.iter().map(|index| Field::new(ACCOUNT_COLUMNS[*index], DataType::Utf8, true)));
        let first = DFSchema::try_from(Schema::new(fields.clone()))?;
        fields.extend(digest_columns.iter().map(field));
        let full = DFSchema::try_from(Schema::new(fields))?;
        let rules = enabled.iter().map(|index| compile(planner, *index, &all[*index], &first, &full));
        Ok(Self {
            rules: rules.collect::<Result<_>>()?,
            numbers: StepPlan::new(statistics, &number_columns)?,
            digests: StepPlan::new(statistics, &digest_columns)?,
            account: account
                .iter()
                .map(|index| [AccountColumn::Name, AccountColumn::Domain, AccountColumn::Kind][*index])
                .collect(),
            first_schema: Arc::clone(first.inner()),
            full_schema: Arc::clone(full.inner()),
        })
    }
}

impl StepPlan {
    fn new(statistics: &Statistics, columns: &[(usize, Window)]) -> Result<Self> {
        let mut wanted: Vec<usize> = columns.iter().map(|(statistic, _)| *statistic).collect();
        wanted.dedup();
        let windows = columns.iter().map(|(_, window)| *window).collect();
        let read = ReadPlan::new(statistics.plan(), &wanted, windows)?;
        let place = |(statistic, window): &(usize, Window)| {
            let statistic = wanted.iter().position(|known| known == statistic);
            let window = read.windows().iter().position(|known| known == window);
            statistic.zip(window)
        };
        if let Some(columns) = columns.iter().map(place).collect() {
            Ok(Self { read, columns })
        } else {
            plan_err!("a column is of a statistic or window that is not read")
        }
    }
}

fn compile(
    planner: &Planner,
    index: usize,
    predicate: &Predicate,
    first: &DFSchema,
    full: &DFSchema,
) -> Result<CompiledRule> {
    let early = |expr: &Expr| names_of(expr).iter().all(|name| first.has_column_with_unqualified_name(name));
    let (early, late): (Vec<Expr>, Vec<Expr>) = predicate.conjuncts.iter().cloned().partition(early);
    let physical =
        |exprs: Vec<Expr>, schema: &DFSchema| all_of(exprs).map(|expr| planner.physical(&expr, schema)).transpose();
    let mut names: Vec<String> = predicate.conjuncts.iter().flat_map(names_of).collect();
    names.dedup();
    let mut evidence: Vec<(String, usize)> = Vec::new();
    for name in names {
        let known = ACCOUNT_COLUMNS.contains(&name.as_str()) || evidence.iter().any(|(known, _)| *known == name);
        if let Some(place) = full.index_of_column_by_name(None, &name).filter(|_| !known) {
            evidence.push((name, place));
        }
    }
    Ok(CompiledRule { index, first: physical(early, first)?, second: physical(late, full)?, evidence })
}

/// The columns that an expression names, in the order of the alphabet.
fn names_of(expr: &Expr) -> Vec<String> {
    let mut names: Vec<String> = expr.column_refs().into_iter().map(|column| column.name.clone()).collect();
    names.sort_unstable();
    names
}
