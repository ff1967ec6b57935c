//! What is wrong with a statistics or rules file, said so that it can be put right.

use std::fmt;

/// Longest list of allowed names that a problem prints.
const MAX_ALLOWED_SHOWN: usize = 80;

/// One thing that is wrong with a file. Parsers report all of them at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as its name was given.
    pub file: String,
    /// Where in the file, if one place can be named. It points into the SQL of a statistic or predicate.
    pub position: Option<Position>,
    /// The statistic or rule that it is about, e.g. `rule "many-addresses"`.
    pub subject: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What would be allowed in its place.
    pub allowed: Option<String>,
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line, the first is 1.
    pub line: u64,
    /// Column in characters, the first is 1.
    pub column: u64,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(subject) = &self.subject {
            write!(f, ": {subject}")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(allowed) = &self.allowed {
            write!(f, "; allowed: {allowed}")?;
        }
        Ok(())
    }
}

/// Collects the problems of one file.
#[derive(Debug)]
pub(crate) struct Problems {
    file: String,
    found: Vec<Problem>,
}

/// A problem in the making, before it is known which file and subject it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub position: Option<Position>,
    pub message: String,
    pub allowed: Option<String>,
}

impl Finding {
    pub fn at(position: Option<Position>, message: impl Into<String>) -> Self {
        Self { position, message: message.into(), allowed: None }
    }

    pub fn allowing(self, allowed: impl Into<String>) -> Self {
        Self { allowed: Some(allowed.into()), ..self }
    }
}

impl Problems {
    pub fn new(file: &str) -> Self {
        Self { file: file.to_owned(), found: Vec::new() }
    }

    pub fn add(&mut self, subject: Option<&str>, finding: Finding) {
        let Finding { position, message, allowed } = finding;
        let subject = subject.map(str::to_owned);
        let problem = Problem { file: self.file.clone(), position, subject, message, allowed };
        if !self.found.contains(&problem) {
            self.found.push(problem);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// All of them, in the order of the file.
    pub fn into_sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| problem.position);
        self.found
    }
}

/// A list of names for [`Problem::allowed`].
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let mut text = names.iter().take(MAX_ALLOWED_SHOWN).copied().collect::<Vec<_>>().join(", ");
    if names.len() > MAX_ALLOWED_SHOWN {
        text = format!("{text} and {} more", names.len() - MAX_ALLOWED_SHOWN);
    }
    text
}

/// ` (did you mean \`x\`?)`, when one of `names` is nearly `given`; else nothing.
pub(crate) fn suggestion<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let given = given.to_lowercase();
    let most = 1 + given.chars().count() / 4;
    names
        .into_iter()
        .map(|name| (edits(&given, name), name))
        .filter(|(edits, _)| *edits <= most)
        .min()
        .map_or_else(String::new, |(_, name)| format!(" (did you mean `{name}`?)"))
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        let names = ["messages_1h", "recipients_1h"];
        assert_eq!(suggestion("mesages_1h", names), " (did you mean `messages_1h`?)");
        assert_eq!(suggestion("weather", names), "");
    }

    #[test]
    fn a_problem_reads_as_one_line() {
        let mut problems = Problems::new("rules.toml");
        let position = Some(Position { line: 3, column: 8 });
        problems.add(Some("rule \"a\""), Finding::at(position, "unknown column `x`").allowing("y, z"));
        let text = problems.into_sorted()[0].to_string();
        assert_eq!(text, "rules.toml:3:8: rule \"a\": unknown column `x`; allowed: y, z");
    }
}
