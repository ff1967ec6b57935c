//! The content fingerprint against texts written for it: variations of spam, and mail that only looks alike.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::collections::{BTreeMap, HashMap};
use tidegate_mta::Fingerprinter;

const TEXTS: &str = include_str!("data/similar_texts.txt");

struct Text<'a> {
    template: Option<&'a str>,
    changes: &'a str,
    html: bool,
    body: &'a str,
}

fn texts() -> Vec<Text<'static>> {
    let read = |section: &'static str| {
        let (head, body) = section.split_once('\n').unwrap();
        let mut fields = head.split(" | ");
        let template = fields.next().unwrap().strip_prefix("spam ");
        let changes = fields.next().unwrap_or_default();
        Text { template, changes, html: fields.next() == Some("html"), body }
    };
    TEXTS.split("\n### ").skip(1).map(read).collect()
}

fn fingerprint(text: &Text<'_>, encode: Option<&str>) -> u64 {
    let mut fingerprinter = Fingerprinter::new(42);
    fingerprinter.header("Content-Type", if text.html { b"text/html; charset=utf-8" } else { b"text/plain" });
    let body = match encode {
        None => text.body.to_owned(),
        Some(encoding) => {
            fingerprinter.header("Content-Transfer-Encoding", encoding.as_bytes());
            if encoding == "base64" { base64(text.body.as_bytes()) } else { quoted_printable(text.body.as_bytes()) }
        }
    };
    fingerprinter.body(body.as_bytes());
    fingerprinter.finish()
}

#[test]
fn variations_of_a_template_are_one_content() {
    let mut templates: BTreeMap<&str, HashMap<u64, Vec<&str>>> = BTreeMap::new();
    let mut others: HashMap<u64, Vec<&str>> = HashMap::new();
    for text in &texts() {
        let print = fingerprint(text, None);
        assert_ne!(print, 0, "{}", text.body);
        match text.template {
            Some(template) => templates.entry(template).or_default().entry(print).or_default().push(text.changes),
            None => others.entry(print).or_default().push(text.body),
        }
    }
    let (mut variations, mut equal) = (0, 0);
    let mut owner: HashMap<u64, &str> = HashMap::new();
    for (template, prints) in &templates {
        let (total, most) =
            (prints.values().map(Vec::len).sum::<usize>(), prints.values().map(Vec::len).max().unwrap());
        assert_eq!(total, 8, "{template}");
        assert!(most >= 6, "{template}: only {most} of {total} are equal: {prints:?}");
        variations += total;
        equal += most;
        for print in prints.keys() {
            assert_eq!(owner.insert(*print, template), None, "{template} looks like another template");
            assert!(!others.contains_key(print), "{template} looks like {:?}", others[print]);
        }
    }
    assert_eq!(templates.len(), 12);
    // Measured: 88 of 96. The other eight have other words, which the fingerprint does not survive on purpose.
    assert!(
        equal * 100 >= variations * 90,
        "only {equal} of {variations} variations have their template's fingerprint"
    );
    println!("{equal} of {variations} variations have their template's fingerprint");
    let same: Vec<_> = others.values().filter(|bodies| bodies.len() > 1).collect();
    assert!(same.is_empty(), "different mails with one fingerprint: {same:#?}");
    assert!(others.len() >= 40);
}

#[test]
fn the_transfer_encoding_does_not_matter() {
    for text in &texts() {
        let print = fingerprint(text, None);
        for encoding in ["base64", "quoted-printable"] {
            assert_eq!(fingerprint(text, Some(encoding)), print, "{encoding}: {}", text.body);
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for (index, group) in bytes.chunks(3).enumerate() {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        let digit = |place: u32| char::from(ALPHABET[(bits >> (6 * place)) as usize & 63]);
        text.extend((0..4).rev().map(|place| if place as usize >= 3 - group.len() { digit(place) } else { '=' }));
        if index % 19 == 18 {
            text.push_str("\r\n");
        }
    }
    text
}

fn quoted_printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut column = 0;
    for byte in bytes {
        let piece = match byte {
            b'\n' => "\r\n".to_owned(),
            b'=' | 0..=31 | 127.. => format!("={byte:02X}"),
            _ => char::from(*byte).to_string(),
        };
        if column + piece.len() > 75 && *byte != b'\n' {
            text.push_str("=\r\n");
            column = 0;
        }
        column = if *byte == b'\n' { 0 } else { column + piece.len() };
        text.push_str(&piece);
    }
    text
}
