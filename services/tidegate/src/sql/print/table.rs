//! A table for people.

use super::cells::{Cells, NONE};
use super::{Expanded, Printer, plain};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use std::io::Write;

/// Rows of which a table is made: an endless answer is a sequence of tables.
const CHUNK_ROWS: usize = 1_000;
/// A column that is at least so wide can still be read when it is narrowed to this.
const READABLE_WIDTH: usize = 24;

/// Writes tables, or lists.
pub struct TablePrinter<'a> {
    out: &'a mut dyn Write,
    expanded: Expanded,
    width: Option<u16>,
    names: Vec<String>,
    is_number: Vec<bool>,
    pending: Vec<Vec<String>>,
    printed: u64,
}

impl<'a> TablePrinter<'a> {
    /// For rows of `schema`, on a terminal of `width` columns, if it is one.
    pub fn new(expanded: Expanded, width: Option<u16>, schema: &SchemaRef, out: &'a mut dyn Write) -> Self {
        let names = schema.fields().iter().map(|field| plain(field.name())).collect();
        let is_number = schema.fields().iter().map(|field| field.data_type().is_numeric()).collect();
        Self { out, expanded, width, names, is_number, pending: Vec::new(), printed: 0 }
    }

    fn print_pending(&mut self) -> std::io::Result<()> {
        let is_list = match self.expanded {
            Expanded::On => true,
            Expanded::Off => false,
            Expanded::Auto => self.width.is_some_and(|width| !fits(&self.names, &self.pending, width)),
        };
        if is_list { self.print_lists() } else { self.print_table() }?;
        self.printed += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    fn print_table(&mut self) -> std::io::Result<()> {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(&self.names);
        if let Some(width) = self.width {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        for (column, is_number) in table.column_iter_mut().zip(&self.is_number) {
            column.set_cell_alignment(if *is_number { CellAlignment::Right } else { CellAlignment::Left });
        }
        for row in &self.pending {
            table.add_row(row);
        }
        table.lines().try_for_each(|line| writeln!(self.out, "{}", line.trim_end()))
    }

    fn print_lists(&mut self) -> std::io::Result<()> {
        let longest = self.names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
        for (number, row) in (self.printed + 1..).zip(&self.pending) {
            writeln!(self.out, "-[ row {number} ]-")?;
            for (name, value) in self.names.iter().zip(row) {
                writeln!(self.out, "{name:<longest$}  {value}")?;
            }
        }
        Ok(())
    }
}

impl Printer for TablePrinter<'_> {
    fn rows(&mut self, rows: &RecordBatch) -> anyhow::Result<()> {
        let cells = Cells::of(rows)?;
        for row in 0..rows.num_rows() {
            let texts = (0..rows.num_columns()).map(|column| cells.text(row, column));
            self.pending.push(texts.collect::<Result<_, _>>()?);
            if self.pending.len() == CHUNK_ROWS {
                self.print_pending()?;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        if !self.pending.is_empty() || self.printed == 0 && self.expanded != Expanded::On {
            self.print_pending()?;
        }
        writeln!(self.out, "{}", footer(self.printed))?;
        Ok(())
    }
}

/// `(1 row)`
fn footer(rows: u64) -> String {
    format!("({rows} {})", if rows == 1 { "row" } else { "rows" })
}

/// Whether the columns can be read side by side in so many columns of a terminal.
fn fits(names: &[String], rows: &[Vec<String>], width: u16) -> bool {
    let widest = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([names[column].chars().count(), NONE.len()]).max().unwrap_or_default()
    };
    let needed: usize = (0..names.len()).map(|column| widest(column).min(READABLE_WIDTH) + 2).sum();
    needed <= width.into()
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::tests::{printed, sample};
    use super::*;

    #[test]
    fn a_table_has_columns_side_by_side_and_numbers_at_the_right() {
        let text = printed(Format::Table, Expanded::Auto, None, &[sample()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        let end = |line: &str, word: &str| line.find(word).unwrap() + word.len();
        assert_eq!(end(lines[0], "messages"), end(lines[1], "12"), "{text}");
        assert!(lines[1].contains("  1m 30s  "), "{text}");
        assert!(lines[2].contains("x\\u{1b}[2J\\ny"), "{text}");
        assert_eq!(lines[3], "(2 rows)");
        let text = printed(Format::Table, Expanded::Auto, None, &[]);
        assert!(text.contains("account") && text.ends_with("(0 rows)\n"), "{text}");
    }

    #[test]
    fn what_does_not_fit_is_a_list_of_each_row() {
        let text = printed(Format::Table, Expanded::Auto, Some(60), &[sample()]);
        assert!(text.starts_with("-[ row 1 ]-\naccount   jo@example.org\nmessages  12\n"), "{text}");
        assert!(text.contains("\n-[ row 2 ]-\n") && text.ends_with("(2 rows)\n"), "{text}");
        assert!(!printed(Format::Table, Expanded::Auto, Some(200), &[sample()]).contains("row 1"));
        assert!(!printed(Format::Table, Expanded::Off, Some(60), &[sample()]).contains("row 1"));
        assert_eq!(printed(Format::Table, Expanded::On, None, &[]), "(0 rows)\n");
    }

    #[test]
    fn a_long_answer_is_a_sequence_of_tables() {
        let batches = vec![sample(); 1_250];
        let text = printed(Format::Table, Expanded::Auto, None, &batches);
        assert_eq!(text.lines().filter(|line| line.contains("account")).count(), 3);
        assert!(text.ends_with("(2500 rows)\n"));
    }
}
