//! JWTs of an OIDC provider, with its keys in a file and served by itself.

use crate::harness::{now_ms, until};
use crate::secured::Secured;
use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tidegate_access::{FailureBounds, JwtConfig, Role};
use tokio::sync::Mutex;
use tonic::Code;
use tonic::transport::Channel;

const WHO_AM_I: &str = "tidegate.v1.AdminService/WhoAmI";
const ISSUER: &str = "https://id.example.org/";
const AUDIENCE: &str = "tidegate";
/// A key made for these tests alone.
const RSA: &[u8] = include_bytes!("../data/jwt-rs256.der");

struct Signer {
    id: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
}

fn rsa(id: &'static str) -> Signer {
    Signer { id, algorithm: Algorithm::RS256, key: EncodingKey::from_rsa_der(RSA) }
}

fn ec(id: &'static str) -> Signer {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    Signer { id, algorithm: Algorithm::ES256, key: EncodingKey::from_ec_der(key.serialized_der()) }
}

fn ed(id: &'static str) -> Signer {
    // RFC 8410: what stands before the 32 octets of a private key.
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend(rand::random::<[u8; 32]>());
    Signer { id, algorithm: Algorithm::EdDSA, key: EncodingKey::from_ed_der(&der) }
}

impl Signer {
    fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.id.into());
        serde_json::to_value(jwk).unwrap()
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.into()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

fn jwks(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string()
}

fn claims() -> Value {
    let now_s = now_ms() / 1_000;
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "jo", "exp": now_s + 600, "nbf": now_s - 10,
        "groups": ["users", "mail-operators"], "mail_domains": ["example.org"],
    })
}

/// The same with one claim changed, or none of that name.
fn with(claim: &str, value: Option<Value>) -> Value {
    let mut claims = claims();
    match value {
        Some(value) => claims[claim] = value,
        None => drop(claims.as_object_mut().unwrap().remove(claim)),
    }
    claims
}

fn config(file: Option<&Path>, url: Option<String>) -> JwtConfig {
    let text = format!(
        "issuer = '{ISSUER}'\naudience = '{AUDIENCE}'\nrole_claim = 'groups'\ndomains_claim = 'mail_domains'\n\
         leeway_s = 5\nmin_refetch_s = 1\nrefresh_s = 86400\nroles = {{ mail-operators = 'operator', mail-viewers = 'viewer' }}"
    );
    let config: JwtConfig = toml::from_str(&text).unwrap();
    JwtConfig { jwks_file: file.map(Path::to_owned), jwks_url: url, ..config }
}

async fn start(config: JwtConfig) -> (Secured, Channel) {
    let bounds = FailureBounds { max: 1_000, ..FailureBounds::default() };
    let control = Secured::start_with(Some(config), bounds).await;
    let channel = control.connect(None).await.unwrap();
    (control, channel)
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[tokio::test]
async fn a_jwt_by_a_key_of_the_file_says_who_calls() {
    let (rsa, ec, ed) = (rsa("r"), ec("e"), ed("d"));
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, jwks(&[&rsa, &ec, &ed])).unwrap();
    let (control, channel) = start(config(Some(&file), None)).await;
    for signer in [&rsa, &ec, &ed] {
        let who = control.who(&channel, Some(&format!("Bearer {}", signer.sign(&claims())))).await.unwrap();
        assert_eq!((who.name.as_str(), who.role.as_str(), who.credential.as_str()), ("jo", "operator", "jwt"));
        assert_eq!(who.domains, ["example.org"]);
    }
    let who = |claims: Value| {
        let (control, channel, jwt) = (&control, &channel, rsa.sign(&claims));
        async move { control.who(channel, Some(&format!("Bearer {jwt}"))).await }
    };
    assert_eq!(who(with("aud", Some(json!(["other", AUDIENCE])))).await.unwrap().name, "jo");
    assert!(who(with("mail_domains", Some(json!("*")))).await.unwrap().domains.is_empty());
    // A name is revoked in the file of people.
    control.put_people("'jwt/jo'");
    until("jo is revoked", || async { who(claims()).await.is_err() }).await;
    assert!(who(with("sub", Some(json!("mo")))).await.is_ok());
    // A key that is gone counts no more; others come with the file.
    let other = self::ec("n");
    let bearer = format!("Bearer {}", other.sign(&with("sub", Some(json!("mo")))));
    assert!(control.who(&channel, Some(&bearer)).await.is_err());
    std::fs::write(&file, jwks(&[&other])).unwrap();
    until("the new key counts", || async { control.who(&channel, Some(&bearer)).await.is_ok() }).await;
    assert!(who(with("sub", Some(json!("mo")))).await.is_err());
}

