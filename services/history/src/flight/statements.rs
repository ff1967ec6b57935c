//! Running statements: what a ticket stands for becomes a stream of rows.

use super::asked::{Asked, Desk};
use super::handle::Handle;
use super::prepared::{Prepared, PreparedStatements, RunningQueries};
use crate::query::{Engine, QueryError, Rows};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::writer::IpcWriteOptions;
use arrow::record_batch::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tidegate_gate::new_id;
use tokio::runtime::Handle as RuntimeHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Statements, prepared and not, and those that run.
#[derive(Clone)]
pub(crate) struct Statements {
    pub engine: Arc<Engine>,
    pub desk: Desk,
    pub prepared: Arc<PreparedStatements>,
    pub running: Arc<RunningQueries>,
    /// Ends what runs when the service ends.
    pub ending: CancellationToken,
}

/// What a client gets of a flight.
pub(crate) type FlightStream = BoxStream<'static, Result<FlightData, Status>>;

impl Statements {
    /// What a statement will give, and the ticket for it.
    pub async fn info(&self, asked: Asked, sql: &str, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
        let planned = match self.engine.plan(sql, &asked.asker).await {
            Ok(planned) => planned,
            Err(error) => return Err(self.refused(asked, error).await),
        };
        let handle = Handle { id: new_id(), sql: sql.to_owned(), prepared: String::new() };
        info(&planned.schema, &handle, descriptor)
    }

    /// The same of a prepared statement.
    pub async fn prepared_info(
        &self,
        asked: Asked,
        id: &str,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let Prepared { sql, values, .. } = self.prepared.get(id, &asked.asker.name)?;
        let mut planned = self.engine.plan(&sql, &asked.asker).await?;
        if let Some(values) = values {
            planned = self.engine.bind(planned, values)?;
        }
        let handle = Handle { id: new_id(), sql: String::new(), prepared: id.to_owned() };
        info(&planned.schema, &handle, descriptor)
    }

    /// Prepares a statement. Gives its id, what it gives, and what its parameters are.
    pub async fn prepare(&self, asked: Asked, sql: String) -> Result<(String, Bytes, Bytes), Status> {
        let planned = match self.engine.plan(&sql, &asked.asker).await {
            Ok(planned) => planned,
            Err(error) => return Err(self.refused(asked, error).await),
        };
        let id = new_id();
        let prepared = Prepared { owner: asked.asker.name, sql, values: None };
        self.prepared.insert(id.clone(), prepared);
        Ok((id, schema_octets(&planned.schema)?, schema_octets(&planned.parameters)?))
    }

    /// Binds the one row of `rows` to a prepared statement.
    pub async fn bind<S>(&self, asked: &Asked, id: &str, rows: S) -> Result<(), Status>
    where
        S: Stream<Item = Result<RecordBatch, FlightError>> + Send + Unpin,
    {
        let batches: Vec<RecordBatch> = rows.take(2).try_collect().await.map_err(Status::from)?;
        let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let Some(batch) = batches.iter().find(|batch| batch.num_rows() == 1).filter(|_| count == 1) else {
            return Err(Status::invalid_argument(format!("one row of parameters is taken, and {count} came")));
        };
        let values = batch.columns().iter().map(|column| ScalarValue::try_from_array(column, 0));
        let values: Vec<ScalarValue> =
            values.collect::<Result<_, _>>().map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.prepared.bind(id, &asked.asker.name, values)?;
        Ok(())
    }

