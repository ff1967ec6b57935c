//! Content fingerprint: one number that stays the same when a message is written again with the small changes that
//! spammers make.
//!
//! The statistics ask how often the *same* number comes, so likeness is not enough: what varies has to be taken out
//! before hashing. What is left of the text is its skeleton:
//!
//! 1. The first text that a reader sees: the first text part (in `multipart/alternative` the last, which mail
//!    programs show), its transfer encoding undone, HTML tags, styles, comments and entities undone, invisible
//!    characters dropped, letters borrowed from look-alike alphabets put back.
//! 2. Without quoted lines, what follows a `-- ` line, the greeting, and asides: lines of up to three names, and
//!    paragraphs of up to three words with a number (`Ref. A7731`).
//! 3. Without numbers and words with digits in them, addresses, links (of which short texts keep the host's domain),
//!    strings of consonants, and words that begin with a capital: names of people, firms, places, months.
//! 4. What remains, in order, is hashed with XXH64 under a seed from the installation's key.
//!
//! A text of few words cannot lose so much and still be told from another. So three skeletons are kept: *loose* (all
//! of the above) counts when it has at least 12 words; else *strict* (names stay), when it has at least 5; else every
//! word as it is. In scripts without spaces each letter is a word. A message without any word is fingerprinted by the
//! octets of its parts; one without content has the fingerprint 0.
//!
//! Not survived, on purpose: other words. Sentences swapped or added make another text. Parts of a text (shingles,
//! min-hash) would survive that, but would also make one content of all mails that end in the same long disclaimer
//! or quote the same thread, which is what honest people send.

mod html;
mod mime;
mod skeleton;
mod transfer;
mod words;

use mime::Parts;

/// Most octets of a body that are looked at.
const MAX_BODY_OCTETS: usize = 1024 * 1024;
/// A line longer than this is taken in pieces.
const MAX_LINE_OCTETS: usize = 2048;

/// Computes the fingerprint of a message as it streams by. Holds a few KiB, however long the message is.
#[derive(Debug)]
pub struct Fingerprinter {
    parts: Parts,
    line: Vec<u8>,
    at_line_start: bool,
    octets_seen: usize,
}

impl Fingerprinter {
    /// A fingerprinter whose numbers compare with those of the same `seed`.
    pub fn new(seed: u64) -> Self {
        Self { parts: Parts::new(seed), line: Vec::new(), at_line_start: true, octets_seen: 0 }
    }

    /// Takes in a header of the message. `Content-Type`, `Content-Transfer-Encoding` and `Content-Disposition` matter.
    pub fn header(&mut self, name: &str, value: &[u8]) {
        self.parts.header(name, value);
    }

    /// Takes in a piece of the body. Where it is cut does not matter.
    pub fn body(&mut self, mut chunk: &[u8]) {
        while !chunk.is_empty() && !self.parts.is_done() && self.octets_seen < MAX_BODY_OCTETS {
            let room = (MAX_LINE_OCTETS - self.line.len()).min(MAX_BODY_OCTETS - self.octets_seen);
            let window = &chunk[..chunk.len().min(room)];
            let newline = window.iter().position(|byte| *byte == b'\n');
            let taken = newline.map_or(window.len(), |at| at + 1);
            self.line.extend_from_slice(&chunk[..taken]);
            self.octets_seen += taken;
            chunk = &chunk[taken..];
            if newline.is_some() || self.line.len() >= MAX_LINE_OCTETS {
                self.end_line(newline.is_some());
            }
        }
    }

    /// The fingerprint of what was taken in; 0 when there was no content.
    pub fn finish(mut self) -> u64 {
        if !self.line.is_empty() {
            self.end_line(false);
        }
        self.parts.finish()
    }

