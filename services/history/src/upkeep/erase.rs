//! An account is forgotten: its events and decisions go, and the audit and what was set aside no longer name it.
//!
//! Queries see nothing of it from then on. The files that named it are deleted with the next vacuum, and the files of the
//! Delta log that name it as the least or greatest of a file's accounts after a week.

use super::merge::{RewriteError, Room, context, files, rewrite, swap};
use crate::hex::hex;
use crate::lake::{Committed, Lake, LakeTable};
use crate::metrics::{Metrics, UpkeepLabel};
use crate::tables::Table;
use arrow::array::{AsArray as _, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::DataFusionError;
use deltalake::delta_datafusion::DeltaScanNext;
use deltalake::protocol::DeltaOperation;
use deltalake::table::state::DeltaTableState;
use std::collections::HashMap;
use std::sync::Arc;
use tidegate_domain::Account;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

/// The column with the file that a row stands in.
const FILE: &str = "file_of_row";
/// Attempts while others rewrite the same files.
const MAX_ATTEMPTS: usize = 10;

/// Forgets accounts.
#[derive(Clone)]
pub(crate) struct Eraser {
    pub lake: Lake,
    pub room: Room,
    pub metrics: Metrics,
    /// Held while files are rewritten.
    pub rewriting: Arc<Mutex<()>>,
    /// Where it is computed.
    pub threads: Handle,
}

/// What became of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Erased {
    /// The table's name.
    pub table: &'static str,
    /// Rows that named the account.
    pub rows: u64,
    /// Files that were written anew.
    pub files: usize,
}

/// Why an account could not be forgotten.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EraseError {
    /// Rewriting failed.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    /// Others rewrite the same files all the time.
    #[error("the files of the table {table} were rewritten by somebody else {MAX_ATTEMPTS} times; try again")]
    Overtaken {
        /// Its name.
        table: &'static str,
    },
    /// It ended without a word.
    #[error("rewriting the table {table}")]
    Panicked {
        /// Its name.
        table: &'static str,
        /// Why.
        #[source]
        source: tokio::task::JoinError,
    },
}

impl Eraser {
    /// Forgets `account` in one table. Doing it again is harmless.
    ///
    /// # Errors
    /// When files cannot be rewritten: then the table is as it was.
    pub async fn erase(&self, table: Table, account: &Account) -> Result<Erased, EraseError> {
        let (this, account) = (self.clone(), account.clone());
        let erasing = self.threads.spawn(async move { this.erase_here(table, &account).await });
        let ended = erasing.await.map_err(|source| EraseError::Panicked { table: table.name(), source })?;
        let result = if ended.is_ok() { "done" } else { "failed" };
        self.metrics.upkeep.get_or_create(&UpkeepLabel { kind: "erasure", result }).inc();
        ended
    }

    async fn erase_here(&self, kind: Table, account: &Account) -> Result<Erased, EraseError> {
        let table = self.lake.table(kind);
        let Change { named, kept } = change(kind, account.as_str());
        for _ in 0..MAX_ATTEMPTS {
            let _rewriting = self.rewriting.lock().await;
            let mut state = table.refresh().await.map_err(RewriteError::from)?;
            let found = find(table, &state, &named, &self.room).await;
            let (rows, paths) = found.map_err(|source| RewriteError::Rows { table: kind.name(), source })?;
            let erased = Erased { table: kind.name(), rows, files: paths.len() };
            if paths.is_empty() {
                return Ok(erased);
            }
            let added = rewrite(table, &state, &paths, &kept, &self.room).await?;
            let actions = swap(&state, table, &paths, added, true).await.map_err(RewriteError::from)?;
            let operation = DeltaOperation::Delete { predicate: None };
            let done = table.replace(&mut state, actions, operation).await.map_err(RewriteError::from)?;
            if done == Committed::Done {
                return Ok(erased);
            }
        }
        Err(EraseError::Overtaken { table: kind.name() })
    }
}

/// What erasing does to a table.
struct Change {
    /// A condition on its rows: those that name the account.
    named: String,
    /// What is kept of the rows of a file that has such.
    kept: String,
}

fn change(table: Table, account: &str) -> Change {
    let text = account.replace('\'', "''");
    match table {
        Table::Events | Table::AccountChanges => Change {
            named: format!("account = '{text}'"),
            kept: format!("SELECT * FROM rows WHERE account IS DISTINCT FROM '{text}'"),
        },
        // Who did what stays: only about whom does not.
        Table::Audit => {
            let columns = ["reason", "result", "request"];
            let any = columns.map(|column| format!("strpos({column}, '{text}') > 0")).join(" OR ");
            let named = format!("account = '{text}' OR {any}");
            let replaced = |column: &str| {
                format!(
                    "CASE WHEN coalesce({named}, false) AND {column} IS NOT NULL THEN '(erased)' ELSE {column} END AS {column}"
                )
            };
            let columns = table.columns().iter().map(|column| match column.name {
                "account" | "reason" | "result" | "request" => replaced(column.name),
                name => name.to_owned(),
            });
            let kept = format!("SELECT {} FROM rows", columns.collect::<Vec<_>>().join(", "));
            Change { named, kept }
        }
        Table::Rejected => {
            let hex = hex(account.as_bytes());
            let any =
                ["key", "value"].map(|column| format!("strpos(encode({column}, 'hex'), '{hex}') > 0")).join(" OR ");
            Change { kept: format!("SELECT * FROM rows WHERE NOT coalesce({any}, false)"), named: any }
        }
    }
}

/// The name of a file, without its folders.
fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// How many rows are named so, and the files that they stand in.
async fn find(
    table: &LakeTable,
    state: &DeltaTableState,
    named: &str,
    room: &Room,
) -> Result<(u64, Vec<String>), DataFusionError> {
    let context = context(room)?;
    let rows = DeltaScanNext::builder()
        .with_log_store(Arc::clone(table.log_store()))
        .with_eager_snapshot(state.snapshot().clone())
        .with_file_column(FILE)
        .build()
        .await?;
    context.register_table("rows", Arc::new(rows))?;
    // A row tells its file by its URL; the log names it from the table's folder on. Names of files are unique.
    let all = files(state, table).await.map_err(|error| DataFusionError::External(Box::new(error)))?;
    let by_name: HashMap<&str, &String> = all.iter().map(|file| (last_part(&file.path), &file.path)).collect();
    let sql = format!("SELECT {FILE}, count(*) FROM rows WHERE {named} GROUP BY 1 ORDER BY 1");
    let batches: Vec<RecordBatch> = context.sql(&sql).await?.collect().await?;
    let (mut count, mut paths) = (0, Vec::new());
    for batch in batches {
        let names = cast(batch.column(0), &DataType::Utf8)?;
        let counts = batch.column(1).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let name = names.as_string::<i32>().value(row);
            let path = by_name.get(last_part(name)).copied().cloned();
            paths.push(path.ok_or_else(|| DataFusionError::Execution(format!("the table has no file {name}")))?);
            count += counts.value(row).unsigned_abs();
        }
    }
    Ok((count, paths))
}
