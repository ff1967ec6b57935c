//! What is wrong with a query, for who asked.

use crate::query::engine::Limit;
use datafusion::common::Diagnostic;
use datafusion::error::DataFusionError;
use std::time::Duration;
use tidegate_runtime::error_line;
use tonic::Status;

/// Why a query gives nothing, or no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// It is not SQL, or names what is not there.
    #[error("{message}")]
    Wrong {
        /// What is wrong, and where.
        message: String,
    },
    /// It would change something.
    #[error("the history is read-only: {what} is refused")]
    Writes {
        /// What.
        what: String,
    },
    /// It needs more memory, or more space to put things aside, than a query may take.
    #[error(
        "the query needs more than {} ({message}); narrow it, e.g. by date, or ask an administrator to raise \
         history.queries.{}",
        limit.describe(), limit.key()
    )]
    TooLarge {
        /// Which limit.
        limit: Limit,
        /// What the engine says.
        message: String,
    },
    /// It takes too long.
    #[error(
        "the query was ended after {} s; narrow it, e.g. by date, or ask an administrator to raise \
         history.queries.timeout_ms",
        after.as_secs_f64()
    )]
    TooLong {
        /// After how long.
        after: Duration,
    },
    /// Somebody cancelled it.
    #[error("the query was cancelled")]
    Cancelled,
    /// Too many wait already.
    #[error("{waiting} queries wait already; try again later")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// A statement that was prepared is not there any more.
    #[error("this prepared statement is not known (any more); prepare it again")]
    Forgotten,
    /// The tables cannot be read.
    #[error("{message}")]
    Failed {
        /// Why.
        message: String,
    },
}

impl QueryError {
    /// What the engine says, in the words of who asked.
    #[allow(clippy::needless_pass_by_value, reason = "as errors come to map_err")]
    pub fn of(error: DataFusionError, memory: u64, spill: u64) -> Self {
        let place = error.diagnostic().and_then(place);
        // The engine tells this one as a fault of files.
        if error.to_string().contains("max_temp_directory_size") {
            return Self::TooLarge { limit: Limit::Spill(spill), message: "more than may be spilled".to_owned() };
        }
        match error.find_root() {
            DataFusionError::SQL(parser, _) => Self::Wrong { message: format!("the SQL is wrong: {parser}") },
            DataFusionError::ResourcesExhausted(message) => {
                Self::TooLarge { limit: Limit::Memory(memory), message: first_line(message) }
            }
            DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) | DataFusionError::External(_) => {
                Self::Failed { message: format!("the history cannot be read: {}", error_line(&error)) }
            }
            // What the engine was doing is of no use to who asked: what went wrong is.
            root => {
                let message = first_line(&root.strip_backtrace());
                let place = place.unwrap_or_default();
                Self::Wrong { message: format!("the query is wrong: {message}{place}") }
            }
        }
    }

    /// How it is counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Wrong { .. } => "wrong",
            Self::Writes { .. } => "writes",
            Self::TooLarge { .. } => "too_large",
            Self::TooLong { .. } => "too_long",
            Self::Cancelled => "cancelled",
            Self::Busy { .. } => "busy",
            Self::Forgotten => "forgotten",
            Self::Failed { .. } => "failed",
        }
    }
}

impl From<QueryError> for Status {
    fn from(error: QueryError) -> Self {
        let message = error.to_string();
        match error {
            QueryError::Wrong { .. } => Self::invalid_argument(message),
            QueryError::Writes { .. } => Self::permission_denied(message),
            QueryError::TooLarge { .. } | QueryError::Busy { .. } => Self::resource_exhausted(message),
            QueryError::TooLong { .. } => Self::deadline_exceeded(message),
            QueryError::Cancelled => Self::cancelled(message),
            QueryError::Forgotten => Self::not_found(message),
            QueryError::Failed { .. } => Self::unavailable(message),
        }
    }
}

fn place(diagnostic: &Diagnostic) -> Option<String> {
    let start = diagnostic.span?.start;
    Some(format!(" at Line: {}, Column: {}", start.line, start.column))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}
