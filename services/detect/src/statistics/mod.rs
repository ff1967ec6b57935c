//! Statistics: named aggregates over one account's events, declared in SQL.

mod file;
mod growth;
mod layout;

pub(crate) use file::written;
pub(crate) use growth::Growth;
pub use layout::AggregateState;
pub(crate) use layout::Fit;

use crate::event::{EventBatchBuilder, event_schema};
use crate::problem::{Finding, Problem, Problems};
use crate::row::StateType;
use crate::sql::finite::finite;
use crate::sql::plan::{Planner, reason};
use crate::window::WINDOWS;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, Result, plan_err};
use datafusion::logical_expr::utils::find_aggregate_exprs;
use datafusion::logical_expr::{Expr, ExprSchemable, cast};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregate};
use std::ops::Range;
use std::sync::Arc;
use tidegate_domain::{Account, Submission};
use twox_hash::XxHash64;

/// The statistics that ship with Tidegate, in the file format of [`Statistics::parse`].
pub const DEFAULT_STATISTICS: &str = include_str!("../../defaults/statistics.sql");

/// Most statistics of one file, and most different aggregates under them.
const MAX_STATISTICS: usize = 100;

/// What an expression of the right form may still get wrong.
const ALLOWED: &str = "one number as an argument, a list in distinct and top_share only, a truth value in FILTER";

/// A set of statistics, planned by DataFusion. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Statistics {
    plan: Arc<StatisticsPlan>,
}

/// One statistic, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatisticInfo {
    /// Its name; columns are called `<name>_<window>`.
    pub name: String,
    /// The expression, as it stands in the file.
    pub sql: String,
    /// The comment above it.
    pub description: String,
}

/// What the engine keeps for each pane, and how statistics come out of it.
#[derive(Debug)]
pub(crate) struct StatisticsPlan {
    pub infos: Vec<StatisticInfo>,
    pub statistics: Vec<Statistic>,
    /// Arguments and filters of aggregates over the event row, each once.
    pub inputs: Vec<Arc<dyn PhysicalExpr>>,
    /// Each once, those whose state is only numbers first: reading a row can stop before the digests.
    pub aggregates: Vec<Aggregate>,
    /// Columns of a pane's state, in the order of `aggregates`.
    pub state: Vec<StateType>,
    /// Short hash of all definitions.
    pub version: String,
}

#[derive(Debug)]
pub(crate) struct Statistic {
    /// Its value over one column for each aggregate, named like it; of type `Float64`.
    pub value: Arc<dyn PhysicalExpr>,
    /// The aggregates that it needs.
    pub aggregates: Vec<usize>,
    /// Whether one of them keeps a digest, which costs much more to merge than numbers.
    pub digest: bool,
    /// Values that it can have.
    pub range: (f64, f64),
    /// The one aggregate that it is, and how that grows, if it can only grow by what is added.
    pub growth: Option<(usize, Growth)>,
}

#[derive(Debug)]
pub(crate) struct Aggregate {
    /// How DataFusion writes it; the same in every run, so that stored states can be told apart.
    pub name: String,
    pub function: Arc<AggregateFunctionExpr>,
    /// Indices of inputs.
    pub arguments: Vec<usize>,
    pub filter: Option<usize>,
    /// Its columns in the state.
    pub state: Range<usize>,
    pub digest: bool,
}

