//! Reads the topics `accounts`, `rules` and `settings` whole, for ever, into the [`View`].

use crate::accounts::Among;
use crate::metrics::{Metrics, TopicLabel};
use crate::view::{AccountRecord, View};
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidegate_bus::{Batch, Bus, BusError, ReadFrom, Reader, Record, Topic};
use tidegate_domain::{Account, Position};
use tidegate_proto::{DecodeError, state_from_proto, v1};
use tidegate_runtime::backoff::Backoff;
use tidegate_runtime::{Health, error_line};
use tokio_util::sync::CancellationToken;

/// The part of [`Health`] that tells whether the replica is whole.
pub(crate) const HEALTH_PART: &str = "control";
/// Most records applied under one lock, so that edges can read in between.
const MAX_APPLY: usize = 512;
/// How long one read waits when nothing comes.
const READ_WAIT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Reads the topics into a view.
pub(crate) struct ReplicaFeed {
    bus: Arc<dyn Bus>,
    view: Arc<View>,
    metrics: Metrics,
    health: Health,
    /// Where to read on, by topic and partition.
    next: BTreeMap<(Topic, u32), u64>,
    /// The ends at the start: when all are reached, the replica is whole. None: not known yet.
    ends: Option<BTreeMap<(Topic, u32), u64>>,
    ready: bool,
}

impl ReplicaFeed {
    /// Will read from the start of all three topics.
    pub fn new(bus: Arc<dyn Bus>, view: Arc<View>, metrics: Metrics, health: Health) -> Self {
        let next = [Topic::Accounts, Topic::Rules, Topic::Settings]
            .into_iter()
            .flat_map(|topic| (0..view.partitions).map(move |partition| ((topic, partition), 0)))
            .collect();
        health.not_ready(HEALTH_PART, "reading the account states");
        Self { bus, view, metrics, health, next, ends: None, ready: false }
    }

    /// Reads until `shutdown`; a log that fails is tried again for ever.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        while !shutdown.is_cancelled() {
            let failed = tokio::select! {
                () = shutdown.cancelled() => return,
                failed = self.read(&mut backoff) => failed,
            };
            self.metrics.feed_failures.inc();
            let why = error_line(&failed);
            tracing::warn!(error = why, "reading the account states failed; trying again");
            if !self.ready {
                self.health.not_ready(HEALTH_PART, format!("reading the account states failed: {why}"));
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
    }

    /// Reads until it fails.
    async fn read(&mut self, backoff: &mut Backoff) -> BusError {
        let mut reader = match self.open().await {
            Ok(reader) => reader,
            Err(error) => return error,
        };
        self.check_ready();
        loop {
            match reader.next(READ_WAIT).await {
                Ok(batch) => {
                    backoff.reset();
                    self.take(batch);
                    self.check_ready();
                }
                Err(error) => return error,
            }
        }
    }

    async fn open(&mut self) -> Result<Box<dyn Reader>, BusError> {
        if self.ends.is_none() {
            let mut ends = BTreeMap::new();
            for (topic, partition) in self.next.keys() {
                let bounds = self.bus.bounds(*topic, *partition).await?;
                if bounds.first < bounds.next {
                    ends.insert((*topic, *partition), bounds.next);
                }
            }
            self.ends = Some(ends);
        }
        let from: Vec<ReadFrom> = self
            .next
            .iter()
            .map(|((topic, partition), offset)| ReadFrom { topic: *topic, partition: *partition, offset: *offset })
            .collect();
        self.bus.read(&from).await
    }

