//! `tidegate-edge enrol`: gets this host's certificate from control, and renews it.
//!
//! The private key is made here and never leaves the host. The first certificate is got with a token that counts once; it
//! is read from standard input or a file, since everybody on a machine can read the command lines of its processes.

mod files;

use crate::config::EdgeConfig;
use files::Pair;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate_proto::v1;
use tidegate_proto::v1::enrol_service_client::EnrolServiceClient;
use tidegate_runtime::error_line;
use tidegate_runtime::tls::{CertificateTimes, key_belongs};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Code, Request};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// More than any token has.
const MAX_TOKEN_OCTETS: u64 = 1_024;

/// A host that has no certificate yet.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// Control, `host:port`.
    pub control: String,
    /// PEM file with the authority that signed control's certificate.
    pub ca: PathBuf,
    /// Name that control's certificate bears, when it is not the host's.
    pub server_name: Option<String>,
    /// File with the token; `-`: standard input.
    pub token_file: PathBuf,
    /// This host's site.
    pub site: String,
    /// This host's name.
    pub node: String,
    /// `OUT.pem` and `OUT.key` are written.
    pub out: PathBuf,
    /// Whether files that are there already are replaced.
    pub replace: bool,
}

/// A certificate and its key that are in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// Its key's file.
    pub key: PathBuf,
    /// Until when it counts: milliseconds since 1970 UTC.
    pub not_after_ms: i64,
}

/// What became of a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// There is a new certificate.
    Renewed(Enrolled),
    /// More than a third of its time is left.
    NotDue {
        /// From when on it will be: milliseconds since 1970 UTC.
        due_ms: i64,
        /// Until when it counts: milliseconds since 1970 UTC.
        not_after_ms: i64,
    },
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Something was asked for that cannot be.
    #[error("{0}")]
    Asked(String),
    /// A file could not be read or written.
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
    /// No key or request could be made.
    #[error("cannot make a key and a signing request")]
    Key(#[from] rcgen::Error),
    /// There is no way to control, or it is not the one that the authority vouches for.
    #[error("cannot reach control at {address}, or it is not what the authority in {} vouches for", ca.display())]
    Connect {
        /// Its address.
        address: String,
        /// The authority's file.
        ca: PathBuf,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// Control said no.
    #[error("control refuses: {message}{hint}")]
    Refused {
        /// What it said.
        message: String,
        /// What can be done.
        hint: &'static str,
    },
    /// Control's answer is of no use.
    #[error("control's answer is of no use: {0}")]
    Answer(&'static str),
}

/// Gets the first certificate. What is in place afterwards can be used, or nothing has changed.
///
/// # Errors
/// When the token, control or the files do not allow it.
pub async fn enrol(asked: Enrolment) -> Result<Enrolled, EnrolError> {
    let pair = Pair::at(&asked.out);
    if !asked.replace
        && let Some(there) = pair.there()
    {
        let there = there.display();
        let told = format!("{there} is there already; `enrol --renew` renews it, --replace replaces it");
        return Err(EnrolError::Asked(told));
    }
    let token = token(&asked.token_file)?;
    let ca = read(&asked.ca)?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    let tls = match &asked.server_name {
        Some(name) => tls.domain_name(name),
        None => tls,
    };
    let control = Control { address: format!("https://{}", asked.control), ca: asked.ca, tls };
    control.certify(&pair, &asked.site, &asked.node, Some(token)).await
}

/// Renews the certificate of `[control.tls]`, when less than a third of its time is left or `force` is set. One that was
/// cut off while it put the files in place is brought to its end first.
///
/// # Errors
/// When there is none, control refuses, or the files cannot be written: then those that were there stay.
pub async fn renew(config: &EdgeConfig, force: bool, now_ms: i64) -> Result<Renewal, EnrolError> {
    let Some(tls) = &config.control.tls else {
        let told = "there is no [control.tls] in the configuration, so there is no certificate to renew";
        return Err(EnrolError::Asked(told.to_owned()));
    };
    let pair = Pair { certificate: tls.certificate.clone(), key: tls.key.clone() };
    pair.recover()?;
    let times = CertificateTimes::of_pem(&read(&pair.certificate)?)
        .ok_or_else(|| EnrolError::Asked(format!("{} holds no certificate", pair.certificate.display())))?;
    if !force && !times.is_due(now_ms) {
        return Ok(Renewal::NotDue { due_ms: times.due_ms(), not_after_ms: times.not_after_ms });
    }
    if now_ms >= times.not_after_ms {
        let told = "the certificate has ended, and proves nothing any more; enrol anew with a token and --replace";
        return Err(EnrolError::Asked(told.to_owned()));
    }
    let files = tls.load().map_err(|error| EnrolError::Asked(error_line(&error)))?;
    let control = Control { address: config.control.endpoint.clone(), ca: tls.ca.clone(), tls: files };
    control.certify(&pair, &config.site, &config.node, None).await.map(Renewal::Renewed)
}

/// Where certificates come from.
struct Control {
    address: String,
    ca: PathBuf,
    tls: ClientTlsConfig,
}

impl Control {
    /// Makes a key, has it certified, and puts both in place.
    async fn certify(
        &self,
        pair: &Pair,
        site: &str,
        node: &str,
        token: Option<MetadataValue<Ascii>>,
    ) -> Result<Enrolled, EnrolError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let key_pem = key.serialize_pem();
        // Before control is asked: a token would be used up for files that cannot be written.
        let new = pair.begin(&key_pem)?;
        let certified = self.ask(&key, site, node, token).await.and_then(|answer| {
            if !key_belongs(answer.certificate_pem.as_bytes(), key_pem.as_bytes()) {
                return Err(EnrolError::Answer("the certificate is for another key"));
            }
            Ok(answer)
        });
        let answer = match certified {
            Ok(answer) => answer,
            Err(error) => {
                new.give_up();
                return Err(error);
            }
        };
        new.finish(&answer.certificate_pem)?;
        let (certificate, key) = (pair.certificate.clone(), pair.key.clone());
        Ok(Enrolled { certificate, key, not_after_ms: answer.not_after_ms })
    }

    async fn ask(
        &self,
        key: &KeyPair,
        site: &str,
        node: &str,
        token: Option<MetadataValue<Ascii>>,
    ) -> Result<v1::EnrolResponse, EnrolError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, node);
        let certificate_request = params.serialize_request(key)?.der().to_vec();
        let has_token = token.is_some();
        let failed = |source| EnrolError::Connect { address: self.address.clone(), ca: self.ca.clone(), source };
        let endpoint = Endpoint::from_shared(self.address.clone())
            .map_err(failed)?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .tls_config(self.tls.clone())
            .map_err(failed)?;
        let channel = endpoint.connect().await.map_err(failed)?;
        let message = v1::EnrolRequest { site: site.to_owned(), node: node.to_owned(), certificate_request };
        let mut request = Request::new(message);
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token);
        }
        let answer = EnrolServiceClient::new(channel).enrol(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| refused(&status, has_token))
    }
}

