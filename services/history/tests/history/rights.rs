//! Every call of Flight and every command of Flight SQL, with every kind of credential: who may, who may not, and that
//! nobody learns anything by being refused.
//!
//! The table `roles.txt` is made by this test. After a change of what calls need, write it anew: `TIDEGATE_WRITE_ROLES=1`.

use crate::access::secured;
use crate::lab::wait_for;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    ActionBeginTransactionRequest, ActionCancelQueryRequest, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas,
    CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes,
    CommandGetTables, CommandGetXdbcTypeInfo, CommandPreparedStatementQuery, CommandPreparedStatementUpdate,
    CommandStatementIngest, CommandStatementQuery, CommandStatementUpdate, ProstMessageExt,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest,
    Ticket,
};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use prost::Message;
use std::fmt::Write as _;
use std::path::Path;
use tonic::transport::Channel;
use tonic::{Code, IntoRequest, Request, Response, Status, Streaming};

/// What all calls are about.
const SQL: &str = "SELECT account FROM events";
/// What nobody may see who was refused, or is limited to another domain.
const SECRETS: [&str; 2] = ["kim@example.org", "sam@example.net"];

type Token<'a> = Option<&'a str>;
type Answer = Result<String, Status>;

/// What is sent, and by which call.
#[derive(Clone)]
enum Call {
    Handshake,
    ListFlights,
    ListActions,
    Exchange,
    Info(Vec<u8>),
    Poll(Vec<u8>),
    Schema(Vec<u8>),
    Rows(Vec<u8>),
    Put(Vec<u8>),
    Action(&'static str, Vec<u8>),
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_lets_in_whom_it_should_and_nobody_else() {
    let secured = secured().await;
    let query = packed(&CommandStatementQuery { query: SQL.into(), transaction_id: None });
    let mut client = FlightServiceClient::new(secured.lab.channel.clone());
    let info = client.get_flight_info(request(FlightDescriptor::new_cmd(query), Some(&secured.all))).await.unwrap();
    // Whoever comes by another's ticket.
    let ticket = info.into_inner().endpoint[0].ticket.clone().unwrap().ticket;
    let mut table = Vec::new();
    let mut refused = vec![0; secured.credentials.len()];
    for (name, call) in calls(ticket.to_vec()) {
        let mut told = Vec::new();
        for (number, (credential, token)) in secured.credentials.iter().enumerate() {
            let answer = call.send(secured.lab.channel.clone(), token.as_deref()).await;
            let code = answer.as_ref().err().map(Status::code);
            refused[number] += usize::from(code == Some(Code::PermissionDenied));
            told.push(match code {
                Some(Code::Unauthenticated | Code::PermissionDenied) => ".  ",
                Some(Code::Unimplemented) => "-  ",
                // With another error it was let in, and then something else was wrong with what it asked.
                _ => "+  ",
            });
            let text = answer.unwrap_or_else(|status| status.message().to_owned());
            let may_see = ["analyst", "admin"].contains(credential);
            for secret in SECRETS {
                assert!(may_see || !text.contains(secret), "{name} with {credential} tells {secret}: {text}");
            }
            assert!(!may_see || name != "DoGet/StatementQuery" || text.contains(SECRETS[0]), "{credential}: {text}");
        }
        table.push((name, told));
    }
    for ((credential, _), refused) in secured.credentials.iter().zip(refused).filter(|(_, refused)| *refused > 0) {
        let actor = if *credential == "enrolment" { "mx1" } else { *credential };
        let sql = format!("SELECT count(*) FROM audit WHERE NOT allowed AND actor = '{actor}'");
        wait_for(secured.lab.channel.clone(), Some(&secured.all), &sql, &[&refused.to_string()]).await;
    }
    let names: Vec<&str> = secured.credentials.iter().map(|(name, _)| *name).collect();
    compare(&shown(&names, &table));
}

impl Call {
    /// Sends it; gives the octets that come, as text.
    async fn send(&self, channel: Channel, token: Token<'_>) -> Answer {
        let client = &mut FlightServiceClient::new(channel);
        let command = |octets: &Vec<u8>| request(FlightDescriptor::new_cmd(octets.clone()), token);
        match self.clone() {
            Self::Handshake => all(client.handshake(streamed(HandshakeRequest::default(), token)).await).await,
            Self::ListFlights => all(client.list_flights(request(Criteria::default(), token)).await).await,
            Self::ListActions => all(client.list_actions(request(Empty {}, token)).await).await,
            Self::Exchange => all(client.do_exchange(streamed(FlightData::default(), token)).await).await,
            Self::Info(octets) => one(client.get_flight_info(command(&octets)).await),
            Self::Poll(octets) => one(client.poll_flight_info(command(&octets)).await),
            Self::Schema(octets) => one(client.get_schema(command(&octets)).await),
            Self::Rows(ticket) => all(client.do_get(request(Ticket::new(ticket), token)).await).await,
            Self::Put(octets) => {
                let data = FlightData::new().with_descriptor(FlightDescriptor::new_cmd(octets));
                all(client.do_put(streamed(data, token)).await).await
            }
            Self::Action(kind, body) => all(client.do_action(request(Action::new(kind, body), token)).await).await,
        }
    }
}

fn request<T>(message: T, token: Token) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

fn streamed<T: Send + 'static>(message: T, token: Token) -> Request<BoxStream<'static, T>> {
    request(stream::once(async { message }).boxed(), token).into_request()
}

fn one<T: Message>(answer: Result<Response<T>, Status>) -> Answer {
    Ok(String::from_utf8_lossy(&answer?.into_inner().encode_to_vec()).into_owned())
}

async fn all<T: Message>(answer: Result<Response<Streaming<T>>, Status>) -> Answer {
    let messages: Vec<T> = answer?.into_inner().try_collect().await?;
    Ok(messages.iter().map(|message| String::from_utf8_lossy(&message.encode_to_vec()).into_owned()).collect())
}

/// All calls, by name. `ticket` gives the rows of the statement.
fn calls(ticket: Vec<u8>) -> Vec<(String, Call)> {
    let prepared = || Bytes::from_static(b"no such statement");
    let query = packed(&CommandStatementQuery { query: SQL.into(), transaction_id: None });
    let mut calls = vec![
        ("GetFlightInfo/StatementQuery".to_owned(), Call::Info(query.clone())),
        ("DoGet/StatementQuery".to_owned(), Call::Rows(ticket)),
        ("GetSchema".to_owned(), Call::Schema(query.clone())),
        ("PollFlightInfo".to_owned(), Call::Poll(query)),
        ("Handshake".to_owned(), Call::Handshake),
        ("ListFlights".to_owned(), Call::ListFlights),
        ("ListActions".to_owned(), Call::ListActions),
        ("DoExchange".to_owned(), Call::Exchange),
    ];
    for (name, command) in [
        ("PreparedStatementQuery", packed(&CommandPreparedStatementQuery { prepared_statement_handle: prepared() })),
        ("Catalogs", packed(&CommandGetCatalogs {})),
        ("DbSchemas", packed(&CommandGetDbSchemas::default())),
        ("Tables", packed(&CommandGetTables { include_schema: true, ..Default::default() })),
        ("TableTypes", packed(&CommandGetTableTypes {})),
        ("SqlInfo", packed(&CommandGetSqlInfo::default())),
        ("XdbcTypeInfo", packed(&CommandGetXdbcTypeInfo::default())),
        ("PrimaryKeys", packed(&CommandGetPrimaryKeys::default())),
        ("ExportedKeys", packed(&CommandGetExportedKeys::default())),
        ("ImportedKeys", packed(&CommandGetImportedKeys::default())),
        ("CrossReference", packed(&CommandGetCrossReference::default())),
    ] {
        calls.push((format!("GetFlightInfo/{name}"), Call::Info(command.clone())));
        calls.push((format!("DoGet/{name}"), Call::Rows(command)));
    }
    let update = CommandStatementUpdate { query: "DELETE FROM events".into(), transaction_id: None };
    let handle = CommandPreparedStatementUpdate { prepared_statement_handle: prepared() };
    let bound = CommandPreparedStatementQuery { prepared_statement_handle: prepared() };
    let ingest = CommandStatementIngest { table: "events".into(), ..Default::default() };
    calls.push(("DoPut/StatementUpdate".into(), Call::Put(packed(&update))));
    calls.push(("DoPut/StatementIngest".into(), Call::Put(packed(&ingest))));
    calls.push(("DoPut/PreparedStatementUpdate".into(), Call::Put(packed(&handle))));
    calls.push(("DoPut/PreparedStatementQuery".into(), Call::Put(packed(&bound))));
    let create = ActionCreatePreparedStatementRequest { query: SQL.into(), transaction_id: None };
    let close = ActionClosePreparedStatementRequest { prepared_statement_handle: prepared() };
    let cancel = CancelFlightInfoRequest { info: Some(FlightInfo::default()) };
    let cancel_query = ActionCancelQueryRequest { info: FlightInfo::default().encode_to_vec().into() };
    let erase = r#"{"account":"nobody@example.com","reason":"asked to"}"#;
    for (kind, body) in [
        ("CreatePreparedStatement", packed(&create)),
        ("ClosePreparedStatement", packed(&close)),
        ("BeginTransaction", packed(&ActionBeginTransactionRequest {})),
        ("CancelQuery", packed(&cancel_query)),
        ("CancelFlightInfo", cancel.encode_to_vec()),
        ("tidegate.erase", erase.as_bytes().to_vec()),
    ] {
        calls.push((format!("DoAction/{kind}"), Call::Action(kind, body)));
    }
    calls.sort_by(|one, other| one.0.cmp(&other.0));
    calls
}

fn packed(command: &impl ProstMessageExt) -> Vec<u8> {
    command.as_any().encode_to_vec()
}

fn shown(names: &[&str], table: &[(String, Vec<&str>)]) -> String {
    let mut text = String::from(
        "Who may ask the history for what, over Arrow Flight SQL. Made by a test of the history service; the accounts are of\n\
         other domains than \"another domain\". + may, . is refused, - there is no such thing here. Nobody may write.\n\n",
    );
    let width = table.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (number, name) in names.iter().enumerate() {
        let _ = writeln!(text, "{:width$}  {}{name}", "", "|  ".repeat(number));
    }
    for (name, told) in table {
        let _ = writeln!(text, "{name:width$}  {}", told.concat().trim_end());
    }
    text
}

fn compare(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("roles.txt");
    if std::env::var_os("TIDEGATE_WRITE_ROLES").is_some() {
        std::fs::write(&path, table).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept == table, "other rights than roles.txt says (TIDEGATE_WRITE_ROLES=1 writes it anew):\n{table}");
}
