//! A provider's public keys: JWKS (RFC 7517), from a file or fetched.

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use std::net::IpAddr;
use std::str::FromStr as _;
use std::time::Duration;

/// Most keys of a provider.
const MAX_KEYS: usize = 100;
/// Largest answer of a provider, in octets.
const MAX_OCTETS: usize = 1 << 20;
/// How long a provider has for its answer.
const FETCH_WAIT: Duration = Duration::from_secs(5);

/// A provider's public keys that sign.
#[derive(Default)]
pub(crate) struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    /// The only algorithm that it is for, if it says so.
    algorithm: Option<Algorithm>,
    verifying: DecodingKey,
}

/// Fetches keys over HTTP.
pub(crate) struct JwksClient {
    client: reqwest::Client,
    url: String,
}

impl KeySet {
    /// Reads the keys. Those for encryption, shared ones and those of a kind that is not known are left out, as
    /// RFC 7517 (section 5) asks.
    pub fn parse(text: &str) -> Result<Self, String> {
        let set: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("no JWKS: \"keys\" is not a list")?;
        if keys.len() > MAX_KEYS {
            return Err(format!("{} keys; allowed: at most {MAX_KEYS}", keys.len()));
        }
        let keys: Vec<Key> = keys.iter().filter_map(Key::read).collect();
        if keys.is_empty() { Err("none of its keys can check a signature".to_owned()) } else { Ok(Self(keys)) }
    }

    /// The keys that can have signed a JWT with this key id and algorithm.
    pub fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &DecodingKey> {
        let fits = move |key: &&Key| {
            id.is_none_or(|id| key.id.as_deref() == Some(id))
                && key.verifying.family() == algorithm.family()
                && key.algorithm.is_none_or(|only| only == algorithm)
        };
        self.0.iter().filter(fits).map(|key| &key.verifying)
    }

    /// Whether there is a key with this id; without an id, whether there is any.
    pub fn has(&self, id: Option<&str>) -> bool {
        self.0.iter().any(|key| id.is_none() || key.id.as_deref() == id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Key {
    fn read(key: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        if matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) {
            return None;
        }
        let algorithm = match jwk.common.key_algorithm {
            None => None,
            // One for encryption, or that is not known.
            Some(algorithm) => Some(signing(algorithm)?),
        };
        let verifying = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id: jwk.common.key_id, algorithm, verifying })
    }
}

fn signing(algorithm: KeyAlgorithm) -> Option<Algorithm> {
    Algorithm::from_str(&algorithm.to_string()).ok()
}

impl JwksClient {
    /// A client for `url`.
    pub fn new(url: &str) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(FETCH_WAIT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, url: url.to_owned() })
    }

    /// Asks for the keys.
    pub async fn fetch(&self) -> Result<KeySet, String> {
        let failed = |error: reqwest::Error| {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            text
        };
        let mut answer = self.client.get(&self.url).send().await.map_err(failed)?.error_for_status().map_err(failed)?;
        if !answer.status().is_success() {
            return Err(format!("{} answered {}", self.url, answer.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_OCTETS {
                return Err(format!("{} answered more than {MAX_OCTETS} octets", self.url));
            }
        }
        KeySet::parse(&String::from_utf8_lossy(&body)).map_err(|problem| format!("{}: {problem}", self.url))
    }
}

/// What is wrong with the address of a provider's keys, if anything. Whoever can change them on the way can sign for
/// anybody, so they come by TLS, or do not leave the machine.
pub(crate) fn url_problem(url: &str) -> Option<String> {
    let allowed = "allowed: https://..., or http:// on a loopback address";
    let Ok(parsed) = reqwest::Url::parse(url) else { return Some(format!("is {url:?}; {allowed}")) };
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match parsed.scheme() {
        "https" if !host.is_empty() => None,
        "http" if loopback => None,
        _ => Some(format!("is {url:?}; {allowed}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str =
        r#"{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    #[test]
    fn only_keys_that_check_signatures_are_kept() {
        let encrypts = ED25519.replace("\"kid\"", "\"use\":\"enc\",\"kid\"");
        let shared = r#"{"kty":"oct","kid":"s","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75"}"#;
        let unknown = r#"{"kty":"LATTICE","kid":"l"}"#;
        let set = KeySet::parse(&format!(r#"{{"keys":[{ED25519},{encrypts},{shared},{unknown},7]}}"#)).unwrap();
        assert_eq!(set.len(), 1);
        assert!(set.has(Some("a")) && set.has(None) && !set.has(Some("s")));
        assert_eq!(set.candidates(Some("a"), Algorithm::EdDSA).count(), 1);
        assert_eq!(set.candidates(None, Algorithm::EdDSA).count(), 1);
        assert_eq!(set.candidates(Some("a"), Algorithm::RS256).count(), 0, "a key is for its own kind");
        assert_eq!(set.candidates(Some("a"), Algorithm::HS256).count(), 0);
        assert_eq!(set.candidates(Some("b"), Algorithm::EdDSA).count(), 0);
        for text in ["", "7", "{}", r#"{"keys":7}"#, r#"{"keys":[]}"#, &format!(r#"{{"keys":[{shared}]}}"#)] {
            assert!(KeySet::parse(text).is_err(), "{text}");
        }
        let many = vec![ED25519; MAX_KEYS + 1].join(",");
        assert!(KeySet::parse(&format!(r#"{{"keys":[{many}]}}"#)).is_err());
    }

    #[test]
    fn keys_come_by_tls_or_from_this_machine() {
        for url in ["https://id.example.org/keys", "http://127.0.0.1:1/keys", "http://[::1]/", "http://localhost/"] {
            assert_eq!(url_problem(url), None, "{url}");
        }
        for url in ["http://id.example.org/keys", "ftp://127.0.0.1/", "file:///etc/keys", "id.example.org", ""] {
            assert!(url_problem(url).is_some(), "{url}");
        }
    }
}
