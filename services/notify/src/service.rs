//! The notification service: start and run.

use crate::channels::{Channels, limits};
use crate::config::NotifyConfig;
use crate::contacts::ContactsFile;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::reminders::Reminders;
use crate::routing::Told;
use crate::sharing::TakingOver;
use crate::templates::{TemplateError, Templates};
use crate::worker::{PART, Worker};
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use tidegate_bus::{Bus, BusError};
use tidegate_runtime::Health;
use tidegate_runtime::shutdown::CancellationToken;
use tokio::task::JoinSet;

/// A notification service that has joined those that share the partitions.
pub struct Service {
    worker: Worker,
}

/// Why the notification service cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// Templates have problems.
    #[error(transparent)]
    Templates(#[from] TemplateError),
    /// There can be no HTTP client.
    #[error("making the webhooks' HTTP client")]
    Http {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Which partitions are to be owned is not told.
    #[error("sharing the partitions with other processes")]
    Membership {
        /// Why.
        #[source]
        source: BusError,
    },
}

impl Service {
    /// Reads the templates and joins the processes that share the partitions.
    ///
    /// # Errors
    /// When templates have problems, or the log cannot be reached.
    pub async fn bind(
        config: NotifyConfig,
        bus: Arc<dyn Bus>,
        registry: &mut Registry,
        health: Health,
    ) -> Result<Self, NotifyError> {
        health.needs(PART);
        let templates = Arc::new(Templates::load(&config)?);
        let config = Arc::new(config);
        let channels = Channels::new(config.clone(), templates).map_err(|source| NotifyError::Http { source })?;
        let mut contacts = ContactsFile::new(config.contacts.as_deref());
        contacts.reload();
        let membership = bus.join(&config.group).await.map_err(|source| NotifyError::Membership { source })?;
        let limits = limits(&config);
        let metrics = Metrics::new(registry);
        metrics.begin_at_zero(limits.channels.keys().map(String::as_str));
        let worker = Worker {
            channels,
            contacts,
            metrics,
            health,
            clock: Arc::new(now_ms),
            membership,
            wanted: BTreeSet::new(),
            partitions: BTreeMap::new(),
            taking_over: TakingOver::default(),
            outbox: Outbox::new(limits),
            told: Told::default(),
            reminders: Reminders::new(config.reminder_days),
            backlog: VecDeque::new(),
            backlog_next: Vec::new(),
            sending: JoinSet::new(),
            tasks: HashMap::new(),
            is_full: false,
            bus,
            config,
        };
        Ok(Self { worker })
    }

    /// Works until `shutdown`.
    ///
    /// # Errors
    /// When the log was closed.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), NotifyError> {
        self.worker.run(shutdown).await
    }
}

fn now_ms() -> i64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_1970.map_or(0, |span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}
