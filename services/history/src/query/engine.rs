//! Plans and runs queries, each within its bounds.

use super::catalog::{CATALOG, Catalog, Refreshed, SCHEMA};
use super::error::QueryError;
use super::functions;
use super::memory::QueryMemory;
use super::placeholders::numbered;
use super::plain::plain_schema;
use super::running::{Rows, Started};
use super::semi_join::{self, WantedOnce};
use crate::config::HistoryConfig;
use crate::lake::Lake;
use crate::metrics::Metrics;
use crate::threads::OwnThreads;
use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidegate_access::Scope;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Memory for what is remembered of files that were read, for all queries together.
const FOOTER_CACHE_OCTETS: usize = 64 << 20;

/// Plans and runs queries.
pub(crate) struct Engine {
    lake: Lake,
    bounds: Bounds,
    spill: PathBuf,
    base: RuntimeEnv,
    refreshed: Arc<Refreshed>,
    permits: Arc<Semaphore>,
    metrics: Metrics,
    threads: OwnThreads,
}

/// What one query may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub memory_bytes: u64,
    pub spill_bytes: u64,
    pub timeout: Duration,
    pub max_waiting: usize,
    pub threads: usize,
    pub max_statement_bytes: usize,
}

/// A bound that a query passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Memory, in octets.
    Memory(u64),
    /// The spill directory, in octets.
    Spill(u64),
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    /// Name, for the audit and for cancelling.
    pub name: String,
    /// Whose rows they may see.
    pub scope: Scope,
}

/// A statement that makes sense.
pub(crate) struct Planned {
    context: SessionContext,
    plan: LogicalPlan,
    /// What it gives.
    pub schema: SchemaRef,
    /// What its parameters are, in their order.
    pub parameters: SchemaRef,
}

impl Limit {
    /// In words.
    pub fn describe(self) -> String {
        let (octets, what) = match self {
            Self::Memory(octets) => (octets, "of memory"),
            Self::Spill(octets) => (octets, "of disk for what does not fit in memory"),
        };
        format!("{} MiB {what}", octets >> 20)
    }

    /// The key that sets it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Memory(_) => "memory_bytes",
            Self::Spill(_) => "spill_bytes",
        }
    }
}

impl Engine {
    /// Over the tables of `lake`.
    ///
    /// # Errors
    /// When there can be no threads, or no place to spill.
    pub fn new(config: &HistoryConfig, lake: Lake, metrics: Metrics) -> Result<Self, DataFusionError> {
        let queries = &config.queries;
        let bounds = Bounds {
            memory_bytes: queries.memory_bytes,
            spill_bytes: queries.spill_bytes,
            timeout: Duration::from_millis(queries.timeout_ms),
            max_waiting: queries.max_waiting,
            threads: queries.threads,
            max_statement_bytes: queries.max_statement_bytes,
        };
        let threads = OwnThreads::new("query", queries.threads).map_err(DataFusionError::IoError)?;
        let base = RuntimeEnvBuilder::new().with_metadata_cache_limit(FOOTER_CACHE_OCTETS).build()?;
        Ok(Self {
            lake,
            bounds,
            spill: config.spill_directory(),
            base,
            refreshed: Arc::default(),
            permits: Arc::new(Semaphore::new(queries.concurrency)),
            metrics,
            threads,
        })
    }

    /// Plans a statement.
    ///
    /// # Errors
    /// When it is wrong, would change something, or the tables cannot be read.
    pub async fn plan(&self, sql: &str, asker: &Asker) -> Result<Planned, QueryError> {
        if sql.len() > self.bounds.max_statement_bytes {
            let message =
                format!("the statement has {} octets; {} are allowed", sql.len(), self.bounds.max_statement_bytes);
            return Err(QueryError::Wrong { message });
        }
        let wrong = |error| self.failed(error);
        let context = self.context(&asker.scope).map_err(wrong)?;
        let plan = context.state().create_logical_plan(&numbered(sql)).await.map_err(wrong)?;
        let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        if reads.verify_plan(&plan).is_err() {
            return Err(QueryError::Writes { what: what(&plan) });
        }
        let schema = plain_schema(plan.schema().as_arrow());
        let parameters = super::running::parameters(&plan).map_err(wrong)?;
        Ok(Planned { context, plan, schema, parameters })
    }

