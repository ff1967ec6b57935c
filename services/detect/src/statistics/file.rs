//! The statistics file: entries `name = expression;` with comments.

use super::{MAX_STATISTICS, StatisticInfo};
use crate::event::event_columns;
use crate::problem::{Finding, Position, Problems, list};
use crate::sql::check::{Scope, check, normal};
use crate::sql::plan::{AGGREGATES, FUNCTIONS};
use crate::sql::text::{self, Origin};
use crate::window::WINDOWS;
use datafusion::sql::sqlparser::ast::{Expr, Ident};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace, Word};
use std::collections::BTreeSet;

/// Longest name of a statistic.
const MAX_NAME: usize = 40;
/// Largest file.
const MAX_OCTETS: usize = 256 * 1024;

/// One entry that has passed all checks of names.
pub(super) struct Entry {
    pub info: StatisticInfo,
    pub subject: String,
    pub position: Option<Position>,
    pub expr: Expr,
}

/// Reads the entries of a file. What is wrong goes to `problems`, and reading goes on after the next `;`.
pub(super) fn read(text: &str, problems: &mut Problems) -> Vec<Entry> {
    if text.len() > MAX_OCTETS {
        let message = format!("the file has {} octets", text.len());
        problems.add(None, Finding::at(None, message).allowing(format!("{MAX_OCTETS}")));
        return Vec::new();
    }
    let tokens = match text::tokens(text, Origin::START) {
        Ok(tokens) => tokens,
        Err(finding) => {
            problems.add(None, finding);
            return Vec::new();
        }
    };
    let mut entries: Vec<Entry> = Vec::new();
    for part in tokens.split(|token| token.token == Token::SemiColon) {
        let Some(begin) = part.iter().position(|token| !matches!(token.token, Token::Whitespace(_))) else { continue };
        let (above, entry) = part.split_at(begin);
        if let Some(entry) = read_entry(above, entry, &entries, problems) {
            entries.push(entry);
        }
    }
    let last = tokens.iter().rev().find(|token| !matches!(token.token, Token::Whitespace(_)));
    if let Some(last) = last.filter(|token| token.token != Token::SemiColon) {
        let place = Origin::START.place(last.span.end);
        problems.add(None, Finding::at(place, "the last statistic does not end").allowing("`;` after each statistic"));
    }
    entries
}

/// The names that entries begin with, each once, whatever stands behind them.
pub(super) fn names(text: &str) -> BTreeSet<String> {
    let tokens = text::tokens(text, Origin::START).unwrap_or_default();
    let parts = tokens.split(|token| token.token == Token::SemiColon);
    let firsts = parts.filter_map(|part| part.iter().find(|token| !matches!(token.token, Token::Whitespace(_))));
    let words = firsts.filter_map(|token| match &token.token {
        Token::Word(word) => Some(entry_name(word)),
        _ => None,
    });
    words.filter(|name| is_name(name)).take(MAX_STATISTICS).collect()
}

fn entry_name(word: &Word) -> String {
    let mut ident = Ident::new(word.value.clone());
    ident.quote_style = word.quote_style;
    normal(&ident)
}

fn read_entry(
    above: &[TokenWithSpan],
    tokens: &[TokenWithSpan],
    before: &[Entry],
    problems: &mut Problems,
) -> Option<Entry> {
    let place = tokens.first().and_then(|token| Origin::START.place(token.span.start));
    let mut meaningful = tokens.iter().enumerate().filter(|(_, token)| !matches!(token.token, Token::Whitespace(_)));
    let (name, equals) = (meaningful.next(), meaningful.next());
    let (Some((_, TokenWithSpan { token: Token::Word(word), .. })), Some((equals, sign))) = (name, equals) else {
        problems.add(None, Finding::at(place, "a statistic was expected").allowing("name = expression;"));
        return None;
    };
    if sign.token != Token::Eq {
        let place = Origin::START.place(sign.span.start);
        let message = format!("`=` was expected after `{}`, not `{}`", word.value, sign.token);
        problems.add(None, Finding::at(place, message).allowing("name = expression;"));
        return None;
    }
    let name = entry_name(word);
    let subject = format!("statistic `{name}`");
    let known = problems.len();
    if !is_name(&name) {
        let allowed = format!("a letter, then letters, digits and _, at most {MAX_NAME}, not ending like a window");
        problems.add(Some(&subject), Finding::at(place, "this is not a name for a statistic").allowing(allowed));
    }
    if before.iter().any(|entry| entry.info.name == name) {
        problems.add(Some(&subject), Finding::at(place, "there is a statistic of this name already"));
    }
    let body = &tokens[equals + 1..];
    let position = body
        .iter()
        .find(|token| !matches!(token.token, Token::Whitespace(_)))
        .and_then(|token| Origin::START.place(token.span.start))
        .or(place);
    let expr = match text::parse(body, Origin::START) {
        Ok(expr) => expr,
        Err(finding) => {
            let position = finding.position.or(position);
            problems.add(Some(&subject), Finding { position, ..finding });
            return None;
        }
    };
    let columns = event_columns();
    let scope = Scope {
        columns: columns.iter().map(|column| column.name).collect(),
        allowed_columns: list(columns.iter().map(|column| column.name)),
        aggregates: &AGGREGATES,
        functions: &FUNCTIONS,
    };
    for finding in check(&expr, &scope, Origin::START) {
        // Some expressions have no place of their own.
        let position = finding.position.or(position);
        problems.add(Some(&subject), Finding { position, ..finding });
    }
    let info = StatisticInfo { name, sql: written(body), description: description(above) };
    (problems.len() == known).then_some(Entry { info, subject, position, expr })
}

fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !WINDOWS.iter().any(|window| name.ends_with(&format!("_{}", window.name())))
}

/// The expression on one line, without comments.
pub(crate) fn written(tokens: &[TokenWithSpan]) -> String {
    let mut text = String::new();
    for token in tokens {
        match &token.token {
            Token::Whitespace(_) if text.is_empty() || text.ends_with(' ') => {}
            Token::Whitespace(_) => text.push(' '),
            other => text.push_str(&other.to_string()),
        }
    }
    text.trim_end().to_owned()
}

/// The comment that stands right above an entry: an empty line cuts it off.
fn description(above: &[TokenWithSpan]) -> String {
    let mut lines: Vec<&str> = Vec::new();
    let mut newlines = 0;
    for token in above {
        match &token.token {
            Token::Whitespace(Whitespace::SingleLineComment { comment, .. }) => {
                lines.push(comment.trim());
                newlines = usize::from(comment.ends_with('\n'));
            }
            Token::Whitespace(Whitespace::Newline) => {
                newlines += 1;
                if newlines > 1 {
                    lines.clear();
                }
            }
            _ => {}
        }
    }
    lines.join(" ")
}
