//! Whom a client's certificate names.
//!
//! The name is the one URI among its subject alternative names that begins with `spiffe://`:
//! `spiffe://TRUSTDOMAIN/edge/SITE/NODE` or `spiffe://TRUSTDOMAIN/user/NAME`, as in the SPIFFE X.509-SVID standard, but
//! that `%XX` is allowed in its parts. TLS has checked already that an authority of ours signed it.

use rustls::pki_types::CertificateDer;
use std::fmt::{self, Write as _};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Longest part of a name, in octets.
const MAX_PART_OCTETS: usize = 255;
/// Longest URI of a name: SPIFFE's own bound.
const MAX_URI_OCTETS: usize = 2_048;

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CertificateName {
    /// A mail host: it can act for nobody else.
    Edge {
        /// Its site.
        site: String,
        /// Its name.
        node: String,
    },
    /// A person, or a program that acts for one.
    User(String),
}

/// What of a certificate matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// Whom it names.
    pub name: CertificateName,
    /// From when on it counts: milliseconds since 1970 UTC.
    pub not_before_ms: i64,
    /// Until when it counts: milliseconds since 1970 UTC.
    pub not_after_ms: i64,
}

/// Why a certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateNameError {
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It has no name that we know.
    #[error("the certificate has no name that begins with spiffe://")]
    NoName,
    /// It has more than one: it is not said for whom it acts.
    #[error("the certificate has more than one name that begins with spiffe://")]
    ManyNames,
    /// Its name has another form.
    #[error("the certificate's name {0:?} is not spiffe://TRUSTDOMAIN/edge/SITE/NODE or .../user/NAME")]
    Form(String),
    /// Its name is of another trust domain.
    #[error("the certificate's name {0:?} is of another trust domain")]
    TrustDomain(String),
}

impl ClientCertificate {
    /// Reads `certificate`, whose name must be of `trust_domain` if there is one.
    pub fn read(certificate: &CertificateDer<'_>, trust_domain: Option<&str>) -> Result<Self, CertificateNameError> {
        use CertificateNameError::{ManyNames, NoName, Unreadable};
        let (rest, certificate) = X509Certificate::from_der(certificate).map_err(|_| Unreadable)?;
        if !rest.is_empty() {
            return Err(Unreadable);
        }
        // An error also when the extension is there twice.
        let names = certificate.subject_alternative_name().map_err(|_| Unreadable)?.ok_or(NoName)?;
        let uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let mut ours = uris.filter(|uri| scheme_is_spiffe(uri));
        let uri = ours.next().ok_or(NoName)?;
        if ours.next().is_some() {
            return Err(ManyNames);
        }
        let ms = |time: x509_parser::time::ASN1Time| time.timestamp().saturating_mul(1_000);
        Ok(Self {
            name: CertificateName::parse(uri, trust_domain)?,
            not_before_ms: ms(certificate.validity().not_before),
            not_after_ms: ms(certificate.validity().not_after),
        })
    }
}

impl CertificateName {
    /// Reads a name from a URI, which must be of `trust_domain` if there is one.
    pub fn parse(uri: &str, trust_domain: Option<&str>) -> Result<Self, CertificateNameError> {
        let form = || CertificateNameError::Form(shown(uri));
        let rest = uri.strip_prefix("spiffe://").filter(|_| uri.len() <= MAX_URI_OCTETS).ok_or_else(form)?;
        let (domain, path) = rest.split_once('/').ok_or_else(form)?;
        if !is_trust_domain(domain) {
            return Err(form());
        }
        let mut parts = path.split('/');
        let kind = parts.next();
        let mut part = || parts.next().and_then(decode);
        let name = match kind {
            Some("edge") => {
                part().zip(part()).map(|(site, node)| Self::Edge { site, node }).filter(|_| parts.next().is_none())
            }
            Some("user") => part().map(Self::User).filter(|_| parts.next().is_none()),
            _ => None,
        };
        let name = name.ok_or_else(form)?;
        match trust_domain {
            Some(ours) if ours != domain => Err(CertificateNameError::TrustDomain(shown(uri))),
            _ => Ok(name),
        }
    }

    /// The URI that says it, under `trust_domain`. None when a part of it cannot be said, or the domain is none.
    pub fn to_uri(&self, trust_domain: &str) -> Option<String> {
        let uri = match self {
            Self::Edge { site, node } => format!("spiffe://{trust_domain}/edge/{}/{}", encode(site), encode(node)),
            Self::User(name) => format!("spiffe://{trust_domain}/user/{}", encode(name)),
        };
        (Self::parse(&uri, Some(trust_domain)).as_ref() == Ok(self)).then_some(uri)
    }
}

impl fmt::Display for CertificateName {
    /// `edge/SITE/NODE` or `user/NAME`, as in the list of what is revoked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edge { site, node } => write!(f, "edge/{site}/{node}"),
            Self::User(name) => write!(f, "user/{name}"),
        }
    }
}

/// Whether `part` can be a part of a name: not empty, printable, not too long, and no way up or down a path.
pub(crate) fn is_name_part(part: &str) -> bool {
    let fits = !part.is_empty() && part.len() <= MAX_PART_OCTETS && part != "." && part != ".." && part != "*";
    fits && !part.contains('/') && !part.chars().any(char::is_control)
}

/// Whether `domain` can be a trust domain, in SPIFFE's own alphabet.
pub(crate) fn is_trust_domain(domain: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-' | b'_');
    (1..=MAX_PART_OCTETS).contains(&domain.len()) && domain.bytes().all(allowed)
}

/// Schemes know no case. One that is written otherwise is seen here, and refused for its form.
fn scheme_is_spiffe(uri: &str) -> bool {
    uri.as_bytes().get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"spiffe:"))
}

