//! A rule set as the engine runs it: physical expressions, in two steps so that costly statistics are read last.

use super::RuleInfo;
use super::gate::Gates;
use super::predicate::{ACCOUNT_COLUMNS, Predicate, all_of, column_name, comparison};
use crate::engine::ReadPlan;
use crate::sql::plan::Planner;
use crate::statistics::Statistics;
use crate::window::{WINDOWS, Window};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Two steps: the first reads numbers only, once for all rules, and evaluates the conjuncts that need no more; the
/// second reads a rule's digests, for those accounts only that it still may match.
#[derive(Debug)]
pub(crate) struct RulesPlan {
    pub numbers: StepPlan,
    /// Columns about the account itself; they stand behind the numbers.
    pub account: Vec<AccountColumn>,
    /// Columns of the first step.
    pub first_schema: SchemaRef,
    /// Enabled rules, in the order of the file.
    pub rules: Vec<CompiledRule>,
    /// What an account must have before they can hold.
    pub gates: Gates,
    /// All columns of statistics that they name.
    pub columns: Vec<(usize, Window)>,
    /// All numbers that they compare a column with.
    pub comparisons: Vec<Comparison>,
}

/// `column >= number` somewhere in a predicate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Comparison {
    /// Index of the rule in the file.
    pub rule: usize,
    pub column: String,
    /// `>=`, `>`, `<=` or `<`.
    pub operator: &'static str,
    pub limit: f64,
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
    /// The others; none when the first step decides.
    pub second: Option<SecondStep>,
    /// The statistics columns that it names: name, and place among the columns of its last step.
    pub evidence: Vec<(String, usize)>,
}

/// What a rule needs besides numbers.
#[derive(Debug)]
pub(crate) struct SecondStep {
    pub digests: StepPlan,
    /// The first step's columns, then the digests.
    pub schema: SchemaRef,
    pub predicate: Arc<dyn PhysicalExpr>,
}

impl RulesPlan {
    pub(super) fn new(
        planner: &Planner,
        statistics: &Statistics,
        infos: &[RuleInfo],
        all: &[&Predicate],
    ) -> Result<Self> {
        let enabled: Vec<usize> = (0..infos.len()).filter(|index| infos[*index].enabled).collect();
        let named: BTreeSet<String> = enabled.iter().flat_map(|index| all[*index].names()).collect();
        let numbers = columns_of(statistics, &named, false);
        let account: Vec<usize> = (0..ACCOUNT_COLUMNS.len()).filter(|i| named.contains(ACCOUNT_COLUMNS[*i])).collect();
        let mut fields: Vec<Field> = numbers.iter().map(|column| field(statistics, *column)).collect();
        fields.extend(account.iter().map(|index| Field::new(ACCOUNT_COLUMNS[*index], DataType::Utf8, true)));
        let first = DFSchema::try_from(Schema::new(fields))?;
        let rules = enabled.iter().map(|index| compile(planner, statistics, *index, all[*index], &first));
        let rules = rules.collect::<Result<Vec<CompiledRule>>>()?;
        let mut gates = Gates::new(first.fields().len());
        for rule in &rules {
            let columns = rule.second.as_ref().map_or(first.inner(), |second| &second.schema);
            gates.add_rule(statistics, all[rule.index], columns);
        }
        let mut columns = numbers.clone();
        columns.extend(columns_of(statistics, &named, true));
        let comparisons = enabled.iter().map(|index| comparisons(*index, all[*index])).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            rules,
            gates,
            columns,
            comparisons: comparisons.concat(),
            numbers: StepPlan::new(statistics, &numbers)?,
            account: account
                .iter()
                .map(|index| [AccountColumn::Name, AccountColumn::Domain, AccountColumn::Kind][*index])
                .collect(),
            first_schema: Arc::clone(first.inner()),
        })
    }
}

/// The comparisons of one rule, each once.
fn comparisons(rule: usize, predicate: &Predicate) -> Result<Vec<Comparison>> {
    let mut found: Vec<Comparison> = Vec::new();
    for conjunct in &predicate.conjuncts {
        conjunct.apply(|part| {
            if let Some((column, operator, limit)) = comparison(part)
                && !ACCOUNT_COLUMNS.contains(&column.as_str())
                && let Some(operator) = match operator {
                    Operator::GtEq => Some(">="),
                    Operator::Gt => Some(">"),
                    Operator::LtEq => Some("<="),
                    Operator::Lt => Some("<"),
                    _ => None,
                }
            {
                let one = Comparison { rule, column, operator, limit };
                if !found.contains(&one) {
                    found.push(one);
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(found)
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

/// The columns of statistics among `names`: of those that keep a digest, or of the others.
fn columns_of(statistics: &Statistics, names: &BTreeSet<String>, digest: bool) -> Vec<(usize, Window)> {
    let plan = statistics.plan();
    let of_kind = (0..plan.statistics.len()).filter(|index| plan.statistics[*index].digest == digest);
    of_kind
        .flat_map(|index| WINDOWS.map(|window| (index, window)))
        .filter(|(index, window)| names.contains(&column_name(&plan.infos[*index].name, *window)))
        .collect()
}

fn field(statistics: &Statistics, (statistic, window): (usize, Window)) -> Field {
    Field::new(column_name(&statistics.list()[statistic].name, window), DataType::Float64, true)
}

fn compile(
    planner: &Planner,
    statistics: &Statistics,
    index: usize,
    predicate: &Predicate,
    first: &DFSchema,
) -> Result<CompiledRule> {
    let names: BTreeSet<String> = predicate.names().collect();
    let early = |expr: &Expr| names_of(expr).all(|name| first.has_column_with_unqualified_name(&name));
    let (early, late): (Vec<Expr>, Vec<Expr>) = predicate.conjuncts.iter().cloned().partition(early);
    let digests = columns_of(statistics, &names, true);
    let mut fields: Vec<Field> = first.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.extend(digests.iter().map(|column| field(statistics, *column)));
    let full = DFSchema::try_from(Schema::new(fields))?;
    let second = match all_of(late) {
        None => None,
        Some(late) => Some(SecondStep {
            digests: StepPlan::new(statistics, &digests)?,
            schema: Arc::clone(full.inner()),
            predicate: planner.physical(&late, &full)?,
        }),
    };
    let first = all_of(early).map(|early| planner.physical(&early, first)).transpose()?;
    let of_statistics = names.into_iter().filter(|name| !ACCOUNT_COLUMNS.contains(&name.as_str()));
    let evidence = of_statistics.filter_map(|name| Some((full.index_of_column_by_name(None, &name)?, name)));
    let evidence = evidence.map(|(place, name)| (name, place)).collect();
    Ok(CompiledRule { index, first, second, evidence })
}

impl Predicate {
    /// The columns that it names; some may come several times.
    fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.conjuncts.iter().flat_map(names_of)
    }
}

fn names_of(expr: &Expr) -> impl Iterator<Item = String> {
    expr.column_refs().into_iter().map(|column| column.name.clone()).collect::<Vec<_>>().into_iter()
}
