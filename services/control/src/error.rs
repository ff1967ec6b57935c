//! Why the service did not start, or ended.

use tidegate_gate::DoorError;

/// Why the service did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The address cannot be served.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// The gRPC server failed.
    #[error("the gRPC server failed while {doing}")]
    Grpc {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The reflection service could not read the descriptors.
    #[error("cannot offer gRPC reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The place where evidence for unlocks comes from cannot be used.
    #[error("cannot set up where evidence for unlocks comes from")]
    Evidence(#[source] Box<dyn std::error::Error + Send + Sync>),
}
