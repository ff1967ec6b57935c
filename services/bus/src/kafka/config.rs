//! Configuration of the connection to Kafka, and what each of its clients makes of it.

use crate::embedded::{check_ages, default_age_s};
use crate::limits::MESSAGE_MAX_BYTES;
use crate::{BusError, Kept, Topic};
use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tidegate_runtime::{Problems, Validate};

/// Properties that the guarantees rest on.
const RESERVED: [&str; 15] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "linger.ms",
    "message.timeout.ms",
    "metadata.broker.list",
    "request.required.acks",
    "socket.timeout.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

/// When the brokers give a transaction up that nobody ends. They fence its owner then, so it is longer than brokers
/// are away while they are upgraded; a new owner does not wait for it.
const TRANSACTION_TIMEOUT_MS: u32 = 60_000;

/// Longest name of a topic in Kafka, less our suffixes.
const MAX_PREFIX_OCTETS: usize = 200;

/// The log on Kafka.
///
/// ```toml
/// [bus]
/// kind = "kafka"
/// bootstrap_servers = "kafka-1:9093,kafka-2:9093"
/// topic_prefix = "tidegate"
/// partitions = 12
/// replication_factor = 3
///
/// [bus.properties]
/// "security.protocol" = "ssl"
/// "ssl.ca.location" = "/etc/tidegate/kafka-ca.pem"
///
/// [bus.property_files]
/// "sasl.password" = "/etc/tidegate/kafka-password"
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// Brokers to begin with, `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// What topics' names begin with; also consumer groups' and transactional ids'.
    pub topic_prefix: String,
    /// Partitions of every topic. Topics with another number are refused: keys would be in other partitions.
    pub partitions: u32,
    /// Replicas of topics that are created. Not set: as the brokers say.
    pub replication_factor: Option<u16>,
    /// Replicas that must have a record before it is taken as durable, in topics that are created. Not set: all but one
    /// of `replication_factor`, from three on, so that one broker may be lost with nothing that was acknowledged and
    /// without a stop; otherwise as the brokers say.
    pub min_insync_replicas: Option<u16>,
    /// Whether missing topics are created.
    pub create_topics: bool,
    /// How long events are kept, in seconds, in topics that are created. Windows are rebuilt from them.
    pub events_max_age_s: u64,
    /// How long commands are kept, in seconds, in topics that are created.
    pub commands_max_age_s: u64,
    /// How long audit records are kept, in seconds, in topics that are created.
    pub audit_max_age_s: u64,
    /// Longest wait for an answer, and for a record to become durable, in milliseconds.
    pub request_timeout_ms: u32,
    /// Further properties of librdkafka, such as `security.protocol` and `sasl.mechanism`, for all clients.
    pub properties: BTreeMap<String, String>,
    /// Properties whose values are the texts of files, such as `sasl.password`; the end of the line is cut off. They are
    /// read when a connection is made.
    pub property_files: BTreeMap<String, PathBuf>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: "127.0.0.1:9092".to_owned(),
            topic_prefix: "tidegate".to_owned(),
            partitions: 12,
            replication_factor: None,
            min_insync_replicas: None,
            create_topics: true,
            events_max_age_s: default_age_s(Topic::Events),
            commands_max_age_s: default_age_s(Topic::Commands),
            audit_max_age_s: default_age_s(Topic::Audit),
            request_timeout_ms: 15_000,
            properties: BTreeMap::new(),
            property_files: BTreeMap::new(),
        }
    }
}

impl KafkaConfig {
    /// The full name of a topic, e.g. `tidegate.events`.
    pub fn topic_name(&self, topic: Topic) -> String {
        format!("{}.{}", self.topic_prefix, topic.suffix())
    }

    /// The name of a consumer group, e.g. `tidegate-stream`.
    pub fn group_id(&self, group: &str) -> String {
        format!("{}-{group}", self.topic_prefix)
    }

