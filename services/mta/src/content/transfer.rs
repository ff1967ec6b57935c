//! Content-Transfer-Encoding (RFC 2045 section 6), undone as octets stream by.

use crate::base64::{Base64, hex_value};

/// A transfer encoding and what is held of it between two pieces.
#[derive(Debug)]
pub(super) enum Transfer {
    /// `7bit`, `8bit`, `binary`, and whatever is unknown.
    Identity,
    /// `quoted-printable`; what is held of an escape that has begun.
    QuotedPrintable(Escape),
    /// `base64`.
    Base64(Base64),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Escape {
    None,
    Equals,
    High(u8),
}

impl Transfer {
    /// The encoding that a header's value names.
    pub fn named(value: &str) -> Self {
        let name = value.trim();
        if name.eq_ignore_ascii_case("base64") {
            Self::Base64(Base64::default())
        } else if name.eq_ignore_ascii_case("quoted-printable") {
            Self::QuotedPrintable(Escape::None)
        } else {
            Self::Identity
        }
    }

    /// Decodes `input` into `sink`. Lines end in a line feed alone. Broken escapes stay as they are.
    pub fn push(&mut self, input: &[u8], mut sink: impl FnMut(u8)) {
        match self {
            Self::Identity => input.iter().for_each(|byte| sink(*byte)),
            Self::Base64(decoder) => decoder.push(input, sink),
            Self::QuotedPrintable(escape) => {
                for byte in input {
                    *escape = match (*escape, *byte) {
                        (Escape::None | Escape::High(_), b'=') => Escape::Equals,
                        // A soft line break: the line goes on.
                        (Escape::Equals, b'\n') => Escape::None,
                        (Escape::Equals, digit) if hex_value(digit).is_some() => Escape::High(digit),
                        (Escape::High(high), low) if hex_value(low).is_some() => {
                            sink(hex_value(high).unwrap_or(0) << 4 | hex_value(low).unwrap_or(0));
                            Escape::None
                        }
                        (Escape::None | Escape::Equals | Escape::High(_), byte) => {
                            sink(byte);
                            Escape::None
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(encoding: &str, text: &str) -> String {
        let (mut transfer, mut out) = (Transfer::named(encoding), Vec::new());
        for byte in text.bytes() {
            transfer.push(&[byte], |byte| out.push(byte));
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn decodes_octet_by_octet() {
        assert_eq!(decode("quoted-printable", "caf=C3=A9 a=\nb =3D"), "caf\u{e9} ab =");
        assert_eq!(decode("Quoted-Printable ", "=Zx =4"), "Zx ");
        assert_eq!(decode("base64", "SGVs\nbG8="), "Hello");
        assert_eq!(decode("8bit", "a=20"), "a=20");
    }
}
