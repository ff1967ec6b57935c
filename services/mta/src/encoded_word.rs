//! Encoded words in headers (RFC 2047): `=?utf-8?q?caf=C3=A9?=`.

use crate::base64::{Base64, hex_value};

/// Decodes the encoded words in a header's value, and folds white space into single spaces.
///
/// Knows the encodings Q and B, and the charsets UTF-8 and ASCII; all others are read as Latin-1, which keeps equal
/// texts equal and different ones different. White space between two encoded words is dropped, and a character
/// that was cut between two of them is put together again. Broken words stay as they are.
pub fn decode_words(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    let mut run = Run::default();
    let mut rest = value;
    while !rest.is_empty() {
        if let Some((word, after)) = encoded_word(rest) {
            run.push(&word, &mut text);
            rest = after;
            let gap = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            if gap > 0 && rest.get(gap..).is_some_and(|next| encoded_word(next).is_some()) {
                rest = &rest[gap..];
            }
            continue;
        }
        run.flush(&mut text);
        let plain = 1 + rest[1..].iter().position(|byte| *byte == b'=').unwrap_or(rest.len() - 1);
        push_utf8_or_latin1(&rest[..plain], &mut text);
        rest = &rest[plain..];
    }
    run.flush(&mut text);
    fold_spaces(&text)
}

/// Bytes of adjacent encoded words in one charset, decoded together.
#[derive(Default)]
struct Run {
    bytes: Vec<u8>,
    latin1: bool,
}

struct Word<'a> {
    latin1: bool,
    base64: bool,
    text: &'a [u8],
}

impl Run {
    fn push(&mut self, word: &Word<'_>, text: &mut String) {
        if word.latin1 != self.latin1 {
            self.flush(text);
            self.latin1 = word.latin1;
        }
        if word.base64 {
            Base64::default().push(word.text, |byte| self.bytes.push(byte));
            return;
        }
        let mut rest = word.text;
        while let Some((first, mut after)) = rest.split_first() {
            let mut byte = if *first == b'_' { b' ' } else { *first };
            if let (b'=', [high, low, tail @ ..]) = (*first, after)
                && let (Some(high), Some(low)) = (hex_value(*high), hex_value(*low))
            {
                byte = high << 4 | low;
                after = tail;
            }
            self.bytes.push(byte);
            rest = after;
        }
    }

    fn flush(&mut self, text: &mut String) {
        if self.latin1 {
            text.extend(self.bytes.iter().map(|byte| char::from(*byte)));
        } else {
            text.push_str(&String::from_utf8_lossy(&self.bytes));
        }
        self.bytes.clear();
    }
}

/// Splits an encoded word off the front: `=?charset[*language]?encoding?text?=`.
fn encoded_word(input: &[u8]) -> Option<(Word<'_>, &[u8])> {
    let body = input.strip_prefix(b"=?")?;
    let mut parts = body.splitn(3, |byte| *byte == b'?');
    let (charset, encoding, tail) = (parts.next()?, parts.next()?, parts.next()?);
    let base64 = match encoding {
        b"b" | b"B" => true,
        b"q" | b"Q" => false,
        _ => return None,
    };
    let end = tail.windows(2).position(|pair| pair == b"?=")?;
    let text = &tail[..end];
    if charset.is_empty() || charset.iter().chain(text).any(u8::is_ascii_whitespace) {
        return None;
    }
    let charset = charset.split(|byte| *byte == b'*').next().unwrap_or(charset);
    let latin1 = ![&b"utf-8"[..], b"utf8", b"us-ascii"].iter().any(|name| charset.eq_ignore_ascii_case(name));
    Some((Word { latin1, base64, text }, &tail[end + 2..]))
}

/// Appends `bytes` as UTF-8 when they are, else as Latin-1.
pub(crate) fn push_utf8_or_latin1(bytes: &[u8], text: &mut String) {
    match std::str::from_utf8(bytes) {
        Ok(utf8) => text.push_str(utf8),
        Err(_) => text.extend(bytes.iter().map(|byte| char::from(*byte))),
    }
}

fn fold_spaces(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !folded.is_empty() {
            folded.push(' ');
        }
        folded.push_str(word);
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(value: &str) -> String {
        decode_words(value.as_bytes())
    }

    #[test]
    fn decodes_the_examples_of_rfc_2047() {
        assert_eq!(decode("=?ISO-8859-1?Q?a?="), "a");
        assert_eq!(decode("=?ISO-8859-1?Q?a?= b"), "a b");
        assert_eq!(decode("=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?="), "ab");
        assert_eq!(decode("=?ISO-8859-1?Q?a?=\r\n  =?ISO-8859-1?Q?b?="), "ab");
        assert_eq!(decode("=?ISO-8859-1?Q?a_b?="), "a b");
        assert_eq!(decode("=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?="), "If you can read this yo");
    }

    #[test]
    fn one_text_written_in_many_ways_is_one_text() {
        for value in [
            "=?utf-8?q?caf=C3=A9?=",
            "=?UTF-8*en?B?Y2Fmw6k=?=",
            "=?iso-8859-1?q?caf=e9?=",
            "=?utf-8?q?caf=C3?=\n =?utf-8?q?=A9?=",
            "caf\u{e9}",
            "  caf\u{e9}\t",
        ] {
            assert_eq!(decode(value), "caf\u{e9}", "{value}");
        }
        assert_eq!(decode_words(b"caf\xe9"), "caf\u{e9}");
    }

    #[test]
    fn what_is_broken_stays() {
        for value in ["=?", "=?utf-8?x?abc?=", "=?utf-8?q?abc", "=??q?abc?=", "a = b", "=?utf-8?q?a b?="] {
            assert_eq!(decode(value), value);
        }
        assert_eq!(decode("=?utf-8?q?a=ZZ=?="), "a=ZZ=");
    }

    proptest! {
        #[test]
        fn anything_can_be_read(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_words(&value);
        }
    }
}
