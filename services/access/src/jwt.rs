//! JWTs of an OIDC provider: whose signature, claims and roles hold.
//!
//! Only signatures by private keys are taken: with a shared key whoever checks could also sign, and a provider's public
//! key must never pass for a shared one.

use crate::jwks::KeySet;
use crate::people::scope;
use crate::refusal::JwtRefusal;
use crate::{Credential, Person, Role, Scope};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use tidegate_runtime::config::{Problems, Validate};

/// Longest name that is taken from a claim, in octets.
const MAX_NAME_OCTETS: usize = 255;
/// Most keys that are tried for a JWT without a key id.
const MAX_TRIED: usize = 4;

/// Which JWTs are taken, and what they mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// The claim `iss` must be this.
    pub issuer: String,
    /// The claim `aud` must be or contain this.
    pub audience: String,
    /// JSON file with the provider's public keys (JWKS). Watched.
    pub jwks_file: Option<PathBuf>,
    /// Or where the provider serves them.
    pub jwks_url: Option<String>,
    /// How often keys are fetched again, in seconds.
    #[serde(default = "default_refresh_s")]
    pub refresh_s: u64,
    /// A JWT with an unknown key id makes them be fetched at once, but not oftener than this, in seconds.
    #[serde(default = "default_min_refetch_s")]
    pub min_refetch_s: u64,
    /// Algorithms that are taken.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<JwtAlgorithm>,
    /// The claim with the name that stands in the audit.
    #[serde(default = "default_name_claim")]
    pub name_claim: String,
    /// The claim with the roles, a text or a list of texts. With a `/` in front it is a JSON pointer, e.g.
    /// `/realm_access/roles`.
    pub role_claim: String,
    /// Which of its values means which role. Of several the highest counts.
    pub roles: BTreeMap<String, Role>,
    /// The claim with the domains whose accounts they may know of, a text or a list of texts; `*` is all of them, and a
    /// JWT without it is refused. Not set: everybody may know of all.
    pub domains_claim: Option<String>,
    /// How far the provider's clock may be from ours, in seconds.
    #[serde(default = "default_leeway_s")]
    pub leeway_s: u64,
}

/// A signature algorithm by private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // Names of RFC 7518 and RFC 8037.
pub enum JwtAlgorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

fn default_refresh_s() -> u64 {
    300
}

fn default_min_refetch_s() -> u64 {
    10
}

fn default_algorithms() -> Vec<JwtAlgorithm> {
    use JwtAlgorithm::{ES256, ES384, EdDSA, PS256, RS256};
    vec![RS256, PS256, ES256, ES384, EdDSA]
}

fn default_name_claim() -> String {
    "sub".to_owned()
}

fn default_leeway_s() -> u64 {
    30
}

/// What of a JWT's header matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JwtHeader {
    algorithm: JwtAlgorithm,
    /// Which of the provider's keys signed it.
    pub key_id: Option<String>,
}

impl JwtHeader {
    /// Reads it, which proves nothing yet.
    pub fn read(jwt: &str, allowed: &[JwtAlgorithm]) -> Result<Self, JwtRefusal> {
        let header = jwt.split('.').next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
        let header: Option<Value> = header.and_then(|header| serde_json::from_slice(&header).ok());
        let header = header.filter(Value::is_object).ok_or(JwtRefusal::Unreadable)?;
        if header.get("crit").is_some() {
            return Err(JwtRefusal::Critical);
        }
        let name = header.get("alg").and_then(Value::as_str).ok_or(JwtRefusal::Unreadable)?;
        let refused = || JwtRefusal::Algorithm(shown(name));
        let algorithm: JwtAlgorithm = serde_json::from_value(name.into()).map_err(|_| refused())?;
        if !allowed.contains(&algorithm) {
            return Err(refused());
        }
        let key_id = match header.get("kid") {
            None | Some(Value::Null) => None,
            Some(Value::String(key_id)) => Some(shown(key_id)),
            Some(_) => return Err(JwtRefusal::Unreadable),
        };
        Ok(Self { algorithm, key_id })
    }
}

impl JwtConfig {
    /// Who `jwt` proves to be, with its `header` and the provider's `keys`.
    pub(crate) fn verify(
        &self,
        jwt: &str,
        header: &JwtHeader,
        keys: &KeySet,
        now_ms: i64,
    ) -> Result<Person, JwtRefusal> {
        let claims = signed_claims(jwt, header, keys)?;
        let text = |claim: &str| find(&claims, claim).and_then(Value::as_str);
        let missing = |claim: &str| JwtRefusal::Claim(claim.to_owned());
        if text("iss").ok_or_else(|| missing("iss"))? != self.issuer {
            return Err(JwtRefusal::Issuer);
        }
        if !texts(&claims, "aud").ok_or_else(|| missing("aud"))?.contains(&self.audience.as_str()) {
            return Err(JwtRefusal::Audience);
        }
        let is_name = |name: &&str| {
            !name.trim().is_empty() && name.len() <= MAX_NAME_OCTETS && !name.chars().any(char::is_control)
        };
        let name = text(&self.name_claim).filter(is_name).ok_or_else(|| missing(&self.name_claim))?.to_owned();
        let leeway_ms = i64::try_from(self.leeway_s).unwrap_or(i64::MAX).saturating_mul(1_000);
        let expires_ms = date_ms(&claims, "exp")?.ok_or_else(|| missing("exp"))?.saturating_add(leeway_ms);
        if expires_ms <= now_ms {
            return Err(JwtRefusal::Expired(name));
        }
        if date_ms(&claims, "nbf")?.is_some_and(|begins_ms| begins_ms > now_ms.saturating_add(leeway_ms)) {
            return Err(JwtRefusal::TooEarly(name));
        }
        let values = texts(&claims, &self.role_claim).unwrap_or_default();
        let role = values.iter().filter_map(|value| self.roles.get(*value)).max();
        let role = *role.ok_or_else(|| JwtRefusal::NoRole(name.clone()))?;
        let scope = self.scope(&claims)?;
        Ok(Person { credential: Credential::Jwt(name.clone()), name, role, scope, expires_ms: Some(expires_ms) })
    }

