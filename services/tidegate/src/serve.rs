//! The services of one process, wired to one log.

use crate::cli::ServiceArgs;
use crate::config::ServerConfig;
use anyhow::Context as _;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tidegate_access::Access;
use tidegate_bus::BusConfig;
use tidegate_console::Console;
use tidegate_notify::Templates;
use tidegate_runtime::config::{self, ConfigError};
use tidegate_runtime::shutdown::CancellationToken;
use tidegate_runtime::traces::Tracer;
use tidegate_runtime::{Health, OpsServer, shutdown, systemd, telemetry};
use tidegate_stream::RuleFiles;
use tokio::task::JoinSet;

/// Which services a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    stream: bool,
    control: bool,
    notify: bool,
    history: bool,
}

impl Parts {
    const NONE: Self = Self { stream: false, control: false, notify: false, history: false };
    /// Everything; notifications where they are configured, history where there is a place for it.
    pub const ALL: Self = Self { stream: true, control: true, notify: true, history: true };
    /// The stream service.
    pub const STREAM: Self = Self { stream: true, ..Self::NONE };
    /// The control service.
    pub const CONTROL: Self = Self { control: true, ..Self::NONE };
    /// The notification service.
    pub const NOTIFIER: Self = Self { notify: true, ..Self::NONE };
    /// The history service.
    pub const HISTORY: Self = Self { history: true, ..Self::NONE };
}

/// Configuration, statistics or rules have problems: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigurationError(String);

impl ConfigurationError {
    /// One that says what `error` and its causes say.
    pub fn new(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(format!("{:#}", anyhow::Error::new(error)))
    }

    /// One with this text.
    pub fn text(text: String) -> Self {
        Self(text)
    }
}

/// The services, started.
pub struct Running {
    /// Where control listens, if it runs.
    pub control: Option<SocketAddr>,
    /// Where Flight SQL is served, if history runs.
    pub history: Option<SocketAddr>,
    /// Where health and metrics are served.
    pub ops: SocketAddr,
    tasks: JoinSet<anyhow::Result<()>>,
    shutdown: CancellationToken,
}

/// Runs the services of `parts` until a signal ends them.
pub async fn run(args: &ServiceArgs, parts: Parts) -> anyhow::Result<ExitCode> {
    let config = load(args, parts)?;
    if args.check_config {
        println!("{}: the configuration is fine", args.config.display());
        return Ok(ExitCode::SUCCESS);
    }
    telemetry::init(&config.telemetry);
    let shutdown = shutdown::on_signal()?;
    let running = start(config, parts, shutdown).await?;
    systemd::tell_ready();
    running.finish().await?;
    Ok(ExitCode::SUCCESS)
}

/// Reads configuration, statistics and rules; what is wrong with any of them is told at once.
fn load(args: &ServiceArgs, parts: Parts) -> Result<ServerConfig, ConfigurationError> {
    let loaded = config::load_with_problems(&args.config);
    let (config, problems): (ServerConfig, _) = loaded.map_err(ConfigurationError::new)?;
    let mut told = Vec::new();
    if !problems.is_empty() {
        told.push(ConfigError::Invalid { path: args.config.clone(), problems }.to_string());
    }
    if parts.stream
        && let Err(error) = RuleFiles::load(&config.stream)
    {
        told.push(error.to_string());
    }
    match &config.notify {
        Some(notify) if parts.notify => {
            if let Err(error) = Templates::load(notify) {
                told.push(error.to_string());
            }
        }
        None if parts == Parts::NOTIFIER => told.push(format!("{}: [notify] must be set", args.config.display())),
        Some(_) | None => {}
    }
    if parts == Parts::HISTORY && config.history.url.is_none() && matches!(config.log, BusConfig::Kafka(_)) {
        told.push(format!("{}: history.url: must be set, since the log is Kafka", args.config.display()));
    }
    if told.is_empty() { Ok(config) } else { Err(ConfigurationError(told.join("\n"))) }
}

