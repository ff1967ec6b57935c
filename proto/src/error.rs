//! Why a message does not say what the domain needs.

use tidegate_domain::AccountError;

/// Why a message could not be taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not protobuf of this kind.
    #[error("not a {message}: {reason}")]
    Protobuf {
        /// The message that was expected.
        message: &'static str,
        /// What the decoder says.
        reason: String,
    },
    /// A field that must be set is not.
    #[error("{message}.{field} is not set")]
    Missing {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field holds what it cannot.
    #[error("{message}.{field} is {value}; allowed: {allowed}")]
    Value {
        /// The message.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// What it holds, shortened.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The account is no account.
    #[error("{message}.account")]
    Account {
        /// The message.
        message: &'static str,
        /// Why.
        #[source]
        source: AccountError,
    },
}

impl DecodeError {
    /// The error with its cause, on one line, for a log or a status message.
    pub fn to_line(&self) -> String {
        match self {
            Self::Account { source, .. } => format!("{self}: {source}"),
            other => other.to_string(),
        }
    }
}

pub(crate) fn missing(message: &'static str, field: &'static str) -> DecodeError {
    DecodeError::Missing { message, field }
}