    fn scope(&self, claims: &Value) -> Result<Scope, JwtRefusal> {
        let Some(claim) = &self.domains_claim else { return Ok(Scope::all()) };
        let refused = || JwtRefusal::Claim(claim.clone());
        let domains = texts(claims, claim).ok_or_else(refused)?;
        if domains.contains(&"*") {
            return Ok(Scope::all());
        }
        scope(Some(domains.into_iter().map(str::to_owned).collect())).map_err(|_| refused())
    }
}

impl JwtAlgorithm {
    fn to_library(self) -> Algorithm {
        match self {
            Self::RS256 => Algorithm::RS256,
            Self::RS384 => Algorithm::RS384,
            Self::RS512 => Algorithm::RS512,
            Self::PS256 => Algorithm::PS256,
            Self::PS384 => Algorithm::PS384,
            Self::PS512 => Algorithm::PS512,
            Self::ES256 => Algorithm::ES256,
            Self::ES384 => Algorithm::ES384,
            Self::EdDSA => Algorithm::EdDSA,
        }
    }
}

impl Validate for JwtConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        for (name, value) in [
            ("issuer", &self.issuer),
            ("audience", &self.audience),
            ("name_claim", &self.name_claim),
            ("role_claim", &self.role_claim),
        ] {
            problems.check_set(path, name, value);
        }
        match (&self.jwks_file, &self.jwks_url) {
            (Some(file), None) => match crate::watched_file::read(file) {
                Ok(text) => {
                    if let Err(problem) = KeySet::parse(&text) {
                        problems.add(path, "jwks_file", format!("{}: {problem}", file.display()));
                    }
                }
                Err(error) => problems.add(path, "jwks_file", format!("cannot read {}: {error}", file.display())),
            },
            (None, Some(url)) => {
                if let Some(problem) = crate::jwks::url_problem(url) {
                    problems.add(path, "jwks_url", problem);
                }
            }
            _ => problems.add(path, "jwks_url", "one of jwks_file and jwks_url must be set"),
        }
        problems.check_range(path, "refresh_s", self.refresh_s, 10..=86_400);
        problems.check_range(path, "min_refetch_s", self.min_refetch_s, 1..=3_600);
        problems.check_range(path, "leeway_s", self.leeway_s, 0..=600);
        if self.algorithms.is_empty() {
            problems.add(path, "algorithms", "is empty: no JWT could be taken");
        }
        if self.roles.is_empty() {
            problems.add(path, "roles", "is empty: nobody would have a role; e.g. { \"mail-admins\" = \"admin\" }");
        }
    }
}

/// The claims, once the signature holds.
fn signed_claims(jwt: &str, header: &JwtHeader, keys: &KeySet) -> Result<Value, JwtRefusal> {
    let algorithm = header.algorithm.to_library();
    let mut validation = Validation::new(algorithm);
    // Claims are checked here: the library would take the time from its own clock.
    validation.required_spec_claims = HashSet::new();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let mut known = false;
    for key in keys.candidates(header.key_id.as_deref(), algorithm).take(MAX_TRIED) {
        known = true;
        if let Ok(decoded) = jsonwebtoken::decode::<Value>(jwt, key, &validation) {
            return Ok(decoded.claims);
        }
    }
    let key_id = || header.key_id.clone().unwrap_or_default();
    Err(if known { JwtRefusal::Signature } else { JwtRefusal::UnknownKey(key_id()) })
}

/// The claim called `name`, or at the JSON pointer `name`.
fn find<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    if name.starts_with('/') { claims.pointer(name) } else { claims.get(name) }
}

/// A claim that is a text or a list; what in it is no text does not count.
fn texts<'a>(claims: &'a Value, name: &str) -> Option<Vec<&'a str>> {
    match find(claims, name)? {
        Value::String(text) => Some(vec![text]),
        Value::Array(list) => Some(list.iter().filter_map(Value::as_str).collect()),
        _ => None,
    }
}

/// RFC 7519's NumericDate, seconds since 1970 UTC, perhaps with a fraction.
fn date_ms(claims: &Value, name: &str) -> Result<Option<i64>, JwtRefusal> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            let seconds = number.as_f64().filter(|seconds| seconds.is_finite());
            // A float that is too large becomes the largest integer.
            seconds.map(|seconds| Some((seconds * 1_000.0) as i64)).ok_or_else(|| JwtRefusal::Claim(name.to_owned()))
        }
        Some(_) => Err(JwtRefusal::Claim(name.to_owned())),
    }
}

fn shown(text: &str) -> String {
    text[..text.floor_char_boundary(200)].to_owned()
}
