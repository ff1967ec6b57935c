//! A Parquet file.

use super::Printer;
use anyhow::Context as _;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;

/// A group of rows is written when it takes so many octets in memory.
const MAX_GROUP_OCTETS: usize = 64 << 20;

/// Writes rows to a file that is there when it is complete, and not before.
pub struct ParquetFile {
    schema: SchemaRef,
    path: PathBuf,
    writer: Option<ArrowWriter<NamedTempFile>>,
}

impl ParquetFile {
    /// A file for rows of `schema`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path, schema: &SchemaRef) -> anyhow::Result<Self> {
        let schema = storable(schema);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::Builder::new().prefix(".tidegate-").suffix(".parquet").tempfile_in(folder);
        let file = file.with_context(|| format!("making a file in {}", folder.display()))?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties));
        let writer = writer.with_context(|| format!("beginning the Parquet file {}", path.display()))?;
        Ok(Self { schema, path: path.to_owned(), writer: Some(writer) })
    }
}

impl Printer for ParquetFile {
    fn rows(&mut self, rows: &RecordBatch) -> anyhow::Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let columns = rows.columns().iter().zip(self.schema.fields()).map(|(column, field)| {
            if column.data_type() == field.data_type() {
                return Ok(Arc::clone(column));
            }
            cast(column, field.data_type())
        });
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<Vec<ArrayRef>, _>>()?)?;
        let writing = || format!("writing the Parquet file {}", self.path.display());
        writer.write(&rows).with_context(writing)?;
        if writer.in_progress_size() > MAX_GROUP_OCTETS {
            writer.flush().with_context(writing)?;
        }
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let file = writer.into_inner().with_context(|| format!("ending the Parquet file {}", self.path.display()))?;
        file.persist(&self.path).with_context(|| format!("writing {}", self.path.display()))?;
        Ok(())
    }
}

/// The schema with types that every reader of Parquet knows: a duration is a number of microseconds.
fn storable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Duration(_) => Arc::new(Field::new(field.name(), DataType::Int64, true)),
        DataType::Interval(_) | DataType::Null => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<FieldRef>>()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    #[test]
    fn a_file_is_there_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answer.parquet");
        let mut file = ParquetFile::create(&path, &sample().schema()).unwrap();
        file.rows(&sample()).unwrap();
        file.rows(&sample()).unwrap();
        assert!(!path.exists());
        file.end().unwrap();
        let read = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&path).unwrap()).unwrap();
        let batches: Vec<RecordBatch> = read.build().unwrap().map(Result::unwrap).collect();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
        assert_eq!(&batches[0].column(0).slice(0, 2), sample().column(0));
        assert_eq!(batches[0].column(5).len(), 4);

        let given_up = folder.path().join("none.parquet");
        ParquetFile::create(&given_up, &sample().schema()).unwrap().rows(&sample()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left of it");
    }
}
