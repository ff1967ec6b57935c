//! The tables where they are kept: opened or made, refreshed, committed to.

use crate::config::HistoryConfig;
use crate::tables::{DATE, Table};
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake::kernel::{Action, StructField, Transaction};
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::table::state::DeltaTableState;
use deltalake::{DeltaTable, DeltaTableError};
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Commits of a table between two checkpoints of its Delta log.
const CHECKPOINT_INTERVAL: &str = "100";
/// Days that superseded files of the Delta log are kept; they name accounts (least and greatest of each file).
const LOG_RETENTION: &str = "interval 7 days";
/// Attempts of one commit while others commit, too.
const MAX_ATTEMPTS: usize = 20;
/// What all commits that take files out of a table bear, so that of two at once only one succeeds. The Delta library
/// alone does not see that a file was taken out by a compaction meanwhile.
const UPKEEP: &str = "upkeep";

/// All tables.
#[derive(Clone)]
pub struct Lake {
    tables: [Arc<LakeTable>; 4],
}

/// One table.
pub struct LakeTable {
    table: Table,
    log_store: LogStoreRef,
    /// The newest state that is known here.
    newest: RwLock<DeltaTableState>,
}

/// What went wrong with the tables.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The store cannot be had.
    #[error("opening the history's store {url}")]
    Store {
        /// Its URL.
        url: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// The URL is none.
    #[error("opening the history's store: the URL {url:?} {problem}")]
    Url {
        /// The text.
        url: String,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// A table cannot be read or written.
    #[error("{doing} the table {table}")]
    Table {
        /// What was being done.
        doing: &'static str,
        /// The table's name.
        table: &'static str,
        /// Why.
        #[source]
        source: Box<DeltaTableError>,
    },
    /// A column of the table has another type than this version of Tidegate writes.
    #[error(
        "opening the table {table}: its column {column} has the type {found}, but {expected} is written; move the table \
         away, or name another place"
    )]
    Column {
        /// The table's name.
        table: &'static str,
        /// The column.
        column: String,
        /// Its type in the table.
        found: String,
        /// Its type here.
        expected: String,
    },
    /// Writing ended without a word.
    #[error("writing a file of the table {table}")]
    Panicked {
        /// The table's name.
        table: &'static str,
        /// Why.
        #[source]
        source: tokio::task::JoinError,
    },
    /// The store does not answer.
    #[error("committing to the table {table}: the store has not answered for {} s", after.as_secs_f64())]
    Slow {
        /// The table's name.
        table: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// Others commit all the time.
    #[error("committing to the table {table}: another commit came first")]
    Busy {
        /// The table's name.
        table: &'static str,
    },
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is in the table.
    Done,
    /// It is not, and must not be: something that it rests on has changed.
    Overtaken,
}

impl Lake {
    /// Opens all tables, and makes those that are not there. Columns that are new are added.
    ///
    /// # Errors
    /// When the store cannot be had, or a table of this name is another one.
    pub async fn open(config: &HistoryConfig) -> Result<Self, LakeError> {
        let text = config.url.clone().unwrap_or_default();
        let url = tidegate_store::parse(&text).map_err(|problem| LakeError::Url { url: text, problem })?;
        if let Ok(path) = url.to_file_path() {
            std::fs::create_dir_all(&path).map_err(|source| LakeError::Store {
                url: url.to_string(),
                source: object_store::Error::Generic { store: "LocalFileSystem", source: source.into() },
            })?;
        }
        let (store, root) = tidegate_store::open(&url, config.options.clone())
            .map_err(|source| LakeError::Store { url: url.to_string(), source })?;
        Self::open_in(store, &root, &url).await
    }

    /// Opens all tables below `root` of a store; `url` is what both are called together.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_in(store: Arc<dyn ObjectStore>, root: &Path, url: &Url) -> Result<Self, LakeError> {
        let open = |table| LakeTable::open(table, Arc::clone(&store), root, url);
        let (events, changes, audit, rejected) = tokio::try_join!(
            open(Table::Events),
            open(Table::AccountChanges),
            open(Table::Audit),
            open(Table::Rejected)
        )?;
        Ok(Self { tables: [events, changes, audit, rejected].map(Arc::new) })
    }

    /// One of them.
    pub fn table(&self, table: Table) -> &Arc<LakeTable> {
        &self.tables[table as usize]
    }

    /// All of them.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<LakeTable>> {
        self.tables.iter()
    }
}

