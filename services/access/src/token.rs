//! Bearer tokens: `tg_`, an id, `_`, and 256 random bits.
//!
//! What is kept of a token is the SHA-256 of its secret. A slow, salted hash as for passwords is not needed: those guard
//! guessable secrets, and 256 random bits are guessed no faster for a fast hash, nor are they in any table.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use std::fmt::{self, Write as _};
use subtle::ConstantTimeEq as _;

/// What every token begins with, so that scanners for leaked secrets find it.
pub(crate) const PREFIX: &str = "tg_";
const ID_DIGITS: usize = 12;
const SECRET_OCTETS: usize = 32;

/// A token as its owner has it. It is shown once and never kept.
pub struct Token {
    id: String,
    secret: [u8; SECRET_OCTETS],
}

/// The SHA-256 of a token's secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

impl Token {
    /// A new one.
    pub(crate) fn random() -> Self {
        Self { id: format!("{:012x}", rand::random::<u64>() & 0xffff_ffff_ffff), secret: rand::random() }
    }

    /// Reads one. None when it has not exactly the form in which they are given out.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let secret = URL_SAFE_NO_PAD.decode(secret).ok()?.try_into().ok()?;
        is_id(id).then(|| Self { id: id.to_owned(), secret })
    }

    /// What names it, and is no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole token: what its owner has to keep.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, URL_SAFE_NO_PAD.encode(self.secret))
    }

    /// What is kept of it.
    pub(crate) fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.secret).into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

impl SecretHash {
    /// Of no secret that anybody has.
    pub const NONE: Self = Self([0; 32]);

    /// Whether they are the same, in a time that tells nothing of where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// In hexadecimal digits.
    pub fn to_hex(&self) -> String {
        self.0.iter().fold(String::with_capacity(64), |mut text, octet| {
            // Writing into a text never fails.
            let _ = write!(text, "{octet:02x}");
            text
        })
    }

    /// From 64 lower-case hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)) {
            return None;
        }
        let mut octets = [0; 32];
        for (octet, at) in octets.iter_mut().zip((0..64).step_by(2)) {
            *octet = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        Some(Self(octets))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

/// Whether `id` has the form of a token's id.
pub(crate) fn is_id(id: &str) -> bool {
    id.len() == ID_DIGITS && id.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_is_read_back_and_nothing_near_it() {
        let token = Token::random();
        let text = token.reveal();
        let read = Token::parse(&text).unwrap();
        assert_eq!((read.id(), read.secret), (token.id(), token.secret));
        assert!(read.hash().matches(&token.hash()) && !read.hash().matches(&Token::random().hash()));
        assert!(!token.hash().matches(&SecretHash::NONE));
        let all_but_last = &text[..text.len() - 1];
        for other in [all_but_last, &format!("{text}="), &format!("{text}A"), &text[3..], &text.to_uppercase()] {
            assert!(Token::parse(other).is_none(), "{other}");
        }
        // 43 digits of 6 bits hold 258 bits: the last two must be 0, so that a token has one spelling only.
        let last = text.bytes().last().unwrap();
        let spellings = (b' '..=b'~').filter(|c| Token::parse(&format!("{all_but_last}{}", char::from(*c))).is_some());
        assert!(spellings.clone().any(|c| c == last));
        assert_eq!(spellings.count(), 16);
    }

    #[test]
    fn no_secret_shows_in_debug_output() {
        let token = Token::random();
        assert_eq!(format!("{token:?} {:?}", token.hash()), format!("Token({}) SecretHash", token.id()));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in ".*", rest in "[a-f0-9_-]{0,80}") {
            prop_assert!(Token::parse(&text).is_none());
            let _ = Token::parse(&format!("tg_{rest}"));
            let _ = SecretHash::from_hex(&text);
        }

        #[test]
        fn hashes_are_read_back(octets: [u8; 32]) {
            let hash = SecretHash(octets);
            prop_assert_eq!(SecretHash::from_hex(&hash.to_hex()), Some(hash));
        }
    }
}