impl Statistics {
    /// Reads a statistics file.
    ///
    /// Each entry is `name = expression;`. The expression is made of aggregates over the columns of
    /// [`crate::event_columns`], with an optional `FILTER (WHERE ...)`, and arithmetic between aggregates. The `--`
    /// comment right above an entry is its description. A value that is not a finite number is NULL.
    ///
    /// # Errors
    /// All problems of the file at once, with their places.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::new(file_name);
        let planner = Planner::new();
        let entries = file::read(text, &mut problems);
        if entries.len() > MAX_STATISTICS {
            let message = format!("there are {} statistics", entries.len());
            problems.add(None, Finding::at(None, message).allowing(format!("{MAX_STATISTICS}")));
        }
        let Ok(schema) = DFSchema::try_from(event_schema()) else {
            problems.add(None, Finding::at(None, "the event row has no schema"));
            return Err(problems.into_sorted());
        };
        let mut infos = Vec::new();
        let mut exprs = Vec::new();
        let mut aggregates: Vec<(Expr, Aggregate)> = Vec::new();
        let mut inputs = Vec::new();
        for entry in entries {
            let planned = plan_expression(&planner, entry.expr, &schema)
                .and_then(|expr| add_aggregates(&planner, &expr, &schema, &mut aggregates, &mut inputs).map(|()| expr));
            match planned {
                Ok(expr) => {
                    infos.push(entry.info);
                    exprs.push(expr);
                }
                Err(message) => problems.add(Some(&entry.subject), Finding { position: entry.position, ..message }),
            }
        }
        if infos.is_empty() && problems.is_empty() {
            problems.add(None, Finding::at(None, "the file has no statistic").allowing("name = expression;"));
        }
        if !problems.is_empty() {
            return Err(problems.into_sorted());
        }
        assemble(&planner, &schema, infos, &exprs, aggregates, inputs).map_err(|error| {
            problems.add(None, Finding::at(None, reason(&error)));
            problems.into_sorted()
        })
    }

    /// What a file declares, checked by everything but the planner: quick, and its problems are among those of
    /// [`Statistics::parse`].
    ///
    /// # Errors
    /// All problems that were found, with their places.
    pub fn outline(file_name: &str, text: &str) -> Result<Vec<StatisticInfo>, Vec<Problem>> {
        let mut problems = Problems::new(file_name);
        let entries = file::read(text, &mut problems);
        if problems.is_empty() {
            Ok(entries.into_iter().map(|entry| entry.info).collect())
        } else {
            Err(problems.into_sorted())
        }
    }

    /// Statistics with the names that a file with problems means to have, so that rules over them can be checked.
    /// None when no name can be made out.
    pub(crate) fn stand_ins(text: &str) -> Option<Self> {
        let entries = file::names(text).into_iter().map(|name| format!("{name} = count(*);\n"));
        Self::parse("stand-ins", &entries.collect::<String>()).ok()
    }

    /// All statistics, in the order of the file.
    pub fn list(&self) -> &[StatisticInfo] {
        &self.plan.infos
    }

    /// Short hash of the definitions: it differs when a statistic differs.
    pub fn version(&self) -> &str {
        &self.plan.version
    }

    /// All columns that rules may use, `<statistic>_<window>`, statistic by statistic.
    pub fn columns(&self) -> Vec<String> {
        let names = self.plan.infos.iter().map(|info| &info.name);
        names.flat_map(|name| WINDOWS.map(|window| format!("{name}_{}", window.name()))).collect()
    }

    /// What the engine keeps for each pane, in order: with it what an engine wrote can be read by another version.
    pub fn layout(&self) -> Vec<AggregateState> {
        self.plan.layout()
    }

    pub(crate) fn plan(&self) -> &Arc<StatisticsPlan> {
        &self.plan
    }
}

/// Plans one expression over the event row; it has to give a number.
fn plan_expression(
    planner: &Planner,
    expr: datafusion::sql::sqlparser::ast::Expr,
    schema: &DFSchema,
) -> Result<Expr, Finding> {
    let refuse = |error: DataFusionError| Finding::at(None, reason(&error)).allowing(ALLOWED);
    let expr = planner.logical(expr, schema).and_then(|expr| planner.simplified(expr, schema)).map_err(refuse)?;
    let data_type = expr.get_type(schema).map_err(refuse)?;
    if !data_type.is_numeric() {
        let message = format!("a statistic is a number, this is of type {data_type}");
        return Err(Finding::at(None, message).allowing("e.g. count(*) FILTER (WHERE ...)"));
    }
    if find_aggregate_exprs([&expr]).is_empty() {
        return Err(Finding::at(None, "this does not depend on any event").allowing("e.g. count(*), sum(size)"));
    }
    Ok(expr)
}

/// Adds the aggregates of `expr` that are not known yet.
fn add_aggregates(
    planner: &Planner,
    expr: &Expr,
    schema: &DFSchema,
    aggregates: &mut Vec<(Expr, Aggregate)>,
    inputs: &mut Vec<Arc<dyn PhysicalExpr>>,
) -> Result<(), Finding> {
    for found in find_aggregate_exprs([expr]) {
        if aggregates.iter().any(|(known, _)| *known == found) {
            continue;
        }
        let refuse = |error: DataFusionError| Finding::at(None, reason(&error)).allowing(ALLOWED);
        let lowered = planner.aggregate(&found, schema).map_err(refuse)?;
        try_on_sample(&lowered).map_err(refuse)?;
        let name = found.schema_name().to_string();
        let function = lowered.aggregate;
        let states = function.state_fields().map_err(refuse)?;
        let supported = function.groups_accumulator_supported()
            && states.iter().all(|field| StateType::of(field.data_type()).is_some());
        if !supported {
            let message = format!("`{name}` has no compact state for this type of column");
            return Err(Finding::at(None, message).allowing(ALLOWED));
        }
        let digest = states.iter().any(|field| field.data_type() == &DataType::Binary);
        let arguments = function.expressions().into_iter().map(|input| index_of(inputs, input)).collect();
        let filter = lowered.filter.map(|filter| index_of(inputs, filter));
        aggregates.push((found, Aggregate { name, function, arguments, filter, state: 0..states.len(), digest }));
    }
    Ok(())
}

