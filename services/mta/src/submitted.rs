//! What sessions give to the shell.

use crate::Stage;
use tidegate_domain::{Account, Submission};

/// A message that an account submitted, ready to become an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Submitted {
    /// Whose it is.
    pub account: Account,
    /// What was seen of it.
    pub submission: Submission,
}

/// What happened in a session.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEvent {
    /// A message reached its end and was let pass.
    Message(Box<Submitted>),
    /// A message had begun (`DATA` had come) and was given up: an earlier filter refused it, or the client left.
    /// What was seen until then; the filter's verdict tells which of the two it was ([`crate::VerdictJoiner`]).
    /// Only milter sessions see it.
    Aborted(Box<Submitted>),
    /// The account is locked or throttled, and something was refused.
    Refused {
        /// Whose mail.
        account: Account,
        /// At which command.
        stage: Stage,
        /// Whether the client may try again (`450`).
        throttled: bool,
    },
    /// A message (in policy delegation: a request) is nobody's, and was let pass.
    Ignored(Ignored),
}

/// Why a message makes no event and is not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ignored {
    /// The client did not log in, and its address is not in the networks that may send without.
    NoLogin,
    /// The login cannot be an account (white space, too long, a reserved prefix).
    InvalidLogin,
}

impl Ignored {
    /// A name for labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoLogin => "no-login",
            Self::InvalidLogin => "invalid-login",
        }
    }
}
