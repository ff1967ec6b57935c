//! A small certificate authority, for providers without one of their own.

use crate::AccessError;
use crate::certificate::CertificateName;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Certificates count from so long before they were made: other clocks can be behind.
const BACKDATED_MS: i64 = 300_000;
/// Largest signing request; one with a key on P-256 has some hundred octets.
const MAX_REQUEST_OCTETS: usize = 4 << 10;
/// A point on P-256, not compressed.
const P256_POINT_OCTETS: usize = 65;

/// A certificate authority that signs.
pub struct Authority {
    certificate_pem: String,
    /// What a client has to show besides its own certificate; nothing when this authority is a root.
    between_pem: String,
    issuer: Issuer<'static, KeyPair>,
    not_after_ms: i64,
}

/// A certificate for a key that somebody else has.
pub struct Signed {
    /// The certificate, and what stands between it and the root, as PEM.
    pub certificate_pem: String,
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
    /// Until when it counts: milliseconds since 1970 UTC.
    pub not_after_ms: i64,
}

/// A certificate and its private key.
pub struct Issued {
    /// The certificate, as PEM.
    pub certificate_pem: String,
    /// Its private key, as PEM (PKCS #8).
    pub key_pem: String,
    /// Until when it counts: milliseconds since 1970 UTC.
    pub not_after_ms: i64,
}

