//! The question that an analyst would ask afterwards, answered from the history of the run, over Flight SQL.

use super::people;
use crate::admin::connect::HistoryArgs;
use crate::history::cells::number;
use crate::history::client::{HistoryClient, literal};
use crate::sql::print::{Expanded, Printer as _, TablePrinter};
use anyhow::{Context as _, bail};
use arrow::json::writer::ArrayWriter;
use arrow::record_batch::RecordBatch;
use serde::Serialize;
use std::net::SocketAddr;
use std::time::Duration;

const QUESTION: &str = "What did this account do before it was locked, and who else was sent from those addresses?";
/// How long the history may take to have everything.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether it has.
const PERIOD: Duration = Duration::from_millis(50);

/// What the history says.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// The question, in words.
    pub question: &'static str,
    /// The question, in SQL.
    pub sql: String,
    /// The rows of the answer.
    pub rows: Vec<serde_json::Value>,
    /// The same as a table.
    #[serde(skip)]
    pub table: String,
}

/// What the history has to have first.
pub struct Expected<'a> {
    /// The account that was locked.
    pub account: &'a str,
    /// Its lock.
    pub lock: &'a str,
    /// Who else sent from the thief's addresses.
    pub other: &'a str,
    /// Messages that both sent from the thief's network.
    pub messages: u64,
}

/// Asks the history at this address, as soon as it has what is expected.
pub async fn ask(history: SocketAddr, expected: &Expected<'_>) -> anyhow::Result<Answer> {
    let server = HistoryArgs::without_credentials(format!("http://{history}"));
    let client = HistoryClient::new(server.connection().await?);
    wait_for(&client, expected).await.context("waiting for the history")?;
    let sql = sql(expected.account);
    let batches = client.ask(&sql).await.context("asking the history")?;
    Ok(Answer { question: QUESTION, rows: rows(&batches)?, table: table(&batches)?, sql })
}

fn sql(account: &str) -> String {
    let account = literal(account);
    format!(
        "SELECT account, client_address, count(*) AS messages, sum(recipients) AS recipients,\n       \
                min(time) AS first, max(time) AS last\n\
         FROM events\n\
         WHERE is_message AND time <= (SELECT max(since) FROM locks WHERE account = {account})\n  \
           AND client_address IN (SELECT unnest(client_addresses) FROM locks WHERE account = {account})\n\
         GROUP BY account, client_address ORDER BY messages DESC, client_address"
    )
}

async fn wait_for(client: &HistoryClient, expected: &Expected<'_>) -> anyhow::Result<()> {
    let sql = format!(
        "SELECT (SELECT count(*) FROM locks WHERE lock_id = {}) AS locks, count(*) AS messages \
         FROM events WHERE is_message AND account IN ({}, {}) AND network_of(client_address, 24) = {}",
        literal(expected.lock),
        literal(expected.account),
        literal(expected.other),
        literal(people::THIEFS_NETWORK)
    );
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let batches = client.ask(&sql).await?;
        let counts = batches.iter().find(|batch| batch.num_rows() > 0);
        let count = |column| counts.map_or(Ok(None), |batch| number(batch, column, 0));
        let (locks, messages) = (count(0)?.unwrap_or_default(), count(1)?.unwrap_or_default());
        if locks > 0 && messages.unsigned_abs() >= expected.messages {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            bail!("it has {locks} locks and {messages} of {} messages", expected.messages);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn rows(batches: &[RecordBatch]) -> anyhow::Result<Vec<serde_json::Value>> {
    let mut writer = ArrayWriter::new(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
    writer.finish()?;
    let text = writer.into_inner();
    Ok(if text.is_empty() { Vec::new() } else { serde_json::from_slice(&text)? })
}

fn table(batches: &[RecordBatch]) -> anyhow::Result<String> {
    let Some(first) = batches.first() else { return Ok("(0 rows)".to_owned()) };
    let mut text = Vec::new();
    let mut printer = TablePrinter::new(Expanded::Off, None, &first.schema(), &mut text);
    for batch in batches {
        printer.rows(batch)?;
    }
    printer.end()?;
    drop(printer);
    Ok(String::from_utf8(text)?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_about_the_account() {
        let sql = sql("o'neill@example.org");
        assert_eq!(sql.matches("account = 'o''neill@example.org'").count(), 2, "{sql}");
        assert!(sql.lines().all(|line| line.len() < 110), "{sql}");
    }
}
