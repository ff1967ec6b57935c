//! The administrator's side: lists over many accounts, and pushes to edges while many watch slowly.

use super::Scale;
use super::report::Figure;
use super::stopwatch::{Stopwatch, quantile};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use prometheus_client::registry::Registry;
use prost::Message as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidegate_access::Access;
use tidegate_bus::{Bus, EmbeddedBus, EmbeddedConfig, Message, Topic};
use tidegate_control::{ControlConfig, Service};
use tidegate_domain::{Account, AccountState, Cause, Lock, QueuedMail, RuleRef, Status};
use tidegate_proto::v1::admin_service_client::AdminServiceClient;
use tidegate_proto::v1::attach_request::Kind as Said;
use tidegate_proto::v1::attach_response::Kind as Says;
use tidegate_proto::v1::edge_service_client::EdgeServiceClient;
use tidegate_proto::{state_to_proto, v1};
use tidegate_runtime::Health;
use tidegate_runtime::shutdown::CancellationToken;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// How long the replica may take to be whole, and a push to come.
const PATIENCE: Duration = Duration::from_mins(3);
const DOMAINS: u64 = 1_000;
/// One in so many accounts is locked.
const LOCKED: u64 = 100;
/// States in one write.
const BATCH: u64 = 2_000;
const SLOW_WATCHES: usize = 1_000;

/// A control service with many accounts.
struct Control {
    bus: Arc<EmbeddedBus>,
    endpoint: Endpoint,
    stop: CancellationToken,
    _directory: TempDir,
}

/// Measures pages of lists, and pushes without and with slow watches.
pub async fn measure(scale: Scale) -> anyhow::Result<Vec<Figure>> {
    let accounts = scale.of(1_000_000);
    let control = Control::start(accounts).await?;
    let mut figures = Vec::new();
    for (name, request) in lists() {
        let settings = format!("{accounts} accounts, {name}");
        figures.push(control.pages(settings, request, scale).await?);
    }
    for watches in [0, SLOW_WATCHES] {
        figures.push(control.pushes(watches, scale).await?);
    }
    control.stop.cancel();
    Ok(figures)
}

fn lists() -> Vec<(&'static str, v1::ListAccountsRequest)> {
    let with = |filter| v1::ListAccountsRequest { filter: Some(filter), page_size: 100, ..Default::default() };
    let locked = v1::AccountFilter { statuses: vec![v1::AccountStatus::Locked.into()], ..Default::default() };
    let domain = v1::AccountFilter { domains: vec!["d7.example.org".into()], ..Default::default() };
    let contains = v1::AccountFilter { contains: "user9999".into(), ..Default::default() };
    let last = v1::AccountOrder::Changed.into();
    vec![
        ("all", with(v1::AccountFilter::default())),
        ("the last changed first", v1::ListAccountsRequest { order: last, ..with(v1::AccountFilter::default()) }),
        ("locked ones", with(locked)),
        ("of one domain", with(domain)),
        ("whose name contains a text", with(contains)),
    ]
}

