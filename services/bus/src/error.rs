//! Why the log did not do what was asked.

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
        source: tidegate_journal::JournalError,
    },
    /// Kafka failed.
    #[error("Kafka failed while {doing}")]
    Kafka {
        /// What was being done, with topic and partition.
        doing: String,
        /// Why it failed.
        #[source]
        source: rdkafka::error::KafkaError,
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
    /// The log was closed.
    #[error("the log was closed while {doing}")]
    Closed {
        /// What was being done.
        doing: String,
    },
}
