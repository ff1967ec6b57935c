//! Ends a query also while it computes what gives no rows. A join can go over billions of pairs without a pause, and what
//! does not pause is not cancelled, passes its time, and keeps a thread from all others.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec,
};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What ends a query.
#[derive(Debug, Clone)]
pub(super) struct Until {
    pub cancelled: CancellationToken,
    pub deadline: Instant,
}

impl Until {
    fn is_over(&self) -> bool {
        self.cancelled.is_cancelled() || Instant::now() >= self.deadline
    }
}

/// The plan, whose joins pause after some rows, and look before each step whether they should go on.
pub(super) fn interruptible(plan: Arc<dyn ExecutionPlan>, until: &Until) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let node: Arc<dyn ExecutionPlan> = match node.downcast_ref::<NestedLoopJoinExec>() {
            Some(join) => guarded(join, until)?,
            None if is_join(&node) => node,
            None => return Ok(Transformed::no(node)),
        };
        Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as _))
    })
    .data()
}

/// These give many rows for one.
fn is_join(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.is::<CrossJoinExec>() || node.is::<HashJoinExec>() || node.is::<SortMergeJoinExec>()
}

/// A join by a condition, which goes over all pairs before it gives a row: the condition fails when the query is over.
fn guarded(join: &NestedLoopJoinExec, until: &Until) -> Result<Arc<dyn ExecutionPlan>> {
    let with_guard = |filter: &JoinFilter| -> Result<JoinFilter> {
        let goes_on = Arc::new(ScalarUDF::from(GoesOn { until: until.clone(), signature: signature() }));
        let goes_on =
            ScalarFunctionExpr::try_new(goes_on, vec![], filter.schema(), Arc::new(ConfigOptions::default()))?;
        let goes_on: Arc<dyn PhysicalExpr> = Arc::new(goes_on);
        let both = Arc::new(BinaryExpr::new(goes_on, Operator::And, Arc::clone(filter.expression())));
        Ok(JoinFilter::new(both, filter.column_indices().to_vec(), Arc::clone(filter.schema())))
    };
    let filter = join.filter().map(with_guard).transpose()?;
    Ok(Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(filter).build()?))
}

/// True, until the query is over: then it fails.
#[derive(Debug)]
struct GoesOn {
    until: Until,
    signature: Signature,
}

fn signature() -> Signature {
    Signature::nullary(Volatility::Volatile)
}

impl ScalarUDFImpl for GoesOn {
    fn name(&self) -> &'static str {
        "goes_on"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.until.is_over() {
            return exec_err!("the query is over");
        }
        Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))))
    }
}

/// There is one in a query.
impl PartialEq for GoesOn {
    fn eq(&self, other: &Self) -> bool {
        self.until.deadline == other.until.deadline
    }
}

impl Eq for GoesOn {}

impl Hash for GoesOn {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.until.deadline.hash(state);
    }
}
