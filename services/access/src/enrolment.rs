//! Certificates for edges, given out by control: against a token that counts once, or the certificate that an edge holds.

use crate::authority::{Authority, Signed};
use crate::certificate::CertificateName;
use crate::config::EnrolmentConfig;
use crate::token_file::TokenFile;
use crate::{AccessConfig, AccessError};
use std::path::PathBuf;
use std::time::Duration;

/// Signs edges' certificates. Its calls read and write files: they block.
pub struct Enrolment {
    config: EnrolmentConfig,
    trust_domain: String,
    tokens: PathBuf,
}

impl Enrolment {
    /// What `config` says; none when it lacks anything.
    pub(crate) fn of(config: &AccessConfig) -> Option<Self> {
        Some(Self {
            config: config.enrolment.clone()?,
            trust_domain: config.trust_domain.clone()?,
            tokens: config.tokens.clone()?,
        })
    }

    /// Signs a certificate for the edge `site`/`node`. The authority's files are read as they are now.
    ///
    /// # Errors
    /// When the authority cannot be used, or there is no such certificate.
    pub fn sign(&self, request: &[u8], site: &str, node: &str, now_ms: i64) -> Result<Signed, AccessError> {
        let name = CertificateName::Edge { site: site.to_owned(), node: node.to_owned() };
        let lifetime = Duration::from_hours(24 * u64::from(self.config.lifetime_days));
        self.config.open()?.sign(request, &name, &self.trust_domain, lifetime, now_ms)
    }

    /// Uses up the token `id`: whoever comes second is refused, at whichever process that shares the file.
    ///
    /// # Errors
    /// When it does not count any more, or the file cannot be written: then nobody has used it.
    pub fn use_up(&self, id: &str, now_ms: i64) -> Result<(), AccessError> {
        TokenFile::use_up(&self.tokens, id, now_ms).map(drop)
    }
}

impl EnrolmentConfig {
    /// The authority as its files are now.
    pub(crate) fn open(&self) -> Result<Authority, AccessError> {
        let read = |what, path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|source| AccessError::Read { what, path: path.clone(), source })
        };
        Authority::from_pem(
            &read("certificate of the authority for edges", &self.certificate)?,
            &read("key of the authority for edges", &self.key)?,
        )
    }
}
