//! Statistics that no window's end makes greater: from one time to a later one they grow by what new events add, at
//! most. So an account of which a rule wants ten more messages need not be looked at before it has sent ten.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{DFSchema, ExprSchema, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::AggregateFunction;

/// What one event adds to a statistic at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Growth {
    /// 1.
    Row,
    /// The value of the aggregate's argument.
    Value,
    /// How many values its argument has: 1, or the length of a list.
    Values,
}

/// The aggregate that a statistic is, besides that it may be 0 instead of NULL, and how it grows; none for others.
pub(crate) fn growing<'a>(statistic: &'a Expr, events: &DFSchema) -> Option<(&'a Expr, Growth)> {
    match statistic {
        Expr::Cast(cast) => growing(&cast.expr, events),
        Expr::Alias(alias) => growing(&alias.expr, events),
        // What the planner makes of coalesce(value, 0).
        Expr::Case(case) => match (case.when_then_expr.as_slice(), &case.else_expr) {
            ([(when, value)], Some(otherwise)) if is_zero(otherwise) && **when == value.clone().is_not_null() => {
                growing(value, events)
            }
            _ => None,
        },
        Expr::AggregateFunction(function) => Some((statistic, growth_of(function, events)?)),
        _ => None,
    }
}

fn growth_of(function: &AggregateFunction, events: &DFSchema) -> Option<Growth> {
    match function.func.name() {
        "count" => Some(Growth::Row),
        "distinct" => Some(Growth::Values),
        // An event that leaves a window would make the sum greater if its value were negative. Whole numbers of an
        // event never are.
        "sum" => {
            function.params.args.first().is_some_and(|value| is_whole_column(value, events)).then_some(Growth::Value)
        }
        _ => None,
    }
}

fn is_whole_column(expr: &Expr, events: &DFSchema) -> bool {
    match expr {
        Expr::Cast(cast) => is_whole_column(&cast.expr, events),
        Expr::Column(column) => events
            .field_from_column(column)
            .is_ok_and(|field| matches!(field.data_type(), DataType::Int64 | DataType::UInt64)),
        _ => false,
    }
}

fn is_zero(expr: &Expr) -> bool {
    let Expr::Literal(value, _) = expr else { return false };
    value.cast_to(&DataType::Float64).is_ok_and(|value| value == ScalarValue::Float64(Some(0.0)))
}

impl Growth {
    /// What each event of a batch adds at most, given the aggregate's argument and filter over it.
    pub fn of_rows(self, argument: Option<&ArrayRef>, filter: Option<&BooleanArray>, rows: usize) -> Vec<f64> {
        let mut added = match (self, argument) {
            (Self::Value, Some(argument)) => values(argument),
            (Self::Values, Some(argument)) => lengths(argument),
            (Self::Row, _) | (_, None) => vec![1.0; rows],
        };
        if let Some(filter) = filter {
            for (row, added) in added.iter_mut().enumerate() {
                if filter.is_null(row) || !filter.value(row) {
                    *added = 0.0;
                }
            }
        }
        added
    }
}

fn values(column: &ArrayRef) -> Vec<f64> {
    match cast(column, &DataType::Float64) {
        Ok(numbers) => numbers.as_primitive::<Float64Type>().iter().map(Option::unwrap_or_default).collect(),
        // Not what was planned: everything may have been added.
        Err(_) => vec![f64::INFINITY; column.len()],
    }
}

fn lengths(column: &ArrayRef) -> Vec<f64> {
    match column.as_list_opt::<i32>() {
        Some(lists) => (0..lists.len())
            .map(|row| if lists.is_valid(row) { f64::from(lists.value_length(row)) } else { 0.0 })
            .collect(),
        None => (0..column.len()).map(|row| if column.is_valid(row) { 1.0 } else { 0.0 }).collect(),
    }
}
