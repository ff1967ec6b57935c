//! Values of an answer by their places.

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMillisecondType};
use arrow::error::ArrowError;

/// A text; none for NULL.
///
/// # Errors
/// When it is no text.
pub fn text(rows: &RecordBatch, column: usize, row: usize) -> Result<Option<String>, anyhow::Error> {
    let column = one(rows, column, row, &DataType::Utf8)?;
    Ok(column.is_valid(0).then(|| column.as_string::<i32>().value(0).to_owned()))
}

/// A whole number; none for NULL.
///
/// # Errors
/// When it is no number.
pub fn number(rows: &RecordBatch, column: usize, row: usize) -> Result<Option<i64>, anyhow::Error> {
    let column = one(rows, column, row, &DataType::Int64)?;
    Ok(column.is_valid(0).then(|| column.as_primitive::<Int64Type>().value(0)))
}

/// A time in milliseconds since 1970 UTC; none for NULL.
///
/// # Errors
/// When it is no time.
pub fn time_ms(rows: &RecordBatch, column: usize, row: usize) -> Result<Option<i64>, anyhow::Error> {
    let column = one(rows, column, row, &DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())))?;
    Ok(column.is_valid(0).then(|| column.as_primitive::<TimestampMillisecondType>().value(0)))
}

fn one(rows: &RecordBatch, column: usize, row: usize, kind: &DataType) -> Result<arrow::array::ArrayRef, ArrowError> {
    let Some(column) = rows.columns().get(column) else {
        return Err(ArrowError::SchemaError(format!("the answer has no column {column}")));
    };
    cast(&column.slice(row, 1), kind)
}