impl Authority {
    /// Makes an authority called `name`, which signs certificates of servers and clients but no further authorities.
    ///
    /// # Errors
    /// When there is no such certificate.
    pub fn create(name: &str, lifetime: Duration, now_ms: i64) -> Result<(Self, Issued), AccessError> {
        let whom = "an authority";
        let key = key(whom)?;
        let mut params = params(name, now_ms, later(now_ms, lifetime, i64::MAX)?)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed(whom))?;
        let (certificate_pem, key_pem) = (certificate.pem(), key.serialize_pem());
        let not_after_ms = params.not_after.unix_timestamp().saturating_mul(1_000);
        let issued = Issued { certificate_pem: certificate_pem.clone(), key_pem, not_after_ms };
        let issuer = Issuer::new(params, key);
        Ok((Self { certificate_pem, between_pem: String::new(), issuer, not_after_ms }, issued))
    }

    /// An authority that was made before.
    ///
    /// # Errors
    /// When the PEM texts are no authority's certificate and its key.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, AccessError> {
        let whom = "an authority";
        let invalid = |problem: &str| AccessError::NewCertificate { problem: problem.to_owned() };
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| invalid("the authority's file has no certificate in PEM form"))?;
        let (_, certificate) =
            X509Certificate::from_der(&der).map_err(|_| invalid("the authority's certificate cannot be read"))?;
        if !certificate.is_ca() {
            return Err(invalid("the authority's file has a certificate, but not an authority's"));
        }
        let key = KeyPair::from_pem(key_pem).map_err(failed(whom))?;
        if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(invalid("the authority's key does not belong to its certificate"));
        }
        let not_after_ms = certificate.validity().not_after.timestamp().saturating_mul(1_000);
        let is_root = certificate.subject() == certificate.issuer();
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(failed(whom))?;
        let certificate_pem = certificate_pem.to_owned();
        let between_pem = if is_root { String::new() } else { certificate_pem.clone() };
        Ok(Self { certificate_pem, between_pem, issuer, not_after_ms })
    }

    /// The authority's own certificate, as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate for a server that is reached under `names`: host names or addresses.
    ///
    /// # Errors
    /// When there is no such certificate.
    pub fn server(&self, names: &[String], lifetime: Duration, now_ms: i64) -> Result<Issued, AccessError> {
        let first = names
            .first()
            .ok_or_else(|| AccessError::NewCertificate { problem: "no host name or address is given".to_owned() })?;
        let mut sans = Vec::with_capacity(names.len());
        for name in names {
            sans.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host(name)?),
            });
        }
        self.issue(first, sans, ExtendedKeyUsagePurpose::ServerAuth, lifetime, now_ms)
    }

    /// A certificate for a client: an edge or a person.
    ///
    /// # Errors
    /// When there is no such certificate.
    pub fn client(
        &self,
        name: &CertificateName,
        trust_domain: &str,
        lifetime: Duration,
        now_ms: i64,
    ) -> Result<Issued, AccessError> {
        let (common_name, uri) = client_names(name, trust_domain)?;
        self.issue(common_name, vec![uri], ExtendedKeyUsagePurpose::ClientAuth, lifetime, now_ms)
    }

    /// A certificate for a client that has made its key itself, and shows it in a signing request (PKCS #10, DER). Only
    /// the key is taken from the request, which proves that the client has it.
    ///
    /// # Errors
    /// When the request is none, its key is of another kind than ECDSA on P-256, or there is no such certificate.
    pub fn sign(
        &self,
        request: &[u8],
        name: &CertificateName,
        trust_domain: &str,
        lifetime: Duration,
        now_ms: i64,
    ) -> Result<Signed, AccessError> {
        let invalid = |problem: &str| AccessError::NewCertificate { problem: problem.to_owned() };
        if request.len() > MAX_REQUEST_OCTETS {
            return Err(invalid("the signing request is too large"));
        }
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
            .map_err(|_| invalid("the signing request cannot be read, or is not signed by its own key"))?;
        // rcgen goes by the algorithm of the signature; the point tells which curve it is on.
        let is_p256 = request.public_key.algorithm() == &rcgen::PKCS_ECDSA_P256_SHA256;
        if !is_p256 || request.public_key.der_bytes().len() != P256_POINT_OCTETS {
            return Err(invalid("the signing request's key is not ECDSA on P-256"));
        }
        let (common_name, uri) = client_names(name, trust_domain)?;
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let (params, not_after_ms) = self.leaf(common_name, vec![uri], usage, lifetime, now_ms)?;
        let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(failed(common_name))?;
        let serial = params.serial_number.map_or_else(String::new, |serial| hex(serial.as_ref()));
        let certificate_pem = format!("{}{}", certificate.pem(), self.between_pem);
        Ok(Signed { certificate_pem, serial, not_after_ms })
    }

    /// What is in a certificate that signs nothing.
    fn leaf(
        &self,
        common_name: &str,
        names: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        lifetime: Duration,
        now_ms: i64,
    ) -> Result<(CertificateParams, i64), AccessError> {
        let not_after_ms = later(now_ms, lifetime, self.not_after_ms)?;
        let mut params = params(common_name, now_ms, not_after_ms)?;
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        Ok((params, not_after_ms))
    }

    fn issue(
        &self,
        common_name: &str,
        names: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        lifetime: Duration,
        now_ms: i64,
    ) -> Result<Issued, AccessError> {
        let (params, not_after_ms) = self.leaf(common_name, names, usage, lifetime, now_ms)?;
        let key = key(common_name)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed(common_name))?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem(), not_after_ms })
    }
}

/// The common name of a client's certificate, and the name that counts.
fn client_names<'a>(name: &'a CertificateName, trust_domain: &str) -> Result<(&'a str, SanType), AccessError> {
    let uri = name.to_uri(trust_domain).ok_or_else(|| AccessError::NewCertificate {
        problem: format!("{name} under {trust_domain:?} is no name that a certificate can bear"),
    })?;
    let common_name = match name {
        CertificateName::Edge { node, .. } => node,
        CertificateName::User(name) => name,
    };
    Ok((common_name, SanType::URI(Ia5String::try_from(uri.as_str()).map_err(failed(common_name))?)))
}

