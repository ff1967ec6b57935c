//! Why the edge does not start or had to end.

use std::path::PathBuf;
use tidegate_journal::JournalError;
use tidegate_runtime::tls::TlsError;

/// Why the edge does not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A socket could not be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address as configured.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file or directory could not be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is kept on disk could not be opened.
    #[error("cannot open {}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<JournalError>,
    },
    /// A setting that was checked before does not hold any more.
    #[error("{key}: {problem}")]
    Setting {
        /// The key's path.
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A certificate could not be read.
    #[error("cannot use the certificates of {key}")]
    Tls {
        /// The key's path.
        key: &'static str,
        /// Why.
        #[source]
        source: TlsError,
    },
    /// Events cannot be published as configured.
    #[error("cannot publish events")]
    Publisher(#[from] tidegate_bus::BusError),
    /// Traces cannot be sent as configured.
    #[error("cannot send traces (traces)")]
    Traces(#[from] tidegate_runtime::traces::TracesError),
    /// An address of a gRPC server cannot be used.
    #[error("cannot connect to {endpoint}")]
    Endpoint {
        /// The address as configured.
        endpoint: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

impl EdgeError {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
