//! One JSON object a line.

use super::Printer;
use arrow::json::writer::{LineDelimited, Writer};
use arrow::record_batch::RecordBatch;
use std::io::Write;

/// Writes each row as an object on a line of its own, with all columns.
pub struct JsonPrinter<'a> {
    writer: Writer<&'a mut dyn Write, LineDelimited>,
}

impl<'a> JsonPrinter<'a> {
    /// Writes to `out`.
    pub fn new(out: &'a mut dyn Write) -> Self {
        let writer = arrow::json::WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(out);
        Self { writer }
    }
}

impl Printer for JsonPrinter<'_> {
    fn rows(&mut self, rows: &RecordBatch) -> anyhow::Result<()> {
        Ok(self.writer.write(rows)?)
    }

    fn end(&mut self) -> anyhow::Result<()> {
        Ok(self.writer.finish()?)
    }
}