    fn take(&mut self, batch: Batch) {
        if batch.damaged > 0 {
            self.metrics.records_skipped.get_or_create(&TopicLabel { topic: "damaged" }).inc_by(batch.damaged);
        }
        let mut records = Vec::with_capacity(batch.records.len().min(MAX_APPLY));
        for record in batch.records {
            match record.topic {
                Topic::Accounts => match account_record(&record) {
                    Ok(decoded) => {
                        if let Some(step) = record.trace {
                            self.view.decisions.note(decoded.position, step);
                        }
                        records.push(decoded);
                    }
                    Err(error) => self.skip(&record, &error),
                },
                Topic::Rules => match rule_set(&record, self.view.partitions) {
                    Ok(decoded) => self.view.apply_rules(record.key, decoded),
                    Err(error) => self.skip(&record, &error),
                },
                Topic::Settings => match setting(&record) {
                    Ok((key, decoded)) => self.view.apply_setting(key, decoded),
                    Err(error) => self.skip(&record, &error),
                },
                Topic::Events | Topic::Commands | Topic::Audit | Topic::Inspections | Topic::Notifications => {}
            }
            if records.len() >= MAX_APPLY {
                self.view.apply(std::mem::take(&mut records), &[]);
            }
        }
        let read_to: Vec<(u32, u64)> = batch
            .next
            .iter()
            .filter(|next| next.topic == Topic::Accounts)
            .map(|next| (next.partition, next.offset))
            .collect();
        self.view.apply(records, &read_to);
        for next in batch.next {
            self.next.insert((next.topic, next.partition), next.offset);
        }
        let accounts = self.view.accounts.read();
        self.metrics.accounts.set(gauge(accounts.count(Among::All)));
        self.metrics.accounts_locked.set(gauge(accounts.locked()));
    }

    fn skip(&self, record: &Record, error: &DecodeError) {
        let topic = record.topic.suffix();
        self.metrics.records_skipped.get_or_create(&TopicLabel { topic }).inc();
        tracing::warn!(
            topic,
            partition = record.partition,
            offset = record.offset,
            error = error.to_line(),
            "skipped a record that does not decode"
        );
    }

    fn check_ready(&mut self) {
        if self.ready {
            return;
        }
        let Some(ends) = &self.ends else { return };
        let behind: u64 = ends.iter().map(|(key, end)| end.saturating_sub(self.next[key])).sum();
        if behind > 0 {
            self.health.not_ready(HEALTH_PART, format!("reading the account states, {behind} records to go"));
            return;
        }
        self.ready = true;
        self.view.set_ready();
        self.health.ready(HEALTH_PART);
        tracing::info!(accounts = self.metrics.accounts.get(), "the replica of account states is whole");
    }
}

fn account_record(record: &Record) -> Result<AccountRecord, DecodeError> {
    let position = Position { partition: record.partition, offset: record.offset };
    let state = record.value.as_deref().map(state_from_proto).transpose()?;
    let key = String::from_utf8_lossy(&record.key);
    let account =
        Account::parse(&key).map_err(|source| DecodeError::Account { message: "key of AccountState", source })?;
    if let Some(state) = &state
        && state.account != account
    {
        return Err(DecodeError::Value {
            message: "AccountState",
            field: "account",
            value: state.account.as_str().to_owned(),
            allowed: "the account that is the record's key",
        });
    }
    Ok(AccountRecord { position, account, state })
}

fn rule_set(record: &Record, partitions: u32) -> Result<Option<v1::RuleSet>, DecodeError> {
    let Some(value) = &record.value else { return Ok(None) };
    let rule_set = v1::RuleSet::decode(&**value)
        .map_err(|error| DecodeError::Protobuf { message: "RuleSet", reason: error.to_string() })?;
    if rule_set.partition >= partitions {
        return Err(DecodeError::Value {
            message: "RuleSet",
            field: "partition",
            value: rule_set.partition.to_string(),
            allowed: "a partition of the log",
        });
    }
    Ok(Some(rule_set))
}

fn setting(record: &Record) -> Result<(String, Option<v1::Setting>), DecodeError> {
    let key = String::from_utf8_lossy(&record.key).into_owned();
    let Some(value) = &record.value else { return Ok((key, None)) };
    let setting = v1::Setting::decode(&**value)
        .map_err(|error| DecodeError::Protobuf { message: "Setting", reason: error.to_string() })?;
    if setting.key != key || setting.kind.is_none() {
        let allowed = "the record's key, with a kind of setting";
        return Err(DecodeError::Value { message: "Setting", field: "key", value: setting.key, allowed });
    }
    Ok((key, Some(setting)))
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
