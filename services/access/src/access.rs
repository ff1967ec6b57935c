//! Who calls: credentials to principals, with files that are watched.

use crate::certificate::{CertificateName, ClientCertificate};
use crate::config::AccessConfig;
use crate::failures::{Failures, Fingerprint};
use crate::jwks::KeySet;
use crate::metrics::{CredentialLabel, Metrics, ReasonLabel};
use crate::people::People;
use crate::provider::Provider;
use crate::refusal::Refusal;
use crate::token::{PREFIX, SecretHash, Token};
use crate::token_file::TokenFile;
use crate::watched_file::{Look, WatchedFile};
use crate::{AccessError, Credential, Edge, Enrolling, Enrolment, Grant, Person, Principal};
use parking_lot::{Mutex, RwLock};
use prometheus_client::registry::Registry;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often files are looked at. A change counts at the second look, so what is revoked ends within half a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Tells who calls. It is shared by all that serve.
pub struct Access {
    /// None: nothing is asked for.
    secured: Option<Secured>,
    changes: watch::Sender<u64>,
    metrics: Metrics,
}

struct Secured {
    trust_domain: Option<String>,
    people: RwLock<Arc<People>>,
    tokens: RwLock<Arc<TokenFile>>,
    takes_tokens: bool,
    provider: Option<Provider>,
    enrolment: Option<Arc<Enrolment>>,
    failures: Mutex<Failures>,
    files: Mutex<Vec<(Kind, WatchedFile)>>,
}

/// What a watched file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    People,
    Tokens,
    Jwks,
}

impl Access {
    /// Nothing is asked for, and everybody is [`Person::on_loopback`]: for a loopback address only.
    pub fn off() -> Arc<Self> {
        Arc::new(Self { secured: None, changes: watch::Sender::new(0), metrics: Metrics::default() })
    }

    /// Reads all files.
    ///
    /// # Errors
    /// When one cannot be read or has problems.
    pub fn open(config: &AccessConfig) -> Result<Arc<Self>, AccessError> {
        let metrics = Metrics::default();
        let mut files = Vec::new();
        let jwks = config.jwt.as_ref().and_then(|jwt| jwt.jwks_file.as_deref());
        if let (Some(_), Some(path)) = (&config.enrolment, &config.tokens) {
            // It is changed when a host enrols: that it cannot be should not come out then.
            TokenFile::make_sure(path)?;
        }
        let people = watch(Kind::People, config.people.as_deref(), People::parse, &mut files)?;
        let tokens = watch(Kind::Tokens, config.tokens.as_deref(), TokenFile::parse, &mut files)?;
        let parse = |text: &str| KeySet::parse(text).map_err(|problem| vec![problem]);
        let keys = watch(Kind::Jwks, jwks, parse, &mut files)?;
        let provider = config.jwt.as_ref().map(|jwt| Provider::new(jwt, keys, metrics.clone())).transpose()?;
        let secured = Secured {
            trust_domain: config.trust_domain.clone(),
            people: RwLock::new(Arc::new(people)),
            tokens: RwLock::new(Arc::new(tokens)),
            takes_tokens: config.tokens.is_some(),
            provider,
            enrolment: Enrolment::of(config).map(Arc::new),
            failures: Mutex::new(Failures::new(config.failures.clone())),
            files: Mutex::new(files),
        };
        Ok(Arc::new(Self { secured: Some(secured), changes: watch::Sender::new(0), metrics }))
    }

