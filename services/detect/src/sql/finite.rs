//! Arithmetic that never gives NaN or infinity, and never an error.
//!
//! SQL's own comparisons sort NaN above every number, so `size_cv_15m > 2` would hold for 0 / 0. Here what is not a
//! finite number is NULL, and a comparison with NULL does not hold. Division is always of real numbers.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, cast,
};
use std::sync::{Arc, LazyLock};

/// Makes every result within `expr` that could be NaN or infinite NULL instead. `expr` is type-coerced already.
pub(crate) fn guard(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let guarded = expr.transform_up(|expr| {
        let expr = match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Divide | Operator::Modulo), right }) => {
                let real = |side: Expr| cast(side, DataType::Float64);
                Expr::BinaryExpr(BinaryExpr::new(Box::new(real(*left)), op, Box::new(real(*right))))
            }
            other => other,
        };
        let computed = match &expr {
            Expr::BinaryExpr(BinaryExpr { op, .. }) => {
                matches!(
                    op,
                    Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo
                )
            }
            Expr::ScalarFunction(function) => function.func.name() != NAME,
            _ => false,
        };
        if computed && expr.get_type(schema)? == DataType::Float64 {
            return Ok(Transformed::yes(finite(expr)));
        }
        Ok(Transformed::yes(expr))
    })?;
    Ok(guarded.data)
}

/// `expr`, or NULL where it is NaN or infinite. Of type `Float64`.
pub(crate) fn finite(expr: Expr) -> Expr {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(Finite::new())));
    FUNCTION.call(vec![expr])
}

const NAME: &str = "finite";

#[derive(Debug, PartialEq, Eq, Hash)]
struct Finite {
    signature: Signature,
}

impl Finite {
    fn new() -> Self {
        Self { signature: Signature::exact(vec![DataType::Float64], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Finite {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Scalar(ScalarValue::Float64(value))] => {
                let value = value.filter(|value| value.is_finite());
                Ok(ColumnarValue::Scalar(ScalarValue::Float64(value)))
            }
            [ColumnarValue::Array(column)] if column.data_type() == &DataType::Float64 => {
                let values = column.as_primitive::<Float64Type>();
                if values.iter().all(|value| value.is_none_or(f64::is_finite)) {
                    return Ok(ColumnarValue::Array(Arc::clone(column)));
                }
                let finite = values.unary_opt::<_, Float64Type>(|value| value.is_finite().then_some(value));
                Ok(ColumnarValue::Array(Arc::new(finite)))
            }
            _ => exec_err!("{NAME} takes one Float64"),
        }
    }
}
