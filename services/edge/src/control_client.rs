//! The stream from control: account states come, acknowledgements and health go.

use crate::clock::Clock;
use crate::config::{ControlConfig, EdgeConfig};
use crate::error::EdgeError;
use crate::link::Link;
use crate::metrics::Metrics;
use crate::states::{HeldStates, OtherLog};
use crate::steps::Steps;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;
use tidegate_proto::v1;
use tidegate_proto::v1::attach_request::Kind as Says;
use tidegate_proto::v1::attach_response::Kind as Said;
use tidegate_proto::v1::edge_service_client::EdgeServiceClient;
use tidegate_runtime::backoff::Backoff;
use tidegate_runtime::error_line;
use tidegate_runtime::tls::{ClientFiles, ClientTls};
use tidegate_runtime::traces;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// First pause before connecting again.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Silence for so many heartbeats means cut off.
const MISSED_HEARTBEATS: u32 = 3;
/// How often the edge tells its health, and looks whether its certificate was renewed.
const HEALTH_PERIOD: Duration = Duration::from_secs(5);
/// Largest message taken from control, which sends about 1 MiB at most.
const MAX_MESSAGE_OCTETS: usize = 16 << 20;
/// Messages to control that wait for the connection to take them.
const OUTGOING: usize = 16;

/// Keeps a stream to control open.
pub(crate) struct ControlClient {
    address: String,
    tls: Option<ClientTls>,
    node: String,
    site: String,
    connect_timeout: Duration,
    max_backoff: Duration,
    states: Arc<HeldStates>,
    link: Arc<Link>,
    health: Box<dyn Fn() -> v1::EdgeHealth + Send + Sync>,
    clock: Clock,
    metrics: Metrics,
    steps: Arc<Steps>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("the certificate was renewed")]
    Renewed,
    #[error("control ended the stream: {}", .0.message())]
    Status(#[from] Box<tonic::Status>),
    #[error("control closed the stream")]
    Closed,
    #[error("control did not {doing} within {} ms", limit.as_millis())]
    Silent { doing: &'static str, limit: Duration },
    #[error("control said something else than welcome first")]
    NoWelcome,
    #[error("cannot go on from what is held")]
    OtherLog(#[from] OtherLog),
}

impl End {
    /// Tells a connection that could not be made from one that was refused by control.
    fn of_greeting(status: tonic::Status) -> Self {
        match status.source() {
            Some(source) if source.is::<tonic::transport::Error>() => Self::Connect(error_line(source)),
            _ => Self::Status(Box::new(status)),
        }
    }
}

/// An open stream.
struct Attached {
    /// What the certificate files held.
    files: Option<ClientFiles>,
    incoming: Streaming<v1::AttachResponse>,
    outgoing: mpsc::Sender<v1::AttachRequest>,
    /// Silence for longer means cut off.
    patience: Duration,
    sequence: u64,
    /// Everything that control had was received: what follows are changes as they come.
    level: bool,
}

impl ControlClient {
    /// A client that is not connected yet. `health` tells how the edge is.
    pub fn new(
        config: &EdgeConfig,
        states: Arc<HeldStates>,
        link: Arc<Link>,
        health: impl Fn() -> v1::EdgeHealth + Send + Sync + 'static,
        clock: Clock,
        metrics: Metrics,
        steps: Arc<Steps>,
    ) -> Result<Self, EdgeError> {
        let ControlConfig { endpoint, tls, connect_timeout_ms, max_backoff_ms } = &config.control;
        let connect_timeout = Duration::from_millis(*connect_timeout_ms);
        // Files that cannot be used are told of at the start; later ones are waited for.
        let files = tls.as_ref().map(ClientTls::read).transpose();
        let files = files.map_err(|source| EdgeError::Tls { key: "control.tls", source })?;
        self::endpoint(endpoint, files.as_ref(), connect_timeout)
            .map_err(|source| EdgeError::Endpoint { endpoint: endpoint.clone(), source })?;
        Ok(Self {
            address: endpoint.clone(),
            tls: tls.clone(),
            node: config.node.clone(),
            site: config.site.clone(),
            connect_timeout,
            max_backoff: Duration::from_millis(*max_backoff_ms),
            states,
            link,
            health: Box::new(health),
            clock,
            metrics,
            steps,
        })
    }

    /// Connects, again and again, until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_PAUSE, self.max_backoff);
        let mut told = false;
        loop {
            let Err(end) = tokio::select! {
                () = shutdown.cancelled() => return,
                end = self.serve(&mut backoff) => end,
            };
            if matches!(end, End::Renewed) {
                tracing::info!("the certificate was renewed; connecting anew with it");
                continue;
            }
            let was_connected = self.link.is_connected();
            self.link.lost();
            self.metrics.control_connected.set(0);
            self.metrics.control_failures.inc();
            let pause = backoff.pause();
            let error = error_line(&end);
            if was_connected || !told {
                tracing::warn!(error, "cut off from control; known locks stay in force");
                told = true;
            } else {
                tracing::debug!(error, pause_ms = pause.as_millis() as u64, "still cut off from control");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn serve(&self, backoff: &mut Backoff) -> Result<std::convert::Infallible, End> {
        let greeting = tokio::time::timeout(self.connect_timeout, self.attach());
        let silent = |_| End::Silent { doing: "greet", limit: self.connect_timeout };
        let mut stream = greeting.await.map_err(silent)??;
        backoff.reset();
        self.heard();
        tracing::info!("attached to control");
        let mut reports = tokio::time::interval(HEALTH_PERIOD);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard_at = Instant::now();
        loop {
            let said = tokio::select! {
                said = tokio::time::timeout_at(heard_at + stream.patience, stream.incoming.message()) => {
                    let silent = |_| End::Silent { doing: "say anything", limit: stream.patience };
                    said.map_err(silent)?.map_err(Box::new)?.ok_or(End::Closed)?
                }
                _ = reports.tick() => {
                    if self.is_renewed(stream.files.as_ref()).await {
                        return Err(End::Renewed);
                    }
                    stream.say(Says::Health((self.health)())).await?;
                    continue;
                }
            };
            heard_at = Instant::now();
            self.heard();
            match said.kind {
                Some(Said::States(batch)) => self.take(&batch, &mut stream).await?,
                Some(Said::Heartbeat(heartbeat)) => stream.level |= heartbeat.sequence == stream.sequence,
                // A word of a newer control.
                Some(Said::Welcome(_)) | None => {}
            }
        }
    }

    /// Connects, says hello, and is welcomed.
    async fn attach(&self) -> Result<Attached, End> {
        // The files are read at each attempt: a certificate that was renewed needs no restart.
        let files = self.files().await?;
        let ends = files.as_ref().and_then(ClientFiles::times).map_or(0, |times| times.not_after_ms / 1_000);
        self.metrics.certificate_not_after.set(ends);
        let endpoint = endpoint(&self.address, files.as_ref(), self.connect_timeout);
        let endpoint = endpoint.map_err(|error| End::Connect(error_line(&error)))?;
        // Connects when it is asked, and once: a channel that was connected before would connect again at once when the
        // connection is lost before the question, without a pause.
        let channel: Channel = endpoint.connect_lazy();
        let mut client = EdgeServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_OCTETS);
        let (outgoing, requests) = mpsc::channel(OUTGOING);
        let (log_id, positions) = self.states.resume_from();
        let hello = v1::Hello {
            node: self.node.clone(),
            site: self.site.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            log_id,
            positions,
            now_ms: self.clock.now_ms(),
        };
        // There is room, for it is the first.
        let _ = outgoing.try_send(v1::AttachRequest { kind: Some(Says::Hello(hello)) });
        let mut incoming = client.attach(ReceiverStream::new(requests)).await.map_err(End::of_greeting)?.into_inner();
        let first = incoming.message().await.map_err(Box::new)?.ok_or(End::Closed)?;
        let Some(Said::Welcome(welcome)) = first.kind else { return Err(End::NoWelcome) };
        self.states.begin(&welcome.log_id, welcome.snapshot)?;
        let heartbeat = Duration::from_millis(welcome.heartbeat_ms.clamp(100, 600_000).into());
        Ok(Attached { files, incoming, outgoing, patience: heartbeat * MISSED_HEARTBEATS, sequence: 0, level: false })
    }

    /// What the certificate files hold now.
    async fn files(&self) -> Result<Option<ClientFiles>, End> {
        let Some(tls) = self.tls.clone() else { return Ok(None) };
        match tokio::task::spawn_blocking(move || tls.read()).await {
            Ok(files) => files.map(Some).map_err(|error| End::Connect(error_line(&error))),
            Err(error) => Err(End::Connect(error.to_string())),
        }
    }

    /// Whether the certificate files hold something else than `used`, and something that can be used: they are not all
    /// exchanged in one instant.
    async fn is_renewed(&self, used: Option<&ClientFiles>) -> bool {
        let Ok(files) = self.files().await else { return false };
        files.as_ref() != used && endpoint(&self.address, files.as_ref(), self.connect_timeout).is_ok()
    }

    /// First in force, then acknowledged.
    async fn take(&self, batch: &v1::StateBatch, stream: &mut Attached) -> Result<(), End> {
        let began_ms = traces::now_ms();
        // Before they are in force: a refusal may follow at once.
        self.steps.applied(batch, began_ms);
        self.states.apply(batch);
        let applied_ms = self.clock.now_ms();
        stream.sequence = batch.sequence;
        if stream.level {
            self.metrics.propagation_seconds.observe(applied_ms.saturating_sub(batch.sent_ms).max(0) as f64 / 1_000.0);
        }
        stream.say(Says::Ack(v1::Ack { sequence: batch.sequence, applied_ms })).await
    }

    fn heard(&self) {
        self.link.heard();
        self.metrics.control_connected.set(1);
        self.metrics.control_heard_seconds.set(self.link.heard_ms() / 1_000);
    }
}

impl Attached {
    async fn say(&self, kind: Says) -> Result<(), End> {
        let message = v1::AttachRequest { kind: Some(kind) };
        self.outgoing.send_timeout(message, self.patience).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Closed(_) => End::Closed,
            mpsc::error::SendTimeoutError::Timeout(_) => End::Silent { doing: "take a message", limit: self.patience },
        })
    }
}

fn endpoint(
    address: &str,
    files: Option<&ClientFiles>,
    connect_timeout: Duration,
) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(address.to_owned())?
        .connect_timeout(connect_timeout)
        // Acknowledgements are small and must not wait for company.
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10));
    match files {
        Some(files) => endpoint.tls_config(files.to_tonic()),
        None => Ok(endpoint),
    }
}