/// What all certificates have in common.
fn params(common_name: &str, now_ms: i64, not_after_ms: i64) -> Result<CertificateParams, AccessError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    // RFC 5280: positive, and at most 20 octets.
    let serial = rand::random::<u128>() >> 1 | 1 << 120;
    params.serial_number = Some(SerialNumber::from_slice(&serial.to_be_bytes()));
    let at = |ms: i64| {
        let since = u64::try_from(ms).map(Duration::from_millis).unwrap_or_default();
        rcgen::date_time_ymd(1970, 1, 1).checked_add(since.try_into().ok()?)
    };
    let out_of_range = || AccessError::NewCertificate { problem: "its time is out of range".to_owned() };
    params.not_before = at(now_ms.saturating_sub(BACKDATED_MS)).ok_or_else(out_of_range)?;
    params.not_after = at(not_after_ms).ok_or_else(out_of_range)?;
    Ok(params)
}

/// When a certificate ends, in whole seconds: not after its authority does.
fn later(now_ms: i64, lifetime: Duration, most_ms: i64) -> Result<i64, AccessError> {
    let lifetime_ms = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
    let end_ms = now_ms.saturating_add(lifetime_ms).min(most_ms);
    if end_ms <= now_ms {
        let problem = "it would be expired at once; is the authority's own certificate expired?".to_owned();
        return Err(AccessError::NewCertificate { problem });
    }
    Ok(end_ms - end_ms % 1_000)
}

fn host(name: &str) -> Result<Ia5String, AccessError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '*');
    if name.is_empty() || name.len() > 253 || !name.chars().all(allowed) {
        let problem = format!("{name:?} is no host name and no address");
        return Err(AccessError::NewCertificate { problem });
    }
    Ia5String::try_from(name).map_err(failed(name))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        // Writing into a text never fails.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

fn key(whom: &str) -> Result<KeyPair, AccessError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed(whom))
}