#[tokio::test]
async fn a_jwt_that_does_not_hold_is_refused() {
    let (rsa, ec) = (rsa("r"), ec("e"));
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, jwks(&[&rsa, &ec])).unwrap();
    let (control, channel) = start(config(Some(&file), None)).await;
    let now_s = now_ms() / 1_000;
    let good = rsa.sign(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let signed = |header: Value, key: &EncodingKey| {
        let header: Header = serde_json::from_value(header).unwrap();
        jsonwebtoken::encode(&header, &claims(), key).unwrap()
    };
    // Whoever takes the public key for a shared one would take what anybody can sign with it.
    let modulus = rsa.jwk()["n"].as_str().unwrap().to_owned();
    let shared = [modulus.clone().into_bytes(), URL_SAFE_NO_PAD.decode(&modulus).unwrap(), jwks(&[&rsa]).into_bytes()];
    let mut cases: Vec<(String, &str)> = shared
        .iter()
        .map(|key| {
            let header = json!({ "alg": "HS256", "kid": "r" });
            (signed(header, &EncodingKey::from_secret(key)), "algorithm \"HS256\" is not allowed")
        })
        .collect();
    for none in ["none", "None", "NONE"] {
        let header = part(&json!({ "alg": none, "kid": "r" }));
        cases.push((format!("{header}.{}.", part(&claims())), "is not allowed"));
        cases.push((format!("{header}.{}.{}", part(&claims()), parts[2]), "is not allowed"));
    }
    let elsewhere = Signer { id: "r", ..self::ec("r") };
    cases.extend([
        (rsa.sign(&with("iss", Some(json!("https://evil.example/")))), "another issuer"),
        (rsa.sign(&with("iss", None)), "claim iss is missing"),
        (rsa.sign(&with("aud", Some(json!("other")))), "another audience"),
        (rsa.sign(&with("aud", Some(json!([])))), "another audience"),
        (rsa.sign(&with("aud", None)), "claim aud is missing"),
        (rsa.sign(&with("exp", Some(json!(now_s - 6)))), "it is expired"),
        (rsa.sign(&with("exp", None)), "claim exp is missing"),
        (rsa.sign(&with("exp", Some(json!("2099")))), "claim exp is missing or not"),
        (rsa.sign(&with("nbf", Some(json!(now_s + 600)))), "not valid yet"),
        (rsa.sign(&with("sub", Some(json!("")))), "claim sub is missing"),
        (rsa.sign(&with("sub", Some(json!(7)))), "claim sub is missing"),
        (rsa.sign(&with("groups", Some(json!(["users"])))), "no role here"),
        (rsa.sign(&with("groups", None)), "no role here"),
        (rsa.sign(&with("mail_domains", None)), "claim mail_domains is missing"),
        (rsa.sign(&with("mail_domains", Some(json!([])))), "claim mail_domains is missing"),
        (format!("{}.{}.{}", parts[0], part(&with("sub", Some(json!("root")))), parts[2]), "signature is wrong"),
        (format!("{}.{}.", parts[0], parts[1]), "signature is wrong"),
        (ec.sign(&claims()) + "AAAA", "signature is wrong"),
        (elsewhere.sign(&claims()), "the provider has no key \"r\""),
        (self::ec("x").sign(&claims()), "the provider has no key \"x\""),
        (
            format!("{}.{}.{}", part(&json!({ "alg": "RS256", "kid": "r", "crit": ["b64"] })), parts[1], parts[2]),
            "critical",
        ),
        ("e30.e30.e30".to_owned(), "cannot be read"),
        ("..".to_owned(), "cannot be read"),
        ("a.b.c".to_owned(), "cannot be read"),
    ]);
    assert!(control.who(&channel, Some(&format!("Bearer {good}"))).await.is_ok());
    let mut texts = std::collections::BTreeSet::new();
    for (jwt, why) in &cases {
        let status = control.who(&channel, Some(&format!("Bearer {jwt}"))).await.expect_err(why);
        assert_eq!(status.code(), Code::Unauthenticated, "{why}");
        texts.insert(status.message().to_owned());
        control.denied(WHO_AM_I, why).await;
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(control.who(&channel, Some(&format!("Bearer {}", "a".repeat(13_000) + ".b.c"))).await.is_err());
    // A token is as good as ever beside them.
    let (_, token) = control.token(Role::Viewer);
    control.settle().await;
    assert!(control.who(&channel, Some(&format!("Bearer {token}"))).await.is_ok());
}

/// A provider that serves what it is told to, and counts how often it is asked.
struct Provider {
    url: String,
    answer: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
}

async fn provider(answer: Option<String>) -> Provider {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
    let (told, count) = (Arc::clone(&answer), Arc::clone(&asked));
    let router = Router::new().route(
        "/keys",
        get(move || async move {
            count.fetch_add(1, Ordering::Relaxed);
            told.lock().await.clone().ok_or(http::StatusCode::SERVICE_UNAVAILABLE)
        }),
    );
    tokio::spawn(tidegate_runtime::http::serve(
        listener,
        router,
        tidegate_runtime::http::HttpBounds::default(),
        tidegate_runtime::http::HttpMetrics::default(),
        tokio_util::sync::CancellationToken::new(),
    ));
    Provider { url, answer, asked }
}

#[tokio::test]
async fn keys_are_fetched_from_the_provider_and_again_for_a_new_one() {
    let (first, second, third) = (rsa("r"), ec("e"), ed("d"));
    let provider = provider(None).await;
    let (control, channel) = start(config(None, Some(provider.url.clone()))).await;
    let (control, channel) = (&control, &channel);
    let taken = |signer: &Signer| {
        let bearer = format!("Bearer {}", signer.sign(&claims()));
        async move { control.who(channel, Some(&bearer)).await.is_ok() }
    };
    // While the provider is down nobody gets in; once it is up again they do, without a restart.
    assert!(!taken(&first).await);
    *provider.answer.lock().await = Some(jwks(&[&first]));
    until("the keys were fetched", || taken(&first)).await;
    // A key that is not known makes them be fetched again, but not for each request.
    assert!(!taken(&second).await);
    *provider.answer.lock().await = Some(jwks(&[&first, &second]));
    let since = std::time::Instant::now();
    until("the second key was fetched", || taken(&second)).await;
    let before = provider.asked.load(Ordering::Relaxed);
    for _ in 0..200 {
        assert!(!taken(&third).await);
    }
    let asked = provider.asked.load(Ordering::Relaxed) - before;
    let most = since.elapsed().as_secs() as usize + 1;
    assert!(asked <= most, "{asked} times for 200 requests in {most} s");
    // What is no answer changes nothing.
    for answer in [None, Some("<html>".to_owned()), Some(r#"{"keys":[]}"#.to_owned()), Some("x".repeat(3 << 20))] {
        *provider.answer.lock().await = answer;
        let before = provider.asked.load(Ordering::Relaxed);
        until("it was asked again", || async {
            taken(&third).await;
            provider.asked.load(Ordering::Relaxed) > before
        })
        .await;
        assert!(taken(&first).await && taken(&second).await);
    }
    // A key that the provider has withdrawn counts no more.
    *provider.answer.lock().await = Some(jwks(&[&third]));
    until("the third key was fetched", || taken(&third)).await;
    assert!(!taken(&first).await);
}
