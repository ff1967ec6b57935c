//! Publishes over gRPC, for edges that cannot reach the brokers, or where there are none.

use super::{Published, Publisher, Rejected};
use crate::BusError;
use async_trait::async_trait;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tidegate_proto::v1;
use tidegate_proto::v1::event_service_client::EventServiceClient;
use tidegate_runtime::tls::{ClientFiles, ClientTls, check_endpoint};
use tidegate_runtime::{Problems, Validate};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

/// Events in one request, at most: what `EventService` takes.
pub const REQUEST_MAX_EVENTS: usize = 1_000;
/// Bytes of events in one request, at most; tonic's servers take 4 MiB.
const REQUEST_MAX_BYTES: usize = 2 << 20;
/// How often an idle connection is tried, so that a dead one is noticed before it is needed.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How often the certificate files are looked at, at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Where and how events are published over gRPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcPublisherConfig {
    /// `http://host:port`, or `https://host:port` with `tls`.
    pub endpoint: String,
    /// Certificates; without, the connection is neither secret nor authenticated.
    pub tls: Option<ClientTls>,
    /// Longest wait for an answer, in milliseconds.
    pub request_timeout_ms: u64,
}

/// Calls `EventService.Publish`. It connects when it is first used, and again whenever the connection was lost or the
/// certificate files hold something new.
#[derive(Debug, Clone)]
pub struct GrpcPublisher {
    client: EventServiceClient<Channel>,
    renewal: Option<Arc<Renewal>>,
    endpoint: String,
    request_timeout: Duration,
}

/// A connection whose certificate is renewed.
#[derive(Debug)]
struct Renewal {
    config: GrpcPublisherConfig,
    tls: ClientTls,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    client: EventServiceClient<Channel>,
    files: ClientFiles,
    looked: Instant,
}

impl Default for GrpcPublisherConfig {
    fn default() -> Self {
        Self { endpoint: "http://127.0.0.1:7710".to_owned(), tls: None, request_timeout_ms: 10_000 }
    }
}

impl GrpcPublisher {
    /// A publisher with a connection of its own. It must be called on a tokio runtime.
    ///
    /// # Errors
    /// When the endpoint is no URL, or a file of `tls` cannot be used.
    pub fn new(config: &GrpcPublisherConfig) -> Result<Self, BusError> {
        let request_timeout = Duration::from_millis(config.request_timeout_ms);
        let Some(tls) = &config.tls else {
            return Ok(Self::over(connection(config, None)?, config.endpoint.clone(), request_timeout));
        };
        let files = tls.read().map_err(|source| refused(config, source.into()))?;
        let channel = connection(config, Some(&files))?;
        let client = EventServiceClient::new(channel.clone());
        let current = Mutex::new(Current { client, files, looked: Instant::now() });
        let renewal = Renewal { config: config.clone(), tls: tls.clone(), current };
        let publisher = Self::over(channel, config.endpoint.clone(), request_timeout);
        Ok(Self { renewal: Some(Arc::new(renewal)), ..publisher })
    }

    /// A publisher over a connection that is there already. `endpoint` is what errors call it.
    pub fn over(channel: Channel, endpoint: String, request_timeout: Duration) -> Self {
        Self { client: EventServiceClient::new(channel), renewal: None, endpoint, request_timeout }
    }

    async fn request(&self, events: Vec<v1::Event>) -> Result<v1::PublishResponse, BusError> {
        let failed = |status| BusError::Grpc { endpoint: self.endpoint.clone(), status: Box::new(status) };
        let mut request = tonic::Request::new(v1::PublishRequest { events });
        request.set_timeout(self.request_timeout);
        let mut client = match &self.renewal {
            Some(renewal) => renewal.client().await,
            None => self.client.clone(),
        };
        // The server is told the time; it is kept here, too, for a server that hangs.
        match tokio::time::timeout(self.request_timeout, client.publish(request)).await {
            Ok(answer) => Ok(answer.map_err(failed)?.into_inner()),
            Err(_) => Err(failed(tonic::Status::deadline_exceeded(format!(
                "no answer within {} ms",
                self.request_timeout.as_millis()
            )))),
        }
    }
}