/// What type coercion has put in may fail for some values, or give what is no truth value.
fn try_on_sample(aggregate: &LoweredAggregate) -> Result<()> {
    let mut builder = EventBatchBuilder::new();
    builder.push(&Account::client_address([192, 0, 2, 1].into()), 0, 0, &Submission::default(), false);
    let sample = builder.finish()?;
    for argument in aggregate.aggregate.expressions() {
        argument.evaluate(sample.columns())?;
    }
    if let Some(filter) = &aggregate.filter {
        let data_type = filter.evaluate(sample.columns())?.data_type();
        if data_type != DataType::Boolean {
            return plan_err!("the filter is not true or false, but of type {data_type}");
        }
    }
    Ok(())
}

fn index_of(inputs: &mut Vec<Arc<dyn PhysicalExpr>>, input: Arc<dyn PhysicalExpr>) -> usize {
    if let Some(index) = inputs.iter().position(|known| known.as_ref() == input.as_ref()) {
        return index;
    }
    inputs.push(input);
    inputs.len() - 1
}

/// Orders the aggregates and plans each statistic over their results.
fn assemble(
    planner: &Planner,
    events: &DFSchema,
    infos: Vec<StatisticInfo>,
    exprs: &[Expr],
    mut aggregates: Vec<(Expr, Aggregate)>,
    inputs: Vec<Arc<dyn PhysicalExpr>>,
) -> Result<Statistics> {
    aggregates.sort_by_key(|(_, aggregate)| aggregate.digest);
    let mut state = Vec::new();
    for (_, aggregate) in &mut aggregates {
        let first = state.len();
        let fields = aggregate.function.state_fields()?;
        state.extend(fields.iter().filter_map(|field| StateType::of(field.data_type())));
        aggregate.state = first..state.len();
    }
    let field =
        |aggregate: &Aggregate| Field::new(&aggregate.name, aggregate.function.field().data_type().clone(), true);
    let fields: Vec<_> = aggregates.iter().map(|(_, aggregate)| field(aggregate)).collect();
    let schema = DFSchema::try_from(Schema::new(fields))?;
    let mut statistics = Vec::new();
    let mut definitions = String::new();
    for (info, expr) in infos.iter().zip(exprs) {
        definitions.extend([&info.name, " = ", &expr.to_string(), ";"]);
        let mut used = Vec::new();
        let over_results = expr.clone().transform_down(|part| {
            Ok(match aggregates.iter().position(|(known, _)| *known == part) {
                Some(index) => {
                    used.push(index);
                    let column = Expr::Column(Column::new_unqualified(&aggregates[index].1.name));
                    Transformed::new(column, true, TreeNodeRecursion::Jump)
                }
                None => Transformed::no(part),
            })
        })?;
        used.sort_unstable();
        used.dedup();
        let growth = growth::growing(expr, events).and_then(|(aggregate, growth)| {
            Some((aggregates.iter().position(|(known, _)| known == aggregate)?, growth))
        });
        let value = finite(cast(over_results.data, DataType::Float64));
        statistics.push(Statistic {
            value: planner.physical(&value, &schema)?,
            digest: used.iter().any(|index| aggregates[*index].1.digest),
            aggregates: used,
            range: range_of(expr),
            growth,
        });
    }
    let version = format!("{:012x}", XxHash64::oneshot(0, definitions.as_bytes()) >> 16);
    let aggregates = aggregates.into_iter().map(|(_, aggregate)| aggregate).collect();
    Ok(Statistics { plan: Arc::new(StatisticsPlan { infos, statistics, inputs, aggregates, state, version }) })
}

/// What values an expression can have, where that is plain.
fn range_of(expr: &Expr) -> (f64, f64) {
    match expr {
        Expr::AggregateFunction(function) => match function.func.name() {
            "count" | "distinct" | "stddev" | "stddev_pop" | "var" => (0.0, f64::INFINITY),
            "top_share" => (0.0, 1.0),
            _ => (f64::NEG_INFINITY, f64::INFINITY),
        },
        _ => (f64::NEG_INFINITY, f64::INFINITY),
    }
}
