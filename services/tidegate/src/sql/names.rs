//! Names that can be completed, and which of them fit where the cursor is.

use super::commands;
use super::describe::SCHEMA;
use crate::history::cells::text;
use crate::history::client::{AskError, HistoryClient};
use std::collections::{BTreeMap, BTreeSet};

/// Words of SQL that queries are made of.
const KEYWORDS: [&str; 62] = [
    "ALL",
    "AND",
    "ANY",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "CROSS",
    "CURRENT_DATE",
    "DATE",
    "DESC",
    "DISTINCT",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXTRACT",
    "FALSE",
    "FETCH",
    "FILTER",
    "FIRST",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "JOIN",
    "LAST",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "RIGHT",
    "ROWS",
    "SELECT",
    "SHOW",
    "TABLES",
    "THEN",
    "TIMESTAMP",
    "TRUE",
    "UNION",
    "USING",
    "WHEN",
    "WHERE",
    "WITH",
];

/// After these words a table is named.
const BEFORE_TABLES: [&str; 3] = ["FROM", "JOIN", "INTO"];

/// What is there to be named.
#[derive(Debug, Default)]
pub struct Names {
    /// Tables and views, and the columns of each.
    tables: BTreeMap<String, Vec<String>>,
    functions: BTreeSet<String>,
}

impl Names {
    /// Asks the history what there is.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn load(client: &HistoryClient) -> Result<Self, AskError> {
        let columns = "SELECT table_schema, table_name, column_name FROM information_schema.columns";
        let functions = "SELECT DISTINCT routine_name FROM information_schema.routines";
        let mut names = Self::default();
        for batch in client.ask(columns).await? {
            for row in 0..batch.num_rows() {
                let [Ok(Some(schema)), Ok(Some(table)), Ok(Some(column))] = [0, 1, 2].map(|at| text(&batch, at, row))
                else {
                    continue;
                };
                let table = if schema == SCHEMA { table } else { format!("{schema}.{table}") };
                names.tables.entry(table).or_default().push(column);
            }
        }
        for batch in client.ask(functions).await? {
            let routines = (0..batch.num_rows()).filter_map(|row| text(&batch, 0, row).ok().flatten());
            // Operators are among them.
            names.functions.extend(routines.filter(|name| name.chars().all(is_of_word)));
        }
        Ok(names)
    }

    /// What the word that ends at the end of `before` can become: where it begins, and the candidates.
    pub fn complete(&self, before: &str) -> (usize, Vec<String>) {
        let line_begin = before.rfind('\n').map_or(0, |at| at + 1);
        let line = &before[line_begin..];
        if line.trim_start().starts_with('\\') {
            return self.complete_command(before, line);
        }
        let begin = before
            .rfind(|letter| !is_of_word(letter))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let word = &before[begin..];
        if let Some(qualifier) = before[..begin].strip_suffix('.') {
            return (begin, self.columns_of(qualifier, before).filter(|name| starts(name, word)).collect());
        }
        let previous = before[..begin].split_whitespace().next_back().unwrap_or_default().to_uppercase();
        let tables = self.tables.keys().filter(|name| starts(name, word)).cloned();
        if BEFORE_TABLES.contains(&previous.as_str()) {
            return (begin, tables.collect());
        }
        if word.is_empty() {
            return (begin, Vec::new());
        }
        let is_lower = word.chars().all(|letter| !letter.is_uppercase());
        let keywords = KEYWORDS.iter().filter(|name| starts(name, word));
        let keywords = keywords.map(|name| if is_lower { name.to_lowercase() } else { (*name).to_owned() });
        let columns = self.tables.iter().filter(|(table, _)| !table.contains('.')).flat_map(|(_, columns)| columns);
        let columns = columns.filter(|name| starts(name, word)).cloned();
        let functions = self.functions.iter().filter(|name| starts(name, word)).map(|name| format!("{name}("));
        let found: BTreeSet<String> = keywords.chain(tables).chain(columns).chain(functions).collect();
        (begin, found.into_iter().collect())
    }

    fn complete_command(&self, before: &str, line: &str) -> (usize, Vec<String>) {
        let Some((name, argument)) = line.trim_start().split_once(' ') else {
            let name = line.trim_start();
            let commands = commands::NAMES.iter().filter(|command| command.starts_with(name));
            return (before.len() - name.len(), commands.map(|command| (*command).to_owned()).collect());
        };
        let words: Vec<&str> = match name {
            "\\d" => self.tables.keys().map(String::as_str).collect(),
            "\\x" => vec!["on", "off", "auto"],
            "\\timing" => vec!["on", "off"],
            "\\f" => vec!["table", "csv", "json"],
            _ => Vec::new(),
        };
        let argument = argument.trim_start();
        let fitting = words.into_iter().filter(|word| starts(word, argument)).map(str::to_owned);
        (before.len() - argument.len(), fitting.collect())
    }

    /// Columns of a table, or of the tables that the statement names when `text` ends with an alias.
    fn columns_of(&self, text: &str, before: &str) -> impl Iterator<Item = String> {
        let qualifier = text.rsplit(|letter| !is_of_word(letter)).next().unwrap_or_default();
        let found: BTreeSet<String> = match self.tables.get(qualifier) {
            Some(columns) => columns.iter().cloned().collect(),
            None if qualifier == "information_schema" => {
                let inner = self.tables.keys().filter_map(|name| name.strip_prefix("information_schema."));
                inner.map(str::to_owned).collect()
            }
            None => {
                let words: BTreeSet<&str> = before.split(|letter| !is_of_word(letter)).collect();
                let named = self.tables.iter().filter(|(table, _)| words.contains(table.as_str()));
                let named: Vec<&String> = named.flat_map(|(_, columns)| columns).collect();
                if named.is_empty() {
                    self.tables.values().flatten().cloned().collect()
                } else {
                    named.into_iter().cloned().collect()
                }
            }
        };
        found.into_iter()
    }
}