    /// Puts values in the places of a statement's parameters.
    ///
    /// # Errors
    /// When they are too many or too few, or do not fit.
    pub fn bind(&self, planned: Planned, values: Vec<ScalarValue>) -> Result<Planned, QueryError> {
        let Planned { context, plan, parameters, .. } = planned;
        let number = |field: &FieldRef| field.name().trim_start_matches('$').parse().unwrap_or(0);
        let expected: usize = parameters.fields().iter().map(number).max().unwrap_or(0);
        if values.len() != expected {
            let message = format!("the statement has {expected} parameters, and {} values were bound", values.len());
            return Err(QueryError::Wrong { message });
        }
        let plan = plan.with_param_values(values).map_err(|error| self.failed(error))?;
        // A parameter without a type of its own has that of its value.
        let schema = plain_schema(plan.schema().as_arrow());
        Ok(Planned { context, plan, schema, parameters })
    }

    /// Runs a planned statement. Its rows come as they are taken; who drops them ends it.
    ///
    /// # Errors
    /// When too many wait, or it was cancelled while it waited.
    pub async fn run(&self, planned: Planned, cancelled: CancellationToken) -> Result<Rows, QueryError> {
        let Planned { context, plan, schema, .. } = planned;
        let deadline = tokio::time::Instant::now() + self.bounds.timeout;
        let permit = self.permit(deadline, &cancelled).await?;
        let started = Started { context, plan, schema, permit, deadline, cancelled };
        Ok(Rows::start(started, &self.threads.handle(), self.bounds, self.metrics.clone()))
    }

    async fn permit(
        &self,
        deadline: tokio::time::Instant,
        cancelled: &CancellationToken,
    ) -> Result<tokio::sync::OwnedSemaphorePermit, QueryError> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let waiting = usize::try_from(self.metrics.queries_waiting.get()).unwrap_or_default();
        if waiting >= self.bounds.max_waiting {
            return Err(QueryError::Busy { waiting });
        }
        let _waits = Waits::new(&self.metrics);
        tokio::select! {
            permit = Arc::clone(&self.permits).acquire_owned() => permit.map_err(|_| QueryError::Cancelled),
            () = tokio::time::sleep_until(deadline) => Err(QueryError::TooLong { after: self.bounds.timeout }),
            () = cancelled.cancelled() => Err(QueryError::Cancelled),
        }
    }

    /// A context of its own for each query: what it takes is its own, and it sees what its asker may see.
    fn context(&self, scope: &Scope) -> Result<SessionContext, DataFusionError> {
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![self.spill.clone()]))
            .with_max_temp_directory_size(self.bounds.spill_bytes);
        let memory = usize::try_from(self.bounds.memory_bytes).unwrap_or(usize::MAX);
        let runtime = RuntimeEnvBuilder::from_runtime_env(&self.base)
            .with_memory_pool(Arc::new(QueryMemory::new(memory)))
            .with_disk_manager_builder(disk)
            .build_arc()?;
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(true)
            .with_target_partitions(self.bounds.threads);
        let options = config.options_mut();
        options.execution.parquet.pushdown_filters = true;
        options.execution.parquet.reorder_filters = true;
        // Where half of the rows are groups of their own, grouping them twice costs more than it saves.
        options.execution.skip_partial_aggregation_probe_ratio_threshold = 0.5;
        options.sql_parser.collect_spans = true;
        let files = SessionContext::new_with_config_rt(SessionConfig::new(), Arc::clone(&runtime));
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_default_features()
            .with_optimizer_rule(Arc::new(WantedOnce))
            .with_physical_optimizer_rules(semi_join::physical_rules())
            .build();
        let context = SessionContext::new_with_state(state);
        for function in functions::all() {
            context.register_udf(function);
        }
        let catalog = Catalog::new(self.lake.clone(), scope.clone(), Arc::clone(&self.refreshed), files);
        context.register_catalog(CATALOG, Arc::new(catalog));
        Ok(context)
    }

    fn failed(&self, error: DataFusionError) -> QueryError {
        QueryError::of(error, self.bounds.memory_bytes, self.bounds.spill_bytes)
    }
}

/// One query that waits, as the metrics tell it.
struct Waits<'a>(&'a Metrics);

impl<'a> Waits<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.queries_waiting.inc();
        Self(metrics)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.queries_waiting.dec();
    }
}

/// What a plan would do, in a word.
fn what(plan: &LogicalPlan) -> String {
    match plan {
        LogicalPlan::Dml(statement) => statement.op.name().to_lowercase(),
        LogicalPlan::Ddl(statement) => statement.name().to_owned(),
        LogicalPlan::Copy(_) => "COPY".to_owned(),
        LogicalPlan::Statement(statement) => statement.name().to_owned(),
        _ => "this statement".to_owned(),
    }
}
