//! Values of columns as text for people.

use arrow::array::{Array, AsArray as _, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, DurationMillisecondType, TimeUnit};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::time::Duration;

/// Most characters of a value that are shown.
const MAX_SHOWN: usize = 1_000;
/// How NULL is shown.
pub const NONE: &str = "-";

/// The values of a batch.
pub struct Cells<'a> {
    rows: &'a RecordBatch,
    columns: Vec<ArrayFormatter<'a>>,
}

impl<'a> Cells<'a> {
    /// Of `rows`.
    ///
    /// # Errors
    /// When a column's type cannot be shown.
    pub fn of(rows: &'a RecordBatch) -> Result<Self, ArrowError> {
        let options = FormatOptions::default().with_null(NONE);
        let columns = rows.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        Ok(Self { rows, columns: columns.collect::<Result<_, _>>()? })
    }

    /// A value in one line: without what would move the cursor, and cut when it is very long.
    ///
    /// # Errors
    /// When it cannot be shown.
    pub fn text(&self, row: usize, column: usize) -> Result<String, ArrowError> {
        let values = self.rows.column(column);
        if values.is_null(row) {
            return Ok(NONE.to_owned());
        }
        if matches!(values.data_type(), DataType::Duration(_)) {
            return span(&values.slice(row, 1));
        }
        Ok(plain(&self.columns[column].value(row).try_to_string()?))
    }
}

/// `1m 30s 250ms`, of the only value of `values`.
fn span(values: &dyn Array) -> Result<String, ArrowError> {
    let values = cast(values, &DataType::Duration(TimeUnit::Millisecond))?;
    let ms = values.as_primitive::<DurationMillisecondType>().value(0);
    let sign = if ms < 0 { "-" } else { "" };
    Ok(format!("{sign}{}", humantime::format_duration(Duration::from_millis(ms.unsigned_abs()))))
}

/// `text` in one line. Whoever sends mail writes subjects and host names: they must not speak to a terminal.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for (count, letter) in text.chars().enumerate() {
        if count == MAX_SHOWN {
            plain.push_str("...");
            break;
        }
        if letter.is_control() || is_direction(letter) {
            plain.extend(letter.escape_default());
        } else {
            plain.push(letter);
        }
    }
    plain
}

/// Letters that turn the direction of those that follow.
fn is_direction(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(plain("a\u{1b}[2J\r\nb\u{202e}\tж"), "a\\u{1b}[2J\\r\\nb\\u{202e}\\tж");
        let long = plain(&"x".repeat(2 * MAX_SHOWN));
        assert_eq!(long.len(), MAX_SHOWN + 3);
    }
}
