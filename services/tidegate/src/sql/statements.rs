//! Where one SQL statement ends and the next begins, in text that comes line by line.

/// Takes lines and gives statements when they are complete.
#[derive(Debug, Default)]
pub struct Statements {
    text: String,
    within: Within,
    /// Whether there is more in `text` than blanks and comments.
    has_content: bool,
    /// Lines that were taken.
    lines: usize,
    /// The line on which `text` begins, from 1.
    begins: usize,
}

/// A statement without the semicolon at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Its text, beginning with what is no blank.
    pub sql: String,
    /// The line on which it begins, from 1.
    pub line: usize,
}

/// What a place in the text is within.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Within {
    #[default]
    Code,
    /// `'text'`; in `E'text'` a backslash takes the next character's meaning away.
    Text { has_escapes: bool },
    /// `"name"`
    Name,
    /// `-- ...`
    Line,
    /// `/* ... */`, so deep.
    Comment(usize),
    /// `$tag$ ... $tag$`; this is `$tag$`.
    Dollars(String),
}

impl Statements {
    /// Takes a line, and gives the statements that it completes.
    pub fn take(&mut self, line: &str) -> Vec<Statement> {
        self.lines += 1;
        let mut complete = Vec::new();
        let mut rest = line;
        while let Some(letter) = rest.chars().next() {
            if self.within == Within::Code && letter == ';' {
                rest = &rest[1..];
                complete.extend(self.end());
                continue;
            }
            let length = self.step(rest);
            let (taken, after) = rest.split_at(length);
            if self.text.is_empty() {
                self.begins = self.lines;
            }
            // A statement begins with what is no blank, so that places in it are places on its own lines.
            if !self.text.is_empty() || !taken.trim().is_empty() {
                self.text.push_str(taken);
            }
            rest = after;
        }
        if self.within == Within::Line {
            self.within = Within::Code;
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        complete
    }

    /// What is there without a semicolon at its end, if it is more than blanks and comments.
    pub fn end(&mut self) -> Option<Statement> {
        let text = std::mem::take(&mut self.text);
        self.within = Within::Code;
        let statement = Statement { sql: text.trim_end().to_owned(), line: self.begins };
        std::mem::take(&mut self.has_content).then_some(statement)
    }

    /// Whether no statement has begun.
    pub fn is_blank(&self) -> bool {
        !self.has_content && matches!(self.within, Within::Code)
    }

    /// Takes what stands at the beginning of `rest`, and gives its length in octets.
    fn step(&mut self, rest: &str) -> usize {
        let letter_length = rest.chars().next().map_or(0, char::len_utf8);
        match &self.within {
            Within::Code => return self.step_in_code(rest, letter_length),
            Within::Text { has_escapes } => {
                if *has_escapes && rest.starts_with('\\') {
                    return letter_length + rest.chars().nth(1).map_or(0, char::len_utf8);
                }
                if rest.starts_with("''") {
                    return 2;
                }
                if rest.starts_with('\'') {
                    self.within = Within::Code;
                }
            }
            Within::Name => {
                if rest.starts_with("\"\"") {
                    return 2;
                }
                if rest.starts_with('"') {
                    self.within = Within::Code;
                }
            }
            Within::Line => return rest.len(),
            Within::Comment(depth) => {
                let depth = *depth;
                if rest.starts_with("/*") {
                    self.within = Within::Comment(depth + 1);
                    return 2;
                }
                if rest.starts_with("*/") {
                    self.within = if depth == 1 { Within::Code } else { Within::Comment(depth - 1) };
                    return 2;
                }
            }
            Within::Dollars(tag) => {
                let length = tag.len();
                if rest.starts_with(tag.as_str()) {
                    self.within = Within::Code;
                    return length;
                }
            }
        }
        letter_length
    }

    fn step_in_code(&mut self, rest: &str, letter_length: usize) -> usize {
        if rest.starts_with("--") {
            self.within = Within::Line;
            return 2;
        }
        if rest.starts_with("/*") {
            self.within = Within::Comment(1);
            return 2;
        }
        if rest.starts_with(char::is_whitespace) {
            return letter_length;
        }
        self.has_content = true;
        if rest.starts_with('\'') {
            let mut before = self.text.chars().rev();
            let is_escaping = before.next().is_some_and(|letter| letter.eq_ignore_ascii_case(&'e'))
                && !before.next().is_some_and(is_of_word);
            self.within = Within::Text { has_escapes: is_escaping };
        } else if rest.starts_with('"') {
            self.within = Within::Name;
        } else if let Some(tag) = dollar_tag(rest).filter(|_| !self.text.ends_with(is_of_word)) {
            self.within = Within::Dollars(tag.to_owned());
            return tag.len();
        }
        letter_length
    }
}

/// Whether `text` is a whole line of the shell: a command of its own, blanks, or statements that are complete.
pub fn is_complete(text: &str) -> bool {
    if text.trim_start().starts_with('\\') {
        return true;
    }
    let mut statements = Statements::default();
    for line in text.lines() {
        statements.take(line);
    }
    statements.is_blank()
}

/// How many statements there are in `text`.
pub fn count(text: &str) -> usize {
    let mut statements = Statements::default();
    let complete: usize = text.lines().map(|line| statements.take(line).len()).sum();
    complete + usize::from(statements.end().is_some())
}

/// `$tag$` or `$$` at the beginning of `text`.
fn dollar_tag(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('$')?;
    let end = inner.find('$')?;
    let tag = &inner[..end];
    let is_tag = tag.chars().all(is_of_word) && !tag.starts_with(|letter: char| letter.is_ascii_digit());
    is_tag.then(|| &text[..end + 2])
}

fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All statements in `text`, and what is left without a semicolon.
    fn split(text: &str) -> (Vec<String>, Option<String>) {
        let mut statements = Statements::default();
        let complete = text.lines().flat_map(|line| statements.take(line)).map(|statement| statement.sql).collect();
        (complete, statements.end().map(|statement| statement.sql))
    }