fn refused(status: &tonic::Status, has_token: bool) -> EnrolError {
    let hint = match status.code() {
        // Who is not let in is not told why; the audit is.
        Code::Unauthenticated if has_token => {
            "; the token is wrong, used, expired or revoked (`tidegate audit list --denied` at control says which)"
        }
        Code::Unauthenticated => "; the certificate is expired or revoked: enrol anew with a token and --replace",
        Code::Unimplemented => "; it is older than this program, and gives out no certificates",
        _ => "",
    };
    EnrolError::Refused { message: status.message().to_owned(), hint }
}

/// The token as a header's value.
fn token(file: &Path) -> Result<MetadataValue<Ascii>, EnrolError> {
    let failed = |source| EnrolError::File { action: "read the token from", path: file.to_owned(), source };
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().take(MAX_TOKEN_OCTETS).read_to_string(&mut text).map_err(failed)?;
    } else {
        let opened = std::fs::File::open(file).map_err(failed)?;
        opened.take(MAX_TOKEN_OCTETS).read_to_string(&mut text).map_err(failed)?;
    }
    // The errors do not show it.
    let text = text.trim();
    if text.is_empty() {
        let told = "no token was given; `tidegate token create --enrol SITE/NODE` makes one, on the machine of control";
        return Err(EnrolError::Asked(told.to_owned()));
    }
    let value = format!("Bearer {text}").parse::<MetadataValue<Ascii>>();
    let mut value = value.map_err(|_| EnrolError::Asked("the token has characters that no token has".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn read(path: &Path) -> Result<Vec<u8>, EnrolError> {
    std::fs::read(path).map_err(|source| EnrolError::File { action: "read", path: path.to_owned(), source })
}
