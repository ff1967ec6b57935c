//! Planning by DataFusion: names and types resolved, constants folded, and physical expressions made, once.

use super::finite;
use crate::aggregate;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result, plan_err};
use datafusion::execution::context::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{SessionStateDefaults, config::SessionConfig};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{AggregateUDF, Expr, ExprSchemable, ScalarUDF};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::aggregate::{LoweredAggregate, LoweredAggregateBuilder};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::sql::sqlparser::ast;
use std::sync::Arc;

/// Aggregate functions of statistics. All but the last two are DataFusion's own.
pub(crate) const AGGREGATES: [&str; 10] =
    ["count", "sum", "avg", "min", "max", "stddev", "stddev_pop", "var", "distinct", "top_share"];
/// Functions of numbers. None of them fails for any input.
pub(crate) const FUNCTIONS: [&str; 12] =
    ["abs", "ceil", "floor", "round", "sqrt", "ln", "log10", "exp", "least", "greatest", "coalesce", "nullif"];
/// Functions of texts.
pub(crate) const TEXT_FUNCTIONS: [&str; 6] =
    ["lower", "upper", "starts_with", "ends_with", "contains", "character_length"];

/// Plans expressions with exactly the functions that are allowed.
#[derive(Debug)]
pub(crate) struct Planner {
    state: SessionState,
}

impl Planner {
    pub fn new() -> Self {
        let allowed =
            |function: &Arc<ScalarUDF>| FUNCTIONS.iter().chain(&TEXT_FUNCTIONS).any(|name| function.name() == *name);
        let functions = SessionStateDefaults::default_scalar_functions().into_iter().filter(allowed).collect();
        let allowed = |function: &Arc<AggregateUDF>| AGGREGATES.contains(&function.name());
        let aggregates = SessionStateDefaults::default_aggregate_functions().into_iter().filter(allowed);
        let state = SessionStateBuilder::new()
            .with_config(SessionConfig::new())
            .with_expr_planners(SessionStateDefaults::default_expr_planners())
            .with_scalar_functions(functions)
            .with_aggregate_functions(aggregates.chain([aggregate::distinct(), aggregate::top_share()]).collect())
            .build();
        Self { state }
    }

    /// Resolves names and types.
    pub fn logical(&self, expr: ast::Expr, schema: &DFSchema) -> Result<Expr> {
        let expr = ast::ExprWithAlias { expr, alias: None };
        let expr = self.state.create_logical_expr_from_sql_expr(expr, schema)?;
        self.simplifier(schema).coerce(expr, schema)
    }

    /// Guards arithmetic (see [`finite`]) and folds constants.
    pub fn simplified(&self, expr: Expr, schema: &DFSchema) -> Result<Expr> {
        let simplifier = self.simplifier(schema);
        // Guarding has made numbers real that may stand beside whole ones, as in `coalesce(count(*), 1 % 2)`.
        let simple = simplifier.simplify(simplifier.coerce(finite::guard(expr, schema)?, schema)?)?;
        refuse_texts_as_numbers(&simple, schema)?;
        Ok(simple)
    }

    pub fn physical(&self, expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        create_physical_expr(expr, schema, self.state.execution_props(), &PhysicalPlanningContext::default())
    }

    /// An aggregate of the rows of `schema`, with its filter.
    pub fn aggregate(&self, expr: &Expr, schema: &DFSchema) -> Result<LoweredAggregate> {
        let context = PhysicalPlanningContext::default();
        LoweredAggregateBuilder::new(expr, schema, schema.as_arrow(), self.state.execution_props(), &context).build()
    }

    fn simplifier(&self, schema: &DFSchema) -> ExprSimplifier {
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(schema.clone()))
            .with_config_options(Arc::clone(self.state.config_options()))
            .build();
        ExprSimplifier::new(context)
    }
}

/// Type coercion reads a text as a number where one is compared with the other, and fails for every text that is none.
/// Trying it on a sample does not find that where another part decides first.
fn refuse_texts_as_numbers(expr: &Expr, schema: &DFSchema) -> Result<()> {
    expr.apply(|part| {
        if let Expr::Cast(cast) = part
            && cast.expr.get_type(schema)?.is_string()
            && !part.get_type(schema)?.is_string()
        {
            return plan_err!("a text stands where a number is needed");
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map(drop)
}

/// The first line of what DataFusion says, without the class of the error and without what it tried in vain.
pub(crate) fn reason(error: &DataFusionError) -> String {
    let message = error.find_root().message();
    let line = message.lines().next().unwrap_or_default();
    line.split_once(", errors: ").map_or(line, |(message, _)| message).to_owned()
}