fn failed(whom: &str) -> impl FnOnce(rcgen::Error) -> AccessError {
    let whom = whom.to_owned();
    move |source| AccessError::Certificate { whom, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::ClientCertificate;

    const NOW_MS: i64 = 1_795_000_000_500;
    const DAY: Duration = Duration::from_hours(24);

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn an_authority_that_was_kept_signs_for_edges_and_users() {
        let (_, kept) = Authority::create("test", DAY, NOW_MS).unwrap();
        let authority = Authority::from_pem(&kept.certificate_pem, &kept.key_pem).unwrap();
        for name in [
            CertificateName::Edge { site: "ams".into(), node: "mx1.example.org".into() },
            CertificateName::User("Jö M".into()),
        ] {
            let issued = authority.client(&name, "example.org", DAY * 30, NOW_MS).unwrap();
            let read = ClientCertificate::read(&der(&issued.certificate_pem), Some("example.org")).unwrap();
            assert_eq!(read.name, name);
            assert_eq!(read.not_after_ms, 1_795_086_400_000, "no longer than the authority");
            assert_eq!(issued.not_after_ms, read.not_after_ms);
            assert_eq!(read.not_before_ms, 1_794_999_700_000);
        }
    }

    #[test]
    fn a_request_gets_the_name_that_it_may_have_and_no_other() {
        let (authority, _) = Authority::create("test", DAY, NOW_MS).unwrap();
        let edge = CertificateName::Edge { site: "ams".into(), node: "mx1".into() };
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut asks = CertificateParams::default();
        asks.subject_alt_names = vec![SanType::URI("spiffe://example.org/edge/ams/mx2".try_into().unwrap())];
        asks.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let request = asks.serialize_request(&key).unwrap();
        let sign = |request: &[u8]| authority.sign(request, &edge, "example.org", DAY, NOW_MS);
        let signed = sign(request.der()).unwrap();
        let der = der(&signed.certificate_pem);
        let read = ClientCertificate::read(&der, Some("example.org")).unwrap();
        assert_eq!((read.name, read.not_after_ms), (edge.clone(), signed.not_after_ms));
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert!(!certificate.is_ca());
        assert_eq!(certificate.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
        assert_eq!(certificate.raw_serial_as_string().replace(':', ""), signed.serial);
        assert_eq!(signed.certificate_pem.matches("BEGIN CERTIFICATE").count(), 1, "the authority is a root");

        let ed25519 =
            CertificateParams::default().serialize_request(&KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());
        let told = |request: &[u8]| sign(request).map(|_| ()).unwrap_err().to_string();
        assert!(told(ed25519.unwrap().der()).contains("not ECDSA on P-256"));
        assert!(told(&[0; 5_000]).contains("too large"));
        for length in 0..request.der().len() {
            assert!(told(&request.der()[..length]).contains("cannot be read"), "cut at {length}");
        }
        // Whatever one octet is changed to, its own signature does not fit any more, or nothing of it was taken.
        for at in 0..request.der().len() {
            let mut octets = request.der().to_vec();
            octets[at] ^= 0x55;
            let _ = sign(&octets);
        }
    }

    #[test]
    fn an_authority_below_a_root_is_shown_with_what_it_signs() {
        let (root, _) = Authority::create("root", DAY, NOW_MS).unwrap();
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut between = params("between", NOW_MS, NOW_MS + 3_600_000).unwrap();
        between.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let between = between.signed_by(&key, &root.issuer).unwrap();
        let authority = Authority::from_pem(&between.pem(), &key.serialize_pem()).unwrap();
        let request = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
        let edge = CertificateName::Edge { site: "ams".into(), node: "mx1".into() };
        let signed = authority.sign(request.der(), &edge, "example.org", DAY, NOW_MS).unwrap();
        assert!(signed.certificate_pem.ends_with(&between.pem()));
        assert_eq!(signed.not_after_ms, 1_795_003_600_000, "no longer than the authority");
    }

    #[test]
    fn certificates_may_be_used_for_what_they_are_for_only() {
        let (authority, own) = Authority::create("test", DAY, NOW_MS).unwrap();
        let server = authority.server(&["localhost".into(), "::1".into()], DAY, NOW_MS).unwrap();
        let client = authority.client(&CertificateName::User("jo".into()), "x", DAY, NOW_MS).unwrap();
        for (pem, is_ca, is_server, is_client) in [
            (&own.certificate_pem, true, false, false),
            (&server.certificate_pem, false, true, false),
            (&client.certificate_pem, false, false, true),
        ] {
            let der = der(pem);
            let (_, certificate) = X509Certificate::from_der(&der).unwrap();
            let usage = certificate.key_usage().unwrap().unwrap().value;
            assert_eq!((usage.key_cert_sign(), usage.digital_signature()), (is_ca, !is_ca));
            let extended = certificate.extended_key_usage().unwrap();
            let extended = extended.map_or((false, false), |usage| (usage.value.server_auth, usage.value.client_auth));
            assert_eq!((certificate.is_ca(), extended), (is_ca, (is_server, is_client)));
        }
    }

    #[test]
    fn what_cannot_be_is_told() {
        let (authority, own) = Authority::create("test", DAY, NOW_MS).unwrap();
        let (_, other) = Authority::create("test", DAY, NOW_MS).unwrap();
        let user = |name: &str| CertificateName::User(name.into());
        assert!(authority.client(&user("a/b"), "example.org", DAY, NOW_MS).is_err());
        assert!(authority.client(&user("jo"), "Example org", DAY, NOW_MS).is_err());
        assert!(authority.client(&user("jo"), "example.org", DAY, NOW_MS + 86_500_000).is_err(), "it has ended");
        assert!(authority.server(&[], DAY, NOW_MS).is_err());
        assert!(authority.server(&["no host".into()], DAY, NOW_MS).is_err());
        assert!(Authority::create("test", Duration::MAX, NOW_MS).is_err());
        assert!(Authority::from_pem(&own.certificate_pem, &other.key_pem).is_err());
        assert!(Authority::from_pem("", "").is_err());
        let server = authority.server(&["localhost".into()], DAY, NOW_MS).unwrap();
        assert!(Authority::from_pem(&server.certificate_pem, &server.key_pem).is_err());
    }
}
