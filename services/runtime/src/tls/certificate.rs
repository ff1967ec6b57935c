//! What of a certificate in a file matters to who holds it: when it ends, and whether a key belongs to it.

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// From when to when a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateTimes {
    /// Milliseconds since 1970 UTC.
    pub not_before_ms: i64,
    /// Milliseconds since 1970 UTC.
    pub not_after_ms: i64,
}

impl CertificateTimes {
    /// Of the first certificate in a PEM text; none when there is none that can be read.
    pub fn of_pem(pem: &[u8]) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let ms = |time: x509_parser::time::ASN1Time| time.timestamp().saturating_mul(1_000);
        let validity = certificate.validity();
        Some(Self { not_before_ms: ms(validity.not_before), not_after_ms: ms(validity.not_after) })
    }

    /// Whether less than a third of its time is left at `now_ms`: time to renew it, with time to find out why it failed.
    pub fn is_due(&self, now_ms: i64) -> bool {
        now_ms >= self.due_ms()
    }

    /// When a third of its time is left: milliseconds since 1970 UTC.
    pub fn due_ms(&self) -> i64 {
        self.not_after_ms - self.not_after_ms.saturating_sub(self.not_before_ms) / 3
    }
}

/// Whether the private key belongs to the first certificate, both as PEM texts.
pub fn key_belongs(certificate_pem: &[u8], key_pem: &[u8]) -> bool {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate_pem).collect();
    let (Ok(chain), Ok(key)) = (chain, PrivateKeyDer::from_pem_slice(key_pem)) else { return false };
    if chain.is_empty() {
        return false;
    }
    any_supported_type(&key).is_ok_and(|key| CertifiedKey::new(chain, key).keys_match().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    #[test]
    fn times_and_keys_are_read() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 4, 1));
        let pem = params.self_signed(&key).unwrap().pem();
        let times = CertificateTimes::of_pem(pem.as_bytes()).unwrap();
        let day_ms = 86_400_000;
        assert_eq!(times.not_after_ms - times.not_before_ms, 90 * day_ms);
        assert!(times.is_due(times.not_after_ms - 30 * day_ms) && !times.is_due(times.not_after_ms - 31 * day_ms));
        assert!(key_belongs(pem.as_bytes(), key.serialize_pem().as_bytes()));
        assert!(!key_belongs(pem.as_bytes(), other.serialize_pem().as_bytes()));
        for (certificate, key) in [("", ""), (pem.as_str(), ""), ("", key.serialize_pem().as_str())] {
            assert!(!key_belongs(certificate.as_bytes(), key.as_bytes()));
        }
        assert_eq!(CertificateTimes::of_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), None);
    }
}
