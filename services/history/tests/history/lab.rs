//! A history service over an embedded log in a folder of its own, and what tests do with it.

use arrow::array::{AsArray as _, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow_flight::sql::client::FlightSqlServiceClient;
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::ObjectStore;
use object_store::path::Path as StorePath;
use prometheus_client::registry::Registry;
use prost::Message as _;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tidegate_access::Access;
use tidegate_bus::{Bus, EmbeddedBus, EmbeddedConfig, Message, Place, Topic};
use tidegate_history::{HistoryConfig, HistoryError, Lake, Service};
use tidegate_proto::v1;
use tidegate_runtime::Health;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use url::Url;

/// Longest time that a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// 2026-11-26 00:00 UTC.
pub const DAY_MS: i64 = 1_795_651_200_000;

/// A history service that runs, and the log below it.
pub struct Lab {
    pub bus: Arc<EmbeddedBus>,
    pub health: Health,
    pub registry: Registry,
    pub channel: Channel,
    pub config: HistoryConfig,
    shutdown: CancellationToken,
    running: Option<tokio::task::JoinHandle<Result<(), HistoryError>>>,
    folder: Arc<TempDir>,
}

/// A quick one: commits and tidies up all the time.
pub fn quick() -> HistoryConfig {
    HistoryConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        commit_interval_ms: 100,
        upkeep_interval_ms: 200,
        ..HistoryConfig::default()
    }
}

impl Lab {
    pub async fn start() -> Self {
        Self::start_with(quick(), Access::off()).await
    }

    pub async fn start_with(config: HistoryConfig, access: Arc<Access>) -> Self {
        let folder = Arc::new(TempDir::new().unwrap());
        let log = Self::log(&folder);
        Self::start_in(folder, log, config, access, None).await
    }

    fn log(folder: &TempDir) -> Arc<EmbeddedBus> {
        let directory = folder.path().join("log");
        EmbeddedBus::open(EmbeddedConfig { directory, partitions: 4, ..EmbeddedConfig::default() }).unwrap()
    }

    /// With the tables in this folder.
    pub async fn start_at(tables: &Path, config: HistoryConfig, access: Arc<Access>) -> Self {
        let url = Some(tables.to_str().unwrap().to_owned());
        Self::start_with(HistoryConfig { url, ..config }, access).await
    }

    /// With the tables in the usual folder, but in this store.
    pub async fn start_over(store: Arc<dyn ObjectStore>, config: HistoryConfig) -> Self {
        let folder = Arc::new(TempDir::new().unwrap());
        let tables = folder.path().join("history");
        std::fs::create_dir(&tables).unwrap();
        let (root, url) = (StorePath::from_absolute_path(&tables).unwrap(), Url::from_directory_path(&tables).unwrap());
        let lake = Lake::open_in(store, &root, &url).await.unwrap();
        let log = Self::log(&folder);
        Self::start_in(folder, log, config, Access::off(), Some(lake)).await
    }

    async fn start_in(
        folder: Arc<TempDir>,
        bus: Arc<EmbeddedBus>,
        config: HistoryConfig,
        access: Arc<Access>,
        lake: Option<Lake>,
    ) -> Self {
        let (mut registry, health) = (Registry::default(), Health::new());
        let usual = || folder.path().join("history").to_str().unwrap().to_owned();
        let config = HistoryConfig { url: Some(config.url.clone().unwrap_or_else(usual)), ..config };
        let shared: Arc<dyn Bus> = bus.clone();
        let lake = match lake {
            Some(lake) => lake,
            None => Lake::open(&config).await.unwrap(),
        };
        let service =
            Service::bind_over(lake, config.clone(), shared, &mut registry, health.clone(), access).await.unwrap();
        let channel = Endpoint::from_shared(format!("http://{}", service.local_addr())).unwrap().connect_lazy();
        let shutdown = CancellationToken::new();
        let running = Some(tokio::spawn(service.run(shutdown.clone())));
        Self { bus, health, registry, channel, config, shutdown, running, folder }
    }

