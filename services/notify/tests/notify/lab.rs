//! A notification service over an embedded log in a folder of its own, and what tests do with it.

use bytes::Bytes;
use prometheus_client::registry::Registry;
use prost::Message as _;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tidegate_bus::{Bus, EmbeddedBus, EmbeddedConfig, Message, ReadFrom, Topic};
use tidegate_notify::{NotifyConfig, NotifyError, Service};
use tidegate_proto::v1;
use tidegate_runtime::Health;
use tidegate_runtime::shutdown::CancellationToken;
use tokio::task::JoinHandle;

/// Longest time that a test waits for what must come.
const PATIENCE: Duration = Duration::from_mins(1);

/// A log, and the service over it while one runs.
pub struct Lab {
    pub bus: Arc<EmbeddedBus>,
    running: Option<Running>,
    folder: TempDir,
}

struct Running {
    task: JoinHandle<Result<(), NotifyError>>,
    shutdown: CancellationToken,
    registry: Registry,
}

/// A lock, for users and administrators to be told of.
pub fn locked(account: &str, version: u64) -> v1::AccountState {
    let lock_id = format!("L-{version}");
    let milestone = v1::Milestone {
        version,
        at_ms: now_ms(),
        change: v1::Change::Locked.into(),
        rule: "burst".into(),
        reason: "many alike".into(),
        lock_id: lock_id.clone(),
        ..Default::default()
    };
    let lock = v1::Lock {
        id: lock_id,
        rule: Some(v1::RuleRef { name: "burst".into(), rule_set: "1".into() }),
        reason: "many alike".into(),
        evidence: vec![v1::Evidence { column: "messages_1m".into(), value: 60.0 }],
        since_ms: now_ms(),
        reply: "locked".into(),
        ..Default::default()
    };
    let mut state = v1::AccountState { account: account.into(), version, lock: Some(lock), ..Default::default() };
    state.set_status(v1::AccountStatus::Locked);
    state.timeline.push(milestone);
    state
}

/// The same account unlocked.
pub fn unlocked(mut state: v1::AccountState) -> v1::AccountState {
    state.version += 1;
    state.timeline.push(v1::Milestone {
        version: state.version,
        at_ms: now_ms(),
        change: v1::Change::Unlocked.into(),
        actor: "amy".into(),
        reason: "called back".into(),
        lock_id: state.lock.take().unwrap().id,
        ..Default::default()
    });
    state.set_status(v1::AccountStatus::Active);
    state
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A configuration with short pauses; `text` is the rest of `[notify]`.
pub fn config(text: &str) -> NotifyConfig {
    let short: NotifyConfig = toml::from_str(text).unwrap();
    let group_window_ms = short.group_window_ms.min(3_000);
    NotifyConfig { group_window_ms, retry_first_ms: 20, retry_longest_ms: 100, ..short }
}

/// `[smtp]` for a server without TLS at this port.
pub fn smtp(port: u16) -> String {
    format!(
        "\n[smtp]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nfrom = \"Example Mail <no-reply@example.org>\"\ntimeout_ms = 2000\n"
    )
}

impl Lab {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let config =
            EmbeddedConfig { directory: folder.path().join("log"), partitions: 4, ..EmbeddedConfig::default() };
        Self { bus: EmbeddedBus::open(config).unwrap(), running: None, folder }
    }

    /// A file in the lab's folder.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts the service, and waits until it has taken all partitions over.
    pub async fn start(&mut self, config: NotifyConfig) {
        let (mut registry, health, shutdown) = (Registry::default(), Health::new(), CancellationToken::new());
        let bus: Arc<dyn Bus> = self.bus.clone();
        let service = Service::bind(config, bus, &mut registry, health.clone()).await.unwrap();
        let task = tokio::spawn(service.run(shutdown.clone()));
        until("all partitions are taken over", async || health.report().0).await;
        self.running = Some(Running { task, shutdown, registry });
    }

    /// Ends it in order.
    pub async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.shutdown.cancel();
        running.task.await.unwrap().unwrap();
    }

    /// Ends it in the middle of whatever it does.
    pub async fn kill(&mut self) {
        let running = self.running.take().unwrap();
        running.task.abort();
        assert!(running.task.await.unwrap_err().is_cancelled());
    }

    /// Publishes states, as the stream does.
    pub async fn publish(&self, states: impl IntoIterator<Item = v1::AccountState>) {
        let message = |state: v1::AccountState| {
            Message::new(Bytes::from(state.account.clone()), Some(state.encode_to_vec().into()))
        };
        self.bus.append(Topic::Accounts, states.into_iter().map(message).collect()).await.unwrap();
    }

    /// All records of the topic `notifications`, in the order of each partition.
    pub async fn records(&self) -> Vec<v1::Notification> {
        let mut records = Vec::new();
        for partition in 0..self.bus.partitions() {
            let bounds = self.bus.bounds(Topic::Notifications, partition).await.unwrap();
            let mut at = ReadFrom { topic: Topic::Notifications, partition, offset: bounds.first };
            let mut reader = self.bus.read(&[at]).await.unwrap();
            while at.offset < bounds.next {
                let batch = reader.next(Duration::from_millis(100)).await.unwrap();
                let decode = |value: Option<Bytes>| v1::Notification::decode(value.unwrap()).unwrap();
                records.extend(batch.records.into_iter().map(|record| decode(record.value)));
                at.offset = batch.next.last().map_or(at.offset, |next| next.offset);
            }
        }
        records
    }

    /// The newest record of each notification, by id.
    pub async fn newest(&self) -> BTreeMap<String, v1::Notification> {
        self.records().await.into_iter().map(|record| (record.id.clone(), record)).collect()
    }

    /// Waits until this many notifications have this status.
    pub async fn until_status(&self, status: v1::NotificationStatus, count: usize) {
        let what = format!("{count} notifications are {}", status.as_str_name());
        until(&what, async || self.newest().await.values().filter(|one| one.status() == status).count() == count).await;
    }

    /// The sum of a metric's series.
    pub fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.running.as_ref().unwrap().registry).unwrap();
        let series = text.lines().filter(|line| line.starts_with(name));
        series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
