//! `IN (SELECT ...)` and `EXISTS` over large tables: the engine would hold the large side in memory and walk through all its
//! rows with one key for each row of the small one. Here the side that only says which rows are wanted becomes a set, and
//! is what is held.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::common::{JoinType, Result};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use std::sync::Arc;

/// Each wanted key once.
#[derive(Debug)]
pub(super) struct WantedOnce;

/// Holds the wanted keys, and reads the rows past them.
#[derive(Debug)]
struct HoldWanted;

/// The engine's own rules, with ours behind the one that chooses the sides of joins.
pub(super) fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let behind = rules.iter().position(|rule| rule.name() == "join_selection").map_or(0, |index| index + 1);
    rules.insert(behind, Arc::new(HoldWanted));
    rules
}

impl OptimizerRule for WantedOnce {
    fn name(&self) -> &'static str {
        "wanted_once"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Join(join)
                if asks_only_whether(join.join_type) && !join.null_aware && !is_set(&join.right) =>
            {
                let columns: Vec<Expr> = join.right.schema().columns().into_iter().map(Expr::Column).collect();
                let wanted = LogicalPlanBuilder::from(Arc::unwrap_or_clone(join.right));
                let right = Arc::new(wanted.aggregate(columns, Vec::<Expr>::new())?.build()?);
                Ok(Transformed::yes(LogicalPlan::Join(Join { right, ..join })))
            }
            plan => Ok(Transformed::no(plan)),
        }
    }
}

impl PhysicalOptimizerRule for HoldWanted {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| match node.downcast_ref::<HashJoinExec>() {
            // A left side that is held as a whole is known to be small.
            Some(join)
                if asks_only_whether(*join.join_type())
                    && !join.null_aware
                    && *join.partition_mode() != PartitionMode::CollectLeft =>
            {
                join.swap_inputs(*join.partition_mode()).map(Transformed::yes)
            }
            Some(_) | None => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "hold_wanted"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Rows of the left side, for which there is one, or none, at the right.
fn asks_only_whether(join: JoinType) -> bool {
    matches!(join, JoinType::LeftSemi | JoinType::LeftAnti)
}

fn is_set(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Aggregate(aggregate) if aggregate.aggr_expr.is_empty())
}
