//! What is kept of a message's headers.

use crate::origin::address_in_header;
use crate::spam::SpamSigns;
use crate::{Fingerprinter, SessionSettings, decode_words};
use std::net::IpAddr;

/// Headers after this many only count for the size.
const MAX_HEADERS: u32 = 1000;
/// Longest subject that is published.
const MAX_SUBJECT_CHARACTERS: usize = 120;
/// Longest value that is hashed.
const MAX_HASHED_OCTETS: usize = 1000;

/// Facts from the headers of one message, taken one by one.
#[derive(Debug, Default, Clone)]
pub(crate) struct HeaderFacts {
    pub subject_hash: u64,
    /// Empty unless subjects are to be published.
    pub subject: String,
    pub mailer_hash: u64,
    pub reply: bool,
    pub list: bool,
    pub automatic: bool,
    pub spam: SpamSigns,
    /// Rank among the origin headers, and the address, of the best that was found.
    origin: Option<(usize, IpAddr)>,
    seen: u32,
}

impl HeaderFacts {
    /// Takes in one header, also on behalf of the fingerprint.
    pub fn read(&mut self, name: &[u8], value: &[u8], settings: &SessionSettings, fingerprinter: &mut Fingerprinter) {
        self.seen = self.seen.saturating_add(1);
        let Ok(name) = std::str::from_utf8(name) else { return };
        if self.seen > MAX_HEADERS {
            return;
        }
        let name = name.trim();
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let has_value = value.iter().any(|byte| !byte.is_ascii_whitespace());
        if is("Subject") && self.subject_hash == 0 {
            self.subject_hash = subject_hash(value, settings);
            if settings.publish_subjects {
                self.subject = subject_sample(value);
            }
        } else if (is("X-Mailer") || is("User-Agent")) && self.mailer_hash == 0 {
            self.mailer_hash = text_hash("mailer", value, settings);
        } else if is("In-Reply-To") || is("References") {
            self.reply |= has_value;
        } else if is("List-Id") {
            self.list |= has_value;
        } else if is("Auto-Submitted") {
            // RFC 3834: the keyword, then perhaps parameters or a comment.
            let value = String::from_utf8_lossy(&value[..value.len().min(MAX_HASHED_OCTETS)]).into_owned();
            let keyword =
                value.trim().split(|c: char| c == ';' || c == '(' || c.is_whitespace()).next().unwrap_or_default();
            self.automatic |= !keyword.is_empty() && !keyword.eq_ignore_ascii_case("no");
        }
        self.spam.read(name, value, &settings.spam_headers);
        self.read_origin(name, value, settings);
        fingerprinter.header(name, value);
    }

    /// The client that a trusted relay named.
    pub fn origin(&self) -> Option<IpAddr> {
        self.origin.map(|(_, address)| address)
    }

    fn read_origin(&mut self, name: &str, value: &[u8], settings: &SessionSettings) {
        let Some(rank) = settings.origin_headers.iter().position(|header| header.eq_ignore_ascii_case(name)) else {
            return;
        };
        if self.origin.is_none_or(|(best, _)| rank < best)
            && let Some(address) = address_in_header(name, value)
            && !settings.is_trusted_relay(Some(address))
        {
            self.origin = Some((rank, address));
        }
    }
}

/// Keyed hash of a subject, decoded, with its white space folded; 0 when it is empty.
pub(crate) fn subject_hash(value: &[u8], settings: &SessionSettings) -> u64 {
    text_hash("subject", value, settings)
}

/// A subject as people may see it: decoded, cut short, without characters that could make it look like something else.
fn subject_sample(value: &[u8]) -> String {
    let text = decode_words(&value[..value.len().min(MAX_HASHED_OCTETS)]);
    text.chars().filter(|c| !is_unseen(*c)).take(MAX_SUBJECT_CHARACTERS).collect()
}

/// Control characters, and those that are not seen themselves but change how others are (Unicode's category Cf, as far
/// as it turns the direction of writing or joins nothing that a reader could see).
fn is_unseen(c: char) -> bool {
    let turns_or_joins = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    c.is_control() || turns_or_joins
}

