//! Finds the text in a message (RFC 2045, RFC 2046), just as far as the fingerprint needs it.

use super::html::Html;
use super::skeleton::Skeleton;
use super::transfer::Transfer;
use super::words::Words;
use std::hash::Hasher;
use twox_hash::XxHash64;

/// Most multiparts inside each other that are followed.
const MAX_DEPTH: usize = 8;
/// Longest header of a part that is looked at.
const MAX_HEADER_OCTETS: usize = 4096;
/// Longest boundary; RFC 2046 allows 70.
const MAX_BOUNDARY_OCTETS: usize = 200;
/// Most decoded octets of a text that count.
const MAX_TEXT_OCTETS: usize = 64 * 1024;

/// The parts of one message, as its lines stream by.
#[derive(Debug)]
pub(super) struct Parts {
    seed: u64,
    multiparts: Vec<Multipart>,
    place: Place,
    /// Fingerprint of the best text so far, 0 for none.
    found: u64,
    /// Of everything that is no text, in case there is no text at all.
    other: XxHash64,
    other_octets: usize,
}

#[derive(Debug)]
struct Multipart {
    boundary: Vec<u8>,
    alternative: bool,
}

/// Where the line that comes next belongs.
#[derive(Debug)]
enum Place {
    /// To the headers of the message or of a part.
    Headers { headers: Headers, unfolded: Vec<u8> },
    /// To a text.
    Text(Box<Text>),
    /// To something else.
    Other,
    /// Nowhere: the fingerprint is known.
    Done,
}

#[derive(Debug, Default)]
struct Headers {
    content_type: String,
    transfer_encoding: String,
    attachment: bool,
}

#[derive(Debug)]
struct Text {
    transfer: Transfer,
    html: Option<Html>,
    words: Words,
    skeleton: Skeleton,
    octets: usize,
}

impl Parts {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            multiparts: Vec::new(),
            place: Place::Headers { headers: Headers::default(), unfolded: Vec::new() },
            found: 0,
            other: XxHash64::with_seed(seed),
            other_octets: 0,
        }
    }

    /// A header of the message itself.
    pub fn header(&mut self, name: &str, value: &[u8]) {
        if let Place::Headers { headers, .. } = &mut self.place {
            headers.read(name, value);
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self.place, Place::Done)
    }

    /// A line, or a piece of a long one; `complete` when a line break follows.
    pub fn line(&mut self, line: &[u8], at_line_start: bool, complete: bool) {
        if self.multiparts.is_empty()
            && let Place::Headers { headers, .. } = &mut self.place
        {
            // The message's own headers came one by one; this is the first line of its body.
            let headers = std::mem::take(headers);
            self.enter(&headers);
        }
        if at_line_start && line.starts_with(b"--") && self.boundary(&line[2..]) {
            return;
        }
        match &mut self.place {
            Place::Headers { unfolded, .. } => {
                if !at_line_start || line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
                    let room = MAX_HEADER_OCTETS.saturating_sub(unfolded.len());
                    unfolded.extend_from_slice(&line[..line.len().min(room)]);
                } else {
                    self.end_header(line);
                }
            }
            Place::Text(text) => {
                if text.line(line, complete) {
                    self.end_text();
                    self.place = Place::Done;
                }
            }
            Place::Other => {
                if self.other_octets < MAX_TEXT_OCTETS {
                    self.other_octets += line.len();
                    self.other.write(line);
                }
            }
            Place::Done => {}
        }
    }

    pub fn finish(mut self) -> u64 {
        self.end_text();
        match (self.found, self.other_octets) {
            (0, 0) => 0,
            (0, _) => self.other.finish().max(1),
            (found, _) => found,
        }
    }

    /// A header of a part is complete; `next` begins another one, or is empty.
    fn end_header(&mut self, next: &[u8]) {
        let Place::Headers { headers, unfolded } = &mut self.place else { return };
        if let Some(colon) = unfolded.iter().position(|byte| *byte == b':') {
            headers.read(&String::from_utf8_lossy(&unfolded[..colon]), &unfolded[colon + 1..]);
        }
        unfolded.clear();
        unfolded.extend_from_slice(next);
        if next.is_empty() {
            let headers = std::mem::take(headers);
            self.enter(&headers);
        }
    }

    /// Begins the content of a message or part with these headers.
    fn enter(&mut self, headers: &Headers) {
        let kind = headers.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        self.place = Place::Other;
        if let Some(subtype) = kind.strip_prefix("multipart/") {
            if self.multiparts.len() < MAX_DEPTH
                && let Some(boundary) = parameter(&headers.content_type, "boundary")
            {
                let boundary = boundary.into_bytes();
                self.multiparts.push(Multipart { boundary, alternative: subtype == "alternative" });
            }
        } else if !headers.attachment && (kind.is_empty() || kind.starts_with("text/")) {
            self.place = Place::Text(Box::new(Text {
                transfer: Transfer::named(&headers.transfer_encoding),
                html: (kind == "text/html").then(Html::default),
                words: Words::default(),
                skeleton: Skeleton::new(self.seed),
                octets: 0,
            }));
        }
    }

    /// Whether `line` (behind its dashes) is a boundary; if so, ends what it ends.
    fn boundary(&mut self, line: &[u8]) -> bool {
        let matching = |part: &Multipart| {
            line.strip_prefix(part.boundary.as_slice())
                .map(<[u8]>::trim_ascii_end)
                .is_some_and(|rest| rest.is_empty() || rest == b"--")
        };
        let Some(level) = self.multiparts.iter().rposition(matching) else { return false };
        self.end_text();
        let closing = line.trim_ascii_end().len() > self.multiparts[level].boundary.len();
        // In alternatives the last text counts; anywhere else the first.
        let alternative = self.multiparts[level].alternative && !closing;
        self.multiparts.truncate(if closing { level } else { level + 1 });
        self.place = if self.found != 0 && !alternative {
            Place::Done
        } else if closing {
            Place::Other
        } else {
            Place::Headers { headers: Headers::default(), unfolded: Vec::new() }
        };
        true
    }

    fn end_text(&mut self) {
        if !matches!(self.place, Place::Text(_)) {
            return;
        }
        if let Place::Text(text) = std::mem::replace(&mut self.place, Place::Other) {
            let found = text.finish();
            if found != 0 {
                self.found = found;
            }
        }
    }
}

