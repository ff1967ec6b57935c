//! The OIDC provider whose JWTs are taken, and its keys as they are now.

use crate::jwks::{JwksClient, KeySet};
use crate::jwt::{JwtConfig, JwtHeader};
use crate::metrics::Metrics;
use crate::people::People;
use crate::refusal::{JwtRefusal, Refusal};
use crate::{AccessError, Person};
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// Longest JWT, in octets; gRPC's headers have 16 KiB in all.
const MAX_OCTETS: usize = 12 << 10;

/// The provider, and its keys as they are now.
pub(crate) struct Provider {
    config: JwtConfig,
    keys: RwLock<Arc<KeySet>>,
    /// None: the keys are in a file.
    client: Option<JwksClient>,
    /// When keys were last asked for. Who holds it asks; the others wait for the answer.
    asked: Mutex<Option<Instant>>,
    metrics: Metrics,
}

impl Provider {
    /// A provider with `keys` to begin with: those of the file, or none yet.
    pub fn new(config: &JwtConfig, keys: KeySet, metrics: Metrics) -> Result<Self, AccessError> {
        let client = config.jwks_url.as_deref().map(JwksClient::new).transpose().map_err(AccessError::Http)?;
        let provider =
            Self { config: config.clone(), keys: RwLock::default(), client, asked: Mutex::default(), metrics };
        provider.set_keys(keys);
        Ok(provider)
    }

    /// Other keys, from now on.
    pub fn set_keys(&self, keys: KeySet) {
        self.metrics.jwks_keys.set(keys.len().cast_signed() as i64);
        *self.keys.write() = Arc::new(keys);
    }

    /// Who `jwt` proves to be.
    pub async fn identify(&self, jwt: &str, people: &People, now_ms: i64) -> Result<Person, Refusal> {
        if jwt.len() > MAX_OCTETS {
            return Err(Refusal::Malformed("it is too long"));
        }
        let header = JwtHeader::read(jwt, &self.config.algorithms)?;
        let mut keys = self.keys();
        if !keys.has(header.key_id.as_deref()) {
            self.refetch(header.key_id.as_deref()).await;
            keys = self.keys();
        }
        let person = self.config.verify(jwt, &header, &keys, now_ms)?;
        if people.is_jwt_revoked(&person.name) {
            return Err(JwtRefusal::Revoked(person.name).into());
        }
        Ok(person)
    }

    /// Keeps fetched keys fresh, for ever.
    pub async fn run(&self) {
        if self.client.is_none() {
            return;
        }
        loop {
            let mut asked = self.asked.lock().await;
            let fetched = self.fetch(&mut asked).await;
            drop(asked);
            // Without any key nobody gets in: the provider is asked again soon.
            let soon = !fetched && self.keys().len() == 0;
            let pause_s = if soon { self.config.min_refetch_s } else { self.config.refresh_s };
            sleep(Duration::from_secs(pause_s)).await;
        }
    }

    fn keys(&self) -> Arc<KeySet> {
        Arc::clone(&self.keys.read())
    }

    /// Asks for the keys because one is missing, unless that was done just now.
    async fn refetch(&self, id: Option<&str>) {
        let mut asked = self.asked.lock().await;
        let pause = Duration::from_secs(self.config.min_refetch_s);
        if self.keys().has(id) || asked.is_some_and(|asked| asked.elapsed() < pause) {
            return;
        }
        self.fetch(&mut asked).await;
    }

    /// Asks for the keys. Those in force stay when no better ones come.
    async fn fetch(&self, asked: &mut Option<Instant>) -> bool {
        let Some(client) = &self.client else { return false };
        *asked = Some(Instant::now());
        let fetched = client.fetch().await;
        self.metrics.reloaded("jwks", fetched.is_ok());
        match fetched {
            Ok(keys) => {
                self.set_keys(keys);
                true
            }
            Err(error) => {
                tracing::warn!(error, "keys for JWTs could not be fetched; those in force stay");
                false
            }
        }
    }
}