fn text_hash(purpose: &str, value: &[u8], settings: &SessionSettings) -> u64 {
    let text = decode_words(&value[..value.len().min(MAX_HASHED_OCTETS)]);
    if text.is_empty() { 0 } else { settings.hashes.hash(purpose, text.as_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SessionConfig;

    fn read(headers: &[(&str, &str)]) -> HeaderFacts {
        let config = SessionConfig { trusted_relays: vec!["192.0.2.0/24".into()], ..SessionConfig::default() };
        let settings = SessionSettings::new(&config, b"key");
        let (mut facts, mut fingerprinter) = (HeaderFacts::default(), Fingerprinter::new(1));
        for (name, value) in headers {
            facts.read(name.as_bytes(), value.as_bytes(), &settings, &mut fingerprinter);
        }
        facts
    }

    #[test]
    fn keeps_hashes_and_signs() {
        let facts = read(&[
            ("SUBJECT", " =?utf-8?q?caf=C3=A9?="),
            ("Subject", "second"),
            ("User-Agent", "Mozilla"),
            ("In-Reply-To", "<1@x>"),
            ("List-Id", "<l.example>"),
            ("Auto-Submitted", "auto-replied (vacation)"),
        ]);
        assert_eq!(facts.subject_hash, read(&[("Subject", "caf\u{e9}")]).subject_hash);
        assert_ne!(facts.subject_hash, 0);
        assert_ne!(facts.mailer_hash, 0);
        assert!(facts.reply && facts.list && facts.automatic);
        let none = read(&[("Subject", " "), ("References", " "), ("Auto-Submitted", "No; x=y"), ("List-Id", "")]);
        assert_eq!((none.subject_hash, none.reply, none.automatic, none.list), (0, false, false, false));
    }

    #[test]
    fn a_subject_is_published_only_where_that_is_set_and_shows_what_it_says() {
        assert_eq!(read(&[("Subject", "hello")]).subject, "");
        let config = SessionConfig { publish_subjects: true, ..SessionConfig::default() };
        let settings = SessionSettings::new(&config, b"key");
        let subject = |value: &str| {
            let (mut facts, mut fingerprinter) = (HeaderFacts::default(), Fingerprinter::new(1));
            facts.read(b"Subject", value.as_bytes(), &settings, &mut fingerprinter);
            facts.read(b"Subject", b"second", &settings, &mut fingerprinter);
            facts.subject
        };
        assert_eq!(subject(" =?utf-8?q?caf=C3=A9?=\r\n  au lait"), "caf\u{e9} au lait");
        assert_eq!(subject("=?utf-8?q?a=1B[31m=00=E2=80=AEb=7F?="), "a [31m b");
        assert_eq!(subject(&"\u{e9}".repeat(400)), "\u{e9}".repeat(120));
        assert_eq!(subject("<script>alert(1)</script>"), "<script>alert(1)</script>", "who shows it escapes it");
    }

    #[test]
    fn the_best_origin_header_wins() {
        let received = ("Received", "from x [203.0.113.9] by webmail.example [192.0.2.1]");
        let originating = ("X-Originating-IP", "[198.51.100.7]");
        let origin = |headers: &[(&str, &str)]| read(headers).origin().map(|address| address.to_string());
        assert_eq!(origin(&[received, originating]).as_deref(), Some("198.51.100.7"));
        assert_eq!(origin(&[originating, received]).as_deref(), Some("198.51.100.7"));
        assert_eq!(origin(&[("Received", "from y [192.0.2.5] by x"), received]).as_deref(), Some("203.0.113.9"));
        assert_eq!(origin(&[("X-Originating-IP", "192.0.2.7")]), None, "a relay is not a client");
    }

    #[test]
    fn a_flood_of_headers_is_cut_off() {
        let mut flood = vec![("X", "y"); MAX_HEADERS as usize];
        flood.push(("Subject", "late"));
        assert_eq!(read(&flood).subject_hash, 0);
    }
}
