//! Taking a partition over: whoever had it is fenced, and what is known of it is read: what was told, what is still to be
//! sent, which exemptions end.

use crate::config::NotifyConfig;
use crate::identity::notification_id;
use crate::routing::told_since_ms;
use bytes::Bytes;
use prost::Message as _;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tidegate_bus::{Bus, BusError, Message, Owner, ReadFrom, Record, Topic};
use tidegate_proto::{notification_key, v1};
use v1::NotificationStatus as Status;

/// How long a mark of a sent message counts for the limits of an hour.
const HOUR_MS: i64 = 3_600_000;
/// Records that are committed at once.
pub(crate) const MAX_COMMIT: usize = 500;

/// A partition that is owned.
pub(crate) struct Owned {
    pub owner: Box<dyn Owner>,
    /// Where to read on.
    pub accounts_next: u64,
    pub notifications_next: u64,
    pub settings_next: u64,
    /// Whether the position got on since the last commit.
    pub moved: bool,
    /// Offsets of `notifications` that were written here and not read back yet.
    pub own: std::collections::BTreeSet<u64>,
}

/// What is known of a partition when it is taken over.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Up to which version each account's decisions were told, and when.
    pub told: HashMap<String, (u64, i64)>,
    /// What is to be sent.
    pub pending: BTreeMap<String, v1::Notification>,
    /// What was sent within the hour.
    pub sent: Vec<v1::Notification>,
    /// Ids of reminders that were told, and when.
    pub reminders: Vec<(String, i64)>,
    /// Exemptions that end, by account or domain, with the state's version.
    pub exemptions: HashMap<String, (u64, Vec<v1::Exemption>)>,
    pub skipped: u64,
}

/// What it takes to take partitions over.
#[derive(Clone)]
pub(crate) struct TakeOver {
    pub bus: Arc<dyn Bus>,
    pub config: Arc<NotifyConfig>,
    pub now_ms: i64,
}

impl TakeOver {
    /// Takes a partition over.
    pub async fn one(&self, number: u32) -> Result<(Owned, Known), BusError> {
        let mut owner = self.bus.own(&self.config.group, number).await?;
        let committed = owner.committed(Topic::Accounts).await?;
        let mut known = Known::default();

        let since_ms = told_since_ms(&self.config, self.now_ms);
        let from = self.bus.offset_for_time(Topic::Notifications, number, since_ms).await?;
        let notifications_next = self
            .read(Topic::Notifications, number, Some(from), None, |record| known.take(&record, self.now_ms))
            .await?;

        let settings_next = self.read(Topic::Settings, number, None, None, |record| known.setting(&record)).await?;

        let oldest_ms = self.now_ms.saturating_sub(self.config.max_age_ms());
        let mut earlier: HashMap<String, v1::AccountState> = HashMap::new();
        let accounts_next = self
            .read(Topic::Accounts, number, None, committed, |record| {
                let Some(state) = known.state(&record).filter(|_| committed.is_none()) else { return };
                if state.timeline.iter().any(|one| one.at_ms > oldest_ms) {
                    earlier.insert(state.account.clone(), state);
                }
            })
            .await?;
        let accounts_next = committed.unwrap_or(accounts_next);
        let mut owned = Owned {
            owner,
            accounts_next,
            notifications_next,
            settings_next,
            moved: false,
            own: std::collections::BTreeSet::new(),
        };
        if committed.is_none() {
            let marks: Vec<v1::Notification> = earlier.values().map(|state| self.mark(state)).collect();
            tracing::info!(
                partition = number,
                accounts = marks.len(),
                "first start: what was decided before is not told"
            );
            for mark in &marks {
                known.told.insert(mark.account.clone(), (mark.version, mark.time_ms));
            }
            owned.commit_all(marks, Some(accounts_next)).await?;
        }
        tracing::info!(
            partition = number,
            pending = known.pending.len(),
            accounts_next = owned.accounts_next,
            "took the partition's notifications over"
        );
        Ok((owned, known))
    }

    /// Notes that a state's decisions are not to be told: they were made before there were notifications.
    fn mark(&self, state: &v1::AccountState) -> v1::Notification {
        v1::Notification {
            id: notification_id(&state.account, state.version, "", ""),
            account: state.account.clone(),
            version: state.version,
            status: Status::Suppressed.into(),
            error: "decided before notifications were switched on".to_owned(),
            due_ms: self.now_ms,
            time_ms: self.now_ms,
            ..v1::Notification::default()
        }
    }

