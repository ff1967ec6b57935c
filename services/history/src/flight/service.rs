//! The Flight SQL service: each call to what answers it.

use super::abilities::sql_info;
use super::asked::{Desk, shown_token};
use super::erasing::{ERASE, action_type, erase};
use super::handle::Handle;
use super::metadata::{ONLY_CATALOG, SCHEMAS, described, listed, no_primary_keys, no_references, types};
use super::statements::{FlightStream, Statements, info_for, one_batch};
use crate::query::QueryError;
use crate::upkeep::Eraser;
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionBeginTransactionRequest, ActionBeginTransactionResult, ActionCancelQueryRequest, ActionCancelQueryResult,
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery,
    CommandStatementUpdate, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, Ticket,
};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use std::pin::Pin;
use std::sync::Arc;
use tidegate_access::Access;
use tonic::{Request, Response, Status, Streaming};

/// The action by which clients of Flight itself cancel.
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
/// Results of cancelling, by their numbers in the protocol's `CancelResult`.
const CANCELLED: i32 = 1;
const NOT_CANCELLABLE: i32 = 3;
/// What is said of everything that would write.
const READ_ONLY: &str = "the history is read-only: what would change it is refused";

/// The Flight SQL service.
#[derive(Clone)]
pub(crate) struct FlightApi {
    pub statements: Statements,
    pub desk: Desk,
    pub eraser: Eraser,
    pub access: Arc<Access>,
}

type Info = Result<Response<FlightInfo>, Status>;
type Rows = Result<Response<FlightStream>, Status>;

impl FlightApi {
    /// What is told of metadata: its schema, and the question itself as the ticket.
    async fn metadata_info<C: ProstMessageExt>(
        &self,
        command: &C,
        schema: &Schema,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.desk.admit(&request, "").await?;
        let ticket = command.as_any().encode_to_vec();
        Ok(Response::new(info_for(schema, ticket, request.into_inner())?))
    }

    async fn metadata_rows(&self, request: &Request<Ticket>, rows: RecordBatch) -> Rows {
        self.desk.admit(request, "").await?;
        Ok(Response::new(one_batch(rows)))
    }

    async fn refuse_write<T: Send + Sync>(&self, request: &Request<T>, sql: &str) -> Status {
        match self.desk.admit(request, sql).await {
            Ok(asked) => self.desk.deny(asked, READ_ONLY.to_owned()).await,
            Err(status) => status,
        }
    }

    fn cancel(&self, info: &FlightInfo, name: &str) -> bool {
        Handle::of_info(info).is_some_and(|handle| self.statements.running.cancel(&handle.id, name))
    }
}

/// The handle of a prepared statement.
fn id_of(handle: &[u8]) -> Result<&str, Status> {
    std::str::from_utf8(handle).map_err(|_| QueryError::Forgotten.into())
}

fn unbuildable(error: impl std::fmt::Display) -> Status {
    Status::internal(format!("the answer cannot be put together: {error}"))
}

