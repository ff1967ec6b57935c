//! What an earlier filter wrote into the headers of a message: spam or not, and its score.

use serde::{Deserialize, Serialize};

/// A header in which a filter says what it thinks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpamHeader {
    /// Name of the header, e.g. `X-Spam-Status`.
    pub name: String,
    /// The message is spam when the value begins with one of these words, whatever their case, e.g. `yes`.
    /// Empty for a header that only carries a score.
    #[serde(default)]
    pub spam_values: Vec<String>,
}

/// What the headers of one message said.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SpamSigns {
    /// Whether one of them called it spam. A header that a client sends itself can set this, never clear it.
    pub spam: bool,
    /// The last score. Filters add their headers behind those that the client sent.
    pub score: Option<f64>,
}

impl SpamHeader {
    fn new(name: &str, spam_values: &[&str]) -> Self {
        Self { name: name.to_owned(), spam_values: spam_values.iter().map(|value| (*value).to_owned()).collect() }
    }

    /// The headers that SpamAssassin, rspamd and most others write.
    pub fn defaults() -> Vec<Self> {
        vec![
            Self::new("X-Spam", &["yes", "true"]),
            Self::new("X-Spam-Flag", &["yes", "true"]),
            Self::new("X-Spam-Status", &["yes"]),
            Self::new("X-Spam-Score", &[]),
            Self::new("X-Rspamd-Action", &["add header", "rewrite subject", "reject", "quarantine"]),
        ]
    }
}

impl SpamSigns {
    /// Takes in one header of the message.
    pub fn read(&mut self, name: &str, value: &[u8], headers: &[SpamHeader]) {
        let Some(header) = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)) else { return };
        let value = String::from_utf8_lossy(value.get(..1000).unwrap_or(value));
        let value = value.trim();
        self.spam |= header.spam_values.iter().any(|word| begins_with_word(value, word));
        if let Some(score) = score_in(value) {
            self.score = Some(score);
        }
    }
}

fn begins_with_word(value: &str, word: &str) -> bool {
    let Some((front, after)) = value.split_at_checked(word.len()) else { return false };
    !word.is_empty() && front.eq_ignore_ascii_case(word) && !after.starts_with(char::is_alphanumeric)
}

/// The number behind `score=` or `hits=`, or the value itself when it is a number.
fn score_in(value: &str) -> Option<f64> {
    let number = ["score=", "score:", "hits="]
        .iter()
        .find_map(|mark| value.to_ascii_lowercase().find(mark).map(|at| at + mark.len()))
        .map_or(value, |at| value[at..].trim_start());
    let end = number.find(|c: char| !matches!(c, '0'..='9' | '.' | '-' | '+')).unwrap_or(number.len());
    let rest = &number[end..];
    let whole = rest.is_empty() || number.len() < value.len() || rest.starts_with([' ', '/', ';', ',']);
    number[..end].parse().ok().filter(|score: &f64| whole && score.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(headers: &[(&str, &str)]) -> SpamSigns {
        let mut signs = SpamSigns::default();
        for (name, value) in headers {
            signs.read(name, value.as_bytes(), &SpamHeader::defaults());
        }
        signs
    }

    #[test]
    fn reads_what_the_common_filters_write() {
        let yes = |score| SpamSigns { spam: true, score };
        assert_eq!(read(&[("X-Spam", "Yes")]), yes(None));
        assert_eq!(read(&[("x-spam-flag", " YES ")]), yes(None));
        assert_eq!(read(&[("X-Spam-Status", "Yes, score=9.1\n\tmore")]), yes(Some(9.1)));
        assert_eq!(read(&[("X-Spam-Status", "Yes, hits=5 required=5.0")]), yes(Some(5.0)));
        assert_eq!(read(&[("X-Rspamd-Action", "add header"), ("X-Spam-Score", "8.4 / 15")]), yes(Some(8.4)));
        let no = |score| SpamSigns { spam: false, score };
        assert_eq!(read(&[("X-Spam-Status", "No, score=-1.9 required=5.0")]), no(Some(-1.9)));
        assert_eq!(read(&[("X-Rspamd-Action", "no action"), ("X-Spam-Flag", "YESTERDAY")]), no(None));
        assert_eq!(read(&[("X-Spam-Level", "*****"), ("Subject", "yes"), ("X-Spam", "")]), no(None));
        assert_eq!(read(&[("X-Spam-Score", "1.2.3"), ("X-Spam-Score", "5 stars"), ("X-Spam", "2nd")]), no(Some(5.0)));
    }

    #[test]
    fn a_client_cannot_whitewash_its_mail() {
        let signs = read(&[("X-Spam", "No"), ("X-Spam-Status", "No, score=0"), ("X-Spam", "Yes"), ("X-Spam", "No")]);
        assert!(signs.spam);
    }

    proptest! {
        #[test]
        fn any_value_can_be_read(value in any::<String>()) {
            let _ = read(&[("X-Spam-Status", &value), ("X-Spam", &format!("score={value}"))]);
        }
    }
}
