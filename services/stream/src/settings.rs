//! What administrators set at run time: the compacted topic `settings`, read whole and followed.

use crate::metrics::{Metrics, ResultLabel};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tidegate_bus::{Batch, Bus, BusError, ReadFrom, Reader, Record, Topic};
use tidegate_detect::RuleSettings;
use tidegate_domain::{Account, DomainExemption, Setting, SettingKind};
use tidegate_proto::setting_from_proto;
use tidegate_runtime::backoff::Backoff;
use tidegate_runtime::error_line;
use tokio::sync::watch;

/// Most settings that are in force; more are left out.
const MAX_SETTINGS: usize = 10_000;
/// How long one read waits when nothing comes.
const READ_WAIT: Duration = Duration::from_secs(5);
/// How long a passing fault of the log is waited out, at first and at most. Settings are to be in force within a
/// second or so of when the log is there again.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Everything that is set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    by_key: BTreeMap<Bytes, Setting>,
}

/// The exemptions among them, by domain.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DomainExemptions(HashMap<String, DomainExemption>);

/// Reads the topic, for ever.
pub(crate) struct SettingsFeed {
    bus: Arc<dyn Bus>,
    metrics: Metrics,
    /// Where to read on, by partition.
    next: BTreeMap<u32, u64>,
    settings: Settings,
    told: watch::Sender<Arc<Settings>>,
}

impl SettingsFeed {
    /// Reads all that is there now.
    ///
    /// # Errors
    /// When the log cannot be reached.
    pub async fn read_whole(bus: Arc<dyn Bus>, metrics: Metrics) -> Result<Self, BusError> {
        let next = (0..bus.partitions()).map(|partition| (partition, 0)).collect();
        let told = watch::Sender::default();
        let mut feed = Self { bus, metrics, next, settings: Settings::default(), told };
        let mut ends = BTreeMap::new();
        for partition in 0..feed.bus.partitions() {
            let bounds = feed.bus.bounds(Topic::Settings, partition).await?;
            if bounds.first < bounds.next {
                ends.insert(partition, bounds.next);
            }
        }
        if !ends.is_empty() {
            let mut reader = feed.open().await?;
            while ends.iter().any(|(partition, end)| feed.next[partition] < *end) {
                let batch = reader.next(READ_WAIT).await?;
                feed.take(batch);
            }
        }
        feed.told.send_replace(Arc::new(feed.settings.clone()));
        tracing::info!(settings = feed.settings.by_key.len(), "read what administrators have set");
        Ok(feed)
    }

    /// What is set, whenever it changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Settings>> {
        self.told.subscribe()
    }

    /// Follows the topic until it is dropped.
    pub async fn follow(mut self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let error = self.read_on(&mut backoff).await;
            tracing::warn!(error = %error_line(&error), "reading the settings failed; those in force stay, trying again");
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Reads until it fails.
    async fn read_on(&mut self, backoff: &mut Backoff) -> BusError {
        let mut reader = match self.open().await {
            Ok(reader) => reader,
            Err(error) => return error,
        };
        loop {
            match reader.next(READ_WAIT).await {
                Ok(batch) => {
                    backoff.reset();
                    if self.take(batch) {
                        self.told.send_replace(Arc::new(self.settings.clone()));
                    }
                }
                Err(error) => return error,
            }
        }
    }

    async fn open(&self) -> Result<Box<dyn Reader>, BusError> {
        let at = |(partition, offset): (&u32, &u64)| ReadFrom {
            topic: Topic::Settings,
            partition: *partition,
            offset: *offset,
        };
        self.bus.read(&self.next.iter().map(at).collect::<Vec<_>>()).await
    }

    /// Takes what was read. Gives whether something changed.
    fn take(&mut self, batch: Batch) -> bool {
        self.metrics.damaged.inc_by(batch.damaged);
        let mut changed = false;
        for record in batch.records {
            let result = self.settings.take(&record);
            self.metrics.settings.get_or_create(&ResultLabel { result }).inc();
            changed |= result == "taken";
        }
        for at in batch.next {
            self.next.insert(at.partition, at.offset);
        }
        self.metrics.settings_in_force.set(self.settings.by_key.len().try_into().unwrap_or(i64::MAX));
        changed
    }
}

impl Settings {
    /// Takes a record; what became of it.
    fn take(&mut self, record: &Record) -> &'static str {
        let Some(value) = &record.value else {
            self.by_key.remove(&record.key);
            return "taken";
        };
        match setting_from_proto(&record.key, value) {
            Ok(_) if self.by_key.len() >= MAX_SETTINGS && !self.by_key.contains_key(&record.key) => {
                tracing::warn!(key = %record.key.escape_ascii(), "left out a setting: there are {MAX_SETTINGS} already");
                "full"
            }
            Ok(setting) => {
                self.by_key.insert(record.key.clone(), setting);
                "taken"
            }
            Err(error) => {
                let (partition, offset) = (record.partition, record.offset);
                tracing::warn!(partition, offset, error = %error.to_line(), "left out a record that is no setting");
                "rejected"
            }
        }
    }

    /// Those about rules and limits.
    pub fn of_rules(&self) -> RuleSettings {
        let mut rules = RuleSettings::default();
        for setting in self.by_key.values() {
            match &setting.kind {
                SettingKind::RuleSwitch { rule, off } => {
                    if *off {
                        rules.switched_off.insert(rule.clone());
                    }
                }
                SettingKind::LimitsFor { subject, limits } => {
                    rules.limits_for.insert(subject.clone(), limits.clone());
                }
                SettingKind::DomainExemption(_) => {}
            }
        }
        rules
    }

    /// Those that exempt domains.
    pub fn exemptions(&self) -> DomainExemptions {
        self.by_key
            .values()
            .filter_map(|setting| match &setting.kind {
                SettingKind::DomainExemption(exemption) => Some(exemption.clone()),
                SettingKind::RuleSwitch { .. } | SettingKind::LimitsFor { .. } => None,
            })
            .collect()
    }
}

impl DomainExemptions {
    /// Whether `rule` passes `account` by at `at_ms`.
    pub fn cover(&self, account: &Account, rule: &str, at_ms: i64) -> bool {
        let exemption = account.domain().and_then(|domain| self.0.get(domain));
        exemption.is_some_and(|exemption| exemption.covers(account, rule, at_ms))
    }
}

impl FromIterator<DomainExemption> for DomainExemptions {
    fn from_iter<T: IntoIterator<Item = DomainExemption>>(exemptions: T) -> Self {
        Self(exemptions.into_iter().map(|exemption| (exemption.domain.clone(), exemption)).collect())
    }
}
