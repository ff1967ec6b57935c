//! The gate: what sessions ask about an account, and how a refusal is put into words for SMTP clients.

use tidegate_domain::Account;

/// Longest refusal in octets, code and status included. RFC 5321 section 4.5.3.1.5 allows 512 for a reply line;
/// the rest is left for what mail servers put in front of the text.
const MAX_REFUSAL_OCTETS: usize = 400;

/// What is in force now. Asked on every command that matters, so it answers from memory and never waits.
pub trait Gate {
    /// What is to be done with the account's mail at this moment.
    fn verdict(&self, account: &Account) -> Verdict;

    /// Whether mail to `address` (lower case, without angle brackets) passes even from a locked account.
    fn is_admin_address(&self, address: &str) -> bool;

    /// Whether [`Gate::is_admin_address`] can ever be true. It decides where [`crate::RefuseAt::Auto`] refuses.
    fn has_admin_addresses(&self) -> bool;

    /// Whether `domain` (lower case) is one of the provider's own.
    fn is_internal_domain(&self, domain: &str) -> bool;
}

/// Answer of a [`Gate`]. The texts are for the sender to read, and name the lock's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Let its mail pass.
    Pass,
    /// Refuse it for now: `450 4.7.1`.
    Throttle {
        /// What the SMTP client is told.
        text: String,
    },
    /// Refuse it: `550 5.7.1`.
    Refuse {
        /// What the SMTP client is told.
        text: String,
    },
}

/// The moment of an SMTP transaction at which something was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// `MAIL FROM`.
    Mail,
    /// `RCPT TO`.
    Recipient,
    /// `DATA`.
    Data,
    /// The dot that ends the message.
    EndOfMessage,
}

/// A refusal as one SMTP reply line (RFC 5321, RFC 3463): printable ASCII, bounded, without line breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    line: String,
    throttled: bool,
}

impl Refusal {
    /// The refusal that a verdict asks for, if it asks for one.
    pub fn of(verdict: &Verdict) -> Option<Self> {
        match verdict {
            Verdict::Pass => None,
            Verdict::Throttle { text } => Some(Self {
                line: reply_line("450 4.7.1", text, "Sending is slowed down, try again later"),
                throttled: true,
            }),
            Verdict::Refuse { text } => {
                Some(Self { line: reply_line("550 5.7.1", text, "This account may not send mail"), throttled: false })
            }
        }
    }

    /// The whole line, e.g. `550 5.7.1 Account locked (L-7K2M9QXB)`.
    pub fn as_str(&self) -> &str {
        &self.line
    }

    /// Whether the client may try again (`450`).
    pub fn is_throttle(&self) -> bool {
        self.throttled
    }
}

impl Stage {
    /// A name for labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Recipient => "rcpt",
            Self::Data => "data",
            Self::EndOfMessage => "end-of-message",
        }
    }
}

/// Puts `text` on one line behind `code`. A line break inside would end the reply, or forge a log line: control
/// characters become spaces, runs of spaces one, and what is not ASCII (which only SMTPUTF8 clients may be sent)
/// a question mark.
fn reply_line(code: &str, text: &str, otherwise: &str) -> String {
    let mut line = String::with_capacity(code.len() + 1 + text.len().min(MAX_REFUSAL_OCTETS));
    line.push_str(code);
    let mut words =
        text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty()).peekable();
    if words.peek().is_none() {
        line.push(' ');
        line.push_str(otherwise);
    }
    for word in words {
        if line.len() >= MAX_REFUSAL_OCTETS {
            break;
        }
        line.push(' ');
        line.extend(word.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }));
    }
    line.truncate(MAX_REFUSAL_OCTETS);
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refuse(text: &str) -> String {
        Refusal::of(&Verdict::Refuse { text: text.to_owned() }).unwrap().as_str().to_owned()
    }

    #[test]
    fn a_refusal_is_one_plain_line() {
        assert_eq!(refuse("Account locked\r\n250 Ok\0 (L-1)"), "550 5.7.1 Account locked 250 Ok (L-1)");
        assert_eq!(refuse("gesperrt für 100%"), "550 5.7.1 gesperrt f?r 100%");
        assert_eq!(refuse(" \n"), "550 5.7.1 This account may not send mail");
        let throttled = Refusal::of(&Verdict::Throttle { text: "slow".into() }).unwrap();
        assert_eq!((throttled.as_str(), throttled.is_throttle()), ("450 4.7.1 slow", true));
        assert_eq!(Refusal::of(&Verdict::Pass), None);
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_line(text in any::<String>(), times in 1_usize..40) {
            let line = refuse(&text.repeat(times));
            prop_assert!(line.len() <= MAX_REFUSAL_OCTETS && line.starts_with("550 5.7.1 "));
            prop_assert!(line.bytes().all(|b| b == b' ' || b.is_ascii_graphic()));
        }
    }
}
