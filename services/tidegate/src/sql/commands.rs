//! Commands of the shell itself: what begins with a backslash.

use super::print::{Expanded, Format};
use std::path::PathBuf;

/// A command of the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShellCommand {
    /// `\d`: the tables and views.
    List,
    /// `\d NAME`: the columns of one.
    Describe(String),
    /// `\timing`: tell how long statements take; none: the other way than now.
    Timing(Option<bool>),
    /// `\x`: each row as a list of its own; none: the other way than now.
    Expanded(Option<Expanded>),
    /// `\f FORMAT`
    Format(Format),
    /// `\o FILE`: where answers go; none: back to the terminal.
    Output(Option<PathBuf>),
    /// `\i FILE`: statements from there.
    Include(PathBuf),
    /// `\?`
    Help,
    /// `\q`
    Quit,
}

/// What `\?` says.
pub const HELP: &str = "\
A statement ends with a semicolon. Tab completes keywords, tables, columns and functions.
  \\d                 tables and views, and what they tell
  \\d NAME            its columns, their types and what they mean
  \\x [on|off|auto]   each row as a list; auto: when it is too wide for the terminal
  \\f FORMAT          table, csv or json
  \\timing [on|off]   how long statements take
  \\o [FILE]          answers go to this file; without one, to the terminal again
  \\i FILE            statements from this file
  \\q                 leave (also Ctrl-D)
Ctrl-C drops what is typed, and cancels what runs.";

/// The names of all commands, for completion.
pub const NAMES: [&str; 8] = ["\\d", "\\x", "\\f", "\\timing", "\\o", "\\i", "\\?", "\\q"];

/// Reads a line that begins with a backslash.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse(line: &str) -> Result<ShellCommand, String> {
    let line = line.trim().trim_end_matches(';').trim_end();
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = unquoted(argument.trim());
    let given = (!argument.is_empty()).then_some(argument);
    let needs = |what: &str| format!("{name} needs {what}; \\? tells more");
    let command = match name {
        "\\d" => given.map_or(ShellCommand::List, |table| ShellCommand::Describe(table.to_owned())),
        "\\timing" => ShellCommand::Timing(given.map(|text| on_or_off(name, text)).transpose()?),
        "\\x" => ShellCommand::Expanded(match given {
            None => None,
            Some("auto") => Some(Expanded::Auto),
            Some(text) => Some(if on_or_off(name, text)? { Expanded::On } else { Expanded::Off }),
        }),
        "\\f" => ShellCommand::Format(match given {
            Some("table") => Format::Table,
            Some("csv") => Format::Csv,
            Some("json") => Format::Json,
            Some(_) | None => return Err(needs("table, csv or json")),
        }),
        "\\o" => ShellCommand::Output(given.map(PathBuf::from)),
        "\\i" => ShellCommand::Include(given.ok_or_else(|| needs("a file"))?.into()),
        "\\?" | "\\h" | "\\help" => ShellCommand::Help,
        "\\q" | "\\quit" => ShellCommand::Quit,
        other => return Err(format!("there is no command {other}; \\? tells those that there are")),
    };
    Ok(command)
}

fn on_or_off(name: &str, text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("{name} takes on or off, and not {other:?}")),
    }
}

fn unquoted(text: &str) -> &str {
    let inner = |quote| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    inner('\'').or_else(|| inner('"')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        assert_eq!(parse("\\d"), Ok(ShellCommand::List));
        assert_eq!(parse(" \\d  events; "), Ok(ShellCommand::Describe("events".to_owned())));
        assert_eq!(parse("\\x"), Ok(ShellCommand::Expanded(None)));
        assert_eq!(parse("\\x auto"), Ok(ShellCommand::Expanded(Some(Expanded::Auto))));
        assert_eq!(parse("\\timing off"), Ok(ShellCommand::Timing(Some(false))));
        assert_eq!(parse("\\o 'my file.csv'"), Ok(ShellCommand::Output(Some("my file.csv".into()))));
        assert_eq!(parse("\\o"), Ok(ShellCommand::Output(None)));
        assert_eq!(parse("\\f csv"), Ok(ShellCommand::Format(Format::Csv)));
        assert_eq!(parse("\\q"), Ok(ShellCommand::Quit));
        for name in NAMES {
            let known = parse(name);
            assert!(!known.is_err_and(|error| error.contains("no command")), "{name}");
            assert!(HELP.contains(name) || name == "\\?", "{name}");
        }
    }

    #[test]
    fn what_is_wrong_with_one_is_told() {
        for (line, told) in
            [("\\i", "needs a file"), ("\\timing maybe", "on or off"), ("\\dance", "no command"), ("\\f", "csv")]
        {
            let error = parse(line).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