#[tonic::async_trait]
impl FlightSqlService for FlightApi {
    type FlightService = Self;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Pin<Box<dyn futures::Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        // The gate has looked at it: what it showed counts, and it goes on with that.
        let token = shown_token(&request, &self.access);
        let header = format!("Bearer {token}");
        let response = HandshakeResponse { protocol_version: 0, payload: token.into_bytes().into() };
        let answer: BoxStream<'static, _> = futures::stream::once(async { Ok(response) }).boxed();
        let mut answer = Response::new(answer);
        let header = header.parse().map_err(|_| Status::internal("the token cannot stand in a header"))?;
        answer.metadata_mut().insert("authorization", header);
        Ok(answer)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let asked = self.desk.admit(&request, &query.query).await?;
        Ok(Response::new(self.statements.info(asked, &query.query, request.into_inner()).await?))
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let asked = self.desk.admit(&request, "").await?;
        let id = id_of(&query.prepared_statement_handle)?;
        Ok(Response::new(self.statements.prepared_info(asked, id, request.into_inner()).await?))
    }

    async fn get_flight_info_catalogs(&self, query: CommandGetCatalogs, request: Request<FlightDescriptor>) -> Info {
        self.metadata_info(&query, &query.into_builder().schema(), request).await
    }

    async fn get_flight_info_schemas(&self, query: CommandGetDbSchemas, request: Request<FlightDescriptor>) -> Info {
        let schema = query.clone().into_builder().schema();
        self.metadata_info(&query, &schema, request).await
    }

    async fn get_flight_info_tables(&self, query: CommandGetTables, request: Request<FlightDescriptor>) -> Info {
        let schema = query.clone().into_builder().schema();
        self.metadata_info(&query, &schema, request).await
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.metadata_info(&query, &query.into_builder().schema(), request).await
    }

    async fn get_flight_info_sql_info(&self, query: CommandGetSqlInfo, request: Request<FlightDescriptor>) -> Info {
        let schema = query.clone().into_builder(sql_info()).schema();
        self.metadata_info(&query, &schema, request).await
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.metadata_info(&query, &types().schema(), request).await
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.metadata_info(&query, &no_primary_keys().schema(), request).await
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.metadata_info(&query, &no_references().schema(), request).await
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.metadata_info(&query, &no_references().schema(), request).await
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Info {
        self.metadata_info(&query, &no_references().schema(), request).await
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Rows {
        let handle = Handle::decode(ticket.statement_handle)
            .map_err(|_| Status::invalid_argument("the ticket is none of this server's"))?;
        let asked = self.desk.admit(&request, &handle.sql).await?;
        Ok(Response::new(self.statements.rows(asked, handle).await?))
    }

    async fn do_get_prepared_statement(&self, query: CommandPreparedStatementQuery, request: Request<Ticket>) -> Rows {
        let asked = self.desk.admit(&request, "").await?;
        let prepared = id_of(&query.prepared_statement_handle)?.to_owned();
        let handle = Handle { id: tidegate_gate::new_id(), sql: String::new(), prepared };
        Ok(Response::new(self.statements.rows(asked, handle).await?))
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, request: Request<Ticket>) -> Rows {
        let mut catalogs = query.into_builder();
        catalogs.append(ONLY_CATALOG);
        self.metadata_rows(&request, catalogs.build().map_err(unbuildable)?).await
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, request: Request<Ticket>) -> Rows {
        let mut schemas = query.into_builder();
        for schema in SCHEMAS {
            schemas.append(ONLY_CATALOG, schema);
        }
        self.metadata_rows(&request, schemas.build().map_err(unbuildable)?).await
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> Rows {
        let asked = self.desk.admit(&request, "").await?;
        let with_schemas = query.include_schema;
        let mut tables = query.into_builder();
        for (schema, name, kind) in listed(&asked.asker.scope) {
            let columns = if with_schemas {
                let sql = format!("SELECT * FROM {ONLY_CATALOG}.{schema}.{name}");
                described(&self.statements.engine.plan(&sql, &asked.asker).await?.schema, schema, name)
            } else {
                Schema::empty()
            };
            tables.append(ONLY_CATALOG, schema, name, kind, &columns).map_err(unbuildable)?;
        }
        Ok(Response::new(one_batch(tables.build().map_err(unbuildable)?)))
    }

    async fn do_get_table_types(&self, query: CommandGetTableTypes, request: Request<Ticket>) -> Rows {
        let mut kinds = query.into_builder();
        kinds.append("TABLE");
        kinds.append("VIEW");
        self.metadata_rows(&request, kinds.build().map_err(unbuildable)?).await
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, request: Request<Ticket>) -> Rows {
        let rows = query.into_builder(sql_info()).build().map_err(unbuildable)?;
        self.metadata_rows(&request, rows).await
    }

    async fn do_get_xdbc_type_info(&self, query: CommandGetXdbcTypeInfo, request: Request<Ticket>) -> Rows {
        let rows = types().record_batch(query.data_type).map_err(unbuildable)?;
        self.metadata_rows(&request, rows).await
    }

    async fn do_get_primary_keys(&self, _: CommandGetPrimaryKeys, request: Request<Ticket>) -> Rows {
        self.metadata_rows(&request, no_primary_keys()).await
    }

    async fn do_get_exported_keys(&self, _: CommandGetExportedKeys, request: Request<Ticket>) -> Rows {
        self.metadata_rows(&request, no_references()).await
    }

    async fn do_get_imported_keys(&self, _: CommandGetImportedKeys, request: Request<Ticket>) -> Rows {
        self.metadata_rows(&request, no_references()).await
    }

    async fn do_get_cross_reference(&self, _: CommandGetCrossReference, request: Request<Ticket>) -> Rows {
        self.metadata_rows(&request, no_references()).await
    }

    async fn do_put_statement_update(
        &self,
        update: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(self.refuse_write(&request, &update.query).await)
    }

    async fn do_put_statement_ingest(
        &self,
        ingest: CommandStatementIngest,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(self.refuse_write(&request, &format!("(bulk ingestion into {})", ingest.table)).await)
    }

    async fn do_put_prepared_statement_update(
        &self,
        _: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(self.refuse_write(&request, "(update by a prepared statement)").await)
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let asked = self.desk.admit(&request, "").await?;
        let id = id_of(&query.prepared_statement_handle)?.to_owned();
        let data = request.into_inner().map_err(|status| FlightError::Tonic(Box::new(status)));
        self.statements.bind(&asked, &id, FlightRecordBatchStream::new_from_flight_data(data)).await?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(query.prepared_statement_handle) })
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let asked = self.desk.admit(&request, &query.query).await?;
        let (id, dataset_schema, parameter_schema) = self.statements.prepare(asked, query.query).await?;
        let prepared_statement_handle = id.into_bytes().into();
        Ok(ActionCreatePreparedStatementResult { prepared_statement_handle, dataset_schema, parameter_schema })
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        let asked = self.desk.admit(&request, "").await?;
        self.statements.prepared.close(id_of(&query.prepared_statement_handle)?, &asked.asker.name);
        Ok(())
    }

    async fn do_action_begin_transaction(
        &self,
        _: ActionBeginTransactionRequest,
        request: Request<Action>,
    ) -> Result<ActionBeginTransactionResult, Status> {
        self.desk.admit(&request, "").await?;
        Err(Status::unimplemented("there are no transactions: each statement reads each table in one state of it"))
    }

    async fn do_action_cancel_query(
        &self,
        query: ActionCancelQueryRequest,
        request: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        let asked = self.desk.admit(&request, "").await?;
        let info = FlightInfo::decode(query.info).map_err(|_| Status::invalid_argument("this is no FlightInfo"))?;
        let result = if self.cancel(&info, &asked.asker.name) { CANCELLED } else { NOT_CANCELLABLE };
        Ok(ActionCancelQueryResult { result })
    }

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        if request.get_ref().r#type == ERASE {
            return Ok(Response::new(erase(&self.eraser, &self.desk, request).await?));
        }
        let asked = self.desk.admit(&request, "").await?;
        let action = request.into_inner();
        if action.r#type != CANCEL_FLIGHT_INFO {
            return Err(Status::invalid_argument(format!("there is no action {:?}", action.r#type)));
        }
        let wrong = |_| Status::invalid_argument("this is no CancelFlightInfoRequest");
        let info = CancelFlightInfoRequest::decode(action.body).map_err(wrong)?.info;
        let is_cancelled = info.is_some_and(|info| self.cancel(&info, &asked.asker.name));
        let status = if is_cancelled { CancelStatus::Cancelled } else { CancelStatus::NotCancellable };
        let result = CancelFlightInfoResult { status: status.into() };
        let result = arrow_flight::Result { body: result.encode_to_vec().into() };
        Ok(Response::new(futures::stream::once(async { Ok(result) }).boxed()))
    }

    async fn list_custom_actions(&self) -> Option<Vec<Result<ActionType, Status>>> {
        let cancel = ActionType { r#type: CANCEL_FLIGHT_INFO.to_owned(), description: "Cancels a query.".to_owned() };
        Some(vec![Ok(cancel), Ok(action_type())])
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}