impl LakeTable {
    async fn open(table: Table, store: Arc<dyn ObjectStore>, root: &Path, url: &Url) -> Result<Self, LakeError> {
        let failed = |source| failed("opening", table, source);
        let location = below(url, table.name());
        let prefixed = Arc::new(PrefixStore::new(Arc::clone(&store), root.clone().join(table.name())));
        let log_store = default_logstore(prefixed, store, &location, &StorageConfig::default());
        let opened = DeltaTable::new(Arc::clone(&log_store))
            .create()
            .with_table_name(table.name())
            .with_comment(table.meaning())
            .with_columns(table.columns().iter().map(crate::columns::Column::to_delta))
            .with_partition_columns([DATE])
            .with_save_mode(SaveMode::Ignore)
            .with_configuration([
                ("delta.checkpointInterval", Some(CHECKPOINT_INTERVAL)),
                ("delta.logRetentionDuration", Some(LOG_RETENTION)),
                ("delta.dataSkippingStatsColumns", Some(&table.indexed().join(","))),
            ])
            .await;
        let mut opened = if let Ok(opened) = opened {
            opened
        } else {
            // Another replica made it at the same moment.
            load(&log_store).await.map_err(failed)?
        };
        let missing = missing_columns(table, &opened)?;
        if !missing.is_empty() {
            tracing::info!(table = table.name(), columns = ?names(&missing), "the table gets new columns");
            opened = match opened.clone().add_columns().with_fields(missing).await {
                Ok(opened) => opened,
                Err(error) => {
                    opened.load().await.map_err(failed)?;
                    if missing_columns(table, &opened)?.is_empty() { opened } else { return Err(failed(error)) }
                }
            };
        }
        let newest = RwLock::new(opened.snapshot().map_err(failed)?.clone());
        Ok(Self { table, log_store, newest })
    }

    /// Which one it is.
    pub fn table(&self) -> Table {
        self.table
    }

    /// Its log and its files.
    pub fn log_store(&self) -> &LogStoreRef {
        &self.log_store
    }

    /// The newest state that is known here.
    pub fn newest(&self) -> DeltaTableState {
        self.newest.read().clone()
    }

