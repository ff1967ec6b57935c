//! A control service over an embedded log in a folder of its own, and what tests do with it.

use bytes::Bytes;
use prometheus_client::registry::Registry;
use prost::Message as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tidegate_access::Access;
use tidegate_bus::{Bus, EmbeddedBus, EmbeddedConfig, Message, Place, ReadFrom, Record, Topic};
use tidegate_control::{ControlConfig, Service};
use tidegate_domain::{Account, AccountState, Cause, Input, Lock, QueuedMail, RuleRef, Status, apply};
use tidegate_proto::v1::admin_service_client::AdminServiceClient;
use tidegate_proto::v1::attach_request::Kind as Said;
use tidegate_proto::v1::attach_response::Kind as Says;
use tidegate_proto::v1::edge_service_client::EdgeServiceClient;
use tidegate_proto::v1::event_service_client::EventServiceClient;
use tidegate_proto::{command_from_proto, state_to_proto, v1};
use tidegate_runtime::Health;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// Longest time that a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A control service that runs, and the log below it.
pub struct Control {
    pub bus: Arc<EmbeddedBus>,
    pub registry: Registry,
    pub health: Health,
    pub channel: Channel,
    pub shutdown: CancellationToken,
    pub running: tokio::task::JoinHandle<Result<(), tidegate_control::ControlError>>,
    _folder: TempDir,
}

/// An edge as the test plays it.
pub struct Edge {
    pub say: mpsc::Sender<v1::AttachRequest>,
    pub hears: Streaming<v1::AttachResponse>,
    pub welcome: v1::Welcome,
}

pub fn open_bus(folder: &TempDir) -> Arc<EmbeddedBus> {
    let config = EmbeddedConfig { directory: folder.path().join("log"), partitions: 4, ..EmbeddedConfig::default() };
    EmbeddedBus::open(config).unwrap()
}

impl Control {
    /// Starts with `states` in the log already, and waits until the replica is whole.
    pub async fn start(states: Vec<AccountState>) -> Self {
        Self::start_with(ControlConfig::default(), states).await
    }

    pub async fn start_with(config: ControlConfig, states: Vec<AccountState>) -> Self {
        let folder = TempDir::new().unwrap();
        let bus = open_bus(&folder);
        put(&*bus, states).await;
        let control = Self::start_on(config, folder, bus).await;
        let health = control.health.clone();
        until("the replica is whole", || async { health.report().0 }).await;
        control
    }

    pub async fn start_on(config: ControlConfig, folder: TempDir, bus: Arc<EmbeddedBus>) -> Self {
        let config = ControlConfig { listen: "127.0.0.1:0".parse().unwrap(), ..config };
        let mut registry = Registry::default();
        let health = Health::new();
        let log: Arc<dyn Bus> = bus.clone();
        let service = Service::bind(config, log, &mut registry, health.clone(), Access::off()).await.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", service.local_addr())).unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(service.run(shutdown.clone()));
        let channel = endpoint.connect().await.unwrap();
        Self { bus, registry, health, channel, shutdown, running, _folder: folder }
    }

