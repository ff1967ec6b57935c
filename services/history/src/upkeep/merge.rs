//! Files are put together: read, sorted, written as one, and swapped in one commit.

use super::plan::{FileOf, merges};
use crate::config::HistoryConfig;
use crate::files::FileWriter;
use crate::lake::{Committed, LakeError, LakeTable};
use crate::query::{plain_rows, scan};
use crate::tables::DATE;
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake::delta_datafusion::FileSelection;
use deltalake::kernel::{Action, Add, LogicalFileView};
use deltalake::protocol::DeltaOperation;
use deltalake::table::state::DeltaTableState;
use futures::{StreamExt as _, TryStreamExt as _};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use tidegate_runtime::error_line;

/// What rewriting may take.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    pub memory_bytes: u64,
    pub spill: PathBuf,
}

impl Room {
    /// As configured.
    pub fn of(config: &HistoryConfig) -> Self {
        Self { memory_bytes: config.upkeep_memory_bytes, spill: config.spill_directory() }
    }
}

/// Why files could not be rewritten.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RewriteError {
    /// The tables.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// Reading or sorting.
    #[error("rewriting files of the table {table}")]
    Rows {
        /// Its name.
        table: &'static str,
        /// Why.
        #[source]
        source: DataFusionError,
    },
}

/// Puts files together, as of `state`.
pub(super) async fn merge(
    table: &Arc<LakeTable>,
    state: &mut DeltaTableState,
    files: &[FileOf],
    room: &Room,
) -> Result<Committed, RewriteError> {
    let paths: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
    let mut added = rewrite(table, state, &paths, "SELECT * FROM rows", room).await?;
    for add in &mut added {
        add.data_change = false;
    }
    let actions = swap(state, table, &paths, added, false).await?;
    // What else a file holds is the same as before: readers of changes need not look.
    let operation =
        DeltaOperation::Optimize { predicate: None, target_size: crate::files::TARGET_OCTETS.cast_signed() };
    Ok(table.replace(state, actions, operation).await?)
}

/// Puts small files together, as if all days were over, until few are left. Gives how many were, and all octets.
pub(crate) async fn merge_all(table: &Arc<LakeTable>, room: &Room, enough: u64) -> Result<(usize, u64), String> {
    let mut merged = 0;
    loop {
        let mut state = table.refresh().await.map_err(|error| error_line(&error))?;
        let all = files(&state, table).await.map_err(|error| error_line(&error))?;
        let groups = merges(&all, enough, "9999-12-31");
        if groups.is_empty() {
            return Ok((merged, all.iter().map(|file| file.size).sum()));
        }
        for group in groups {
            merge(table, &mut state, &group, room).await.map_err(|error| error_line(&error))?;
            merged += group.len();
        }
    }
}

/// Writes what `sql` makes of the rows of some files, in the table's order, as of `state`.
pub(super) async fn rewrite(
    table: &Arc<LakeTable>,
    state: &DeltaTableState,
    paths: &[String],
    sql: &str,
    room: &Room,
) -> Result<Vec<Add>, RewriteError> {
    let name = table.table();
    let failed = |source| RewriteError::Rows { table: name.name(), source };
    let context = context(room).map_err(failed)?;
    let rows = scan(&context, table, state).map_err(failed)?;
    let rows = rows.with_file_selection(FileSelection::from_file_paths(paths.iter().cloned()));
    context.register_table("rows", Arc::new(rows)).map_err(failed)?;
    let [first, second] = name.order();
    let columns = name.columns().iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT {columns} FROM ({sql}) ORDER BY date, {first} NULLS FIRST, {second} NULLS FIRST");
    let mut sorted = context.sql(&sql).await.map_err(failed)?.execute_stream().await.map_err(failed)?;
    let schema = name.arrow_schema();
    let mut writer = FileWriter::new(table);
    while let Some(batch) = sorted.next().await {
        let batch = batch.and_then(|batch| Ok(plain_rows(&batch, &schema)?));
        let written = match batch {
            Ok(batch) => writer.write(&batch).await.map_err(RewriteError::from),
            Err(error) => Err(failed(error)),
        };
        if let Err(error) = written {
            // Half a file is of no use; what cannot be taken back is vacuumed later.
            let _ = writer.abort().await;
            return Err(error);
        }
    }
    Ok(writer.close().await?)
}

/// Takes files out and puts others in.
pub(super) async fn swap(
    state: &DeltaTableState,
    table: &LakeTable,
    paths: &[String],
    added: Vec<Add>,
    changes_data: bool,
) -> Result<Vec<Action>, LakeError> {
    // One that somebody has rewritten meanwhile is not there any more: the commit fails for the same reason.
    let paths: HashSet<&str> = paths.iter().map(String::as_str).collect();
    let mut actions = removes(state, table, changes_data, |file| paths.contains(file.path.as_str())).await?;
    actions.extend(added.into_iter().map(Action::Add));
    Ok(actions)
}

/// What takes those files out of the table that `goes` is true of.
pub(super) async fn removes(
    state: &DeltaTableState,
    table: &LakeTable,
    changes_data: bool,
    goes: impl Fn(&FileOf) -> bool,
) -> Result<Vec<Action>, LakeError> {
    let views = state.snapshot().file_views(table.log_store(), None);
    let removes = views.try_filter_map(|view| {
        let remove = goes(&file_of(&view)).then(|| Action::Remove(view.remove_action(changes_data)));
        async move { Ok(remove) }
    });
    removes.try_collect().await.map_err(|source| table.failed("reading", source))
}

/// The files of the table.
pub(super) async fn files(state: &DeltaTableState, table: &LakeTable) -> Result<Vec<FileOf>, LakeError> {
    let views = state.snapshot().file_views(table.log_store(), None);
    views.map_ok(|view| file_of(&view)).try_collect().await.map_err(|source| table.failed("reading", source))
}

fn file_of(view: &LogicalFileView) -> FileOf {
    let date = view.partition_values_map().remove(DATE).flatten().unwrap_or_default();
    FileOf { path: view.path().into_owned(), date, size: view.size().unsigned_abs() }
}

pub(super) fn context(room: &Room) -> Result<SessionContext, DataFusionError> {
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![room.spill.clone()]));
    let memory = usize::try_from(room.memory_bytes).unwrap_or(usize::MAX);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory)))
        .with_disk_manager_builder(disk)
        .build_arc()?;
    let config = SessionConfig::new().with_target_partitions(1);
    Ok(SessionContext::new_with_config_rt(config, runtime))
}