fn decode(part: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'%' => {
                // The standard library's parser would take a sign.
                let digit = |octet: u8| char::from(octet).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            octet if is_plain(octet) => octet,
            _ => return None,
        });
    }
    String::from_utf8(octets).ok().filter(|part| is_name_part(part))
}

fn encode(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for octet in part.bytes() {
        if is_plain(octet) {
            text.push(char::from(octet));
        } else {
            // Writing into a text never fails.
            let _ = write!(text, "%{octet:02X}");
        }
    }
    text
}

/// What may stand in a path's part as it is: RFC 3986's `unreserved`, and what is common in names besides.
fn is_plain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~' | b'@' | b'+')
}

/// As much of a URI of a stranger's as stands in the audit.
fn shown(uri: &str) -> String {
    uri[..uri.floor_char_boundary(200)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(|name| SanType::URI((*name).try_into().unwrap())).collect();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn name(uri: &str) -> Result<CertificateName, CertificateNameError> {
        CertificateName::parse(uri, None)
    }

    #[test]
    fn edges_and_users_are_named() {
        let edge = CertificateName::Edge { site: "ams".into(), node: "mx1.example.org".into() };
        assert_eq!(name("spiffe://example.org/edge/ams/mx1.example.org"), Ok(edge.clone()));
        assert_eq!(edge.to_string(), "edge/ams/mx1.example.org");
        assert_eq!(name("spiffe://x/user/jo@example.org"), Ok(CertificateName::User("jo@example.org".into())));
        assert_eq!(name("spiffe://x/user/J%C3%B6%20M"), Ok(CertificateName::User("Jö M".into())));
        let other = CertificateName::parse("spiffe://b/user/jo", Some("a"));
        assert!(matches!(other, Err(CertificateNameError::TrustDomain(_))));
    }

    #[test]
    fn everything_else_is_refused() {
        for uri in [
            "spiffe://x",
            "spiffe://x/",
            "spiffe:///user/jo",
            "spiffe://X/user/jo",
            "spiffe://x:80/user/jo",
            "SPIFFE://x/user/jo",
            "spiffe://x/user",
            "spiffe://x/user/",
            "spiffe://x/user/jo/",
            "spiffe://x/user/jo?a",
            "spiffe://x/user/jo#a",
            "spiffe://x/user/..",
            "spiffe://x/user/%2e%2e",
            "spiffe://x/user/a%2Fb",
            "spiffe://x/user/a%00b",
            "spiffe://x/user/a%0",
            "spiffe://x/user/a%+1",
            "spiffe://x/user/a%zz",
            "spiffe://x/user/%FF",
            "spiffe://x/user/*",
            "spiffe://x/User/jo",
            "spiffe://x/edge/ams",
            "spiffe://x/edge/ams/",
            "spiffe://x/edge//mx1",
            "spiffe://x/edge/ams/mx1/mx2",
            "spiffe://x/admin/jo",
        ] {
            assert!(matches!(name(uri), Err(CertificateNameError::Form(_))), "{uri}");
        }
        assert!(name(&format!("spiffe://x/user/{}", "a".repeat(256))).is_err());
    }

    #[test]
    fn a_certificate_names_exactly_one() {
        let read = |names: &[&str]| ClientCertificate::read(&certificate(names), None).map(|read| read.name);
        let jo = Ok(CertificateName::User("jo".into()));
        assert_eq!(read(&["spiffe://x/user/jo"]), jo);
        assert_eq!(read(&["https://example.org/jo", "spiffe://x/user/jo"]), jo, "other URIs name nobody");
        assert_eq!(read(&[]), Err(CertificateNameError::NoName));
        assert_eq!(read(&["https://example.org/user/jo"]), Err(CertificateNameError::NoName));
        for second in ["spiffe://x/user/jo", "spiffe://x/edge/ams/mx1", "spiffe://x/other", "SPIFFE://x/user/jo"] {
            let both = read(&["spiffe://x/user/jo", second]);
            assert_eq!(both, Err(CertificateNameError::ManyNames), "{second}");
        }
    }

    #[test]
    fn hostile_octets_are_refused() {
        let good = certificate(&["spiffe://x/user/jo"]);
        let read = |octets: &[u8]| ClientCertificate::read(&CertificateDer::from(octets.to_vec()), None);
        assert!(read(&good).is_ok());
        for length in 0..good.len() {
            assert_eq!(read(&good[..length]), Err(CertificateNameError::Unreadable), "cut at {length}");
        }
        assert_eq!(read(&[good.as_ref(), &[0]].concat()), Err(CertificateNameError::Unreadable));
        // Whatever one octet is changed to, it is read or refused.
        for at in 0..good.len() {
            for value in [0, 0x30, 0x7f, 0x80, 0xff] {
                let mut octets = good.to_vec();
                octets[at] = value;
                let _ = read(&octets);
            }
        }
    }

    proptest! {
        #[test]
        fn what_can_be_said_is_read_back(site in "\\PC{1,20}", node in "\\PC{1,20}", user in "\\PC{1,20}") {
            for name in [CertificateName::Edge { site, node }, CertificateName::User(user)] {
                if let Some(uri) = name.to_uri("example.org") {
                    prop_assert!(uri.is_ascii());
                    prop_assert_eq!(CertificateName::parse(&uri, Some("example.org")), Ok(name));
                }
            }
        }

        #[test]
        fn no_text_and_no_octets_are_too_strange(uri in ".*", octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = name(&uri);
            let _ = name(&format!("spiffe://x/user/{uri}"));
            prop_assert!(ClientCertificate::read(&CertificateDer::from(octets), None).is_err());
        }
    }
}
