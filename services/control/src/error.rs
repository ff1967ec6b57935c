//! Why the service did not start, or ended.

use std::net::SocketAddr;
use tidegate_runtime::tls::TlsError;

/// Why the service did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The address could not be had.
    #[error("cannot listen for gRPC on {address}; is another process there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others can reach the address, and it is not secured.
    #[error("gRPC is not served on {address}, which others can reach, without [control.tls] and [access]")]
    Unsecured {
        /// The address.
        address: SocketAddr,
    },
    /// A certificate file could not be used.
    #[error("cannot set up TLS for gRPC")]
    Certificates(#[from] TlsError),
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