    /// Ends it in order, and starts it again on the same log and tables.
    pub async fn restart(&mut self) {
        self.stop().await;
        *self = Self::start_in(self.folder.clone(), self.bus.clone(), self.config.clone(), Access::off(), None).await;
    }

    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        self.running.take().unwrap().await.unwrap().unwrap();
    }

    /// The folder of a table.
    pub fn table(&self, name: &str) -> PathBuf {
        self.folder.path().join("history").join(name)
    }

    /// A metric, by its name with labels; 0, when it was never set.
    pub fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Writes to the log.
    pub async fn append(&self, topic: Topic, key: &str, value: Vec<u8>) -> Place {
        let message = Message::new(Bytes::copy_from_slice(key.as_bytes()), Some(value.into()));
        self.bus.append(topic, vec![message]).await.unwrap()[0]
    }

    pub async fn send(&self, events: impl IntoIterator<Item = v1::Event>) {
        let messages: Vec<Message> = events.into_iter().map(|event| message(&event)).collect();
        self.bus.append(Topic::Events, messages).await.unwrap();
    }

    /// What a query gives.
    pub async fn ask(&self, sql: &str) -> Result<Vec<RecordBatch>, String> {
        ask(self.channel.clone(), None, sql).await
    }

    /// What a query gives, as lines of text with `|` between columns.
    pub async fn lines(&self, sql: &str) -> Vec<String> {
        lines(&self.ask(sql).await.unwrap())
    }

    /// Asks until the answer is this.
    pub async fn wait_for(&self, sql: &str, expected: &[&str]) {
        wait_for(self.channel.clone(), None, sql, expected).await;
    }
}

/// Asks until the answer is this.
pub async fn wait_for(channel: Channel, token: Option<&str>, sql: &str, expected: &[&str]) {
    let mut last = Vec::new();
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let answer = ask(channel.clone(), token, sql).await;
            last = answer.map_or_else(|error| vec![error], |batches| lines(&batches));
            if last == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(waited.await.is_ok(), "{sql}\ngives {last:#?}\nand not {expected:#?}");
}

/// What a query gives, with a bearer token or without.
pub async fn ask(channel: Channel, token: Option<&str>, sql: &str) -> Result<Vec<RecordBatch>, String> {
    let mut client = FlightSqlServiceClient::new(channel);
    if let Some(token) = token {
        client.set_token(token.to_owned());
    }
    let info = client.execute(sql.to_owned(), None).await.map_err(|error| error.to_string())?;
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let rows = client.do_get(ticket).await.map_err(|error| error.to_string())?;
    rows.try_collect().await.map_err(|error| error.to_string())
}

pub fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|column| cast(column, &DataType::Utf8).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let cells = columns.iter().map(|column| {
                let texts = column.as_string::<i32>();
                if column.is_null(row) { "-" } else { texts.value(row) }
            });
            lines.push(cells.collect::<Vec<_>>().join("|"));
        }
    }
    lines
}

/// Waits until it is so.
pub async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain for {what}");
}

pub fn message(event: &v1::Event) -> Message {
    Message::new(Bytes::copy_from_slice(event.account.as_bytes()), Some(event.encode_to_vec().into()))
}

/// A message of `account`'s, the `sequence`th of node mx1.
pub fn submission(account: &str, sequence: u64, time_ms: i64) -> v1::Event {
    let submission = v1::Submission {
        client_address: vec![203, 0, 113, u8::try_from(sequence % 200).unwrap()],
        helo: "client.example".to_owned(),
        sender: account.to_owned(),
        recipient_count: 2,
        recipient_domains: vec!["a.example".to_owned(), "b.example".to_owned()],
        recipient_hashes: vec![sequence, u64::MAX - sequence],
        size_bytes: 1_000 + sequence,
        queue_id: format!("4Z{sequence:08X}"),
        fingerprint: 7,
        ..v1::Submission::default()
    };
    v1::Event {
        id: Some(v1::EventId { node: "mx1".to_owned(), lane: v1::Lane::Live.into(), sequence }),
        site: "ams".to_owned(),
        account: account.to_owned(),
        time_ms,
        trace_parent: String::new(),
        kind: Some(v1::event::Kind::Submission(submission)),
    }
}
