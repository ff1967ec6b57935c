//! A stream service that runs on an embedded log of its own.

use bytes::Bytes;
use prometheus_client::registry::Registry;
use prost::Message as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_bus::{Bus, EmbeddedBus, EmbeddedConfig, Message, ReadFrom, Record, Topic};
use tidegate_domain::{Account, Event, EventId, EventKind, Lane, Recipients, Setting, SettingKind, Submission};
use tidegate_proto::{event_to_proto, setting_to_proto, v1};
use tidegate_runtime::Health;
use tidegate_runtime::shutdown::CancellationToken;
use tidegate_stream::{Service, StreamConfig, StreamError};
use tokio::task::JoinHandle;

const PARTITIONS: u32 = 2;
/// How long something is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

pub struct Running {
    pub bus: Arc<EmbeddedBus>,
    pub rules_file: PathBuf,
    registry: Registry,
    shutdown: CancellationToken,
    task: Option<JoinHandle<Result<(), StreamError>>>,
    sequence: u64,
    directory: tempfile::TempDir,
}

/// An embedded log, and no service yet.
pub fn log(rules: &str) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig {
        directory: directory.path().join("log"),
        partitions: PARTITIONS,
        synchronous: tidegate_bus::embedded::Durability::Normal,
        ..EmbeddedConfig::default()
    };
    let bus = EmbeddedBus::open(config).unwrap();
    let rules_file = directory.path().join("rules.toml");
    std::fs::write(&rules_file, rules).unwrap();
    let (registry, shutdown) = (Registry::default(), CancellationToken::new());
    Running { bus, rules_file, registry, shutdown, task: None, sequence: 0, directory }
}

impl Running {
    /// Starts the service.
    pub async fn start(&mut self) {
        let mut config = StreamConfig {
            rules: Some(self.rules_file.clone()),
            reload_interval_ms: 100,
            partitions: (0..PARTITIONS).collect(),
            ..StreamConfig::default()
        };
        config.checkpoints.url = Some(self.directory.path().join("checkpoints").display().to_string());
        self.registry = Registry::default();
        let service = Service::start(config, self.bus.clone(), &mut self.registry, Health::new()).await.unwrap();
        self.shutdown = CancellationToken::new();
        self.task = Some(tokio::spawn(service.run(self.shutdown.clone())));
    }

    /// Stops it in good order.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        self.task.take().unwrap().await.unwrap().unwrap();
    }

    /// The account sends a message.
    pub fn event(&mut self, account: &str, submission: Submission) -> Message {
        self.sequence += 1;
        let event = Event {
            id: EventId { node: "mx1".into(), lane: Lane::Live, sequence: self.sequence },
            site: "ams".into(),
            account: Account::parse(account).unwrap(),
            time_ms: now_ms(),
            kind: EventKind::Submission(Box::new(submission)),
        };
        message(account, event_to_proto(&event).encode_to_vec())
    }

    /// The account sends so many messages.
    pub async fn send(&mut self, account: &str, count: usize) {
        let plain = || Submission {
            recipients: Recipients { count: 1, ..Recipients::default() },
            size: 1_000,
            ..Submission::default()
        };
        let events = (0..count).map(|_| self.event(account, plain())).collect();
        self.bus.append(Topic::Events, events).await.unwrap();
    }

    /// An administrator sets something.
    pub async fn set(&self, kind: SettingKind) {
        let setting = Setting { actor: "amy".into(), reason: "test".into(), set_ms: now_ms(), kind };
        let message = message(&setting.key(), setting_to_proto(&setting).encode_to_vec());
        self.bus.append(Topic::Settings, vec![message]).await.unwrap();
    }

    /// An administrator takes a setting back.
    pub async fn unset(&self, key: &str) {
        let deleted = Message::new(Bytes::from(key.to_owned()), None);
        self.bus.append(Topic::Settings, vec![deleted]).await.unwrap();
    }

    /// An administrator asks something of an account.
    pub async fn ask(&self, account: &str, id: &str, kind: v1::command::Kind) {
        let command = v1::Command {
            id: id.into(),
            account: account.into(),
            actor: "amy".into(),
            reason: "called".into(),
            kind: Some(kind),
        };
        self.bus.append(Topic::Commands, vec![message(account, command.encode_to_vec())]).await.unwrap();
    }

    /// Everything that a topic holds.
    pub async fn records(&self, topic: Topic) -> Vec<Record> {
        let mut records = Vec::new();
        for partition in 0..PARTITIONS {
            let bounds = self.bus.bounds(topic, partition).await.unwrap();
            let mut at = ReadFrom { topic, partition, offset: bounds.first };
            let mut reader = self.bus.read(&[at]).await.unwrap();
            while at.offset < bounds.next {
                let batch = reader.next(Duration::from_millis(200)).await.unwrap();
                records.extend(batch.records);
                at.offset = batch.next.last().map_or(at.offset, |next| next.offset);
            }
        }
        records
    }

    /// The newest rule set of each partition.
    pub async fn rule_sets(&self) -> Vec<v1::RuleSet> {
        let mut newest = std::collections::BTreeMap::new();
        for record in self.records(Topic::Rules).await {
            newest.insert(record.key.clone(), v1::RuleSet::decode(record.value.as_deref().unwrap()).unwrap());
        }
        newest.into_values().collect()
    }

    /// The newest state of an account.
    pub async fn state(&self, account: &str) -> v1::AccountState {
        let records = self.records(Topic::Accounts).await;
        let newest = records.iter().rev().find(|record| record.key == account.as_bytes());
        newest.map_or_else(v1::AccountState::default, |record| {
            v1::AccountState::decode(record.value.as_deref().unwrap()).unwrap()
        })
    }

    /// The value of a metric's line, 0 without one.
    pub fn metric(&self, line: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        value.unwrap_or(0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub fn message(key: &str, value: Vec<u8>) -> Message {
    Message::new(Bytes::from(key.to_owned()), Some(value.into()))
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}
