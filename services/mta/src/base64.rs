//! Base64 (RFC 4648), read as mail programs read it: what is not in the alphabet is skipped.

/// Streaming decoder. Padding ends a group, so that glued-together texts decode too.
#[derive(Debug, Default)]
pub(crate) struct Base64 {
    bits: u32,
    held: u8,
}

impl Base64 {
    /// Decodes what `input` adds, byte by byte, into `sink`.
    pub fn push(&mut self, input: &[u8], mut sink: impl FnMut(u8)) {
        for byte in input {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' => {
                    *self = Self::default();
                    continue;
                }
                _ => continue,
            };
            self.bits = (self.bits << 6) | u32::from(value);
            self.held += 6;
            if self.held >= 8 {
                self.held -= 8;
                sink((self.bits >> self.held) as u8);
                self.bits &= (1 << self.held) - 1;
            }
        }
    }
}

/// The value of a hexadecimal digit.
pub(crate) fn hex_value(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&str]) -> String {
        let (mut decoder, mut out) = (Base64::default(), Vec::new());
        for piece in pieces {
            decoder.push(piece.as_bytes(), |byte| out.push(byte));
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn decodes_in_pieces_and_past_padding() {
        assert_eq!(decode(&["SGVsbG8="]), "Hello");
        assert_eq!(decode(&["SG", "Vs\r\nb", "G8", "="]), "Hello");
        assert_eq!(decode(&["SGVsbG8=SGVsbG8="]), "HelloHello");
        assert_eq!(decode(&["", "!?", "=="]), "");
    }
}
