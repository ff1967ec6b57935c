//! A query that runs: computed on the queries' own threads, given out as it is taken.

use super::engine::Bounds;
use super::error::QueryError;
use super::interrupt::{Until, interruptible};
use super::plain::plain_rows;
use crate::metrics::{Metrics, QueryLabel};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionContext;
use futures::{Stream, StreamExt as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Batches that are computed ahead of who takes them.
const AHEAD: usize = 2;

/// What is to be run.
pub(super) struct Started {
    pub context: SessionContext,
    pub plan: LogicalPlan,
    pub schema: SchemaRef,
    pub permit: OwnedSemaphorePermit,
    pub deadline: Instant,
    pub cancelled: CancellationToken,
}

/// The rows of a query. Dropping them ends it.
pub(crate) struct Rows {
    schema: SchemaRef,
    batches: mpsc::Receiver<Result<RecordBatch, QueryError>>,
    task: AbortHandle,
}

impl Rows {
    pub(super) fn start(started: Started, threads: &Handle, bounds: Bounds, metrics: Metrics) -> Self {
        let (given, batches) = mpsc::channel(AHEAD);
        let schema = Arc::clone(&started.schema);
        let task = threads.spawn(compute(started, bounds, metrics, given)).abort_handle();
        Self { schema, batches, task }
    }

    /// Their schema.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl Stream for Rows {
    type Item = Result<RecordBatch, QueryError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_recv(cx)
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One query that runs, as the metrics tell it, also when it is aborted.
struct Counted {
    metrics: Metrics,
    began: Instant,
    result: &'static str,
}

impl Counted {
    fn new(metrics: Metrics) -> Self {
        metrics.queries_running.inc();
        Self { metrics, began: Instant::now(), result: "dropped" }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.queries_running.dec();
        self.metrics.query_seconds.observe(self.began.elapsed().as_secs_f64());
        self.metrics.queries.get_or_create(&QueryLabel { result: self.result }).inc();
    }
}

async fn compute(
    started: Started,
    bounds: Bounds,
    metrics: Metrics,
    given: mpsc::Sender<Result<RecordBatch, QueryError>>,
) {
    let Started { context, plan, schema, permit, deadline, cancelled } = started;
    let mut counted = Counted::new(metrics);
    let until = Until { cancelled: cancelled.clone(), deadline };
    let computing = async {
        let frame = context.execute_logical_plan(plan).await?;
        let task = Arc::new(frame.task_ctx());
        let plan = interruptible(frame.create_physical_plan().await?, &until)?;
        let mut rows = execute_stream(plan, task)?;
        while let Some(batch) = rows.next().await {
            let batch = plain_rows(&batch?, &schema)?;
            counted.metrics.query_rows.inc_by(batch.num_rows() as u64);
            if given.send(Ok(batch)).await.is_err() {
                break;
            }
        }
        Ok::<(), DataFusionError>(())
    };
    let ended = tokio::select! {
        biased;
        () = cancelled.cancelled() => Err(QueryError::Cancelled),
        () = tokio::time::sleep_until(deadline) => Err(QueryError::TooLong { after: bounds.timeout }),
        done = computing => done.map_err(|error| match () {
            // It may have noticed first.
            () if cancelled.is_cancelled() => QueryError::Cancelled,
            () if Instant::now() >= deadline => QueryError::TooLong { after: bounds.timeout },
            () => QueryError::of(error, bounds.memory_bytes, bounds.spill_bytes),
        }),
    };
    match ended {
        Ok(()) => counted.result = "done",
        Err(error) => {
            counted.result = error.kind();
            // Who waits for rows learns it; who takes none does not hold others up: the permit goes first.
            drop(permit);
            let _ = given.send(Err(error)).await;
        }
    }
}

/// The parameters of a plan, in the order of their numbers; what has no type is taken as text.
pub(super) fn parameters(plan: &LogicalPlan) -> Result<SchemaRef, DataFusionError> {
    let mut found: Vec<(u32, Field)> = Vec::new();
    for (name, data_type) in plan.get_parameter_types()? {
        let number = name.trim_start_matches('$').parse().unwrap_or(u32::MAX);
        let data_type = match data_type {
            // The JDBC driver writes milliseconds into a parameter of any unit; what is compared takes them as they are.
            Some(DataType::Timestamp(_, zone)) => DataType::Timestamp(TimeUnit::Millisecond, zone),
            Some(known) => known,
            None => DataType::Utf8,
        };
        found.push((number, Field::new(name, data_type, true)));
    }
    found.sort_by_key(|(number, _)| *number);
    Ok(super::plain_schema(&Schema::new(found.into_iter().map(|(_, field)| field).collect::<Vec<_>>())))
}
