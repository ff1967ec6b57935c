//! What comes of a TLS handshake.

use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A connection over TLS.
pub struct Handshaken {
    /// What is said over it.
    pub stream: TlsStream<TcpStream>,
    /// The client's certificate and those below its authority, verified; none: it showed none.
    pub certificates: Option<Arc<[CertificateDer<'static>]>>,
}

/// Why a connection over TLS did not come about.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took too long.
    #[error("the TLS handshake took longer than {} s", .0.as_secs())]
    TooSlow(Duration),
    /// It failed.
    #[error("the TLS handshake failed: {0}")]
    Failed(std::io::Error),
}

impl HandshakeError {
    /// The kind, for metrics.
    pub fn kind(&self) -> &'static str {
        let Self::Failed(error) = self else { return "too_slow" };
        match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(_)) => "certificate",
            Some(rustls::Error::NoCertificatesPresented) => "no_certificate",
            Some(rustls::Error::InvalidMessage(_)) => "no_tls",
            Some(rustls::Error::PeerIncompatible(_)) => "incompatible",
            Some(rustls::Error::AlertReceived(_)) => "client_refused",
            Some(_) => "other",
            None => "closed",
        }
    }
}
