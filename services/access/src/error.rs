//! Why credentials could not be set up, or a file of them not be changed.

use std::io;
use std::path::PathBuf;

/// Why credentials could not be set up, or a file of them not be changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file could not be read.
    #[error("cannot read the {what} in {}", path.display())]
    Read {
        /// What it holds.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file has problems.
    #[error("{}: {}", path.display(), problems.join("\n"))]
    Content {
        /// The file.
        path: PathBuf,
        /// All of them.
        problems: Vec<String>,
    },
    /// A token cannot be made like this.
    #[error("no such token can be made: {problem}")]
    NewToken {
        /// Why.
        problem: String,
    },
    /// There is no such token.
    #[error("{} has no token {id:?}; `tidegate token list` shows them", path.display())]
    NoToken {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        id: String,
    },
    /// A token does not count, or not any more.
    #[error("token {id} {why}")]
    SpentToken {
        /// Its id.
        id: String,
        /// Why.
        why: &'static str,
    },
    /// Keys cannot be fetched on this system.
    #[error("cannot set up the fetching of keys for JWTs")]
    Http(#[source] reqwest::Error),
    /// A certificate could not be made.
    #[error("cannot make a certificate for {whom}")]
    Certificate {
        /// For whom.
        whom: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A certificate cannot be made like this.
    #[error("no such certificate can be made: {problem}")]
    NewCertificate {
        /// Why.
        problem: String,
    },
}
