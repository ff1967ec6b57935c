//! An edge in this process, with everything it keeps in a directory of its own.

use crate::control::{Control, Log};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate_edge::config::{MilterConfig, PolicyConfig, RspamdConfig};
use tidegate_edge::{Addresses, Clock, EdgeConfig, Service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

pub const ANY_PORT: &str = "127.0.0.1:0";
const PATIENCE: Duration = Duration::from_secs(30);

/// A running edge.
pub struct Edge {
    pub addresses: Addresses,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Edge {
    pub async fn start(config: EdgeConfig) -> Self {
        Self::start_with(config, Clock::system()).await
    }

    pub async fn start_with(config: EdgeConfig, clock: Clock) -> Self {
        let service = Service::bind_with(config, clock).await.unwrap();
        let addresses = service.addresses().clone();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(service.run(shutdown.clone()));
        Self { addresses, shutdown, running }
    }

    pub fn milter(&self) -> &str {
        &self.addresses.milter[0]
    }

    /// Ends it in order.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap();
    }

    /// `(status, body)` of a request to the operators' server.
    pub async fn ops(&self, path: &str) -> (u16, String) {
        get(self.addresses.ops, path).await
    }

    /// The sum of all series of a metric that counts things.
    pub async fn metric(&self, name: &str) -> u64 {
        metric(self.addresses.ops, name).await
    }

    pub async fn wait_ready(&self) {
        until("the edge is ready", async || self.ops("/readyz").await.0 == 200).await;
    }
}

/// An edge with a milter on TCP and unix, at `control`.
pub fn config(directory: &Path, control: SocketAddr) -> EdgeConfig {
    let socket = |name: &str| format!("unix:{}", directory.join(name).display());
    let mut config = EdgeConfig {
        node: "mx1".into(),
        site: "ams".into(),
        state_directory: directory.join("state"),
        internal_domains: vec!["example.org".into()],
        milter: MilterConfig {
            listen: vec![format!("inet:{ANY_PORT}"), socket("milter.sock")],
            ..MilterConfig::default()
        },
        policy: PolicyConfig {
            listen: vec![format!("inet:{ANY_PORT}"), socket("policy.sock")],
            ..PolicyConfig::default()
        },
        rspamd: RspamdConfig { listen: Some(ANY_PORT.parse().unwrap()) },
        ..EdgeConfig::default()
    };
    config.control.endpoint = format!("http://{control}");
    config.control.max_backoff_ms = 300;
    config.publish.timeout_ms = 300;
    config.publish.max_backoff_ms = 300;
    config.ops.listen = ANY_PORT.parse().unwrap();
    config
}

/// A log, its control, and an edge that is attached to it.
pub async fn attached(directory: &Path, adapt: impl FnOnce(&mut EdgeConfig)) -> (Arc<Log>, Control, Edge) {
    let log = Log::new("log-a");
    let control = Control::start(&log, ANY_PORT.parse().unwrap());
    let mut config = config(directory, control.address);
    adapt(&mut config);
    let edge = Edge::start(config).await;
    edge.wait_ready().await;
    (log, control, edge)
}

/// The sum of all series of a metric that counts things.
pub async fn metric(ops: SocketAddr, name: &str) -> u64 {
    let (_, text) = get(ops, "/metrics").await;
    let values = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        (series.split('{').next() == Some(name)).then(|| value.parse::<u64>().unwrap())
    });
    values.sum()
}

async fn get(ops: SocketAddr, path: &str) -> (u16, String) {
    http(ops, &format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n")).await
}

/// An HTTP exchange over a connection of its own.
pub async fn http(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    let response = String::from_utf8_lossy(&response);
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Waits for a condition.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "waited in vain until {what}");
}