    /// The same with what the property files hold now among the properties.
    pub(crate) fn with_property_files(mut self) -> Result<Self, BusError> {
        for (name, path) in std::mem::take(&mut self.property_files) {
            match std::fs::read_to_string(&path) {
                Ok(text) => self.properties.insert(name, text.trim_end_matches(['\r', '\n']).to_owned()),
                Err(source) => return Err(BusError::PropertyFile { name, path, source }),
            };
        }
        Ok(self)
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms.into())
    }

    /// How long a topic is created to keep its records, in milliseconds; none: compacted.
    pub(super) fn max_age_ms(&self, topic: Topic) -> Option<u64> {
        let age_s = match (topic, topic.kept()) {
            (_, Kept::Compact) => return None,
            (Topic::Events, _) => self.events_max_age_s,
            (Topic::Commands, _) => self.commands_max_age_s,
            (Topic::Audit, _) => self.audit_max_age_s,
            (_, Kept::Delete { max_age_ms }) => max_age_ms.unsigned_abs() / 1_000,
        };
        Some(age_s.saturating_mul(1_000))
    }

    /// How many replicas must have a record, in topics that are created; none: as the brokers say.
    pub(super) fn in_sync_replicas(&self) -> Option<u16> {
        let all_but_one = || self.replication_factor.filter(|replicas| *replicas >= 3).map(|replicas| replicas - 1);
        self.min_insync_replicas.or_else(all_but_one)
    }

    /// For appending: durable, in order and without duplicates by retries; waits a millisecond for company.
    pub(super) fn appender(&self) -> ClientConfig {
        let mut client = self.producer();
        client.set("linger.ms", "1");
        client
    }

    /// For the owner of a partition. Nothing lingers, since a commit waits for what it sent.
    pub(super) fn owner(&self, group: &str, partition: u32) -> ClientConfig {
        let mut client = self.producer();
        // A transaction that begins while the markers of the one before are written is asked to try again: with the
        // default of 100 ms one commit in fifty took that long.
        set_default(&mut client, self, "retry.backoff.ms", "5");
        client
            .set("linger.ms", "0")
            .set("transactional.id", format!("{}-{partition}", self.group_id(group)))
            .set("transaction.timeout.ms", self.request_timeout_ms.max(TRANSACTION_TIMEOUT_MS).to_string());
        client
    }

    fn producer(&self) -> ClientConfig {
        let mut client = self.client();
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", self.request_timeout_ms.to_string());
        set_default(&mut client, self, "compression.type", "lz4");
        set_default(&mut client, self, "queue.buffering.max.kbytes", "65536");
        client
    }

    /// For a member of a group that shares partitions. A killed worker's partitions go to others when its session has
    /// expired: as soon as brokers allow by default, 6 s.
    pub(super) fn member(&self, group: &str) -> ClientConfig {
        let mut client = self.client();
        client
            .set("group.id", format!("{}-members", self.group_id(group)))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "latest");
        // With `group.protocol = consumer` (KIP-848) brokers choose strategy and times, and refuse to be told.
        if self.properties.get("group.protocol").is_none_or(|protocol| protocol != "consumer") {
            set_default(&mut client, self, "partition.assignment.strategy", "cooperative-sticky");
            set_default(&mut client, self, "session.timeout.ms", "6000");
            set_default(&mut client, self, "heartbeat.interval.ms", "1000");
        }
        client
    }

    /// For reading partitions that are assigned by hand. Small waits, since a fetch must not hold up a lock.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut client = self.consumer();
        client.set("group.id", self.group_id("reader")).set("enable.partition.eof", "true");
        set_default(&mut client, self, "fetch.wait.max.ms", "100");
        // The default of a second stalls a reader that has caught up with its own queue.
        set_default(&mut client, self, "fetch.queue.backoff.ms", "10");
        set_default(&mut client, self, "fetch.error.backoff.ms", "100");
        set_default(&mut client, self, "queued.max.messages.kbytes", "16384");
        client
    }

    /// For looking at bounds, and, with a group, at positions: committed ones only.
    pub(super) fn consumer(&self) -> ClientConfig {
        let mut client = self.client();
        client
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Told as an error, so that a position that is gone is noticed and chosen anew.
            .set("auto.offset.reset", "error");
        client
    }

    pub(super) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("socket.timeout.ms", self.request_timeout_ms.to_string());
        set_default(&mut client, self, "client.id", "tidegate");
        set_default(&mut client, self, "socket.nagle.disable", "true");
        set_default(&mut client, self, "socket.keepalive.enable", "true");
        set_default(&mut client, self, "reconnect.backoff.max.ms", "2000");
        for (name, value) in &self.properties {
            client.set(name, value);
        }
        client
    }
}

