//! Asks the history, over Arrow Flight SQL.

use crate::admin::connect::Connection;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{Action, CancelFlightInfoRequest, FlightInfo, Ticket};
use prost::Message as _;
use std::sync::Arc;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status, Streaming};

/// Largest message that is taken, in octets: the server cuts answers into pieces of some mebibytes, but not rows.
const MAX_MESSAGE_OCTETS: usize = 256 << 20;
/// The action that cancels a query.
const CANCEL: &str = "CancelFlightInfo";

/// A client of the history. Clones share the connection.
#[derive(Clone)]
pub struct HistoryClient(FlightServiceClient<Connection>);

/// A query that the server has planned.
pub struct Planned {
    info: FlightInfo,
    ticket: Ticket,
    /// The columns of its answer.
    pub schema: SchemaRef,
}

/// The rows of an answer, as they come.
pub struct Rows(FlightRecordBatchStream);

/// Why the history gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The statement is wrong.
    #[error("{0}")]
    Wrong(String),
    /// The server refuses, or failed.
    #[error("{0}")]
    Refused(String),
    /// What came is no answer.
    #[error("reading the answer")]
    Unreadable(#[source] FlightError),
    /// What came is no schema.
    #[error("reading what columns the answer has")]
    Schema(#[source] ArrowError),
    /// What came has no rows behind it.
    #[error("the answer names no place where its rows are")]
    NoTicket,
}

impl From<Status> for AskError {
    fn from(status: Status) -> Self {
        let told = match status.message() {
            "" => status.code().description().to_owned(),
            message => message.to_owned(),
        };
        if status.code() == Code::InvalidArgument { Self::Wrong(told) } else { Self::Refused(told) }
    }
}

impl From<FlightError> for AskError {
    fn from(error: FlightError) -> Self {
        match error {
            FlightError::Tonic(status) => Self::from(*status),
            other => Self::Unreadable(other),
        }
    }
}

impl HistoryClient {
    /// One that uses this connection.
    pub fn new(connection: Connection) -> Self {
        Self(FlightServiceClient::new(connection).max_decoding_message_size(MAX_MESSAGE_OCTETS))
    }

    fn sql(&self) -> FlightSqlServiceClient<Connection> {
        FlightSqlServiceClient::new_from_inner(self.0.clone())
    }

    /// Has a statement planned: nothing runs yet.
    ///
    /// # Errors
    /// When it is wrong or refused.
    pub async fn plan(&self, sql: &str) -> Result<Planned, AskError> {
        let info = self.sql().execute(sql.to_owned(), None).await?;
        let schema = info.clone().try_decode_schema().map_err(AskError::Schema)?;
        let ticket = info.endpoint.first().and_then(|endpoint| endpoint.ticket.clone()).ok_or(AskError::NoTicket)?;
        Ok(Planned { info, ticket, schema: Arc::new(schema) })
    }

    /// Runs what was planned.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn run(&self, planned: &Planned) -> Result<Rows, AskError> {
        Ok(Rows(self.sql().do_get(planned.ticket.clone()).await?))
    }

    /// Ends what runs, on the server.
    ///
    /// # Errors
    /// When the server cannot be asked to.
    pub async fn cancel(&self, planned: &Planned) -> Result<(), AskError> {
        let request = CancelFlightInfoRequest::new(planned.info.clone());
        let mut results = self.sql().do_action(Action::new(CANCEL, request.encode_to_vec())).await?;
        while results.message().await?.is_some() {}
        Ok(())
    }

    /// The whole of an answer that is known to be small.
    ///
    /// # Errors
    /// When the statement is wrong or refused, or fails.
    pub async fn ask(&self, sql: &str) -> Result<Vec<RecordBatch>, AskError> {
        let planned = self.plan(sql).await?;
        let mut rows = self.run(&planned).await?;
        let mut batches = Vec::new();
        while let Some(batch) = rows.next().await? {
            batches.push(batch);
        }
        Ok(batches)
    }

    /// Calls an action of the history's own.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn act(&self, name: &str, body: Vec<u8>) -> Result<Streaming<arrow_flight::Result>, AskError> {
        Ok(self.sql().do_action(Action::new(name, body)).await?)
    }
}

impl Rows {
    /// The next ones; none at the end.
    ///
    /// # Errors
    /// When the query fails.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, AskError> {
        Ok(self.0.next().await.transpose()?)
    }
}

/// `text` as a literal of SQL.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `text` as a name in SQL, as it is written.
pub fn identifier(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_apart_from_what_failed() {
        assert!(
            matches!(AskError::from(Status::invalid_argument("no table")), AskError::Wrong(told) if told == "no table")
        );
        assert!(matches!(AskError::from(Status::unavailable("later")), AskError::Refused(told) if told == "later"));
        let silent = AskError::from(FlightError::from(Status::permission_denied("")));
        assert!(!silent.to_string().is_empty());
    }

    #[test]
    fn texts_and_names_stay_what_they_are() {
        assert_eq!(literal("o'neill@example.org"), "'o''neill@example.org'");
        assert_eq!(identifier("odd\"name"), "\"odd\"\"name\"");
    }
}
