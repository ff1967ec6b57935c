//! Certificate files of servers and clients, and the rule that only loopback may be served without.

mod certificate;
mod handshake;
mod server;

pub use certificate::{CertificateTimes, key_belongs};
pub use handshake::{HandshakeError, Handshaken};
pub use server::{ClientCertificates, ReloadingTls, TlsOptions};

use crate::config::{Problems, Validate, key};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// A server's certificate, and the authority whose clients it takes. [`ReloadingTls`] makes TLS of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// PEM file with the server's certificate chain.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// PEM file with the authority that signs clients' certificates; none: clients are not asked for any.
    pub client_ca: Option<PathBuf>,
}

/// A client's certificate, and the authority whose servers it trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// PEM file with the client's certificate chain.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// PEM file with the authority that signs the server's certificate.
    pub ca: PathBuf,
    /// Name that the server's certificate must bear, when it is not the host in the address.
    #[serde(default)]
    pub server_name: Option<String>,
}

/// What the files of a [`ClientTls`] hold at one moment, to see whether they have changed.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientFiles {
    certificate: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
    server_name: Option<String>,
}

/// Why TLS cannot be set up from its files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {what} from {}", path.display())]
    Read {
        /// What it holds.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} holds no {what} in PEM form", path.display())]
    Pem {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The files do not fit each other, or are of a kind that cannot be used.
    #[error("cannot use {what} in {}", path.display())]
    Unusable {
        /// What it holds.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ClientTls {
    /// Reads the files as they are now.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(&self) -> Result<ClientFiles, TlsError> {
        Ok(ClientFiles {
            certificate: read("the certificate", &self.certificate)?,
            key: read("the private key", &self.key)?,
            ca: read("the server's authority", &self.ca)?,
            server_name: self.server_name.clone(),
        })
    }

    /// tonic's settings from the files as they are now.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn load(&self) -> Result<ClientTlsConfig, TlsError> {
        Ok(self.read()?.to_tonic())
    }
}

impl ClientFiles {
    /// From when to when the client's certificate counts; none when it cannot be read.
    pub fn times(&self) -> Option<CertificateTimes> {
        CertificateTimes::of_pem(&self.certificate)
    }

    /// tonic's settings.
    pub fn to_tonic(&self) -> ClientTlsConfig {
        let identity = Identity::from_pem(&self.certificate, &self.key);
        let config = ClientTlsConfig::new().identity(identity).ca_certificate(Certificate::from_pem(&self.ca));
        match &self.server_name {
            Some(name) => config.domain_name(name),
            None => config,
        }
    }
}

impl std::fmt::Debug for ClientFiles {
    /// Without what they hold: one of them is a private key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientFiles").finish_non_exhaustive()
    }
}

impl Validate for ServerTls {
    fn validate(&self, path: &str, problems: &mut Problems) {
        let before = problems.iter().count();
        let files = [
            ("certificate", Some(&self.certificate)),
            ("key", Some(&self.key)),
            ("client_ca", self.client_ca.as_ref()),
        ];
        let given: Vec<_> = files.into_iter().filter_map(|(name, file)| Some((name, file?))).collect();
        check_files(&given, path, problems);
        if problems.iter().count() == before
            && let Err(error) = server::check(self)
        {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            problems.add(path, "certificate", format!("{error}{cause}"));
        }
    }
}

impl Validate for ClientTls {
    fn validate(&self, path: &str, problems: &mut Problems) {
        let files = [("certificate", &self.certificate), ("key", &self.key), ("ca", &self.ca)];
        check_files(&files, path, problems);
    }
}

/// Adds a problem when others can reach `address` and there is no TLS: the API could lock and unlock anybody.
pub fn check_listen(path: &str, name: &str, address: SocketAddr, tls: Option<&ServerTls>, problems: &mut Problems) {
    if tls.is_none() && !address.ip().is_loopback() {
        let allowed = format!("allowed: a loopback address, or any with [{}] and [access] set", key(path, "tls"));
        problems.add(path, name, format!("is {address}, which others can reach, without TLS; {allowed}"));
    }
}

/// Adds a problem when others can reach `address` and callers do not have to prove who they are (`has_access`).
pub fn check_access(path: &str, name: &str, address: SocketAddr, has_access: bool, problems: &mut Problems) {
    if !has_access && !address.ip().is_loopback() {
        let allowed = "allowed: a loopback address, or any with [access] set";
        let wrong = format!("is {address}, which others can reach, and nobody is asked who they are; {allowed}");
        problems.add(path, name, wrong);
    }
}

/// Adds a problem when the value of `endpoint` is no address of a gRPC server, or says something else of TLS than `has_tls`.
pub fn check_endpoint(path: &str, endpoint: &str, has_tls: bool, problems: &mut Problems) {
    match endpoint.parse::<tonic::transport::Uri>() {
        Ok(uri) if uri.authority().is_some() && matches!(uri.scheme_str(), Some("http" | "https")) => {
            if has_tls != (uri.scheme_str() == Some("https")) {
                problems.add(path, "endpoint", "must begin with https:// if tls is set, and with http:// if not");
            }
        }
        _ => {
            problems.add(path, "endpoint", format!("is {endpoint:?}; allowed: http://host:port or https://host:port"));
        }
    }
}

fn check_files(files: &[(&str, &PathBuf)], path: &str, problems: &mut Problems) {
    for (name, file) in files {
        if let Err(error) = std::fs::metadata(file) {
            problems.add(path, name, format!("cannot read {}: {error}", file.display()));
        }
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { what, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(address: &str, tls: bool, has_access: bool) -> String {
        let tls = tls.then(|| ServerTls { certificate: "/no/a".into(), key: "/no/b".into(), client_ca: None });
        let mut problems = Problems::default();
        let address = address.parse().unwrap();
        check_listen("control", "listen", address, tls.as_ref(), &mut problems);
        check_access("control", "listen", address, has_access, &mut problems);
        problems.to_string()
    }

    #[test]
    fn only_loopback_is_served_without_tls_and_access() {
        for address in ["127.0.0.1:7710", "[::1]:7710"] {
            assert_eq!(problems(address, false, false), "");
        }
        for address in ["0.0.0.0:7710", "[::]:7710", "192.0.2.1:7710"] {
            assert_eq!(problems(address, true, true), "");
            let without_tls = problems(address, false, true);
            assert!(without_tls.starts_with(&format!("  control.listen: is {address}, ")), "{without_tls}");
            assert!(without_tls.contains("[control.tls] and [access] set"), "{without_tls}");
            assert!(problems(address, true, false).contains("nobody is asked who they are"));
            assert_eq!(problems(address, false, false).lines().count(), 2);
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let tls = ClientTls { certificate: "/no/a".into(), key: "/no/b".into(), ca: "/no/c".into(), server_name: None };
        let mut problems = Problems::default();
        tls.validate("control.tls", &mut problems);
        assert_eq!(problems.iter().count(), 3);
        assert!(tls.load().unwrap_err().to_string().contains("/no/"));
    }
}
