//! TOML values with their places, and typed access that reports what is wrong instead of stopping.

use crate::problem::{Finding, Position, Problems, list, suggestion};
use std::ops::{Range, RangeInclusive};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One table of a TOML document.
pub(super) struct Table<'a> {
    pub text: &'a str,
    pub entries: &'a DeTable<'a>,
    pub span: Range<usize>,
    pub subject: Option<String>,
}

/// The place of a byte in a text.
pub(super) fn place(text: &str, offset: usize) -> Position {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position { line: before.matches('\n').count() as u64 + 1, column: before[line_start..].chars().count() as u64 + 1 }
}

impl<'a> Table<'a> {
    /// Reports every key that is not in `known`.
    pub fn only(&self, known: &[&str], problems: &mut Problems) {
        for key in self.entries.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref();
            let message = format!("unknown key `{name}`{}", suggestion(name, known.iter().copied()));
            let position = Some(place(self.text, key.span().start));
            self.report(problems, Finding::at(position, message).allowing(list(known.iter().copied())));
        }
    }

    /// A text.
    pub fn text(&self, key: &str, problems: &mut Problems) -> Option<&'a str> {
        self.typed(key, "a text", problems, |value| value.as_str())
    }

    /// A text that has to be there.
    pub fn required(&self, key: &str, problems: &mut Problems) -> Option<&'a str> {
        if self.value(key).is_none() {
            let message = format!("`{key}` is missing");
            self.report(problems, Finding::at(Some(place(self.text, self.span.start)), message).allowing("a text"));
        }
        self.text(key, problems)
    }

    /// A truth value.
    pub fn bool(&self, key: &str, problems: &mut Problems) -> Option<bool> {
        self.typed(key, "true or false", problems, DeValue::as_bool)
    }

    /// A whole number within bounds.
    pub fn whole(&self, key: &str, bounds: RangeInclusive<u32>, problems: &mut Problems) -> Option<u32> {
        let allowed = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let number = self.typed(key, &allowed, problems, |value| value.as_integer())?;
        let read = number.as_str().parse().ok().filter(|read| number.radix() == 10 && bounds.contains(read));
        if read.is_none() {
            let message = format!("`{key}` is {}", number.as_str());
            self.report(problems, Finding::at(Some(self.place_of(key)), message).allowing(allowed));
        }
        read
    }

    /// A list of texts.
    pub fn texts(&self, key: &str, problems: &mut Problems) -> Option<Vec<&'a str>> {
        self.typed(key, "a list of texts", problems, |value| {
            value.as_array()?.iter().map(|item| item.get_ref().as_str()).collect()
        })
    }

    /// A table.
    pub fn table(&self, key: &str, problems: &mut Problems) -> Option<Self> {
        let entries = self.typed(key, "a table", problems, |value| value.as_table())?;
        let span = self.value(key).map_or(self.span.clone(), Spanned::span);
        Some(Self { text: self.text, entries, span, subject: self.subject.clone() })
    }

    /// A list of tables, written as `form`.
    pub fn tables(&self, key: &str, form: &str, problems: &mut Problems) -> Option<Vec<Self>> {
        let all = self.typed(key, form, problems, |value| value.as_array())?;
        let mut tables = Vec::new();
        for value in all {
            let span = value.span();
            if let Some(entries) = value.get_ref().as_table() {
                tables.push(Self { text: self.text, entries, span, subject: self.subject.clone() });
            } else {
                let finding = Finding::at(Some(place(self.text, span.start)), format!("`{key}` has what is no table"));
                self.report(problems, finding.allowing(form));
            }
        }
        Some(tables)
    }

    /// The value of a key, with its place.
    pub fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.entries.get(key)
    }

    /// Where the value of a key stands; the table itself without one.
    pub fn place_of(&self, key: &str) -> Position {
        place(self.text, self.value(key).map_or(self.span.start, |value| value.span().start))
    }

    pub fn report(&self, problems: &mut Problems, finding: Finding) {
        problems.add(self.subject.as_deref(), finding);
    }

    fn typed<T>(
        &self,
        key: &str,
        allowed: &str,
        problems: &mut Problems,
        read: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let read = read(value.get_ref());
        if read.is_none() {
            let message = format!("`{key}` is of type {}", value.get_ref().type_str());
            self.report(problems, Finding::at(Some(self.place_of(key)), message).allowing(allowed));
        }
        read
    }
}
