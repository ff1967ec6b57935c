//! What clients of Flight SQL do that no query shows: names with passwords, parameters, and questions about columns.
//! Real ones are in `tests/tests/analysts.rs`.

use crate::access::secured;
use crate::lab::{DAY_MS, Lab, lines, submission};
use arrow::array::{ArrayRef, AsArray as _, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Schema, TimeUnit};
use arrow_flight::IpcMessage;
use arrow_flight::sql::CommandGetTables;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt as _;
use std::sync::Arc;
use tonic::transport::Channel;

type Client = FlightSqlServiceClient<Channel>;

async fn rows(client: &mut Client, info: arrow_flight::FlightInfo) -> Vec<RecordBatch> {
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    client.do_get(ticket).await.unwrap().try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_and_a_password_get_the_token_to_go_on_with() {
    let secured = secured().await;
    let mut client = Client::new(secured.lab.channel.clone());
    let given = client.handshake("any name", &secured.all).await.unwrap();
    assert_eq!(given, secured.all.as_bytes());
    assert_eq!(client.token(), Some(&secured.all));
    let info = client.execute("SELECT count(*) FROM events".to_owned(), None).await.unwrap();
    assert_eq!(lines(&rows(&mut client, info).await), ["2"]);
    assert!(Client::new(secured.lab.channel.clone()).handshake("any name", "tg_wrong").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_have_the_types_that_clients_can_fill() {
    let lab = Lab::start().await;
    lab.send((1..=4).map(|number| submission("jo@example.org", number, DAY_MS + i64::try_from(number).unwrap()))).await;
    lab.wait_for("SELECT count(*) FROM events", &["4"]).await;
    let mut client = Client::new(lab.channel.clone());
    let sql = "SELECT count(*) AS n, ? AS note FROM events WHERE account = ? AND time <= ? AND size_bytes > ?";
    let mut statement = client.prepare(sql.to_owned(), None).await.unwrap();
    let types: Vec<DataType> =
        statement.parameter_schema().unwrap().fields().iter().map(|field| field.data_type().clone()).collect();
    let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    assert_eq!(types, [DataType::Utf8, DataType::Utf8, time, DataType::Int64]);

    let columns = |count: usize| {
        let text = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        let time = TimestampMillisecondArray::from(vec![DAY_MS + 3]).with_timezone("UTC");
        let all = [text("note"), text("jo@example.org"), Arc::new(time), Arc::new(Int64Array::from(vec![1_001]))];
        let named = all.into_iter().take(count).enumerate().map(|(at, column)| (format!("${}", at + 1), column));
        RecordBatch::try_from_iter(named).unwrap()
    };
    statement.set_parameters(columns(4)).unwrap();
    let info = statement.execute().await.unwrap();
    let given = rows(&mut client, info).await;
    assert_eq!(lines(&given), ["2|note"]);
    // What a parameter alone gives has the type of its value.
    assert_eq!(given[0].schema().field(1).data_type(), &DataType::Utf8);
    statement.set_parameters(columns(3)).unwrap();
    let error = statement.execute().await.unwrap_err().to_string();
    assert!(error.contains("the statement has 4 parameters, and 3 values were bound"), "{error}");

    let mut statement =
        client.prepare("SELECT account FROM events WHERE size_bytes > ?".to_owned(), None).await.unwrap();
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["many"]));
    statement.set_parameters(RecordBatch::try_from_iter([("$1", texts)]).unwrap()).unwrap();
    let info = statement.execute().await.unwrap();
    let rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let error = rows.try_collect::<Vec<_>>().await.unwrap_err().to_string();
    assert!(error.contains("many") && error.contains("Int64"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_with_what_they_mean() {
    let lab = Lab::start().await;
    let mut client = Client::new(lab.channel.clone());
    let asked = CommandGetTables {
        db_schema_filter_pattern: Some("history".to_owned()),
        table_name_filter_pattern: Some("events".to_owned()),
        include_schema: true,
        ..CommandGetTables::default()
    };
    let info = client.get_tables(asked).await.unwrap();
    let found = rows(&mut client, info).await;
    let octets = found[0].column_by_name("table_schema").unwrap().as_binary::<i32>().value(0).to_vec();
    let schema = Schema::try_from(IpcMessage(octets.into())).unwrap();
    let told = |column: &str, what: &str| {
        let field = schema.field_with_name(column).unwrap();
        field.metadata().get(&format!("ARROW:FLIGHT:SQL:{what}")).cloned().unwrap_or_default()
    };
    assert_eq!(told("size_bytes", "REMARKS"), "Size of the message in octets.");
    assert_eq!(told("size_bytes", "TYPE_NAME"), "bigint");
    assert_eq!(told("recipient_domains", "TYPE_NAME"), "array<string>");
    assert_eq!(told("date", "TABLE_NAME"), "events");
}