    /// The rows that a ticket stands for.
    pub async fn rows(&self, asked: Asked, handle: Handle) -> Result<FlightStream, Status> {
        let is_prepared = !handle.prepared.is_empty();
        let (sql, values) = if is_prepared {
            let prepared = self.prepared.get(&handle.prepared, &asked.asker.name)?;
            (prepared.sql, prepared.values)
        } else {
            (handle.sql, None)
        };
        let asked = asked.about(&sql);
        let cancelled = self.ending.child_token();
        let started = async {
            let mut planned = self.engine.plan(&sql, &asked.asker).await?;
            if let Some(values) = values {
                planned = self.engine.bind(planned, values)?;
            }
            // It can be cancelled while it waits for its turn.
            let _waits = self.running.runs(handle.id.clone(), asked.asker.name.clone(), cancelled.clone());
            self.engine.run(planned, cancelled.clone()).await
        };
        match started.await {
            Ok(rows) => Ok(self.give(asked, handle.id, rows, cancelled)),
            Err(error) => Err(self.refused(asked, error).await),
        }
    }

    /// The rows on the wire.
    fn give(&self, asked: Asked, id: String, rows: Rows, cancelled: CancellationToken) -> FlightStream {
        self.running.insert(id.clone(), asked.asker.name.clone(), cancelled.clone());
        let (schema, failed) = (rows.schema(), Arc::new(Mutex::new(String::new())));
        let told = Arc::clone(&failed);
        let rows = rows.map(move |batch| {
            batch.map_err(|error| {
                *told.lock() = error.to_string();
                FlightError::Tonic(Box::new(Status::from(error)))
            })
        });
        let inner = FlightDataEncoderBuilder::new().with_schema(schema).build(rows).map_err(Status::from).boxed();
        let (desk, running) = (self.desk.clone(), Arc::clone(&self.running));
        Given { inner, id, asked: Some(asked), failed, desk, running, cancelled }.boxed()
    }

    /// What was asked cannot be: the audit has it, and the client is told.
    async fn refused(&self, asked: Asked, error: QueryError) -> Status {
        if matches!(error, QueryError::Writes { .. }) {
            return self.desk.deny(asked, error.to_string()).await;
        }
        self.desk.answered(asked, error.to_string()).await;
        Status::from(error)
    }
}

/// Rows on the wire: their query can be cancelled while they are, and the audit learns how it ended.
struct Given {
    inner: FlightStream,
    id: String,
    asked: Option<Asked>,
    failed: Arc<Mutex<String>>,
    desk: Desk,
    running: Arc<RunningQueries>,
    cancelled: CancellationToken,
}

impl Stream for Given {
    type Item = Result<FlightData, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.poll_next_unpin(cx)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.running.remove(&self.id);
        // Whoever no longer takes rows does not want them computed.
        self.cancelled.cancel();
        let (desk, failed) = (self.desk.clone(), std::mem::take(&mut *self.failed.lock()));
        if let (Some(asked), Ok(runtime)) = (self.asked.take(), RuntimeHandle::try_current()) {
            runtime.spawn(async move { desk.answered(asked, failed).await });
        }
    }
}

/// A flight of one endpoint, on the connection that asks.
pub(super) fn info(schema: &Schema, handle: &Handle, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
    info_for(schema, handle.to_ticket(), descriptor)
}

/// The same for any ticket.
pub(super) fn info_for(schema: &Schema, ticket: Vec<u8>, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
    let info = FlightInfo::new().try_with_schema(schema).map_err(unencodable)?;
    Ok(info.with_descriptor(descriptor).with_endpoint(endpoint))
}

/// One batch on the wire.
pub(super) fn one_batch(batch: RecordBatch) -> FlightStream {
    let schema = batch.schema();
    let batches = futures::stream::once(async move { Ok(batch) });
    FlightDataEncoderBuilder::new().with_schema(schema).build(batches).map_err(Status::from).boxed()
}

fn schema_octets(schema: &Schema) -> Result<Bytes, Status> {
    let message: IpcMessage = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into().map_err(unencodable)?;
    Ok(message.0)
}

#[allow(clippy::needless_pass_by_value, reason = "as errors come to map_err")]
pub(super) fn unencodable(error: ArrowError) -> Status {
    Status::internal(format!("the schema cannot be sent: {error}"))
}
