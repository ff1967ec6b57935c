//! The stream service: start and run.

use crate::announce::Announcer;
use crate::checkpoint::{CheckpointError, Checkpoints};
use crate::config::StreamConfig;
use crate::in_force::{InForce, Made, Making};
use crate::inspections::Inspections;
use crate::metrics::Metrics;
use crate::partition::PartitionError;
use crate::rule_files::{RuleFileError, RuleFiles};
use crate::settings::SettingsFeed;
use crate::sharing::TakingOver;
use crate::worker::{PART, Worker};
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_bus::{Bus, BusError};
use tidegate_detect::EngineError;
use tidegate_runtime::Health;
use tidegate_runtime::shutdown::CancellationToken;
use tidegate_runtime::traces::Tracer;

/// Tells the time, in milliseconds since 1970 UTC.
pub(crate) type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A stream worker that has taken its partitions over.
pub struct Service {
    worker: Worker,
}

/// Why the stream service cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Statistics or rules have problems.
    #[error("{0}")]
    Rules(RuleFileError),
    /// A partition that is to be owned does not exist.
    #[error("stream.partitions names {partition}; the log has partitions 0 to {last}")]
    NoPartition {
        /// The partition.
        partition: u32,
        /// The last there is.
        last: u32,
    },
    /// There is no such place for checkpoints.
    #[error("opening the checkpoints")]
    Checkpoints {
        /// Why.
        #[source]
        source: CheckpointError,
    },
    /// A partition could not be taken over.
    #[error("taking partition {partition} over")]
    TakeOver {
        /// The partition.
        partition: u32,
        /// Why.
        #[source]
        source: BusError,
    },
    /// What administrators have set could not be read.
    #[error("reading the settings")]
    Settings {
        /// Why.
        #[source]
        source: BusError,
    },
    /// An engine could not be made.
    #[error("planning the statistics and rules")]
    Engine {
        /// Why.
        #[source]
        source: EngineError,
    },
    /// The core of a partition failed.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// It ended while a commit was failing; the inputs are read again at the next start.
    #[error("committing states of partition {partition}")]
    Commit {
        /// The partition.
        partition: u32,
        /// Why.
        #[source]
        source: BusError,
    },
    /// Which partitions are to be owned is not told any more.
    #[error("sharing the partitions with other workers")]
    Membership {
        /// Why.
        #[source]
        source: BusError,
    },
    /// Other workers own all partitions now.
    #[error("other workers own all partitions of this one now")]
    AllFenced,
    /// The thread that does the work ended without a word.
    #[error("the worker's thread failed")]
    Thread(#[source] tokio::task::JoinError),
}

impl Service {
    /// Reads the rules, and takes the partitions over that are configured, or joins the workers that share them.
    ///
    /// # Errors
    /// When statistics or rules have problems, or the log cannot be reached.
    pub async fn start(
        config: StreamConfig,
        bus: Arc<dyn Bus>,
        registry: &mut Registry,
        health: Health,
    ) -> Result<Self, StreamError> {
        let clock: Clock = Arc::new(|| {
            let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since_1970.map_or(0, |span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
        });
        Self::start_with_clock(config, bus, registry, health, clock).await
    }

    /// The same with a clock of the caller's.
    ///
    /// # Errors
    /// As for [`Service::start`].
    pub async fn start_with_clock(
        config: StreamConfig,
        bus: Arc<dyn Bus>,
        registry: &mut Registry,
        health: Health,
        clock: Clock,
    ) -> Result<Self, StreamError> {
        health.needs(PART);
        let (files, rules) = RuleFiles::load(&config).map_err(StreamError::Rules)?;
        let all = bus.partitions();
        if let Some(&partition) = config.partitions.iter().find(|&&number| number >= all) {
            return Err(StreamError::NoPartition { partition, last: all.saturating_sub(1) });
        }
        let checkpoints = Checkpoints::open(&config.checkpoints, &config.group)
            .map_err(|source| StreamError::Checkpoints { source })?;
        if let Some(checkpoints) = &checkpoints {
            tracing::info!(%checkpoints, "windows are written down");
        } else {
            tracing::info!("windows are not written down: a restart reads a day of events again");
        }
        tracing::info!(
            version = rules.version(),
            mode = rules.mode().as_str(),
            rules = rules.list().len(),
            "rules are in force"
        );
        let membership = if config.partitions.is_empty() {
            Some(bus.join(&config.group).await.map_err(|source| StreamError::Membership { source })?)
        } else {
            None
        };
        let metrics = Metrics::new(registry);
        let feed = SettingsFeed::read_whole(bus.clone(), metrics.clone())
            .await
            .map_err(|source| StreamError::Settings { source })?;
        let mut settings = feed.subscribe();
        let (file, set) = (rules.clone(), Arc::clone(&settings.borrow_and_update()));
        let made = tokio::task::spawn_blocking(move || Made::of(&file, &set)).await.map_err(StreamError::Thread)?;
        let mut worker = Worker {
            wanted: config.partitions.iter().copied().collect(),
            membership,
            in_force: InForce::new(made, clock()),
            making: Making::default(),
            announcer: Announcer::new(bus.clone()),
            inspections: Inspections::new(metrics.clone()),
            settings,
            settings_feed: Some(feed),
            metrics,
            tracer: Tracer::off(),
            checkpoints,
            partitions: BTreeMap::new(),
            taking_over: TakingOver::default(),
            bus,
            config,
            files,
            file_rules: rules,
            health,
            clock,
        };
        worker.take_over_wanted().await?;
        Ok(Self { worker })
    }

    /// Has its steps traced.
    #[must_use]
    pub fn traced(mut self, tracer: Tracer) -> Self {
        self.worker.tracer = tracer;
        self
    }

    /// Works until `shutdown`.
    ///
    /// The work is computation between short waits, so it has a thread of its own and delays nobody's I/O.
    ///
    /// # Errors
    /// When the engine fails, or other workers own all partitions now.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StreamError> {
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || runtime.block_on(self.worker.run(shutdown)))
            .await
            .map_err(StreamError::Thread)?
    }
}