impl Validate for KafkaConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        problems.check_set(path, "bootstrap_servers", &self.bootstrap_servers);
        let prefix = &self.topic_prefix;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if prefix.is_empty() || prefix.len() > MAX_PREFIX_OCTETS || !prefix.bytes().all(allowed) {
            problems.add(
                path,
                "topic_prefix",
                format!("is {prefix:?}; allowed: 1 to {MAX_PREFIX_OCTETS} letters, digits, '.', '_', '-'"),
            );
        }
        problems.check_range(path, "partitions", self.partitions, 1..=1_024);
        if let Some(replicas) = self.replication_factor {
            problems.check_range(path, "replication_factor", replicas, 1..=100);
        }
        if let Some(in_sync) = self.min_insync_replicas {
            let most = self.replication_factor.unwrap_or(100).max(1);
            problems.check_range(path, "min_insync_replicas", in_sync, 1..=most);
        }
        check_ages(path, self.events_max_age_s, self.commands_max_age_s, self.audit_max_age_s, problems);
        problems.check_range(path, "request_timeout_ms", self.request_timeout_ms, 1_000..=600_000);
        let below = tidegate_runtime::config::key(path, "properties");
        for name in self.properties.keys().filter(|name| RESERVED.contains(&name.as_str())) {
            problems.add(&below, name, "may not be set: what is promised rests on it");
        }
        let files = tidegate_runtime::config::key(path, "property_files");
        for name in self.property_files.keys() {
            if RESERVED.contains(&name.as_str()) {
                problems.add(&files, name, "may not be set: what is promised rests on it");
            } else if self.properties.contains_key(name) {
                problems.add(&files, name, "is among the properties, too; allowed: one of them");
            }
        }
        if let Some(bytes) = self.properties.get("message.max.bytes")
            && bytes.parse::<usize>().is_ok_and(|bytes| bytes < MESSAGE_MAX_BYTES + 1_024)
        {
            problems.add(&below, "message.max.bytes", format!("must be over {}", MESSAGE_MAX_BYTES + 1_024));
        }
        match self.clone().with_property_files() {
            Ok(whole) => {
                if let Err(error) = whole.client().create_native_config() {
                    problems.add(path, "properties", format!("librdkafka does not take them: {error}"));
                }
            }
            Err(BusError::PropertyFile { name, path: file, source }) => {
                problems.add(&files, &name, format!("cannot read {}: {source}", file.display()));
            }
            Err(error) => problems.add(path, "property_files", error.to_string()),
        }
    }
}

fn set_default(client: &mut ClientConfig, config: &KafkaConfig, name: &str, value: &str) {
    if !config.properties.contains_key(name) {
        client.set(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &KafkaConfig) -> Vec<String> {
        let mut problems = Problems::default();
        config.validate("bus", &mut problems);
        problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect()
    }

    #[test]
    fn the_default_is_valid_for_every_client() {
        let config = KafkaConfig::default();
        assert_eq!(problems(&config), [""; 0]);
        for client in [config.appender(), config.owner("stream", 3), config.reader(), config.consumer()] {
            client.create_native_config().unwrap();
        }
        assert_eq!(config.owner("stream", 3).get("transactional.id"), Some("tidegate-stream-3"));
    }

    #[test]
    fn all_problems_are_told() {
        let properties = [("acks", "1"), ("ssl.ca.lokation", "/a"), ("message.max.bytes", "1000")];
        let config = KafkaConfig {
            bootstrap_servers: String::new(),
            topic_prefix: "tide gate".to_owned(),
            replication_factor: Some(0),
            properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..KafkaConfig::default()
        };
        let problems = problems(&config);
        assert_eq!(problems.len(), 6, "{problems:?}");
        assert!(problems[1].contains("\"tide gate\"; allowed: 1 to 200 letters"), "{problems:?}");
        assert!(problems[3].starts_with("bus.properties.acks: may not be set"), "{problems:?}");
        assert!(problems[5].contains("ssl.ca.lokation"), "{problems:?}");
    }

    #[test]
    fn one_broker_may_be_lost_from_three_on() {
        let in_sync = |replication_factor, min_insync_replicas| {
            let config = KafkaConfig { replication_factor, min_insync_replicas, ..KafkaConfig::default() };
            (config.in_sync_replicas(), problems(&config).len())
        };
        assert_eq!(in_sync(None, None), (None, 0));
        assert_eq!(in_sync(Some(1), None), (None, 0));
        assert_eq!(in_sync(Some(2), None), (None, 0));
        assert_eq!(in_sync(Some(3), None), (Some(2), 0));
        assert_eq!(in_sync(Some(5), Some(3)), (Some(3), 0));
        assert_eq!(in_sync(Some(3), Some(4)).1, 1);
        assert_eq!(in_sync(None, Some(0)).1, 1);
    }

    #[test]
    fn properties_come_from_files_too() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        let property_files = BTreeMap::from([("sasl.password".to_owned(), file.clone())]);
        let config = KafkaConfig { property_files, ..KafkaConfig::default() };
        let told = problems(&config);
        assert!(told[0].starts_with("bus.property_files.sasl.password: cannot read "), "{told:?}");
        std::fs::write(&file, "se cret\n").unwrap();
        assert_eq!(problems(&config), [""; 0]);
        let client = config.clone().with_property_files().unwrap().appender();
        assert_eq!(client.get("sasl.password"), Some("se cret"));
        let twice = KafkaConfig { properties: BTreeMap::from([("sasl.password".into(), "x".into())]), ..config };
        let told = problems(&twice);
        assert_eq!(told, ["bus.property_files.sasl.password: is among the properties, too; allowed: one of them"]);
    }

    #[test]
    fn properties_replace_defaults() {
        let properties = BTreeMap::from([("compression.type".to_owned(), "none".to_owned())]);
        let config = KafkaConfig { properties, ..KafkaConfig::default() };
        assert_eq!(config.appender().get("compression.type"), Some("none"));
        assert_eq!(config.appender().get("acks"), Some("all"));
    }
}
