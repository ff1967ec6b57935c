//! `tidegate sql`: questions to the history, from the command line, a file, a pipe, or typed into a shell.

mod caret;
mod commands;
mod describe;
mod names;
pub mod print;
mod progress;
mod query;
mod session;
mod shell;
mod statements;

use crate::admin::connect::HistoryArgs;
use crate::history::client::HistoryClient;
use anyhow::{Context as _, bail};
use print::Format;
use query::{Failure, Interrupts};
use session::{Flow, Session};
use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::sync::mpsc;

/// Asks the history.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate sql\n  tidegate sql \"SELECT * FROM locks ORDER BY since DESC LIMIT 5\"\n  tidegate sql --csv \"SELECT account, messages FROM top_senders WHERE date = current_date ORDER BY 2 DESC LIMIT 20\"\n  tidegate sql --parquet november.parquet \"SELECT * FROM events WHERE date BETWEEN '2026-11-01' AND '2026-11-30'\"\n  tidegate sql --file monthly.sql --json > report.json\n\nWithout a statement it is a shell; \\? tells what can be typed there, and \\d what there is to ask for. NULL is shown as - in tables. Exit codes: 2 when a statement is wrong, 1 when it failed or was cancelled."
)]
pub struct SqlArgs {
    /// The statement; several with semicolons between them. Without one: from --file, from standard input, or a shell
    statement: Option<String>,
    /// Statements from this file; - is standard input
    #[arg(long, short, conflicts_with = "statement")]
    file: Option<PathBuf>,
    /// One JSON object a line for each row
    #[arg(long, group = "format")]
    json: bool,
    /// Comma-separated values with a header
    #[arg(long, group = "format")]
    csv: bool,
    /// Write the rows to this Parquet file
    #[arg(long, group = "format", value_name = "FILE")]
    parquet: Option<PathBuf>,
    #[command(flatten)]
    server: HistoryArgs,
}

/// Runs the command.
pub async fn run(args: SqlArgs) -> anyhow::Result<ExitCode> {
    let client = HistoryClient::new(args.server.connection().await?);
    let format = match (args.json, args.csv) {
        (true, _) => Format::Json,
        (_, true) => Format::Csv,
        _ => Format::Table,
    };
    let from_pipe = !std::io::stdin().is_terminal();
    let is_input = args.statement.is_none() && args.file.as_ref().is_none_or(|file| file.as_os_str() == "-");
    let interrupts = Interrupts::catch().context("listening for Ctrl-C")?;
    let mut session = Session::new(client.clone(), interrupts, format, args.parquet.clone());
    if is_input && args.file.is_none() && !from_pipe {
        if args.parquet.is_some() {
            bail!("--parquet needs a statement, a --file, or one on standard input");
        }
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| shell::run(session, client, &runtime))?;
        return Ok(ExitCode::SUCCESS);
    }
    let ended = match (&args.statement, &args.file) {
        (Some(statement), _) => one_file(&mut session, None, statement, &args).await,
        (None, Some(file)) if !is_input => {
            let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
            one_file(&mut session, Some(&file.display().to_string()), &text, &args).await
        }
        _ if args.parquet.is_some() => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("reading from standard input")?;
            one_file(&mut session, None, &text, &args).await
        }
        _ => piped(&mut session).await,
    };
    let Err(failure) = ended else { return Ok(ExitCode::SUCCESS) };
    if !matches!(failure, Failure::Unread) {
        eprintln!("tidegate: {failure}");
    }
    Ok(failure.exit_code())
}

/// Runs statements of which the whole text is there.
async fn one_file(session: &mut Session, name: Option<&str>, text: &str, args: &SqlArgs) -> Result<(), Failure> {
    if args.parquet.is_some() && statements::count(text) != 1 {
        return Err(Failure::Wrong("--parquet takes exactly one statement".to_owned()));
    }
    if let Some(name) = name {
        session.script(name, text).await?;
        return Ok(());
    }
    for line in text.lines() {
        if session.line(line).await? == Flow::Quit {
            return Ok(());
        }
    }
    session.end().await
}

/// Runs statements as they come on standard input.
async fn piped(session: &mut Session) -> Result<(), Failure> {
    let (given, mut lines) = mpsc::channel(1);
    // Reading cannot be interrupted, so it has a thread that the process does not wait for.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if given.blocking_send(line).is_err() {
                break;
            }
        }
    });
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            () = session.interrupted() => return Err(Failure::Cancelled),
        };
        let Some(line) = line else { return session.end().await };
        if session.line(&line?).await? == Flow::Quit {
            return Ok(());
        }
    }
}