    pub fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone())
    }

    pub fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel.clone())
    }

    /// Writes states as their one writer would.
    pub async fn put(&self, states: Vec<AccountState>) -> Vec<Place> {
        put(&*self.bus, states).await
    }

    /// An edge that holds `positions` of `log_id`.
    pub async fn attach(&self, node: &str, log_id: &str, positions: Vec<v1::PartitionPosition>) -> Edge {
        let hello = v1::Hello {
            node: node.into(),
            site: "ams".into(),
            version: "1.0".into(),
            log_id: log_id.into(),
            positions,
            now_ms: now_ms(),
        };
        let (say, said) = mpsc::channel(16);
        say.send(v1::AttachRequest { kind: Some(Said::Hello(hello)) }).await.unwrap();
        let mut client = EdgeServiceClient::new(self.channel.clone());
        let mut hears = client.attach(ReceiverStream::new(said)).await.unwrap().into_inner();
        match soon(hears.message()).await.unwrap().unwrap().kind {
            Some(Says::Welcome(welcome)) => Edge { say, hears, welcome },
            other => panic!("instead of a welcome came {other:?}"),
        }
    }

    /// The value of a metric, as it is exposed.
    pub fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// All records of a topic.
    pub async fn records(&self, topic: Topic) -> Vec<Record> {
        read_all(&*self.bus, topic).await
    }

    /// Plays the account's one writer: waits for the next command from `from` on, applies it, writes the state.
    /// Gives where the next one will be looked for.
    pub async fn play_stream(&self, seen: usize) -> usize {
        let mut commands = Vec::new();
        let until_new = async {
            loop {
                commands = self.records(Topic::Commands).await;
                if commands.len() > seen {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(until_new).await;
        commands.sort_by_key(|record| (record.time_ms, record.partition, record.offset));
        let record = &commands[seen];
        let value = record.value.as_ref().unwrap();
        let (account, command) = command_from_proto(value, record.offset, record.time_ms, None).unwrap();
        let mut admin = self.admin();
        let get = v1::GetAccountRequest { account: account.as_str().into() };
        let state = admin.get_account(get).await.unwrap().into_inner().state.unwrap();
        let (state, _) = apply(AccountState::try_from(state).unwrap(), Input::Command(command));
        self.put(vec![state]).await;
        seen + 1
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Edge {
    /// The next batch of states; heartbeats between are passed over.
    pub async fn batch(&mut self) -> v1::StateBatch {
        loop {
            match soon(self.hears.message()).await.unwrap().unwrap().kind {
                Some(Says::States(batch)) => return batch,
                Some(Says::Heartbeat(_)) => {}
                other => panic!("instead of states came {other:?}"),
            }
        }
    }

    /// The status that ends the stream.
    pub async fn end(&mut self) -> tonic::Status {
        loop {
            match soon(self.hears.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a status"),
                Err(status) => return status,
            }
        }
    }

    pub async fn ack(&self, sequence: u64) {
        let ack = v1::Ack { sequence, applied_ms: now_ms() };
        self.say.send(v1::AttachRequest { kind: Some(Said::Ack(ack)) }).await.unwrap();
    }
}

/// Waits until `condition` holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "it never came: {what}");
}

/// What must come soon.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing came")
}

pub fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

pub fn account(name: &str) -> Account {
    Account::parse(name).unwrap()
}

/// An account that rule `burst` locked.
pub fn locked(name: &str, version: u64) -> AccountState {
    let lock = Lock {
        id: format!("L-{version:08}"),
        cause: Cause::Rule(RuleRef { name: "burst".into(), rule_set: "ab12".into() }),
        reason: "burst".into(),
        evidence: Vec::new(),
        since_ms: 1,
        until_ms: None,
        reply: "Locked".into(),
        queued_mail: QueuedMail::Keep,
        clients: Vec::new(),
        subjects: Vec::new(),
    };
    AccountState {
        status: Status::Locked(lock),
        version,
        changed_ms: version.cast_signed(),
        ..AccountState::new(account(name))
    }
}

pub fn active(name: &str, version: u64) -> AccountState {
    AccountState { version, changed_ms: version.cast_signed(), ..AccountState::new(account(name)) }
}

pub fn names(states: &[v1::AccountState]) -> Vec<&str> {
    states.iter().map(|state| state.account.as_str()).collect()
}

pub fn accounts_of(batch: &v1::StateBatch) -> Vec<String> {
    let mut names: Vec<String> =
        batch.states.iter().map(|placed| placed.state.as_ref().unwrap().account.clone()).collect();
    names.sort();
    names
}

pub async fn put(bus: &dyn Bus, states: Vec<AccountState>) -> Vec<Place> {
    if states.is_empty() {
        return Vec::new();
    }
    let message = |state: &AccountState| {
        Message::new(
            Bytes::copy_from_slice(state.account.as_str().as_bytes()),
            Some(state_to_proto(state).encode_to_vec().into()),
        )
    };
    bus.append(Topic::Accounts, states.iter().map(message).collect()).await.unwrap()
}

async fn read_all(bus: &dyn Bus, topic: Topic) -> Vec<Record> {
    let mut from = Vec::new();
    let mut left = 0;
    for partition in 0..bus.partitions() {
        let bounds = bus.bounds(topic, partition).await.unwrap();
        from.push(ReadFrom { topic, partition, offset: bounds.first });
        left += bounds.next - bounds.first;
    }
    let mut reader = bus.read(&from).await.unwrap();
    let mut records = Vec::new();
    while (records.len() as u64) < left {
        records.extend(soon(reader.next(Duration::from_secs(1))).await.unwrap().records);
    }
    records
}
