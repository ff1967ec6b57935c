//! What a ticket for a query's rows says: any replica can answer it, and it names the query that may be cancelled.

use arrow_flight::FlightInfo;
use arrow_flight::sql::{Any, ProstMessageExt as _, TicketStatementQuery};
use prost::Message as _;

/// A ticket for rows.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Handle {
    /// Unique for each run.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The statement; empty for a prepared one.
    #[prost(string, tag = "2")]
    pub sql: String,
    /// The prepared statement; empty for one that is not.
    #[prost(string, tag = "3")]
    pub prepared: String,
}

impl Handle {
    /// The ticket's octets.
    pub fn to_ticket(&self) -> Vec<u8> {
        TicketStatementQuery { statement_handle: self.encode_to_vec().into() }.as_any().encode_to_vec()
    }

    /// The query that `info` is about, if it is one of ours.
    pub fn of_info(info: &FlightInfo) -> Option<Self> {
        let ticket = info.endpoint.first()?.ticket.as_ref()?;
        let any = Any::decode(&*ticket.ticket).ok()?;
        let ticket: TicketStatementQuery = any.unpack().ok()??;
        Self::decode(ticket.statement_handle).ok()
    }
}