impl Control {
    async fn start(accounts: u64) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("making a folder")?;
        let config = EmbeddedConfig { directory: directory.path().join("log"), ..EmbeddedConfig::default() };
        let bus = EmbeddedBus::open(config)?;
        for first in (0..accounts).step_by(BATCH as usize) {
            let messages = (first..(first + BATCH).min(accounts)).map(|n| message(&state(n, 1))).collect();
            bus.append(Topic::Accounts, messages).await.context("writing account states")?;
        }
        let config = ControlConfig { listen: ([127, 0, 0, 1], 0).into(), max_watchers: 2_000, ..Default::default() };
        let health = Health::new();
        let log: Arc<dyn Bus> = bus.clone();
        let service = Service::bind(config, log, &mut Registry::default(), health.clone(), Access::off()).await?;
        let endpoint = Endpoint::from_shared(format!("http://{}", service.local_addr()))?;
        let stop = CancellationToken::new();
        tokio::spawn(service.run(stop.clone()));
        let end = Instant::now() + PATIENCE;
        while !health.report().0 {
            if Instant::now() > end {
                bail!("control has not read all states within {PATIENCE:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { bus, endpoint, stop, _directory: directory })
    }

    /// Pages through a list, from its beginning again when it has ended.
    async fn pages(&self, settings: String, first: v1::ListAccountsRequest, scale: Scale) -> anyhow::Result<Figure> {
        let mut client = AdminServiceClient::new(self.endpoint.connect().await?);
        let mut request = first.clone();
        let watch = Stopwatch::start();
        let mut times_ms = Vec::new();
        for _ in 0..scale.of(200) {
            let began = Instant::now();
            let page = client.list_accounts(request.clone()).await?.into_inner();
            times_ms.push(began.elapsed().as_secs_f64() * 1_000.0);
            if page.accounts.is_empty() {
                bail!("a page was empty ({settings})");
            }
            request = v1::ListAccountsRequest { page_token: page.next_page_token, ..first.clone() };
        }
        Ok(figure("list, one page", settings, times_ms, &watch))
    }

    /// Writes states and waits for the edge to get each, while so many watches take nothing.
    async fn pushes(&self, watches: usize, scale: Scale) -> anyhow::Result<Figure> {
        let mut slow = Vec::new();
        for _ in 0..watches.div_ceil(50) {
            // A connection for each fifty, with windows that are soon full.
            let channel = self.endpoint.clone().initial_stream_window_size(65_535).connect().await?;
            for _ in 0..50.min(watches - slow.len()) {
                let request = v1::WatchAccountsRequest { filter: None, initial: false };
                slow.push(AdminServiceClient::new(channel.clone()).watch_accounts(request).await?.into_inner());
            }
        }
        let (mut edge, said) = self.attach().await?;
        let watch = Stopwatch::start();
        let mut times_ms = Vec::new();
        for version in 2..scale.of(2_000) + 2 {
            let changed = state(0, version);
            let began = Instant::now();
            self.bus.append(Topic::Accounts, vec![message(&changed)]).await.context("writing a state")?;
            wait_for(&mut edge, &said, version).await?;
            times_ms.push(began.elapsed().as_secs_f64() * 1_000.0);
        }
        let open = slow.len();
        Ok(figure("state written to edge", format!("{open} watches that take nothing"), times_ms, &watch))
    }

    async fn attach(&self) -> anyhow::Result<(Streaming<v1::AttachResponse>, mpsc::Sender<v1::AttachRequest>)> {
        let mut positions = Vec::new();
        for partition in 0..self.bus.partitions() {
            let next_offset = self.bus.bounds(Topic::Accounts, partition).await?.next;
            positions.push(v1::PartitionPosition { partition, next_offset });
        }
        let hello = v1::Hello {
            node: "bench".to_owned(),
            site: "bench".to_owned(),
            version: String::new(),
            log_id: self.bus.log_id().to_owned(),
            positions,
            now_ms: 0,
        };
        let (say, said) = mpsc::channel(16);
        say.send(v1::AttachRequest { kind: Some(Said::Hello(hello)) }).await?;
        let channel: Channel = self.endpoint.connect().await?;
        let hears = EdgeServiceClient::new(channel).attach(ReceiverStream::new(said)).await?.into_inner();
        Ok((hears, say))
    }
}

async fn wait_for(
    edge: &mut Streaming<v1::AttachResponse>,
    say: &mpsc::Sender<v1::AttachRequest>,
    version: u64,
) -> anyhow::Result<()> {
    loop {
        let said = tokio::time::timeout(PATIENCE, edge.message()).await.context("no state came")??;
        let Some(Says::States(batch)) = said.context("control closed the stream")?.kind else { continue };
        let ack = v1::Ack { sequence: batch.sequence, applied_ms: 0 };
        say.send(v1::AttachRequest { kind: Some(Said::Ack(ack)) }).await?;
        let newest = batch.states.iter().filter_map(|placed| placed.state.as_ref()).map(|state| state.version).max();
        if newest >= Some(version) {
            return Ok(());
        }
    }
}

fn figure(what: &'static str, settings: String, mut times_ms: Vec<f64>, watch: &Stopwatch) -> Figure {
    let spent = watch.spent();
    times_ms.sort_by(f64::total_cmp);
    let figure = Figure::rate(what, settings, "ms", times_ms.len() as u64, spent);
    Figure { value: quantile(&times_ms, 0.5), p99: Some(quantile(&times_ms, 0.99)), ..figure }
}

fn message(state: &AccountState) -> Message {
    let key = Bytes::copy_from_slice(state.account.as_str().as_bytes());
    Message::new(key, Some(state_to_proto(state).encode_to_vec().into()))
}

fn state(n: u64, version: u64) -> AccountState {
    let name = format!("user{n}@d{}.example.org", n % DOMAINS);
    // It is an address, whatever the number.
    let account = Account::parse(&name).unwrap_or_else(|_| unreachable!("{name} is an account"));
    let lock = || Lock {
        id: format!("L-{n:08}"),
        cause: Cause::Rule(RuleRef { name: "burst".to_owned(), rule_set: "ab12".to_owned() }),
        reason: "Many messages of one content".to_owned(),
        evidence: Vec::new(),
        since_ms: 1,
        until_ms: None,
        reply: "This account is locked".to_owned(),
        queued_mail: QueuedMail::Keep,
        clients: Vec::new(),
        subjects: Vec::new(),
    };
    AccountState {
        status: if n.is_multiple_of(LOCKED) { Status::Locked(lock()) } else { Status::Active },
        version,
        changed_ms: (n % 86_400).cast_signed() * 1_000,
        ..AccountState::new(account)
    }
}
