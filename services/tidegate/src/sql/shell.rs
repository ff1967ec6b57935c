//! The line-editing shell.

use super::names::Names;
use super::query::Failure;
use super::session::{Flow, Session};
use super::statements::is_complete;
use crate::history::client::HistoryClient;
use anyhow::Context as _;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::config::CompletionType;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Context, Editor, Helper};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::runtime::Handle;

/// Statements that are remembered.
const MAX_REMEMBERED: usize = 1_000;
const PROMPT: &str = "tidegate> ";

/// Reads statements from the terminal until the user leaves.
///
/// # Errors
/// When the terminal cannot be used.
pub fn run(mut session: Session, client: HistoryClient, runtime: &Handle) -> anyhow::Result<()> {
    let names: Arc<OnceLock<Names>> = Arc::default();
    let loaded = Arc::clone(&names);
    // Completion is there as soon as the history has told the names; nobody waits for it.
    runtime.spawn(async move {
        if let Ok(names) = Names::load(&client).await {
            let _ = loaded.set(names);
        }
    });
    let config = Config::builder()
        .max_history_size(MAX_REMEMBERED)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .build();
    let mut editor: Editor<Typist, FileHistory> = Editor::with_config(config)?;
    editor.set_helper(Some(Typist { names, files: FilenameCompleter::new() }));
    let remembered = remembered_in(|name| std::env::var(name).ok());
    if let Some(file) = &remembered {
        // There is none at first.
        let _ = editor.load_history(file);
    }
    println!("Questions to the history. \\? tells what can be typed, \\q leaves.");
    loop {
        let text = match editor.readline(PROMPT) {
            Ok(text) => text,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error).context("reading from the terminal"),
        };
        if !text.trim().is_empty() {
            editor.add_history_entry(text.as_str())?;
            if let Some(file) = &remembered {
                remember(&mut editor, file);
            }
        }
        match runtime.block_on(take(&mut session, &text)) {
            Ok(Flow::Go) => {}
            Ok(Flow::Quit) => break,
            Err(failure) => {
                session.forget();
                eprintln!("{failure}");
            }
        }
    }
    Ok(())
}

async fn take(session: &mut Session, text: &str) -> Result<Flow, Failure> {
    for line in text.lines() {
        if session.line(line).await? == Flow::Quit {
            return Ok(Flow::Quit);
        }
    }
    Ok(Flow::Go)
}

/// Writes what was typed to the file, which only its user can read. Where that is not possible there is none.
fn remember(editor: &mut Editor<Typist, FileHistory>, file: &Path) {
    if let Some(folder) = file.parent() {
        let _ = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    }
    if let Err(error) = editor.append_history(file) {
        tracing::debug!("statements are not remembered in {}: {error}", file.display());
    }
}

/// The file where statements are remembered; none when there is no home.
fn remembered_in(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| Path::new(value).is_absolute()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("tidegate/sql_history"))
}

/// What helps who types.
struct Typist {
    names: Arc<OnceLock<Names>>,
    files: FilenameCompleter,
}

impl Completer for Typist {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, context: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = &line[..position];
        if ["\\i ", "\\o "].iter().any(|command| before.trim_start().starts_with(command)) {
            return self.files.complete(line, position, context);
        }
        let Some(names) = self.names.get() else { return Ok((position, Vec::new())) };
        let (begin, found) = names.complete(before);
        let pairs = found.into_iter().map(|name| Pair { display: name.clone(), replacement: name });
        Ok((begin, pairs.collect()))
    }
}

impl Validator for Typist {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let is_complete = is_complete(context.input());
        Ok(if is_complete { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for Typist {
    type Hint = String;
}

impl Highlighter for Typist {}
impl Helper for Typist {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn statements_are_remembered_where_the_users_state_is() {
        let file = |home: Option<&str>, state: Option<&str>| {
            remembered_in(|name| if name == "HOME" { home } else { state }.map(str::to_owned))
        };
        assert_eq!(file(Some("/home/jo"), None), Some("/home/jo/.local/state/tidegate/sql_history".into()));
        assert_eq!(file(Some("/home/jo"), Some("/state")), Some("/state/tidegate/sql_history".into()));
        assert_eq!(file(Some("/home/jo"), Some("relative")), Some("/home/jo/.local/state/tidegate/sql_history".into()));
        assert_eq!(file(None, None), None);
    }

    #[test]
    fn only_their_user_can_read_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tidegate/sql_history");
        let mut editor: Editor<Typist, FileHistory> = Editor::with_config(Config::default()).unwrap();
        editor.add_history_entry("SELECT 'jo@example.org';").unwrap();
        remember(&mut editor, &file);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        assert!(std::fs::read_to_string(&file).unwrap().contains("jo@example.org"));
    }
}
