//! The server in this process and one edge beside it.

use crate::config::ServerConfig;
use crate::demo::edges::{EdgeProcess, make_hash_key};
use crate::serve::{self, Parts, Running};
use anyhow::{Context as _, bail};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidegate_bus::BusConfig;
use tidegate_proto::v1;
use tidegate_proto::v1::admin_service_client::AdminServiceClient;
use tidegate_runtime::config;
use tidegate_runtime::shutdown::CancellationToken;

/// How long the edge may take to attach.
const PATIENCE: Duration = Duration::from_secs(30);

/// One site.
pub struct Stage {
    /// The edge.
    pub edge: EdgeProcess,
    /// Control's address, as a URL.
    pub control: String,
    server: Running,
    stop: CancellationToken,
    directory: TempDir,
}

impl Stage {
    /// Starts both, with these rules; on the embedded log, or on another.
    pub async fn start(rules: &str, log: Option<BusConfig>) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("tidegate-bench-").tempdir().context("making a folder")?;
        let rules_file = directory.path().join("rules.toml");
        std::fs::write(&rules_file, rules)?;
        let text = format!(
            "[log]\nkind = \"embedded\"\ndirectory = {:?}\n[stream]\nrules = {rules_file:?}\n\
             [control]\nlisten = \"127.0.0.1:0\"\n[history]\nenabled = false\n[ops]\nlisten = \"127.0.0.1:0\"\n",
            directory.path().join("log"),
        );
        let mut config: ServerConfig = config::parse(Path::new("the benchmark's configuration"), &text)?;
        if let Some(log) = log {
            config.log = log;
        }
        let stop = CancellationToken::new();
        let server = serve::start(config, Parts::ALL, stop.clone()).await?;
        let control = format!("http://{}", server.control.context("control has no address")?);
        make_hash_key(directory.path())?;
        let address = server.control.context("control has no address")?;
        let edge = EdgeProcess::start(directory.path(), "bench", address).await?;
        let stage = Self { edge, control, server, stop, directory };
        stage.wait_for_edge().await?;
        Ok(stage)
    }

    /// Ends both.
    pub async fn end(self) -> anyhow::Result<()> {
        drop(self.edge);
        self.stop.cancel();
        self.server.finish().await?;
        self.directory.close().context("deleting the benchmark's folder")
    }

    async fn wait_for_edge(&self) -> anyhow::Result<()> {
        let mut admin = AdminServiceClient::connect(self.control.clone()).await.context("connecting to control")?;
        let end = Instant::now() + PATIENCE;
        loop {
            let edges = admin.list_edges(v1::ListEdgesRequest {}).await?.into_inner().edges;
            if edges.iter().any(|edge| edge.connected) {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("the edge did not attach to control");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
