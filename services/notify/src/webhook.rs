//! Posts a signed body to a webhook's receiver.

use crate::config::{WebhookConfig, check_url};
use crate::identity::hex;
use crate::outbox::{Delivery, Outcome};
use crate::smtp::chain;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use sha2::Sha256;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most of an answer that is read, in octets; it is only shown when it tells of an error.
const MAX_ANSWER_BYTES: usize = 4096;

/// A receiver.
#[derive(Debug, Clone)]
pub struct Webhook {
    config: WebhookConfig,
    client: Client,
}

impl Webhook {
    /// The receiver of this configuration; nothing is connected yet.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(config: WebhookConfig) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .timeout(Duration::from_millis(config.timeout_ms))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { config, client })
    }

    /// Posts one body.
    pub async fn send(&self, delivery: &Delivery, body: String) -> Outcome {
        let (url, secret) = match self.secrets().await {
            Ok(found) => found,
            Err(why) => return Outcome::Unreachable(why),
        };
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
        let mut request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("Tidegate-Id", &delivery.id)
            .header("Tidegate-Timestamp", timestamp.to_string());
        if let Some(secret) = &secret {
            request = request.header("Tidegate-Signature", signature(secret.as_bytes(), timestamp, body.as_bytes()));
        }
        match request.body(body).send().await {
            Ok(response) => outcome(response).await,
            // The URL can be a secret.
            Err(error) => Outcome::Unreachable(chain(&error.without_url())),
        }
    }

    async fn secrets(&self) -> Result<(url::Url, Option<String>), String> {
        let url = match (&self.config.url, &self.config.url_file) {
            (Some(url), _) => url.clone(),
            (None, Some(file)) => read(file).await?,
            (None, None) => return Err("neither url nor url_file is set".to_owned()),
        };
        let url = check_url(&url).map_err(|problem| format!("the URL {problem}"))?;
        let secret = match &self.config.secret_file {
            Some(file) => Some(read(file).await?),
            None => None,
        };
        Ok((url, secret))
    }
}

/// `v1=` and the HMAC-SHA256 of `timestamp "." body` in hexadecimal digits.
pub fn signature(secret: &[u8], timestamp: u64, body: &[u8]) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("v1={}", hex(&mac.finalize().into_bytes()))
}

async fn outcome(mut response: Response) -> Outcome {
    let status = response.status();
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let after = after.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
    let mut answer = Vec::new();
    while answer.len() < MAX_ANSWER_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        answer.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER_BYTES - answer.len())]);
    }
    if status.is_success() {
        return Outcome::Sent;
    }
    let why = format!("{status}: {}", crate::values::one_line(&String::from_utf8_lossy(&answer), 200));
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Outcome::Busy(why, after),
        _ if status.is_server_error() => Outcome::Busy(why, after),
        // It does not take this at all; redirections are not followed, since the body is signed for this receiver.
        _ => Outcome::Refused(why),
    }
}

async fn read(file: &std::path::Path) -> Result<String, String> {
    let text = tokio::fs::read_to_string(file).await.map_err(|error| format!("reading {}: {error}", file.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `printf '1700000000.{}' | openssl dgst -sha256 -hmac secret` says.
    #[test]
    fn the_signature_is_one_that_others_can_check() {
        let expected = "v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163";
        assert_eq!(signature(b"secret", 1_700_000_000, b"{}"), expected);
    }
}
