//! What a query may not do ends with a clear error, and the service is unharmed.

use crate::lab::{DAY_MS, Lab, ask, lines, quick, submission, until};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo};
use futures::TryStreamExt as _;
use prost::Message as _;
use tidegate_access::Access;
use tidegate_history::{HistoryConfig, QueryConfig};

/// Takes for ever, and little memory.
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b WHERE a.value % 7 = b.value % 11";

/// Gives no row before it has gone over all pairs, and does not pause on its way.
const FRUITLESS: &str =
    "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 1000000) b WHERE a.value + b.value = -1";

/// Gives many rows to who counts them, and needs not read for them. A join holds what stands at its left: what is many stands
/// at the right.
const MANIFOLD: &str =
    "SELECT count(b.account) FROM events b CROSS JOIN (events c CROSS JOIN generate_series(1, 1000000000) a)";

async fn with(queries: QueryConfig) -> Lab {
    let lab = Lab::start_with(HistoryConfig { queries, ..quick() }, Access::off()).await;
    lab.send((1..=100).map(|number| submission(&format!("u{number}@example.org"), number, DAY_MS))).await;
    lab.wait_for("SELECT count(*) FROM events", &["100"]).await;
    lab
}

async fn refused(lab: &Lab, sql: &str) -> String {
    let error = lab.ask(sql).await.unwrap_err();
    assert_eq!(lab.lines("SELECT count(*) FROM events").await, ["100"], "after {sql}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_sql_is_told_with_its_place() {
    let lab = with(QueryConfig::default()).await;
    for (sql, parts) in [
        ("SELEC 1", ["Expected: an SQL statement", "Line: 1, Column: 1"]),
        ("SELECT account\nFROM events WHERE", ["the SQL is wrong", "Expected: an expression"]),
        ("SELECT acount FROM events", ["acount", "Line: 1, Column: 8"]),
        ("SELECT account FROM\n  evnts", ["evnts", "Line: 2, Column: 3"]),
        ("SELECT domain_of(account, 1, 2) FROM events", ["domain_of", "the query is wrong"]),
        ("SELECT count(*) FROM '/etc/passwd'", ["/etc/passwd", "not found"]),
    ] {
        let error = refused(&lab, sql).await;
        for part in parts {
            assert!(error.contains(part), "{sql}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_refused() {
    let lab = with(QueryConfig::default()).await;
    for sql in [
        "DELETE FROM events",
        "INSERT INTO events SELECT * FROM events",
        "UPDATE events SET account = 'x'",
        "DROP TABLE events",
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "SET datafusion.execution.batch_size = 1",
    ] {
        let error = refused(&lab, sql).await;
        assert!(error.contains("read-only"), "{sql}: {error}");
    }
    let mut client = FlightSqlServiceClient::new(lab.channel.clone());
    let error = client.execute_update("DELETE FROM events".to_owned(), None).await.unwrap_err().to_string();
    assert!(error.contains("read-only"), "{error}");
    let denied = "SELECT count(*) FROM audit WHERE NOT allowed AND result LIKE '%read-only%'";
    lab.wait_for(denied, &["10"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_needs_too_much_memory_or_disk_ends() {
    let lab = with(QueryConfig { memory_bytes: 16 << 20, spill_bytes: 1 << 20, ..QueryConfig::default() }).await;
    let sorts = "SELECT a.value, repeat('x', 200) AS x FROM generate_series(1, 2000000) a ORDER BY x, a.value DESC";
    let error = refused(&lab, sorts).await;
    assert!(error.contains("history.queries.spill_bytes") || error.contains("history.queries.memory_bytes"), "{error}");
    let joins = "SELECT max(length(a.x || b.x)) FROM (SELECT value v, repeat('x', 500) x FROM generate_series(1, 300000)) a \
                 JOIN (SELECT value v, repeat('y', 500) x FROM generate_series(1, 300000)) b ON a.v = b.v";
    let error = refused(&lab, joins).await;
    assert!(error.contains("history.queries."), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_takes_too_long_ends() {
    let lab = with(QueryConfig { timeout_ms: 300, ..QueryConfig::default() }).await;
    for sql in [ENDLESS, FRUITLESS, MANIFOLD] {
        let error = refused(&lab, sql).await;
        assert!(error.contains("ended after 0.3 s") && error.contains("history.queries.timeout_ms"), "{sql}: {error}");
        until("it to end", || async { metric(&lab, "tidegate_history_queries_running 0") }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_cancelled_ends_and_makes_room() {
    for sql in [ENDLESS, FRUITLESS, MANIFOLD] {
        cancelled_while_others_wait(sql).await;
    }
}

async fn cancelled_while_others_wait(sql: &str) {
    let lab = with(QueryConfig { concurrency: 1, max_waiting: 1, ..QueryConfig::default() }).await;
    let mut client = FlightSqlServiceClient::new(lab.channel.clone());
    let info = client.execute(sql.to_owned(), None).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let taking = tokio::spawn({
        let mut client = FlightSqlServiceClient::new(lab.channel.clone());
        async move {
            let rows = client.do_get(ticket).await.map_err(|error| error.to_string())?;
            rows.try_collect::<Vec<_>>().await.map_err(|error| error.to_string())
        }
    });
    until("the query to run", || async { metric(&lab, "tidegate_history_queries_running 1") }).await;
    // One waits for its turn, the next is sent away.
    let waiting = tokio::spawn(ask(lab.channel.clone(), None, "SELECT 1"));
    until("a query to wait", || async { metric(&lab, "tidegate_history_queries_waiting 1") }).await;
    let error = lab.ask("SELECT 2").await.unwrap_err();
    assert!(error.contains("1 queries wait already"), "{error}");
    assert_eq!(cancel(&mut client, info.clone()).await, CancelStatus::Cancelled);
    let error = taking.await.unwrap().unwrap_err();
    assert!(error.contains("the query was cancelled"), "{error}");
    assert_eq!(lines(&waiting.await.unwrap().unwrap()), ["1"]);
    assert_eq!(cancel(&mut client, info).await, CancelStatus::NotCancellable);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_ends_the_query() {
    let lab = with(QueryConfig::default()).await;
    let mut client = FlightSqlServiceClient::new(lab.channel.clone());
    let info = client.execute("SELECT a.value FROM generate_series(1, 1000000000) a".to_owned(), None).await.unwrap();
    let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(rows.try_next().await.unwrap().is_some());
    assert!(metric(&lab, "tidegate_history_queries_running 1"));
    drop(rows);
    until("the query to end", || async { metric(&lab, "tidegate_history_queries_running 0") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_views_and_functions_say_what_they_should() {
    let lab = with(QueryConfig::default()).await;
    let top = "SELECT account, messages, recipients, size_bytes FROM top_senders WHERE account = 'u7@example.org'";
    assert_eq!(lab.lines(top).await, ["u7@example.org|1|2|1007"]);
    lab.send([submission("late@example.net", 101, DAY_MS), submission("u7@example.org", 301, DAY_MS)]).await;
    lab.wait_for("SELECT count(*) FROM events", &["102"]).await;
    let overlap = "SELECT account, other_account FROM address_overlap WHERE client_address = '203.0.113.101'";
    lab.wait_for(
        &format!("{overlap} ORDER BY account"),
        &["late@example.net|u7@example.org", "u7@example.org|late@example.net"],
    )
    .await;
    let line = "SELECT what, detail, client_address FROM account_timeline WHERE account = 'u8@example.org'";
    assert_eq!(lab.lines(line).await, ["submission|2 recipients, 1008 octets|203.0.113.8"]);
    let functions = "SELECT domain_of('Jo@Example.ORG'), network_of('203.0.113.9', 24), network_of('2001:db8::1'), \
                     network_of('x', 8), domain_of(NULL), count(DISTINCT network_of(client_address, 25)) FROM events";
    assert_eq!(lab.lines(functions).await, ["example.org|203.0.113.0/24|2001:db8::/48|-|-|1"]);
    let listed = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'history' ORDER BY 1";
    let all = [
        "account_changes",
        "account_timeline",
        "address_overlap",
        "audit",
        "events",
        "locks",
        "rejected",
        "top_senders",
    ];
    assert_eq!(lab.lines(listed).await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_query_stands_in_the_audit() {
    let lab = with(QueryConfig::default()).await;
    lab.lines("SELECT 'the answer', 42").await;
    let asked = "SELECT method, allowed, result FROM audit WHERE request = 'SELECT ''the answer'', 42'";
    lab.wait_for(asked, &["arrow.flight.protocol.FlightService/Query|true|-"]).await;
}

async fn cancel(client: &mut FlightSqlServiceClient<tonic::transport::Channel>, info: FlightInfo) -> CancelStatus {
    let body = CancelFlightInfoRequest { info: Some(info) }.encode_to_vec().into();
    let action = Action { r#type: "CancelFlightInfo".to_owned(), body };
    let mut answer = client.inner_mut().do_action(action).await.unwrap().into_inner();
    let result = answer.message().await.unwrap().unwrap();
    CancelFlightInfoResult::decode(result.body).unwrap().status()
}

fn metric(lab: &Lab, line: &str) -> bool {
    let (name, value) = line.rsplit_once(' ').unwrap();
    (lab.metric(name) - value.parse::<f64>().unwrap()).abs() < 0.5
}

/// The wanted keys are what is held, each once: the plan says so, and the answers stay what SQL says, with NULLs too.
#[tokio::test(flavor = "multi_thread")]
async fn in_and_exists_hold_the_wanted_keys() {
    let lab = with(QueryConfig::default()).await;
    let wanted = "account IN (SELECT account FROM events WHERE sequence <= 3)";
    let large = "SELECT count(*) FROM generate_series(1, 300000) a WHERE a.value IN (SELECT sequence FROM events)";
    let plan = lab.lines(&format!("EXPLAIN {large}")).await.join("\n");
    assert!(plan.contains("join_type=RightSemi") && plan.contains("aggr=[[]]"), "{plan}");
    assert_eq!(lab.lines(large).await, ["100"]);
    let twice = "(SELECT column1 AS x FROM (VALUES (1), (2), (2), (3), (NULL)))";
    let some = "(SELECT column1 AS y FROM (VALUES (2), (2), (3), (5)))";
    let none = "(SELECT column1 AS y FROM (VALUES (2), (NULL)))";
    for (sql, expected) in [
        (format!("SELECT count(*) FROM events WHERE {wanted}"), "3"),
        (format!("SELECT count(*) FROM events WHERE NOT {wanted}"), "97"),
        (format!("SELECT count(*) FROM {twice} WHERE x IN {some}"), "3"),
        (format!("SELECT count(*) FROM {twice} WHERE x NOT IN {some}"), "1"),
        (format!("SELECT count(*) FROM {twice} WHERE x NOT IN {none}"), "0"),
        (format!("SELECT count(*) FROM {twice} a WHERE EXISTS (SELECT 1 FROM {some} b WHERE b.y = a.x)"), "3"),
        (format!("SELECT count(*) FROM {twice} a WHERE NOT EXISTS (SELECT 1 FROM {some} b WHERE b.y = a.x)"), "2"),
        (
            format!(
                "SELECT count(*) FROM {twice} a WHERE EXISTS (SELECT 1 FROM {some} b WHERE b.y = a.x AND b.y > a.x - 1 AND b.y < 3)"
            ),
            "2",
        ),
        (format!("SELECT count(*) FROM {twice} a WHERE EXISTS (SELECT 1 FROM {some} b WHERE b.y > a.x)"), "4"),
    ] {
        assert_eq!(lab.lines(&sql).await, [expected], "{sql}");
    }
}