impl Renewal {
    /// A client with the certificate as it is now. Files that cannot be used are not yet whole: the connection with what
    /// they held before stays.
    async fn client(&self) -> EventServiceClient<Channel> {
        let mut current = self.current.lock().await;
        if current.looked.elapsed() >= LOOK_INTERVAL {
            current.looked = Instant::now();
            let tls = self.tls.clone();
            if let Ok(Ok(files)) = tokio::task::spawn_blocking(move || tls.read()).await
                && files != current.files
                && let Ok(channel) = connection(&self.config, Some(&files))
            {
                tracing::info!("the certificate was renewed; events are published with it");
                current.client = EventServiceClient::new(channel);
                current.files = files;
            }
        }
        current.client.clone()
    }
}

/// A connection that is made when it is first used.
fn connection(config: &GrpcPublisherConfig, files: Option<&ClientFiles>) -> Result<Channel, BusError> {
    let endpoint = Endpoint::from_shared(config.endpoint.clone())
        .map_err(|source| refused(config, source.into()))?
        .connect_timeout(Duration::from_millis(config.request_timeout_ms))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    let endpoint = match files {
        Some(files) => endpoint.tls_config(files.to_tonic()).map_err(|source| refused(config, source.into()))?,
        None => endpoint,
    };
    Ok(endpoint.connect_lazy())
}

fn refused(config: &GrpcPublisherConfig, source: Box<dyn std::error::Error + Send + Sync>) -> BusError {
    BusError::Endpoint { endpoint: config.endpoint.clone(), source }
}

#[async_trait]
impl Publisher for GrpcPublisher {
    async fn publish(&self, events: Vec<v1::Event>) -> Result<Published, BusError> {
        let mut published = Published::default();
        let mut sent = 0;
        // One after the other, so that the events of an account keep their order.
        for part in split(events) {
            let count = part.len();
            let answer = self.request(part).await?;
            published.written += answer.written as usize;
            published.rejected.extend(
                answer
                    .rejected
                    .into_iter()
                    .map(|event| Rejected { index: sent + event.index as usize, reason: event.reason }),
            );
            sent += count;
        }
        Ok(published)
    }
}

impl Validate for GrpcPublisherConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        check_endpoint(path, &self.endpoint, self.tls.is_some(), problems);
        problems.check_range(path, "request_timeout_ms", self.request_timeout_ms, 100..=600_000);
        if let Some(tls) = &self.tls {
            tls.validate(&tidegate_runtime::config::key(path, "tls"), problems);
        }
    }
}

/// Cuts events into requests that the server takes.
fn split(events: Vec<v1::Event>) -> Vec<Vec<v1::Event>> {
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), 0);
    for event in events {
        let size = event.encoded_len();
        if part.len() == REQUEST_MAX_EVENTS || (bytes + size > REQUEST_MAX_BYTES && !part.is_empty()) {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += size;
        part.push(event);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_small_enough_for_the_server() {
        let small = vec![v1::Event::default(); 2_500];
        assert_eq!(split(small).iter().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        let large = vec![v1::Event { site: "x".repeat(900_000), ..v1::Event::default() }; 5];
        assert_eq!(split(large).iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    }

    #[test]
    fn endpoints_are_checked() {
        let problem = |endpoint: &str| {
            let config = GrpcPublisherConfig { endpoint: endpoint.to_owned(), ..GrpcPublisherConfig::default() };
            let mut problems = Problems::default();
            config.validate("publish", &mut problems);
            problems.to_string()
        };
        assert_eq!(problem("http://control:7710"), "");
        assert!(problem("https://control:7710").contains("must begin with https:// if tls is set"));
        assert!(problem("control:7710").contains("allowed: http://host:port"));
        assert!(problem("").contains("allowed: http://host:port"));
    }
}