    /// Looks whether others have committed, and gives the newest state.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn refresh(&self) -> Result<DeltaTableState, LakeError> {
        let mut state = self.newest();
        state.update(&self.log_store, None).await.map_err(|source| self.failed("reading", source))?;
        self.learn(&state);
        Ok(state)
    }

    fn learn(&self, state: &DeltaTableState) {
        let mut newest = self.newest.write();
        if state.version() > newest.version() {
            *newest = state.clone();
        }
    }

    /// The numbers under which `apps` have committed last, as of `state`.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn numbers(&self, state: &DeltaTableState, apps: &[String]) -> Result<Vec<Option<i64>>, LakeError> {
        let mut numbers = Vec::with_capacity(apps.len());
        for app in apps {
            let number = state.transaction_version(&self.log_store, app).await;
            numbers.push(number.map_err(|source| self.failed("reading", source))?);
        }
        Ok(numbers)
    }

    /// Adds files. `numbers` are what each application has committed under up to now, and the new one: as of `state`
    /// they must be so, and somebody who commits for the same application meanwhile makes this commit
    /// [`Committed::Overtaken`]. `state` becomes the one with the commit.
    ///
    /// # Errors
    /// When the store does not answer: then it is not known whether the commit is in the table.
    pub async fn append(
        &self,
        state: &mut DeltaTableState,
        actions: Vec<Action>,
        numbers: Vec<(String, i64)>,
    ) -> Result<Committed, LakeError> {
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: Some(vec![DATE.to_owned()]),
            predicate: None,
        };
        let transactions: Vec<_> = numbers.into_iter().map(|(app, number)| Transaction::new(app, number)).collect();
        self.commit(state, &actions, transactions, operation).await
    }

    /// Takes files out and puts others in their place, as of `state`. Another commit of this kind that came first
    /// makes it [`Committed::Overtaken`]: what it rests on may be gone.
    ///
    /// # Errors
    /// When the store does not answer: then it is not known whether the commit is in the table.
    pub async fn replace(
        &self,
        state: &mut DeltaTableState,
        actions: Vec<Action>,
        operation: DeltaOperation,
    ) -> Result<Committed, LakeError> {
        let number = self.numbers(state, &[UPKEEP.to_owned()]).await?[0].unwrap_or(0);
        let transactions = vec![Transaction::new(UPKEEP, number + 1)];
        self.commit(state, &actions, transactions, operation).await
    }

    /// Commits, however many others do meanwhile, unless one of them is in its way: who calls finds out which it was.
    async fn commit(
        &self,
        state: &mut DeltaTableState,
        actions: &[Action],
        transactions: Vec<Transaction>,
        operation: DeltaOperation,
    ) -> Result<Committed, LakeError> {
        // What is too old in the log goes when files are vacuumed: looking for it with each commit costs a listing.
        let properties = CommitProperties::default()
            .with_application_transactions(transactions)
            .with_cleanup_expired_logs(Some(false));
        for _ in 0..MAX_ATTEMPTS {
            let builder = CommitBuilder::from(properties.clone()).with_actions(actions.to_vec());
            match builder.build(Some(&*state), Arc::clone(&self.log_store), operation.clone()).await {
                Ok(committed) => {
                    *state = committed.snapshot();
                    self.learn(state);
                    self.sync(committed.version());
                    return Ok(Committed::Done);
                }
                Err(DeltaTableError::Transaction { source: TransactionError::CommitConflict(_) }) => {
                    return Ok(Committed::Overtaken);
                }
                Err(DeltaTableError::Transaction { source: TransactionError::MaxCommitAttempts(_) }) => {}
                Err(source) => return Err(self.failed("committing to", source)),
            }
        }
        Err(LakeError::Busy { table: self.table.name() })
    }

    /// In a local directory: a commit survives a power cut, too.
    fn sync(&self, version: u64) {
        let name = format!("_delta_log/{version:020}.json");
        self.sync_files(std::iter::once(name.as_str()));
    }

    /// In a local directory: writes files through to the disk. Elsewhere that is the store's own affair.
    pub(crate) fn sync_files<'a>(&self, paths: impl Iterator<Item = &'a str>) {
        let Ok(folder) = self.log_store.root_url().to_file_path() else { return };
        for path in paths {
            let path = folder.join(path);
            let synced = std::fs::File::open(&path).and_then(|file| file.sync_all());
            // The directory entry, too.
            let parent = path.parent().map(std::fs::File::open).transpose();
            let synced = synced.and(parent.and_then(|parent| parent.map_or(Ok(()), |parent| parent.sync_all())));
            if let Err(error) = synced {
                tracing::warn!(file = %path.display(), %error, "could not be written through to the disk");
            }
        }
    }

    pub(crate) fn failed(&self, doing: &'static str, source: DeltaTableError) -> LakeError {
        failed(doing, self.table, source)
    }
}

fn failed(doing: &'static str, table: Table, source: DeltaTableError) -> LakeError {
    LakeError::Table { doing, table: table.name(), source: Box::new(source) }
}

/// A table with its newest state.
pub(crate) async fn load(log_store: &LogStoreRef) -> Result<DeltaTable, DeltaTableError> {
    let mut table = DeltaTable::new(Arc::clone(log_store));
    table.load().await?;
    Ok(table)
}

/// The URL of a folder below another.
fn below(url: &Url, name: &str) -> Url {
    let mut url = url.clone();
    url.set_path(&format!("{}/{name}/", url.path().trim_end_matches('/')));
    url
}

/// Columns that the table lacks.
fn missing_columns(table: Table, opened: &DeltaTable) -> Result<Vec<StructField>, LakeError> {
    let schema = opened.snapshot().map_err(|source| failed("opening", table, source))?.schema();
    let mut missing = Vec::new();
    for column in table.columns() {
        let expected = column.to_delta();
        match schema.field(column.name) {
            None => missing.push(expected),
            Some(found) if found.data_type() == expected.data_type() => {}
            Some(found) => {
                return Err(LakeError::Column {
                    table: table.name(),
                    column: column.name.to_owned(),
                    found: found.data_type().to_string(),
                    expected: expected.data_type().to_string(),
                });
            }
        }
    }
    Ok(missing)
}

fn names(fields: &[StructField]) -> Vec<&str> {
    fields.iter().map(|field| field.name().as_str()).collect()
}
