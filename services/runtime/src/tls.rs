//! Certificate files into tonic's settings, and the rule that only loopback may be served without.

use crate::config::{Problems, Validate};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// A server's certificate, and the authority whose clients it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// PEM file with the server's certificate chain.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// PEM file with the authority that signs clients' certificates: a client without one is refused.
    pub client_ca: PathBuf,
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

/// A file that TLS needs could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what} from {}", path.display())]
pub struct TlsError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

impl ServerTls {
    /// tonic's settings.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn load(&self) -> Result<ServerTlsConfig, TlsError> {
        let identity = identity(&self.certificate, &self.key)?;
        let ca = Certificate::from_pem(read("the clients' authority", &self.client_ca)?);
        Ok(ServerTlsConfig::new().identity(identity).client_ca_root(ca))
    }
}

impl ClientTls {
    /// tonic's settings.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn load(&self) -> Result<ClientTlsConfig, TlsError> {
        let ca = Certificate::from_pem(read("the server's authority", &self.ca)?);
        let config = ClientTlsConfig::new().identity(identity(&self.certificate, &self.key)?).ca_certificate(ca);
        Ok(match &self.server_name {
            Some(name) => config.domain_name(name),
            None => config,
        })
    }
}

impl Validate for ServerTls {
    fn validate(&self, path: &str, problems: &mut Problems) {
        let files = [("certificate", &self.certificate), ("key", &self.key), ("client_ca", &self.client_ca)];
        check_files(&files, path, problems);
    }
}

impl Validate for ClientTls {
    fn validate(&self, path: &str, problems: &mut Problems) {
        let files = [("certificate", &self.certificate), ("key", &self.key), ("ca", &self.ca)];
        check_files(&files, path, problems);
    }
}

/// Adds a problem when `address` is not loopback and there is no TLS: the API could lock and unlock anybody.
pub fn check_listen(path: &str, name: &str, address: SocketAddr, tls: Option<&ServerTls>, problems: &mut Problems) {
    if tls.is_none() && !address.ip().is_loopback() {
        problems.add(
            path,
            name,
            format!(
                "is {address}, which others can reach, without TLS; allowed: a loopback address, or any with [tls] set"
            ),
        );
    }
}

fn check_files(files: &[(&str, &PathBuf)], path: &str, problems: &mut Problems) {
    for (name, file) in files {
        if let Err(error) = std::fs::metadata(file) {
            problems.add(path, name, format!("cannot read {}: {error}", file.display()));
        }
    }
}

fn identity(certificate: &Path, key: &Path) -> Result<Identity, TlsError> {
    Ok(Identity::from_pem(read("the certificate", certificate)?, read("the private key", key)?))
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError { what, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_served_without_tls() {
        let mut problems = Problems::default();
        check_listen("control", "listen", "127.0.0.1:7710".parse().unwrap(), None, &mut problems);
        check_listen("control", "listen", "[::1]:7710".parse().unwrap(), None, &mut problems);
        assert!(problems.is_empty());
        check_listen("control", "listen", "0.0.0.0:7710".parse().unwrap(), None, &mut problems);
        assert!(problems.to_string().contains("control.listen: is 0.0.0.0:7710"));
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
