//! Headers and bodies of messages.

use tidegate_mta::{Fingerprinter, SpamHeader, SpamSigns, decode_words};

use crate::input::{Input, outcome, pieces, seed};
use crate::{Outcome, Target};

const TEXTS: &str = include_str!("../../../services/mta/tests/data/similar_texts.txt");

/// A message as it is on the wire: headers, an empty line, the body. Its fingerprint does not depend on the cut.
pub const MESSAGE: Target = Target {
    name: "message",
    run: message,
    seeds: message_seeds,
    words: &[
        "\r\n",
        "\r\n\r\n",
        "--b\r\n",
        "--b--\r\n",
        "Content-Type: multipart/alternative; boundary=b\r\n",
        "Content-Type: text/html\r\n",
        "Content-Transfer-Encoding: base64\r\n",
        "Content-Transfer-Encoding: quoted-printable\r\n",
        "Content-Disposition: attachment\r\n",
        "<!--",
        "-->",
        "<style>",
        "<a href=\"http://x.test/1\">",
        "&#x10ffff;",
        "&amp;",
        "=C3=A9",
        "=\r\n",
        "\u{200b}",
        "\u{4f60}\u{597d}",
        "Hi Anna,\r\n",
    ],
    max_octets: 16 * 1024,
    test_inputs: 20_000,
};

/// One header's value: encoded words, and what a filter says.
pub const HEADER: Target = Target {
    name: "header",
    run: header,
    seeds: header_seeds,
    words: &["=?utf-8?q?", "=?iso-8859-1?b?", "?=", "=C3", "_", "Yes, score=", "add header", "nan", "1e999", "-0"],
    max_octets: 2 * 1024,
    test_inputs: 20_000,
};

fn message(octets: &[u8]) -> Outcome {
    let mut input = Input::new(octets);
    let cut = input.byte();
    let octets = input.rest();
    let end = octets.windows(4).position(|four| four == b"\r\n\r\n").map_or(octets.len(), |at| at + 4);
    let (headers, body) = octets.split_at(end);
    let fingerprint = |body: &mut dyn Iterator<Item = &[u8]>| {
        let mut fingerprinter = Fingerprinter::new(7);
        for line in headers.split(|octet| *octet == b'\n') {
            let colon = line.iter().position(|octet| *octet == b':').unwrap_or(line.len());
            let (name, value) = line.split_at(colon);
            fingerprinter.header(&String::from_utf8_lossy(name), value.get(1..).unwrap_or_default());
        }
        body.for_each(|piece| fingerprinter.body(piece));
        fingerprinter.finish()
    };
    let whole = fingerprint(&mut std::iter::once(body));
    assert_eq!(whole, fingerprint(&mut pieces(body, cut)), "another fingerprint when it is cut");
    // The number itself is new for nearly every input: what matters is where in the space of shapes it fell.
    outcome((whole == 0, whole % 64, body.len().ilog2_or_zero()))
}

fn header(octets: &[u8]) -> Outcome {
    let text = decode_words(octets);
    assert!(text.len() <= 4 * octets.len() + 4, "{} octets from {}", text.len(), octets.len());
    let headers = SpamHeader::defaults();
    let mut signs = SpamSigns::default();
    for header in &headers {
        signs.read(&header.name, octets, &headers);
    }
    assert!(signs.score.is_none_or(f64::is_finite));
    outcome((text.len().ilog2_or_zero(), text.is_ascii(), text.contains('\u{fffd}'), signs.spam, signs.score.is_some()))
}

/// The order of magnitude of a length.
trait Magnitude {
    fn ilog2_or_zero(self) -> u32;
}

impl Magnitude for usize {
    fn ilog2_or_zero(self) -> u32 {
        self.checked_ilog2().unwrap_or(0)
    }
}

fn message_seeds() -> Vec<Vec<u8>> {
    let mut messages: Vec<String> = TEXTS
        .split("\n### ")
        .skip(1)
        .step_by(9)
        .map(|section| {
            let (head, body) = section.split_once('\n').unwrap_or((section, ""));
            let kind = if head.ends_with("html") { "text/html" } else { "text/plain" };
            format!("Content-Type: {kind}; charset=utf-8\r\n\r\n{}", body.replace('\n', "\r\n"))
        })
        .collect();
    let parts = "preamble\r\n--b\r\nContent-Type: text/plain\r\n\r\nplain\r\n--b\r\nContent-Type: text/html\r\n\
                 Content-Transfer-Encoding: quoted-printable\r\n\r\n<p>caf=C3=A9 &amp; more =\r\nwords for everybody to \
                 read here now</p>\r\n--b--\r\n";
    messages.push(format!("Content-Type: multipart/alternative; boundary=\"b\"\r\n\r\n{parts}"));
    messages.push(format!(
        "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: multipart/mixed;\r\n \
                           boundary=b\r\n\r\n{parts}--a\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: \
                           base64\r\n\r\nAAAABBBB\r\n--a--\r\n"
    ));
    messages.push(
        "Content-Transfer-Encoding: base64\r\n\r\neW91ciBhY2NvdW50IHdhcyBjaG9zZW4gZm9yIGEgc3BlY2lhbA==\r\n".into(),
    );
    messages.iter().enumerate().map(|(number, text)| seed(&[number as u8], text.as_bytes())).collect()
}

fn header_seeds() -> Vec<Vec<u8>> {
    ["=?utf-8?q?caf=C3=A9?= =?UTF-8?B?w6k=?=", "Yes, score=12.5 required=5", "add header", "-1.5 / 15.00", "plain text"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}
