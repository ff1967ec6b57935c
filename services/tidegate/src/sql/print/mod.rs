//! Rows of an answer, as people and programs want them. Each printer writes them as they come.

mod cells;
mod csv;
mod json;
mod parquet;
mod table;

pub use cells::plain;
pub use parquet::ParquetFile;
pub use table::TablePrinter;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use std::io::Write;

/// What rows look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON object a line.
    Json,
    /// Comma-separated values with a header.
    Csv,
}

/// Whether each row of a table is a list of its own, one column a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expanded {
    /// Always.
    On,
    /// Never.
    Off,
    /// When the columns do not fit side by side.
    #[default]
    Auto,
}

/// Prints the rows of one answer.
pub trait Printer {
    /// The next rows.
    ///
    /// # Errors
    /// When they cannot be written.
    fn rows(&mut self, rows: &RecordBatch) -> anyhow::Result<()>;

    /// There are no more.
    ///
    /// # Errors
    /// When the end cannot be written.
    fn end(&mut self) -> anyhow::Result<()>;
}

/// A printer that writes rows of `schema` to `out`. `width`: columns of the terminal, if it is one.
///
/// # Errors
/// When the beginning cannot be written.
pub fn printer<'a>(
    format: Format,
    expanded: Expanded,
    width: Option<u16>,
    schema: &SchemaRef,
    out: &'a mut dyn Write,
) -> anyhow::Result<Box<dyn Printer + 'a>> {
    Ok(match format {
        Format::Table => Box::new(TablePrinter::new(expanded, width, schema, out)),
        Format::Json => Box::new(json::JsonPrinter::new(out)),
        Format::Csv => Box::new(csv::CsvPrinter::new(schema, out)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, DurationMicrosecondArray, Int64Array, ListBuilder, StringArray, StringBuilder};
    use arrow::array::{Float64Array, TimestampMicrosecondArray};
    use std::sync::Arc;

    /// Two rows with what occurs in the history.
    pub fn sample() -> RecordBatch {
        let mut domains = ListBuilder::new(StringBuilder::new());
        domains.append_value([Some("a.example"), Some("b, \"c\"")]);
        domains.append_null();
        let columns: [(&str, ArrayRef); 6] = [
            ("account", Arc::new(StringArray::from(vec!["jo@example.org", "x\u{1b}[2J\ny"]))),
            ("messages", Arc::new(Int64Array::from(vec![Some(12), None]))),
            ("score", Arc::new(Float64Array::from(vec![0.5, 2.0]))),
            ("time", Arc::new(TimestampMicrosecondArray::from(vec![1_795_651_201_500_000, 0]).with_timezone("UTC"))),
            ("lasted", Arc::new(DurationMicrosecondArray::from(vec![Some(90_000_000), None]))),
            ("domains", Arc::new(domains.finish())),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    /// What is printed of these batches.
    pub fn printed(format: Format, expanded: Expanded, width: Option<u16>, batches: &[RecordBatch]) -> String {
        let mut out = Vec::new();
        let mut printer = printer(format, expanded, width, &sample().schema(), &mut out).unwrap();
        for batch in batches {
            printer.rows(batch).unwrap();
        }
        printer.end().unwrap();
        drop(printer);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn csv_has_a_header_and_lists_as_json() {
        let expected = "account,messages,score,time,lasted,domains\n\
                        jo@example.org,12,0.5,2026-11-26T00:00:01.500Z,PT90S,\"[\"\"a.example\"\",\"\"b, \\\"\"c\\\"\"\"\"]\"\n\
                        \"x\u{1b}[2J\ny\",,2.0,1970-01-01T00:00:00Z,,\n";
        assert_eq!(printed(Format::Csv, Expanded::Auto, None, &[sample()]), expected);
        let header = "account,messages,score,time,lasted,domains\n";
        assert_eq!(printed(Format::Csv, Expanded::Auto, None, &[]), header, "also without rows");
    }

    #[test]
    fn json_has_one_object_a_line_with_every_column() {
        let text = printed(Format::Json, Expanded::Auto, None, &[sample(), sample()]);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[2]["domains"], serde_json::json!(["a.example", "b, \"c\""]));
        assert_eq!((&lines[0]["messages"], &lines[0]["time"]), (&12.into(), &"2026-11-26T00:00:01.500Z".into()));
        assert!(lines[1]["messages"].is_null() && lines[1].as_object().unwrap().len() == 6, "{text}");
        assert_eq!(printed(Format::Json, Expanded::Auto, None, &[]), "");
    }
}
