//! One statement: planned, run, printed, and cancelled when the user says so.

use super::caret::explain;
use super::print::{Expanded, Format, ParquetFile, Printer, plain, printer};
use super::progress::Progress;
use crate::history::client::{AskError, HistoryClient, Planned};
use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the server has to answer that it cancels.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the rows go.
pub enum Target<'a> {
    /// Printed like this.
    Print {
        /// The format.
        format: Format,
        /// Each row as a list or not, of a table.
        expanded: Expanded,
        /// Columns of the terminal, if it is one.
        width: Option<u16>,
        /// To where.
        out: &'a mut dyn Write,
    },
    /// To a Parquet file.
    Parquet(&'a Path),
}

/// What came of a statement.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// Rows of its answer.
    pub rows: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// Why a statement, or a command of the shell, has not done what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It is wrong: in these words.
    #[error("{0}")]
    Wrong(String),
    /// The user cancelled it.
    #[error("the query was cancelled")]
    Cancelled,
    /// Nobody takes the answer any more: the program behind a pipe has ended.
    #[error("nobody reads the answer")]
    Unread,
    /// Something failed.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

/// Ctrl-C.
pub struct Interrupts(Signal);

impl Failure {
    /// 2 for what cannot be, 1 for what failed.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Wrong(_) => ExitCode::from(2),
            Self::Unread => ExitCode::SUCCESS,
            Self::Cancelled | Self::Failed(_) => ExitCode::FAILURE,
        }
    }

    /// What the server says about `sql`.
    pub fn of(error: AskError, sql: &str) -> Self {
        match error {
            AskError::Wrong(told) => Self::Wrong(shown(&explain(sql, &told))),
            other => Self::Failed(other.into()),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        if is_unread(&error) { Self::Unread } else { Self::Failed(error) }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::from(anyhow::Error::new(error))
    }
}

impl Interrupts {
    /// From now on Ctrl-C does not end this process any more.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn catch() -> std::io::Result<Self> {
        signal(SignalKind::interrupt()).map(Self)
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        // It ends with the runtime only.
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Forgets those that came.
    pub async fn forget(&mut self) {
        let _ = tokio::time::timeout(Duration::ZERO, self.0.recv()).await;
    }
}

/// Runs `sql` and gives its rows to `target`.
///
/// # Errors
/// When it is wrong, fails, or is cancelled.
pub async fn query(
    client: &HistoryClient,
    interrupts: &mut Interrupts,
    sql: &str,
    target: Target<'_>,
) -> Result<Done, Failure> {
    let mut watch = Watch { client, interrupts, progress: Progress::begin() };
    let failed = |error| Failure::of(error, sql);
    // Nothing runs there until it is planned.
    let planned = watch.until_done(client.plan(sql), None).await?.map_err(failed)?;
    let mut rows = watch.until_done(client.run(&planned), Some(&planned)).await?.map_err(failed)?;
    let mut printer: Box<dyn Printer + '_> = match target {
        Target::Print { format, expanded, width, out } => printer(format, expanded, width, &planned.schema, out)?,
        Target::Parquet(path) => Box::new(ParquetFile::create(path, &planned.schema)?),
    };
    while let Some(batch) = watch.until_done(rows.next(), Some(&planned)).await?.map_err(failed)? {
        watch.progress.rows += batch.num_rows() as u64;
        watch.progress.clear();
        if let Err(error) = printer.rows(&batch) {
            watch.cancel(&planned).await;
            return Err(error.into());
        }
    }
    watch.progress.clear();
    printer.end()?;
    Ok(Done { rows: watch.progress.rows, elapsed: watch.progress.elapsed() })
}

/// Waits for the server, tells how far it is, and listens for Ctrl-C.
struct Watch<'a> {
    client: &'a HistoryClient,
    interrupts: &'a mut Interrupts,
    progress: Progress,
}

impl Watch<'_> {
    /// What `work` gives. When it is interrupted, what runs is cancelled on the server before `work` is given up.
    async fn until_done<T>(&mut self, work: impl Future<Output = T>, runs: Option<&Planned>) -> Result<T, Failure> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                () = self.interrupts.next() => break,
                done = &mut work => return Ok(done),
                () = self.progress.tick() => {}
            }
        }
        self.progress.clear();
        if let Some(planned) = runs {
            self.cancel(planned).await;
        }
        Err(Failure::Cancelled)
    }

    /// Cancels on the server. A server that does not answer, or another Ctrl-C, ends it likewise: a query ends when
    /// nobody takes its rows any more.
    async fn cancel(&mut self, planned: &Planned) {
        tokio::select! {
            _ = tokio::time::timeout(CANCEL_TIMEOUT, self.client.cancel(planned)) => {}
            () = self.interrupts.next() => {}
        }
    }
}

/// The lines of a message, without what would speak to the terminal.
fn shown(message: &str) -> String {
    message.lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// Whether it is that a pipe's reader has gone. Writers put the error of the system at different depths, some only in
/// words.
fn is_unread(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let of_system = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        of_system == Some(std::io::ErrorKind::BrokenPipe) || cause.to_string().contains("Broken pipe")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_is_no_failure() {
        let broken = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(matches!(Failure::from(broken()), Failure::Unread));
        assert!(matches!(Failure::from(anyhow::Error::new(broken()).context("writing")), Failure::Unread));
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert!(matches!(Failure::from(full), Failure::Failed(_)));
    }

    #[test]
    fn what_is_wrong_is_shown_in_its_lines() {
        let failure = Failure::of(AskError::Wrong("odd \u{1b}[1m at Line: 1, Column: 8".to_owned()), "SELECT x");
        assert_eq!(failure.to_string(), "odd \\u{1b}[1m\nLINE 1: SELECT x\n               ^");
        assert_eq!(failure.exit_code(), ExitCode::from(2));
        assert_eq!(Failure::Cancelled.exit_code(), ExitCode::FAILURE);
    }
}