fn starts(name: &str, word: &str) -> bool {
    name.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word))
}

fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let table =
            |name: &str, columns: &[&str]| (name.to_owned(), columns.iter().map(|one| (*one).to_owned()).collect());
        let tables = [
            table("events", &["account", "client_address", "time"]),
            table("locks", &["account", "lock_id"]),
            table("information_schema.tables", &["table_name"]),
        ];
        Names { tables: tables.into(), functions: ["domain_of", "date_trunc"].map(str::to_owned).into() }
    }

    #[track_caller]
    fn check(before: &str, expected: &[&str]) {
        let (begin, found) = names().complete(before);
        assert_eq!(found, expected, "{before}");
        assert!(before.is_char_boundary(begin));
    }

    #[test]
    fn what_fits_is_offered() {
        check("sel", &["select"]);
        check("SEL", &["SELECT"]);
        check("SELECT dom", &["domain_of("]);
        check("SELECT client_", &["client_address"]);
        check("SELECT * FROM ", &["events", "information_schema.tables", "locks"]);
        check("SELECT * FROM ev", &["events"]);
        check("select x from events e join lo", &["locks"]);
        check("SELECT events.t", &["time"]);
        check("SELECT * FROM locks AS l WHERE l.", &["account", "lock_id"]);
        check("SELECT * FROM information_schema.ta", &["tables"]);
        check("SELECT 'ж' ", &[]);
        check("SELECT\nacc", &["account"]);
    }

    #[test]
    fn commands_and_what_they_take_are_offered() {
        check("\\ti", &["\\timing"]);
        check("\\d ev", &["events"]);
        check("\\x o", &["on", "off"]);
        check("\\f c", &["csv"]);
        check("\\timing ", &["on", "off"]);
        let (begin, _) = names().complete("  \\d ev");
        assert_eq!(begin, 5);
    }
}
