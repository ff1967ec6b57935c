//! Why a caller was not taken for whom they say: precisely for the audit, the same for all of them for the caller.

use crate::certificate::CertificateNameError;

/// Why a caller was not taken for whom they say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no credential.
    #[error("there is no credential")]
    Missing,
    /// The credential has no form that is known.
    #[error("the credential is malformed: {0}")]
    Malformed(&'static str),
    /// Nobody proves who they are in this way here.
    #[error("{0} are not taken here")]
    NotTaken(&'static str),
    /// A certificate that names nobody.
    #[error(transparent)]
    CertificateName(#[from] CertificateNameError),
    /// A certificate whose time is over, or has not come.
    #[error("the certificate of {0} is not valid at this time")]
    CertificateTime(String),
    /// A certificate whose name is revoked.
    #[error("the certificate of {0} is revoked")]
    CertificateRevoked(String),
    /// A certificate of somebody who is not among the people.
    #[error("{0:?} is not among the people who may do something")]
    UnknownPerson(String),
    /// No token has this id.
    #[error("there is no token {0}")]
    UnknownToken(String),
    /// There is a token with this id, but with another secret.
    #[error("the secret of token {0} is wrong")]
    WrongSecret(String),
    /// A token whose time is over.
    #[error("token {id} of {name:?} is expired")]
    ExpiredToken {
        /// Its id.
        id: String,
        /// Whose it is.
        name: String,
    },
    /// A token that is revoked.
    #[error("token {id} of {name:?} is revoked")]
    RevokedToken {
        /// Its id.
        id: String,
        /// Whose it is.
        name: String,
    },
    /// A token that counts once, and has.
    #[error("token {id} of {name:?} was used already")]
    UsedToken {
        /// Its id.
        id: String,
        /// Whose it is.
        name: String,
    },
    /// A JWT that does not hold.
    #[error("the JWT is refused: {0}")]
    Jwt(#[from] JwtRefusal),
    /// Too many credentials from this address were refused.
    #[error("too many credentials from this address were refused; it may try again in {} s", seconds(*retry_after_ms))]
    TooMany {
        /// When the address may try again, in milliseconds from now.
        retry_after_ms: i64,
    },
}

/// Why a JWT does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtRefusal {
    /// It is none.
    #[error("it cannot be read")]
    Unreadable,
    /// Its algorithm is not among those that are allowed.
    #[error("its algorithm {0:?} is not allowed")]
    Algorithm(String),
    /// It says that more has to be understood than is.
    #[error("it has critical headers, which are not understood")]
    Critical,
    /// No key of the provider has its key id.
    #[error("the provider has no key {0:?}")]
    UnknownKey(String),
    /// The signature is not by the key.
    #[error("its signature is wrong")]
    Signature,
    /// A claim is missing or of another type.
    #[error("its claim {0} is missing or not what it should be")]
    Claim(String),
    /// It is of another issuer.
    #[error("it is of another issuer")]
    Issuer,
    /// It is for somebody else.
    #[error("it is for another audience")]
    Audience,
    /// Its time is over.
    #[error("it is expired ({0:?})")]
    Expired(String),
    /// Its time has not come.
    #[error("it is not valid yet ({0:?})")]
    TooEarly(String),
    /// None of its roles is one here.
    #[error("it gives {0:?} no role here")]
    NoRole(String),
    /// Its name is revoked.
    #[error("{0:?} is revoked")]
    Revoked(String),
}

impl Refusal {
    /// What the caller is told: the same whatever was wrong, so that nobody learns what there is.
    pub fn client_text(&self) -> String {
        match self {
            Self::TooMany { retry_after_ms } => {
                format!("too many attempts from this address; try again in {} s", seconds(*retry_after_ms))
            }
            _ => "a valid credential is needed: a client certificate, or a bearer token".to_owned(),
        }
    }

    /// What stands in the audit.
    pub fn audit_text(&self) -> String {
        self.to_string()
    }

    /// The kind, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed(_) => "malformed",
            Self::NotTaken(_) => "not_taken",
            Self::CertificateName(_) => "certificate_name",
            Self::CertificateTime(_) => "certificate_time",
            Self::CertificateRevoked(_) => "certificate_revoked",
            Self::UnknownPerson(_) => "unknown_person",
            Self::UnknownToken(_) => "unknown_token",
            Self::WrongSecret(_) => "wrong_secret",
            Self::ExpiredToken { .. } => "expired_token",
            Self::RevokedToken { .. } => "revoked_token",
            Self::UsedToken { .. } => "used_token",
            Self::Jwt(refusal) => refusal.kind(),
            Self::TooMany { .. } => "too_many",
        }
    }

    /// When the address may try again, in milliseconds from now, if that is what keeps it out.
    pub fn retry_after_ms(&self) -> Option<i64> {
        match self {
            Self::TooMany { retry_after_ms } => Some(*retry_after_ms),
            _ => None,
        }
    }
}

impl JwtRefusal {
    fn kind(&self) -> &'static str {
        match self {
            Self::Unreadable => "jwt_unreadable",
            Self::Algorithm(_) => "jwt_algorithm",
            Self::Critical => "jwt_critical",
            Self::UnknownKey(_) => "jwt_unknown_key",
            Self::Signature => "jwt_signature",
            Self::Claim(_) => "jwt_claim",
            Self::Issuer => "jwt_issuer",
            Self::Audience => "jwt_audience",
            Self::Expired(_) => "jwt_expired",
            Self::TooEarly(_) => "jwt_too_early",
            Self::NoRole(_) => "jwt_no_role",
            Self::Revoked(_) => "jwt_revoked",
        }
    }
}

fn seconds(ms: i64) -> i64 {
    (ms.saturating_add(999) / 1_000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_learns_only_when_to_try_again() {
        let revoked = Refusal::RevokedToken { id: "0123456789ab".into(), name: "jo".into() };
        let refusals = [
            Refusal::Missing,
            Refusal::Malformed("x"),
            Refusal::UnknownToken("0123456789ab".into()),
            Refusal::WrongSecret("0123456789ab".into()),
            Refusal::Jwt(JwtRefusal::Audience),
            Refusal::UnknownPerson("jo".into()),
        ];
        for refusal in &refusals {
            assert_eq!(refusal.client_text(), revoked.client_text());
            assert_ne!(refusal.audit_text(), revoked.audit_text());
            assert_ne!(refusal.kind(), revoked.kind());
        }
        let too_many = Refusal::TooMany { retry_after_ms: 1_001 };
        assert!(too_many.client_text().ends_with("in 2 s"), "{}", too_many.client_text());
        assert_eq!((too_many.retry_after_ms(), revoked.retry_after_ms()), (Some(1_001), None));
    }
}