/// Starts the services of `parts`.
pub async fn start(mut config: ServerConfig, parts: Parts, shutdown: CancellationToken) -> anyhow::Result<Running> {
    let mut registry = Registry::default();
    let health = Health::new();
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    if let BusConfig::Embedded(log) = &config.log {
        for (url, folder) in [(&mut config.stream.checkpoints.url, "checkpoints"), (&mut config.history.url, "history")]
        {
            *url = Some(url.take().map_or_else(|| absolute(&log.directory.join(folder)), Ok)?);
        }
    }
    let (tracer, exporter) = Tracer::new(&config.traces, &instance(), &mut registry).context("setting up [traces]")?;
    if let Some(exporter) = exporter {
        let until = shutdown.clone();
        tasks.spawn(async move {
            exporter.run(until).await;
            Ok(())
        });
    }
    let bus = config.log.connect().await.context("opening the log")?;
    // Control first: edges can publish and attach while windows are being rebuilt.
    let mut control_address = None;
    let mut console_address = None;
    let with_history = parts.history && config.history.url.is_some() && (config.history.enabled || !parts.stream);
    if parts.history && !with_history {
        tracing::info!("no history is kept: history.url is not set, or history.enabled is false");
    }
    let access = match &config.access {
        Some(config) if parts.control || with_history => {
            Access::open(config).context("loading credentials ([access])")?
        }
        _ => Access::off(),
    };
    if parts.control || with_history {
        access.register(&mut registry);
        let until = shutdown.clone();
        let watched = Arc::clone(&access);
        tasks.spawn(async move {
            watched.run(until).await;
            Ok(())
        });
    }
    if parts.control {
        let access = Arc::clone(&access);
        let bus = Arc::clone(&bus);
        let service = tidegate_control::Service::bind(config.control, bus, &mut registry, health.clone(), access)
            .await
            .context("starting control")?
            .traced(tracer.of("tidegate-control"));
        control_address = Some(service.local_addr());
        if let Some(console) = config.console {
            let console = Console::bind(console, service.api(), &mut registry).await.context("starting the console")?;
            console_address = Some(console.local_addr());
            let until = shutdown.clone();
            tasks.spawn(async move {
                console.run(until).await;
                Ok(())
            });
        }
        let shutdown = shutdown.clone();
        tasks.spawn(async move { service.run(shutdown).await.context("control ended") });
    }
    if parts.stream {
        let service = tidegate_stream::Service::start(config.stream, Arc::clone(&bus), &mut registry, health.clone())
            .await
            .context("starting stream")?
            .traced(tracer.of("tidegate-stream"));
        let shutdown = shutdown.clone();
        tasks.spawn(async move { service.run(shutdown).await.context("stream ended") });
    }
    if let Some(notify) = config.notify.filter(|_| parts.notify) {
        let bus = Arc::clone(&bus);
        let service = tidegate_notify::Service::bind(notify, bus, &mut registry, health.clone())
            .await
            .context("starting the notifier")?;
        let shutdown = shutdown.clone();
        tasks.spawn(async move { service.run(shutdown).await.context("the notifier ended") });
    }
    let mut history_address = None;
    if with_history {
        // That the history cannot be written must not keep edges from their locks.
        let health = if parts == Parts::HISTORY { health.clone() } else { health.beside() };
        let service = tidegate_history::Service::bind(config.history, bus, &mut registry, health, access)
            .await
            .context("starting history")?;
        history_address = Some(service.local_addr());
        let shutdown = shutdown.clone();
        tasks.spawn(async move { service.run(shutdown).await.context("history ended") });
    }
    let ops = OpsServer::bind(config.ops.listen, Arc::new(registry), health)
        .await
        .with_context(|| format!("listening on {} for health and metrics (ops.listen)", config.ops.listen))?;
    let ops_address = ops.local_addr()?;
    let until = shutdown.clone();
    tasks.spawn(async move {
        ops.run(until).await;
        Ok(())
    });
    let (control, console) =
        (control_address.map(tracing::field::display), console_address.map(tracing::field::display));
    let history = history_address.map(tracing::field::display);
    tracing::info!(control, console, history, ops = %ops_address, "listening");
    Ok(Running { control: control_address, history: history_address, ops: ops_address, tasks, shutdown })
}

/// What tells this process from others of its kind in traces.
fn instance() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}/{}", host.trim(), std::process::id())
}

fn absolute(path: &Path) -> anyhow::Result<String> {
    let path = std::path::absolute(path).with_context(|| format!("finding the whole path of {}", path.display()))?;
    path.into_os_string().into_string().map_err(|path| anyhow::anyhow!("{} is no UTF-8 path", path.display()))
}

impl Running {
    /// Waits until all have ended; when one fails, the others are ended in order.
    pub async fn finish(mut self) -> anyhow::Result<()> {
        let mut result = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.context("a service's task failed").and_then(|ended| ended);
            self.shutdown.cancel();
            if let Err(error) = ended {
                tracing::error!("{error:#}");
                result = result.and(Err(error));
            }
        }
        result
    }
}