impl Headers {
    fn read(&mut self, name: &str, value: &[u8]) {
        let value = || String::from_utf8_lossy(&value[..value.len().min(MAX_HEADER_OCTETS)]).into_owned();
        let name = name.trim();
        if name.eq_ignore_ascii_case("Content-Type") {
            self.content_type = value();
        } else if name.eq_ignore_ascii_case("Content-Transfer-Encoding") {
            self.transfer_encoding = value();
        } else if name.eq_ignore_ascii_case("Content-Disposition") {
            self.attachment = value().trim().to_ascii_lowercase().starts_with("attachment");
        }
    }
}

impl Text {
    /// Takes in a line; true when the text has become long enough.
    fn line(&mut self, line: &[u8], complete: bool) -> bool {
        let Self { transfer, html, words, skeleton, octets } = self;
        let mut sink = |byte| {
            *octets += 1;
            if *octets > MAX_TEXT_OCTETS {
                return;
            }
            match html {
                Some(html) => html.push(byte, words, skeleton),
                None => words.push(byte, skeleton),
            }
        };
        transfer.push(line, &mut sink);
        if complete {
            transfer.push(b"\n", &mut sink);
        }
        *octets >= MAX_TEXT_OCTETS
    }

    fn finish(mut self) -> u64 {
        self.words.finish(&mut self.skeleton);
        self.skeleton.fingerprint()
    }
}

/// A parameter of a structured header's value, unquoted.
fn parameter(value: &str, name: &str) -> Option<String> {
    let mut rest = value;
    while let Some(at) = rest.find(';') {
        rest = rest[at + 1..].trim_start();
        let Some((key, after)) = rest.split_once('=') else { continue };
        if !key.trim().eq_ignore_ascii_case(name) {
            continue;
        }
        let after = after.trim_start();
        let found = match after.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next()?,
            None => after.split(|c: char| c == ';' || c.is_whitespace()).next()?,
        };
        return Some(found.to_owned()).filter(|found| !found.is_empty() && found.len() <= MAX_BOUNDARY_OCTETS);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_parameters() {
        let boundary = |value| parameter(value, "boundary");
        assert_eq!(boundary("multipart/mixed; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(boundary("multipart/mixed;\n\tcharset=x; Boundary=\"a b;c\" ; d").as_deref(), Some("a b;c"));
        assert_eq!(boundary("multipart/mixed; x; boundary = a;").as_deref(), Some("a"));
        for none in ["multipart/mixed", "multipart/mixed; boundary", "x; boundary=", "x; boundary=\"\"", ";"] {
            assert_eq!(boundary(none), None, "{none}");
        }
    }
}
