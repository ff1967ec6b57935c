//! Comma-separated values.

use super::Printer;
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::csv::{Writer, WriterBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::writer::LineDelimited;
use std::io::Write;
use std::sync::Arc;

/// Writes CSV (RFC 4180) with a header. NULL is nothing between the commas; a list is JSON.
pub struct CsvPrinter<'a> {
    writer: Writer<&'a mut dyn Write>,
}

impl<'a> CsvPrinter<'a> {
    /// Writes the header.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(schema: &SchemaRef, out: &'a mut dyn Write) -> anyhow::Result<Self> {
        let mut writer = WriterBuilder::new().build(out);
        writer.write(&flat(&RecordBatch::new_empty(Arc::clone(schema)))?)?;
        Ok(Self { writer })
    }
}

impl Printer for CsvPrinter<'_> {
    fn rows(&mut self, rows: &RecordBatch) -> anyhow::Result<()> {
        Ok(self.writer.write(&flat(rows)?)?)
    }

    fn end(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// The rows with each list (and the like) as a text.
fn flat(rows: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let schema = rows.schema();
    if !schema.fields().iter().any(|field| field.data_type().is_nested()) {
        return Ok(rows.clone());
    }
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        if field.data_type().is_nested() {
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
            columns.push(Arc::new(as_json(column)?));
        } else {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn as_json(column: &ArrayRef) -> anyhow::Result<StringArray> {
    let mut lines = Vec::new();
    let mut writer = arrow::json::WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut lines);
    writer.write(&RecordBatch::try_from_iter([("value", Arc::clone(column))])?)?;
    writer.finish()?;
    let texts = std::str::from_utf8(&lines)?.lines().map(|line| {
        let row: serde_json::Value = serde_json::from_str(line)?;
        Ok(row.get("value").filter(|value| !value.is_null()).map(ToString::to_string))
    });
    Ok(StringArray::from(texts.collect::<Result<Vec<_>, serde_json::Error>>()?))
}