    /// Whether nothing is asked for.
    pub fn is_off(&self) -> bool {
        self.secured.is_none()
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// Tells who calls from `peer`: by the bearer credential in `authorization` (the header's value) if there is one,
    /// whatever certificate there is besides; else by the client certificate that TLS has verified, the first of
    /// `certificates`.
    ///
    /// # Errors
    /// When no credential holds. It is counted against the address.
    pub async fn identify(
        &self,
        peer: IpAddr,
        certificates: Option<&[CertificateDer<'_>]>,
        authorization: Option<&str>,
        now_ms: i64,
    ) -> Result<Principal, Refusal> {
        let Some(secured) = &self.secured else { return Ok(Principal::Person(Person::on_loopback())) };
        let fingerprint = authorization.map(|text| Fingerprint::from(Sha256::digest(text)));
        let blocked_ms = secured.failures.lock().blocked_ms(peer, now_ms);
        let is_let_through = match &fingerprint {
            Some(fingerprint) => secured.failures.lock().is_known(peer, fingerprint, now_ms),
            None => certificates.is_some(),
        };
        let identified = match (blocked_ms, authorization) {
            (Some(retry_after_ms), _) if !is_let_through => Err(Refusal::TooMany { retry_after_ms }),
            (_, Some(authorization)) => secured.by_bearer(authorization, now_ms).await,
            (_, None) => secured.by_certificate(certificates, now_ms),
        };
        let identified = identified.map_err(|refusal| self.refused(secured, peer, blocked_ms, refusal, now_ms));
        match &identified {
            Ok(principal) => {
                let credential = match principal {
                    Principal::Edge(_) => "edge",
                    Principal::Enrolling(_) => "enrolment",
                    Principal::Person(person) => person.credential.kind(),
                };
                self.metrics.identified.get_or_create(&CredentialLabel { credential }).inc();
                if let Some(fingerprint) = fingerprint {
                    let evicted = secured.failures.lock().succeeded(peer, fingerprint, now_ms);
                    self.metrics.known_evicted.inc_by(u64::from(evicted));
                }
            }
            Err(refusal) => {
                self.metrics.refused.get_or_create(&ReasonLabel { reason: refusal.kind() }).inc();
            }
        }
        identified
    }

    /// Whether a principal that was identified earlier would be the same now: its token, certificate or JWT still
    /// counts, and its role and domains are what they were. For streams and sessions that outlive a request.
    pub fn still_holds(&self, principal: &Principal, now_ms: i64) -> bool {
        let Some(secured) = &self.secured else {
            return matches!(principal, Principal::Person(person) if person.is_unproven());
        };
        let (people, tokens) = (Arc::clone(&secured.people.read()), Arc::clone(&secured.tokens.read()));
        let in_time = |expires_ms: Option<i64>| expires_ms.is_none_or(|expires_ms| now_ms < expires_ms);
        match principal {
            Principal::Edge(edge) => {
                let (Some(site), Some(node)) = (edge.site.clone(), edge.node.clone()) else { return false };
                in_time(edge.expires_ms) && !people.is_revoked(&CertificateName::Edge { site, node })
            }
            // Its one answer comes when the token is used up already.
            Principal::Enrolling(enrolling) => in_time(enrolling.expires_ms),
            Principal::Person(person) => {
                in_time(person.expires_ms)
                    && match &person.credential {
                        Credential::Loopback => false,
                        Credential::Certificate(_) => {
                            people.get(&person.name) == Some(&(person.role, person.scope.clone()))
                                && !people.is_revoked(&CertificateName::User(person.name.clone()))
                        }
                        Credential::Token(id) => tokens.get(id).is_some_and(|token| {
                            let grant = Grant::Person { role: person.role, scope: person.scope.clone() };
                            token.is_valid(now_ms) && token.grant == grant
                        }),
                        Credential::Jwt(name) => secured.provider.is_some() && !people.is_jwt_revoked(name),
                    }
            }
        }
    }

    /// What gives out certificates for edges, if it is set up.
    pub fn enrolment(&self) -> Option<&Arc<Enrolment>> {
        self.secured.as_ref()?.enrolment.as_ref()
    }

    /// A number that rises whenever a file was loaded anew: the time to ask [`Access::still_holds`] again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Watches the files and fetches keys until `shutdown`. A file with problems is told of, and the one in force stays.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let looking = async {
            let mut ticks = interval(LOOK_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let access = Arc::clone(&self);
                if let Err(error) = tokio::task::spawn_blocking(move || access.look()).await {
                    tracing::error!(error = error.to_string(), "looking at the files of credentials failed");
                }
            }
        };
        let fetching = async {
            if let Some(provider) = self.secured.as_ref().and_then(|secured| secured.provider.as_ref()) {
                provider.run().await;
            }
        };
        let both = async { tokio::join!(looking, fetching) };
        tokio::select! {
            () = shutdown.cancelled() => {}
            ((), ()) = both => {}
        }
    }

    /// Looks once whether files have changed.
    fn look(&self) {
        let Some(secured) = &self.secured else { return };
        let mut changed = false;
        for (kind, file) in secured.files.lock().iter_mut() {
            let problems = match file.look() {
                Look::Same => continue,
                Look::Changed(text) => secured.take(*kind, &text).err().unwrap_or_default(),
                Look::Unreadable(error) => vec![format!("cannot be read: {error}")],
            };
            let (what, file) = (kind.as_str(), file.path().display());
            self.metrics.reloaded(what, problems.is_empty());
            if problems.is_empty() {
                changed = true;
                tracing::info!(what, %file, "credentials were loaded anew");
            } else {
                let problems = problems.join("; ");
                tracing::error!(what, %file, problems, "credentials have problems; those in force stay");
            }
        }
        if changed {
            self.changes.send_modify(|version| *version += 1);
        }
    }

    /// What the caller is refused for, once it is counted.
    fn refused(
        &self,
        secured: &Secured,
        peer: IpAddr,
        blocked_ms: Option<i64>,
        refusal: Refusal,
        now_ms: i64,
    ) -> Refusal {
        // What was let through to be looked at and did not hold changes nothing: the address waits as it did.
        if let Some(retry_after_ms) = blocked_ms {
            return Refusal::TooMany { retry_after_ms };
        }
        let mut failures = secured.failures.lock();
        let failed = failures.failed(peer, now_ms);
        self.metrics.addresses.set(failures.addresses().cast_signed() as i64);
        self.metrics.addresses_evicted.inc_by(u64::from(failed.evicted));
        if let Some(blocked_ms) = failed.blocked_ms {
            self.metrics.blocks.inc();
            tracing::warn!(%peer, blocked_ms, "too many credentials were refused; the address is blocked for a time");
        }
        refusal
    }
}

