//! What a shell, a script and a statement on the command line have in common: lines go in, statements run.

use super::commands::{self, ShellCommand};
use super::describe;
use super::print::{Expanded, Format};
use super::progress::span;
use super::query::{Failure, Interrupts, Target, query};
use super::statements::{Statement, Statements};
use crate::history::client::HistoryClient;
use anyhow::Context as _;
use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

/// Files that can be within one another with `\i`.
const MAX_DEPTH: usize = 16;

/// Runs statements one after the other.
pub struct Session {
    client: HistoryClient,
    interrupts: Interrupts,
    statements: Statements,
    format: Format,
    expanded: Expanded,
    timing: bool,
    parquet: Option<PathBuf>,
    out: Out,
    /// Files that are being read.
    sources: Vec<String>,
}

/// Where answers go.
enum Out {
    Standard(BufWriter<std::io::Stdout>),
    File(BufWriter<File>),
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// With the next line.
    Go,
    /// No more.
    Quit,
}

impl Session {
    /// One whose answers go to standard output in `format`, or of one statement to the file `parquet`.
    pub fn new(client: HistoryClient, interrupts: Interrupts, format: Format, parquet: Option<PathBuf>) -> Self {
        Self {
            client,
            interrupts,
            statements: Statements::default(),
            format,
            expanded: Expanded::default(),
            timing: false,
            parquet,
            out: Out::Standard(BufWriter::new(std::io::stdout())),
            sources: Vec::new(),
        }
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// When a statement that it completes is wrong or fails: further ones of the same line are not run then.
    pub async fn line(&mut self, line: &str) -> Result<Flow, Failure> {
        if self.statements.is_blank() && line.trim_start().starts_with('\\') {
            let command = commands::parse(line).map_err(Failure::Wrong)?;
            return self.command(command).await;
        }
        for statement in self.statements.take(line) {
            self.run(&statement).await?;
        }
        Ok(Flow::Go)
    }

    /// Runs what is there without a semicolon.
    ///
    /// # Errors
    /// When it is wrong or fails.
    pub async fn end(&mut self) -> Result<(), Failure> {
        match self.statements.end() {
            Some(statement) => self.run(&statement).await,
            None => Ok(()),
        }
    }

    /// Forgets what was begun.
    pub fn forget(&mut self) {
        self.statements = Statements::default();
    }

    /// Runs each statement of `text`, as if it were a file called `name`.
    ///
    /// # Errors
    /// When one is wrong or fails: those after it are not run.
    pub async fn script(&mut self, name: &str, text: &str) -> Result<Flow, Failure> {
        if self.sources.len() == MAX_DEPTH {
            return Err(Failure::Wrong(format!("{name}: {MAX_DEPTH} files are within one another already")));
        }
        let outer = std::mem::take(&mut self.statements);
        self.sources.push(name.to_owned());
        let result = self.lines(text).await;
        self.sources.pop();
        self.statements = outer;
        result
    }

    /// Waits for Ctrl-C.
    pub async fn interrupted(&mut self) {
        self.interrupts.next().await;
    }

    async fn lines(&mut self, text: &str) -> Result<Flow, Failure> {
        for line in text.lines() {
            // A command can read another file.
            if Box::pin(self.line(line)).await? == Flow::Quit {
                return Ok(Flow::Quit);
            }
        }
        self.end().await?;
        Ok(Flow::Go)
    }

    async fn run(&mut self, statement: &Statement) -> Result<(), Failure> {
        let Self { client, interrupts, out, parquet, .. } = self;
        let width = out.width();
        let target = match parquet {
            Some(path) => Target::Parquet(path),
            None => Target::Print { format: self.format, expanded: self.expanded, width, out: out.writer() },
        };
        // A Ctrl-C of before was meant for something else.
        interrupts.forget().await;
        let done = query(client, interrupts, &statement.sql, target).await;
        out.writer().flush()?;
        let done = done.map_err(|failure| placed(failure, self.sources.last(), statement.line))?;
        if let Some(path) = &self.parquet {
            eprintln!("{}: {} rows in {}", path.display(), done.rows, span(done.elapsed));
        }
        if self.timing {
            eprintln!("Time: {}", span(done.elapsed));
        }
        Ok(())
    }

    async fn command(&mut self, command: ShellCommand) -> Result<Flow, Failure> {
        match command {
            ShellCommand::Quit => return Ok(Flow::Quit),
            ShellCommand::Help => self.say(commands::HELP)?,
            ShellCommand::List => {
                let text = describe::tables(&self.client, self.out.width()).await?;
                self.say(&text)?;
            }
            ShellCommand::Describe(name) => {
                let text = describe::columns(&self.client, &name, self.out.width()).await?;
                self.say(&text)?;
            }
            ShellCommand::Timing(timing) => {
                self.timing = timing.unwrap_or(!self.timing);
                self.say(if self.timing { "Times are told." } else { "Times are not told." })?;
            }
            ShellCommand::Expanded(expanded) => {
                let other = if self.expanded == Expanded::On { Expanded::Auto } else { Expanded::On };
                self.expanded = expanded.unwrap_or(other);
                self.say(match self.expanded {
                    Expanded::On => "Each row is a list.",
                    Expanded::Off => "Rows are lines of a table.",
                    Expanded::Auto => "Rows are lines of a table; lists when they do not fit.",
                })?;
            }
            ShellCommand::Format(format) => self.format = format,
            ShellCommand::Output(path) => self.out = Out::to(path.as_deref())?,
            ShellCommand::Include(path) => {
                let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
                return self.script(&path.display().to_string(), &text).await;
            }
        }
        Ok(Flow::Go)
    }

    fn say(&mut self, text: &str) -> Result<(), Failure> {
        let out = self.out.writer();
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    }
}

impl Out {
    fn to(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::Standard(BufWriter::new(std::io::stdout()))) };
        let file = File::create(path).with_context(|| format!("writing to {}", path.display()))?;
        Ok(Self::File(BufWriter::new(file)))
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Standard(out) => out,
            Self::File(out) => out,
        }
    }

    /// Columns of the terminal; none for what is no terminal.
    fn width(&self) -> Option<u16> {
        match self {
            Self::Standard(_) if std::io::stdout().is_terminal() => comfy_table::Table::new().width(),
            _ => None,
        }
    }
}

/// The failure with the place of its statement, when it is of a file.
fn placed(failure: Failure, source: Option<&String>, line: usize) -> Failure {
    match (failure, source) {
        (Failure::Wrong(told), Some(source)) => Failure::Wrong(format!("{source}, statement of line {line}: {told}")),
        (Failure::Failed(error), Some(source)) => {
            Failure::Failed(error.context(format!("{source}, statement of line {line}")))
        }
        (failure, _) => failure,
    }
}