    fn end_line(&mut self, complete: bool) {
        let mut line = self.line.as_slice();
        if complete {
            line = line.strip_suffix(b"\n").unwrap_or(line);
            line = line.strip_suffix(b"\r").unwrap_or(line);
        }
        self.parts.line(line, self.at_line_start, complete);
        self.at_line_start = complete;
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn print(headers: &[(&str, &str)], body: &str) -> u64 {
        let mut fingerprinter = Fingerprinter::new(7);
        for (name, value) in headers {
            fingerprinter.header(name, value.as_bytes());
        }
        fingerprinter.body(body.as_bytes());
        fingerprinter.finish()
    }

    const TEXT: &str =
        "your account was chosen for a special bonus and you only have to confirm it before the end of today\r\n";

    #[test]
    fn the_encoding_does_not_matter() {
        let plain = print(&[], TEXT);
        assert_ne!(plain, 0);
        let quoted = TEXT.replace("chosen", "=63hosen").replace("special", "spec=\r\nial");
        assert_eq!(print(&[("Content-Transfer-Encoding", "Quoted-Printable")], &quoted), plain);
        let html =
            format!("<html><head><title>x</title></head><body><p>{}</p></body>", TEXT.replace("bonus", "<b>bo</b>nus"));
        assert_eq!(print(&[("Content-Type", "text/html; charset=utf-8")], &html), plain);
        let base64 = "eW91ciBhY2NvdW50IHdhcyBjaG9zZW4gZm9yIGEgc3BlY2lhbCBib251cyBhbmQgeW91IG9ubHkg\r\n\
                      aGF2ZSB0byBjb25maXJtIGl0IGJlZm9yZSB0aGUgZW5kIG9mIHRvZGF5DQo=\r\n";
        assert_eq!(print(&[("Content-Transfer-Encoding", " base64")], base64), plain);
    }

    #[test]
    fn the_part_that_is_shown_counts() {
        let alternative = format!(
            "preamble\r\n--in\r\nContent-Type: text/plain\r\n\r\nplease use another program\r\n--in\r\n\
             Content-Type: text/html;\r\n charset=utf-8\r\n\r\n<p>{TEXT}</p>\r\n--in--\r\n"
        );
        let mixed = format!(
            "--out\r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n{alternative}\r\n--out\r\n\
             Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nmore\r\n--out--\r\n"
        );
        let plain = print(&[], TEXT);
        assert_eq!(print(&[("Content-Type", "multipart/alternative; boundary=\"in\"")], &alternative), plain);
        assert_eq!(print(&[("content-type", "Multipart/Mixed;\n boundary=out")], &mixed), plain);
    }

    #[test]
    fn a_message_of_one_picture_has_a_fingerprint_too() {
        let picture = |data: &str| {
            let body = format!(
                "--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n{data}\r\n--b--\r\n"
            );
            print(&[("Content-Type", "multipart/mixed; boundary=b")], &body)
        };
        assert_ne!(picture("AAAA"), 0);
        assert_eq!(picture("AAAA"), picture("AAAA"));
        assert_ne!(picture("AAAA"), picture("AAAB"));
        assert_eq!(print(&[], ""), 0);
        assert_eq!(print(&[], "\r\n\r\n"), 0);
    }

    #[test]
    fn short_texts_stay_apart() {
        let all: Vec<u64> =
            ["Thanks", "Thanks!", "Ok", "see you at 5", "see you at 6", "yes please", "no please", "12", "13"]
                .iter()
                .map(|text| print(&[], text))
                .collect();
        assert_eq!(all[0], all[1]);
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len() - 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn where_it_is_cut_does_not_matter(
            body in proptest::collection::vec(prop_oneof![
                Just("--b\r\n"), Just("--b--\n"), Just("Content-Type: text/html\r\n\r\n"), Just("<a href=\"http://x.test/1\">"),
                Just("caf\u{e9} =C3=A9 &amp; "), Just("Hi Anna,\n"), Just("word "), Just("=\r\n"), Just("<!-- "), Just("\u{200b}-->"),
                Just("Content-Type: multipart/mixed; boundary=b\r\n\r\n"), Just("\u{4f60}\u{597d}\u{ff0c}"), Just("<style>"),
            ], 0..60),
            cuts in proptest::collection::vec(1_usize..40, 1..30),
        ) {
            let body = body.concat();
            let whole = print(&[("Content-Type", "multipart/mixed; boundary=b")], &body);
            let mut pieces = Fingerprinter::new(7);
            pieces.header("Content-Type", b"multipart/mixed; boundary=b");
            let (mut rest, mut cut) = (body.as_bytes(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((*cut.next().unwrap()).min(rest.len()));
                pieces.body(piece);
                rest = after;
            }
            prop_assert_eq!(pieces.finish(), whole);
        }

        #[test]
        fn any_octets_can_be_read(
            kind in "(text/html|text/plain|multipart/mixed; boundary=b|.{0,30})", encoding in "(base64|quoted-printable|.{0,9})",
            body in proptest::collection::vec(any::<u8>(), 0..5000), times in 1_usize..4,
        ) {
            let mut fingerprinter = Fingerprinter::new(7);
            fingerprinter.header("Content-Type", kind.as_bytes());
            fingerprinter.header("Content-Transfer-Encoding", encoding.as_bytes());
            for _ in 0..times {
                fingerprinter.body(&body);
            }
            fingerprinter.finish();
        }
    }
}
