//! Why the log did not do what was asked.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::path::PathBuf;
use tidegate_journal::JournalError;
use tonic::Code;

/// Why the log did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The embedded log failed.
    #[error("the embedded log failed while {doing}")]
    Journal {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: Box<JournalError>,
    },
    /// Kafka failed.
    #[error("Kafka failed while {doing}")]
    Kafka {
        /// What was being done, with topic and partition.
        doing: String,
        /// Why it failed.
        #[source]
        source: KafkaError,
    },
    /// Somebody else owns the partition now.
    #[error("partition {partition} has a newer owner; this one must stop writing to it")]
    Fenced {
        /// The partition.
        partition: u32,
    },
    /// A topic is not as it must be.
    #[error("topic {topic}: {problem}")]
    Topic {
        /// Its full name.
        topic: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// What was to be written cannot be.
    #[error("cannot write to {topic}: {problem}")]
    Message {
        /// The topic.
        topic: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Whoever owns the log did not take it.
    #[error("publishing over gRPC to {endpoint} failed: {status}")]
    Grpc {
        /// Where to.
        endpoint: String,
        /// What it said.
        status: Box<tonic::Status>,
    },
    /// The file with a property of the connection to Kafka cannot be read.
    #[error("cannot read the property {name} from {}", path.display())]
    PropertyFile {
        /// The property.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The log was closed.
    #[error("the log was closed while {doing}")]
    Closed {
        /// What was being done.
        doing: String,
    },
    /// There can be no connection to an endpoint.
    #[error("cannot connect to {endpoint}")]
    Endpoint {
        /// Where to.
        endpoint: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl BusError {
    /// Whether the same thing may succeed later: the fault passes, or somebody makes room. Otherwise it never will.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Journal { source, .. } => matches!(
                **source,
                JournalError::Io { .. }
                    | JournalError::QueueFull { .. }
                    | JournalError::DiskFull { .. }
                    | JournalError::InUse { .. }
                    | JournalError::Sql { .. }
            ),
            Self::Kafka { source, .. } => {
                !matches!(source, KafkaError::ClientConfig(..) | KafkaError::Nul(_))
                    && !source.rdkafka_error_code().is_some_and(lasts)
            }
            Self::Grpc { status, .. } => !matches!(
                status.code(),
                Code::InvalidArgument
                    | Code::NotFound
                    | Code::AlreadyExists
                    | Code::PermissionDenied
                    | Code::FailedPrecondition
                    | Code::OutOfRange
                    | Code::Unimplemented
                    | Code::DataLoss
                    | Code::Unauthenticated
            ),
            Self::Fenced { .. }
            | Self::Topic { .. }
            | Self::PropertyFile { .. }
            | Self::Message { .. }
            | Self::Closed { .. }
            | Self::Endpoint { .. } => false,
        }
    }
}

/// Whether Kafka will answer the same again.
fn lasts(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{
        ClusterAuthorizationFailed, GroupAuthorizationFailed, InvalidArgument, MessageSizeTooLarge,
        TopicAuthorizationFailed, TransactionalIdAuthorizationFailed, UnsupportedSASLMechanism, UnsupportedVersion,
    };
    matches!(
        code,
        ClusterAuthorizationFailed
            | GroupAuthorizationFailed
            | InvalidArgument
            | MessageSizeTooLarge
            | TopicAuthorizationFailed
            | TransactionalIdAuthorizationFailed
            | UnsupportedSASLMechanism
            | UnsupportedVersion
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_lasts() {
        let grpc = |code| BusError::Grpc { endpoint: String::new(), status: Box::new(tonic::Status::new(code, "")) };
        assert!(grpc(Code::Unavailable).is_retryable() && grpc(Code::DeadlineExceeded).is_retryable());
        assert!(!grpc(Code::Unauthenticated).is_retryable() && !grpc(Code::Unimplemented).is_retryable());
        let kafka = |code| BusError::Kafka { doing: String::new(), source: KafkaError::MessageProduction(code) };
        assert!(kafka(RDKafkaErrorCode::MessageTimedOut).is_retryable());
        assert!(!kafka(RDKafkaErrorCode::TopicAuthorizationFailed).is_retryable());
        let full = JournalError::QueueFull { batches: 1, bytes: 1 };
        assert!(BusError::Journal { doing: String::new(), source: Box::new(full) }.is_retryable());
        assert!(!BusError::Fenced { partition: 1 }.is_retryable());
    }
}
