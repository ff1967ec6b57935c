//! What the demo says while it runs: live in a terminal, plain lines when piped.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

const DETAIL_INDENT: usize = 14;
const DETAIL_WIDTH: usize = 96;

/// Where progress goes: standard output for people, standard error beside `--json`.
pub struct Screen {
    began: Instant,
    live: bool,
    json: bool,
    status_shown: bool,
}

impl Screen {
    /// Begins to count the time.
    pub fn new(json: bool) -> Self {
        let live = if json { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
        Self { began: Instant::now(), live, json, status_shown: false }
    }

    /// Something happened: a line that stays.
    pub fn event(&mut self, text: &str) {
        self.clear();
        self.line(&format!("{:>6.2} s  {text}", self.began.elapsed().as_secs_f64()));
    }

    /// More about the last event, wrapped below it.
    pub fn detail(&mut self, text: &str) {
        self.clear();
        for line in wrapped(text, DETAIL_WIDTH) {
            self.line(&format!("{:>DETAIL_INDENT$}{line}", ""));
        }
    }

    /// How it goes: one line that is written over, in a terminal only.
    pub fn status(&mut self, text: &str) {
        if self.live {
            self.clear();
            self.write(&format!("\r{:>6.2} s  {text}", self.began.elapsed().as_secs_f64()));
            self.status_shown = true;
        }
    }

    fn line(&self, line: &str) {
        if self.json {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
    }

    fn clear(&mut self) {
        if self.status_shown {
            self.write("\r\x1b[2K");
            self.status_shown = false;
        }
    }

    fn write(&self, text: &str) {
        // A terminal that went away is no reason to stop.
        let _ = if self.json {
            std::io::stderr().write_all(text.as_bytes())
        } else {
            std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush())
        };
    }
}

/// Lines of at most `width` characters, cut between words; a longer word has a line of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.chars().count() + 1 + word.chars().count() <= width) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_between_words() {
        assert_eq!(wrapped("one two  three\nfour", 9), ["one two", "three", "four"]);
        assert_eq!(wrapped("a longerthanwidth b", 5), ["a", "longerthanwidth", "b"]);
        assert!(wrapped(" ", 5).is_empty());
    }
}