    /// Reads a topic's partition from `from` (its beginning) to `to` (its end), and gives where to read on.
    async fn read(
        &self,
        topic: Topic,
        partition: u32,
        from: Option<u64>,
        to: Option<u64>,
        mut take: impl FnMut(Record),
    ) -> Result<u64, BusError> {
        let bounds = self.bus.bounds(topic, partition).await?;
        let end = to.unwrap_or(bounds.next).min(bounds.next);
        let mut at = ReadFrom { topic, partition, offset: from.unwrap_or(bounds.first).max(bounds.first) };
        if at.offset >= end {
            return Ok(at.offset.max(end));
        }
        let mut reader = self.bus.read(&[at]).await?;
        while at.offset < end {
            let batch = reader.next(Duration::from_millis(500)).await?;
            batch.records.into_iter().filter(|record| record.offset < end).for_each(&mut take);
            if let Some(next) = batch.next.last() {
                at.offset = next.offset;
            }
        }
        Ok(end)
    }
}

impl Known {
    fn take(&mut self, record: &Record, now_ms: i64) {
        let Some(notification) = decode(record) else {
            self.skipped += 1;
            return;
        };
        if notification.exemption.is_some() {
            self.reminders.push((notification.id.clone(), notification.time_ms));
        } else {
            let told = self.told.entry(notification.account.clone()).or_default();
            *told = (told.0.max(notification.version), told.1.max(notification.time_ms));
        }
        match notification.status() {
            Status::Pending => drop(self.pending.insert(notification.id.clone(), notification)),
            Status::Sent => {
                self.pending.remove(&notification.id);
                if notification.time_ms > now_ms - HOUR_MS {
                    self.sent.push(v1::Notification { milestone: None, lock: None, ..notification });
                }
            }
            Status::Dead | Status::Suppressed | Status::Unspecified => drop(self.pending.remove(&notification.id)),
        }
    }

    fn state(&mut self, record: &Record) -> Option<v1::AccountState> {
        let Some(value) = &record.value else {
            self.exemptions.remove(String::from_utf8_lossy(&record.key).as_ref());
            return None;
        };
        let Ok(state) = v1::AccountState::decode(value.clone()) else {
            self.skipped += 1;
            return None;
        };
        self.exempt(&state.account, state.version, &state.exemptions);
        Some(state)
    }

    fn setting(&mut self, record: &Record) {
        if let Some((subject, exemptions)) = domain_exemption(record) {
            self.exempt(&subject, 0, &exemptions);
        }
    }

    fn exempt(&mut self, subject: &str, version: u64, exemptions: &[v1::Exemption]) {
        let ends: Vec<_> = exemptions.iter().filter(|one| one.until_ms.is_some()).cloned().collect();
        if ends.is_empty() {
            self.exemptions.remove(subject);
        } else {
            self.exemptions.insert(subject.to_owned(), (version, ends));
        }
    }
}

impl Owned {
    /// Commits records in pieces that a log takes easily, with the position in `accounts` in the last one.
    pub async fn commit_all(&mut self, records: Vec<v1::Notification>, position: Option<u64>) -> Result<(), BusError> {
        let messages: Vec<(Topic, Message)> = records.iter().map(|one| (Topic::Notifications, message(one))).collect();
        let position: Vec<(Topic, u64)> = position.map(|next| (Topic::Accounts, next)).into_iter().collect();
        let pieces = messages.len().div_ceil(MAX_COMMIT).max(1);
        for piece in 0..pieces {
            let part = messages.iter().skip(piece * MAX_COMMIT).take(MAX_COMMIT).cloned().collect();
            let position = if piece + 1 == pieces { position.clone() } else { Vec::new() };
            let places = self.owner.commit(part, position).await?;
            self.own.extend(places.iter().map(|place| place.offset));
        }
        Ok(())
    }
}

/// The notification in a record; none: there is none.
pub(crate) fn decode(record: &Record) -> Option<v1::Notification> {
    let notification = v1::Notification::decode(record.value.clone()?).ok()?;
    (!notification.id.is_empty() && !notification.account.is_empty()).then_some(notification)
}

/// The exemption of a domain (`@DOMAIN`) that a record of `settings` sets or, with none, takes back.
pub(crate) fn domain_exemption(record: &Record) -> Option<(String, Vec<v1::Exemption>)> {
    let key = std::str::from_utf8(&record.key).ok()?;
    let domain = key.strip_prefix("exemption/")?;
    let setting = record.value.clone().and_then(|value| v1::Setting::decode(value).ok());
    let exemption = setting.and_then(|setting| match setting.kind {
        Some(v1::setting::Kind::DomainExemption(exemption)) => Some(v1::Exemption {
            rules: exemption.rules,
            until_ms: exemption.until_ms,
            actor: setting.actor,
            reason: setting.reason,
        }),
        _ => None,
    });
    Some((format!("@{domain}"), exemption.into_iter().collect()))
}

fn message(notification: &v1::Notification) -> Message {
    Message::new(Bytes::from(notification_key(notification)), Some(notification.encode_to_vec().into()))
}
