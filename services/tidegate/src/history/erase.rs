//! `tidegate history erase`: an account is forgotten.

use super::client::HistoryClient;
use crate::admin::connect::HistoryArgs;
use crate::admin::format;
use crate::serve::ConfigurationError;
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use tidegate_domain::Account;

/// The history's action.
const ACTION: &str = "tidegate.erase";

#[derive(Debug, clap::Args)]
pub struct EraseArgs {
    /// The account, e.g. jo@example.org
    #[arg(long)]
    account: String,
    /// Why; it stands in the audit, so do not name the account in it
    #[arg(long)]
    reason: String,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// One JSON array instead of text for people
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: HistoryArgs,
}

/// What became of one table, as the history tells it.
#[derive(Debug, Serialize, Deserialize)]
struct Erased {
    table: String,
    rows: u64,
    files: u64,
}

/// Has the account forgotten.
pub async fn run(args: EraseArgs) -> anyhow::Result<ExitCode> {
    let account = Account::parse(&args.account).map_err(ConfigurationError::new)?;
    if names(&args.reason, account.as_str()) {
        let told = "--reason names the account, and the audit would keep it; give another one".to_owned();
        return Err(ConfigurationError::text(told).into());
    }
    if !args.yes && !is_confirmed(&account)? {
        eprintln!("tidegate: nothing was done");
        return Ok(ExitCode::FAILURE);
    }
    let client = HistoryClient::new(args.server.connection().await?);
    let body = serde_json::json!({ "account": account.as_str(), "reason": args.reason });
    let mut results = client.act(ACTION, body.to_string().into_bytes()).await?;
    let mut erased = Vec::new();
    while let Some(result) = results.message().await.map_err(super::client::AskError::from)? {
        let one: Erased = serde_json::from_slice(&result.body).context("reading what became of a table")?;
        if !args.json {
            println!("{}", line(&one));
        }
        erased.push(one);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&erased)?);
    } else if erased.iter().all(|one| one.rows == 0) {
        println!("The history did not name it.");
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks who sits at the terminal.
fn is_confirmed(account: &Account) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        let told = "nobody can be asked here; say --yes to forget the account for good".to_owned();
        return Err(ConfigurationError::text(told).into());
    }
    eprint!("Everything that the history has of {account} goes for good. Type the account to go on: ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    if std::io::stdin().read_line(&mut answer)? == 0 {
        bail!("no answer came");
    }
    Ok(answer.trim() == account.as_str())
}

fn line(one: &Erased) -> String {
    let rows = format::counted(one.rows, "row", "rows");
    match one.rows {
        0 => format!("{:<16} {rows}", one.table),
        _ => format!("{:<16} {rows}, {} written anew", one.table, format::counted(one.files, "file", "files")),
    }
}

/// Whether `text` has the account in it, however it is written.
fn names(text: &str, account: &str) -> bool {
    text.to_lowercase().contains(&account.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_a_table_reads_as_people_write_it() {
        let one = |rows, files| line(&Erased { table: "events".to_owned(), rows, files });
        assert_eq!(one(1, 2), "events           1 row, 2 files written anew");
        assert_eq!(one(0, 0), "events           0 rows");
        assert!(names("Jo@Example.org asked for it", "jo@example.org") && !names("request 12", "jo@example.org"));
    }
}
