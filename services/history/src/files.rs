//! Files of a table: rows sorted, written as Parquet, and described for the Delta log.

use crate::lake::{LakeError, LakeTable};
use crate::tables::{DATE, Table};
use arrow::compute::{SortColumn, lexsort_to_indices, take_record_batch};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use deltalake::DeltaTableError;
use deltalake::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake::kernel::Add;
use deltalake::operations::get_num_idx_cols_and_stats_columns;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use tidegate_runtime::error_line;
use tokio::runtime::Handle;

/// Files are closed at this size.
pub(crate) const TARGET_OCTETS: u64 = 256 << 20;
/// Rows in a page: what a search for one account reads at least.
const PAGE_ROWS: usize = 8_192;
/// How hard zstd tries: beyond it files hardly get smaller.
const ZSTD_LEVEL: i32 = 3;
/// Numbers that rise, or nearly: small when written as differences.
const RISING: [&str; 5] = ["time", "logged", "sequence", "log_offset", "lock_since"];
/// Hashes: no dictionary makes them smaller.
const HASHES: [&str; 1] = ["recipient_hashes.list.element"];

/// Writes files of one table. What is not closed is not in any file.
pub(crate) struct FileWriter {
    table: Arc<LakeTable>,
    writer: DeltaWriter,
}

/// Rows in the order of the table's files: by day, and within it by the table's own order.
///
/// # Errors
/// When the rows lack a column to sort by.
fn sorted(table: Table, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let column = |name: &str| {
        let values = rows.column_by_name(name).cloned();
        let values = values.ok_or_else(|| ArrowError::SchemaError(format!("there is no column {name}")))?;
        Ok(SortColumn { values, options: None })
    };
    let [first, second] = table.order();
    let order = [DATE, first, second].into_iter().map(column).collect::<Result<Vec<_>, ArrowError>>()?;
    take_record_batch(rows, &lexsort_to_indices(&order, None)?)
}

/// Sorts and writes rows, and closes the files; compressing them must not keep others on this thread waiting.
///
/// # Errors
/// When the store does not take them.
pub(crate) async fn write_sorted(table: &Arc<LakeTable>, rows: &RecordBatch) -> Result<Vec<Add>, LakeError> {
    let (table, rows, runtime) = (Arc::clone(table), rows.clone(), Handle::current());
    let name = table.table();
    let written = tokio::task::spawn_blocking(move || {
        runtime.block_on(async move {
            let rows = sorted(name, &rows).map_err(|error| table.failed("sorting rows of", error.into()))?;
            let mut writer = FileWriter::new(&table);
            if let Err(error) = writer.write(&rows).await {
                if let Err(error) = writer.abort().await {
                    tracing::warn!(error = %error_line(&error), "an upload could not be taken back");
                }
                return Err(error);
            }
            writer.close().await
        })
    });
    match written.await {
        Ok(written) => written,
        Err(error) => Err(LakeError::Panicked { table: name.name(), source: error }),
    }
}

impl FileWriter {
    /// Nothing written yet.
    pub fn new(table: &Arc<LakeTable>) -> Self {
        let kind = table.table();
        // As the table itself says it.
        let indexed = get_num_idx_cols_and_stats_columns(Some(table.newest().table_config()), HashMap::new());
        let config = WriterConfig::new(
            kind.arrow_schema(),
            vec![DATE.to_owned()],
            Some(properties(kind)),
            NonZeroU64::new(TARGET_OCTETS),
            None,
            indexed.0,
            indexed.1,
        );
        let writer = DeltaWriter::new(table.log_store().object_store(None), config);
        Self { table: Arc::clone(table), writer }
    }

    /// Writes rows, which are sorted as the table's files are.
    ///
    /// # Errors
    /// When the store does not take them.
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<(), LakeError> {
        self.writer.write(rows).await.map_err(|source| self.table.failed("writing a file of", source))
    }

    /// Closes the files, and gives what the Delta log says of them.
    ///
    /// # Errors
    /// When the store does not take them.
    pub async fn close(self) -> Result<Vec<Add>, LakeError> {
        let added = self.writer.close().await.map_err(|source| self.table.failed("writing a file of", source))?;
        self.table.sync_files(added.iter().map(|add| add.path.as_str()));
        Ok(added)
    }

    /// Gives up: what was uploaded so far is taken back, as far as the store answers.
    pub async fn abort(self) -> Result<(), DeltaTableError> {
        self.writer.abort().await
    }
}

fn properties(table: Table) -> WriterProperties {
    #[allow(clippy::unwrap_used, reason = "the level is one of zstd's")]
    let level = ZstdLevel::try_new(ZSTD_LEVEL).unwrap();
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by(concat!("tidegate ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_sorting_columns(Some(sorting(table)));
    for name in table.order() {
        properties = properties.set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::Page);
    }
    for name in RISING {
        let path = ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    for name in HASHES {
        let path = ColumnPath::from(name.split('.').map(str::to_owned).collect::<Vec<_>>());
        properties = properties.set_column_dictionary_enabled(path, false);
    }
    properties.build()
}

/// The order, by the columns' places in the file, which lacks the day.
fn sorting(table: Table) -> Vec<SortingColumn> {
    let place = |name: &str| table.columns().iter().position(|column| column.name == name).map_or(0, |place| place - 1);
    let column = |name| SortingColumn {
        column_idx: i32::try_from(place(name)).unwrap_or(0),
        descending: false,
        nulls_first: true,
    };
    table.order().map(column).to_vec()
}