    #[test]
    fn semicolons_separate_but_not_in_texts_names_and_comments() {
        for whole in [
            "SELECT ';', 'it''s; ', \";\"\"\"",
            "SELECT 1 -- not; here\n+ 1",
            "SELECT /* ; /* nested; */ ; */ 1",
            "SELECT $$a;b$$, $x$ ; $$ ; $x$",
            r"SELECT E'it\'s; ' || 'a\'",
            "SELECT 'two\nlines;\n'",
            "SELECT 'ж;' AS \"ж;\"",
        ] {
            assert_eq!(split(&format!("{whole};")), (vec![whole.to_owned()], None), "{whole}");
            assert_eq!(split(whole), (vec![], Some(whole.to_owned())), "{whole}");
        }
        assert_eq!(
            split("SELECT 1; ;; SELECT 2 ; SELECT 3"),
            (vec!["SELECT 1".into(), "SELECT 2".into()], Some("SELECT 3".into()))
        );
        assert_eq!(split("  ; -- nothing\n /* at all */ "), (vec![], None));
        // A price is no tag, and neither is a parameter.
        assert_eq!(split("SELECT $1, a$b$; SELECT $2"), (vec!["SELECT $1, a$b$".into()], Some("SELECT $2".into())));
    }

    #[test]
    fn a_statement_tells_where_it_begins() {
        let mut statements = Statements::default();
        let mut told = Vec::new();
        for line in ["", "  SELECT 1;", "-- about the next", "SELECT", "  2; SELECT 3"] {
            told.extend(statements.take(line));
        }
        told.extend(statements.end());
        let told: Vec<(usize, &str)> = told.iter().map(|one| (one.line, one.sql.as_str())).collect();
        assert_eq!(told, [(2, "SELECT 1"), (3, "-- about the next\nSELECT\n  2"), (5, "SELECT 3")]);
    }

    #[test]
    fn a_line_of_the_shell_is_complete_with_its_semicolon() {
        for complete in ["", "  ", "\\d events", "SELECT 1;", "SELECT\n1;", "-- only a comment"] {
            assert!(is_complete(complete), "{complete}");
        }
        for open in ["SELECT 1", "SELECT ';", "SELECT 1; SELECT 2", "/* begun"] {
            assert!(!is_complete(open), "{open}");
        }
    }
}