impl Secured {
    async fn by_bearer(&self, authorization: &str, now_ms: i64) -> Result<Principal, Refusal> {
        let malformed = Refusal::Malformed("the authorization header is not \"Bearer\" and one token");
        let Some((scheme, bearer)) = authorization.split_once(' ') else { return Err(malformed) };
        let bearer = bearer.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || bearer.is_empty() || bearer.contains(char::is_whitespace) {
            return Err(malformed);
        }
        if bearer.starts_with(PREFIX) {
            return self.by_token(bearer, now_ms);
        }
        if bearer.bytes().filter(|octet| *octet == b'.').count() != 2 {
            return Err(Refusal::Malformed("it is neither a token nor a JWT"));
        }
        let provider = self.provider.as_ref().ok_or(Refusal::NotTaken("JWTs"))?;
        let people = Arc::clone(&self.people.read());
        provider.identify(bearer, &people, now_ms).await.map(Principal::Person)
    }

    fn by_token(&self, bearer: &str, now_ms: i64) -> Result<Principal, Refusal> {
        if !self.takes_tokens {
            return Err(Refusal::NotTaken("tokens"));
        }
        let token = Token::parse(bearer).ok_or(Refusal::Malformed("it begins as a token does, but is none"))?;
        let tokens = Arc::clone(&self.tokens.read());
        let record = tokens.get(token.id());
        // Compared also when there is none, so that it takes the same time.
        let matches = record.map_or(&SecretHash::NONE, |record| &record.hash).matches(&token.hash());
        let id = token.id().to_owned();
        let Some(record) = record else { return Err(Refusal::UnknownToken(id)) };
        if !matches {
            return Err(Refusal::WrongSecret(id));
        }
        let name = record.name.clone();
        if record.revoked_ms.is_some() {
            return Err(Refusal::RevokedToken { id, name });
        }
        if record.used_ms.is_some() {
            return Err(Refusal::UsedToken { id, name });
        }
        if record.is_expired(now_ms) {
            return Err(Refusal::ExpiredToken { id, name });
        }
        let expires_ms = record.expires_ms;
        Ok(match record.grant.clone() {
            Grant::Person { role, scope } => {
                Principal::Person(Person { name, role, scope, credential: Credential::Token(id), expires_ms })
            }
            Grant::Enrol { site, node } => Principal::Enrolling(Enrolling { site, node, token: id, expires_ms }),
        })
    }

    fn by_certificate(&self, certificates: Option<&[CertificateDer<'_>]>, now_ms: i64) -> Result<Principal, Refusal> {
        let leaf = certificates.and_then(<[_]>::first).ok_or(Refusal::Missing)?;
        let certificate = ClientCertificate::read(leaf, self.trust_domain.as_deref())?;
        let name = certificate.name.to_string();
        // TLS looked when the connection began, which can be long ago. The last second counts, as for TLS.
        let expires_ms = certificate.not_after_ms.saturating_add(1_000);
        if now_ms < certificate.not_before_ms || now_ms >= expires_ms {
            return Err(Refusal::CertificateTime(name));
        }
        let people = Arc::clone(&self.people.read());
        if people.is_revoked(&certificate.name) {
            return Err(Refusal::CertificateRevoked(name));
        }
        match certificate.name {
            CertificateName::Edge { site, node } => {
                Ok(Principal::Edge(Edge { node: Some(node), site: Some(site), expires_ms: Some(expires_ms) }))
            }
            CertificateName::User(user) => {
                let (role, scope) = people.get(&user).cloned().ok_or_else(|| Refusal::UnknownPerson(user.clone()))?;
                let credential = Credential::Certificate(name);
                Ok(Principal::Person(Person { name: user, role, scope, credential, expires_ms: Some(expires_ms) }))
            }
        }
    }

    /// What a file holds now, in force from now on.
    fn take(&self, kind: Kind, text: &str) -> Result<(), Vec<String>> {
        match kind {
            Kind::People => *self.people.write() = Arc::new(People::parse(text)?),
            Kind::Tokens => *self.tokens.write() = Arc::new(TokenFile::parse(text)?),
            Kind::Jwks => {
                let keys = KeySet::parse(text).map_err(|problem| vec![problem])?;
                if let Some(provider) = &self.provider {
                    provider.set_keys(keys);
                }
            }
        }
        Ok(())
    }
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::People => "people",
            Self::Tokens => "tokens",
            Self::Jwks => "jwks",
        }
    }
}

/// Reads a file, if there is one, and has it watched.
fn watch<T: Default>(
    kind: Kind,
    path: Option<&Path>,
    parse: impl FnOnce(&str) -> Result<T, Vec<String>>,
    files: &mut Vec<(Kind, WatchedFile)>,
) -> Result<T, AccessError> {
    let Some(path) = path else { return Ok(T::default()) };
    let failed = |source| AccessError::Read { what: kind.as_str(), path: path.to_owned(), source };
    let (file, text) = WatchedFile::open(path).map_err(failed)?;
    files.push((kind, file));
    parse(&text).map_err(|problems| AccessError::Content { path: path.to_owned(), problems })
}

#[cfg(test)]
mod tests;
