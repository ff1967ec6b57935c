//! What is to be sent: which notifications go in one message, when, how often it is tried, and what came of it.
//!
//! Pure: time and chance are arguments, records to be committed and messages to be sent are results. Every notification
//! lies in the *lane* of its channel and recipient; a lane sends one message at a time, so that what one person gets is
//! in order. A channel that cannot be reached is closed for a while, and then tried with one message, not with all.

mod channel;
mod lane;
#[cfg(test)]
mod model;

use channel::{Channel, LaneKey};
use lane::{Current, Plan};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tidegate_proto::v1;
use tidegate_runtime::backoff;
use v1::NotificationStatus as Status;

/// Most notifications in one message.
pub(crate) const MAX_GROUP: usize = 1_000;
/// Longest error that a record keeps, in characters.
const MAX_ERROR_CHARACTERS: usize = 300;

/// Bounds of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChannelLimits {
    /// Messages on their way at a time.
    pub concurrency: usize,
    /// How long the first waits for others, in milliseconds; users' mail never does.
    pub window_ms: i64,
    /// Most messages to one recipient within an hour.
    pub max_per_hour: usize,
}

/// Bounds of all channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    pub max_age_ms: i64,
    pub max_attempts: u32,
    pub retry_first_ms: u64,
    pub retry_longest_ms: u64,
    pub max_per_account_hour: usize,
    pub channels: BTreeMap<String, ChannelLimits>,
}

/// A notification that is to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub partition: u32,
    pub notification: v1::Notification,
    channel: String,
    lane: LaneKey,
}

/// A message that is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Stays the same on a repeat: the notification's id, or one for exactly these many.
    pub id: String,
    /// Name of the channel.
    pub channel: String,
    /// To whom.
    pub recipient: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// What it tells of, the oldest first; never empty.
    pub notifications: Vec<v1::Notification>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken.
    Sent,
    /// It was refused for good.
    Refused(String),
    /// It was refused for now; perhaps the receiver said for how long.
    Busy(String, Option<Duration>),
    /// The channel did not answer, or refuses everybody: that says nothing about this message.
    Unreachable(String),
}

/// What follows from the time that has passed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Step {
    /// To be committed before anything is sent, each to its partition.
    pub records: Vec<(u32, v1::Notification)>,
    /// To be sent.
    pub deliveries: Vec<Delivery>,
}

/// All notifications that are to be sent by this process.
#[derive(Debug)]
pub(crate) struct Outbox {
    limits: Limits,
    items: HashMap<String, Item>,
    channels: BTreeMap<String, Channel>,
    /// Messages on their way.
    flying: HashMap<String, (String, LaneKey)>,
    /// Notifications for channels that are not configured.
    orphans: Vec<(u32, v1::Notification)>,
}

impl Outbox {
    pub fn new(limits: Limits) -> Self {
        let channels = limits.channels.iter().map(|(name, limits)| (name.clone(), Channel::new(*limits))).collect();
        Self { limits, channels, items: HashMap::new(), flying: HashMap::new(), orphans: Vec::new() }
    }

    /// How many notifications are to be sent.
    pub fn pending(&self) -> usize {
        self.items.len() + self.orphans.len()
    }

    /// How many of a channel's messages could not be delivered since one could.
    pub fn failures(&self) -> impl Iterator<Item = (&str, u32)> {
        self.channels.iter().map(|(name, channel)| (name.as_str(), channel.failures()))
    }

    /// Takes one record of the topic as it is read: at a take-over, or one that somebody else has written.
    pub fn restore(&mut self, partition: u32, notification: v1::Notification, now_ms: i64) {
        match notification.status() {
            Status::Pending => {
                if !self.is_current(&notification.id) {
                    // A later record of it says more: in which message it goes, how often it was tried.
                    self.drop_item(&notification.id, now_ms);
                }
                self.take(partition, notification, now_ms);
            }
            Status::Sent => {
                self.drop_item(&notification.id, now_ms);
                let mark = if notification.group_id.is_empty() { &notification.id } else { &notification.group_id };
                let lane = LaneKey::of(&notification);
                if let Some(channel) = self.channels.get_mut(&notification.channel) {
                    let limits = channel.limits();
                    let lane = channel.lane(&lane, limits);
                    lane.mark_sent(mark, [notification.account.as_str()], notification.time_ms);
                }
            }
            Status::Dead | Status::Suppressed => self.drop_item(&notification.id, now_ms),
            Status::Unspecified => {}
        }
    }

    /// Takes a notification that is committed as pending; one that is known already changes nothing.
    pub fn take(&mut self, partition: u32, notification: v1::Notification, now_ms: i64) {
        if self.items.contains_key(&notification.id) {
            return;
        }
        let Some(channel) = self.channels.get_mut(&notification.channel) else {
            self.orphans.push((partition, notification));
            return;
        };
        let key = LaneKey::of(&notification);
        let limits = channel.limits();
        channel.lane(&key, limits).add(&notification);
        let item = Item { partition, channel: notification.channel.clone(), lane: key.clone(), notification };
        self.items.insert(item.notification.id.clone(), item);
        self.reschedule(&key.channel.clone(), &key, now_ms);
    }

    /// What is due now.
    pub fn poll(&mut self, now_ms: i64) -> Step {
        let mut step = Step::default();
        for (partition, orphan) in std::mem::take(&mut self.orphans) {
            let why = format!("no channel {:?} is configured", orphan.channel);
            step.records.push((partition, ended(&orphan, Status::Dead, &why, now_ms)));
        }
        let names: Vec<String> = self.channels.keys().cloned().collect();
        for name in names {
            while let Some(key) = self.channels.get_mut(&name).and_then(|channel| channel.next_due(now_ms)) {
                self.launch(&name, &key, now_ms, &mut step);
            }
        }
        step
    }

    /// When there is something to do; none: not before an attempt has ended or a notification was taken.
    pub fn next_ms(&self) -> Option<i64> {
        if !self.orphans.is_empty() {
            return Some(i64::MIN);
        }
        self.channels.values().filter_map(Channel::next_ms).min()
    }

    /// An attempt has ended. Gives what is to be committed.
    pub fn finish(&mut self, id: &str, outcome: Outcome, now_ms: i64, random: f64) -> Vec<(u32, v1::Notification)> {
        let Some((name, key)) = self.flying.remove(id) else { return Vec::new() };
        let Some(channel) = self.channels.get_mut(&name) else { return Vec::new() };
        let unreachable = matches!(outcome, Outcome::Unreachable(_));
        channel.landed(unreachable.then(|| self.limits.pause_ms(channel.failures(), random)), now_ms);
        let limits = channel.limits();
        let lane = channel.lane(&key, limits);
        let Some(mut current) = lane.current.take() else { return Vec::new() };
        current.flying = false;
        current.tries += 1;
        current.attempts += u32::from(!unreachable);
        let oldest_ms =
            current.ids.iter().filter_map(|id| self.items.get(id)).map(|item| item.notification.due_ms).min();
        let is_too_old = oldest_ms.is_some_and(|due_ms| due_ms <= now_ms - self.limits.max_age_ms);
        let is_given_up = is_too_old || current.attempts >= self.limits.max_attempts;
        let attempts = current.attempts;
        let (status, why, after) = match outcome {
            Outcome::Sent => (Status::Sent, String::new(), None),
            Outcome::Refused(why) => (Status::Dead, why, None),
            Outcome::Busy(why, _) | Outcome::Unreachable(why) if is_given_up => (Status::Dead, why, None),
            Outcome::Busy(why, after) => (Status::Pending, why, after),
            Outcome::Unreachable(why) => (Status::Pending, why, None),
        };
        let mut records = Vec::new();
        if status == Status::Pending {
            let pause_ms = self.limits.pause_ms(current.tries - 1, random);
            let after_ms = after.map_or(0, |after| i64::try_from(after.as_millis()).unwrap_or(i64::MAX));
            let longest_ms = i64::try_from(self.limits.retry_longest_ms).unwrap_or(i64::MAX);
            current.retry_ms = now_ms.saturating_add(pause_ms.max(after_ms.min(longest_ms)));
            for id in &current.ids {
                if let Some(item) = self.items.get_mut(id) {
                    item.notification.attempts = attempts;
                    item.notification.error = crate::values::one_line(&why, MAX_ERROR_CHARACTERS);
                    // Seldom enough that a server that is away for long does not fill the log.
                    if !unreachable && attempts.is_power_of_two() {
                        let record = v1::Notification { time_ms: now_ms, ..item.notification.clone() };
                        records.push((item.partition, record));
                    }
                }
            }
            lane.current = Some(current);
        } else {
            let mut accounts = Vec::new();
            for id in &current.ids {
                let Some(mut item) = self.items.remove(id) else { continue };
                item.notification.attempts = attempts;
                accounts.push(item.notification.account.clone());
                records.push((item.partition, ended(&item.notification, status, &why, now_ms)));
            }
            if status == Status::Sent {
                lane.mark_sent(id, accounts.iter().map(String::as_str), now_ms);
            }
        }
        self.reschedule(&name, &key, now_ms);
        records
    }

    /// Messages that cannot go now after all: their records could not be committed. What is still here is tried anew.
    pub fn release(&mut self, id: &str, now_ms: i64) {
        let Some((name, key)) = self.flying.remove(id) else { return };
        if let Some(channel) = self.channels.get_mut(&name) {
            channel.released();
            let limits = channel.limits();
            let lane = channel.lane(&key, limits);
            if let Some(current) = &mut lane.current {
                current.flying = false;
                current.retry_ms = now_ms;
                if current.ids.is_empty() {
                    lane.current = None;
                }
            }
        }
        self.reschedule(&name, &key, now_ms);
    }

    /// Gives up what has waited too long, also behind a closed channel, and forgets lanes that nothing is known of.
    pub fn expire(&mut self, now_ms: i64) -> Vec<(u32, v1::Notification)> {
        let oldest_ms = now_ms - self.limits.max_age_ms;
        let is_flying = |item: &Item| self.current_of(item).is_some_and(|current| current.flying);
        let old = |item: &&Item| item.notification.due_ms <= oldest_ms && !is_flying(item);
        let old: Vec<String> = self.items.values().filter(old).map(|item| item.notification.id.clone()).collect();
        let mut records = Vec::new();
        for id in old {
            let Some(item) = self.items.get(&id) else { continue };
            let last = &item.notification.error;
            let why =
                format!("it waited longer than max_age_s{}{last}", if last.is_empty() { "" } else { "; at last: " });
            records.push((item.partition, ended(&item.notification, Status::Dead, &why, now_ms)));
            self.drop_item(&id, now_ms);
        }
        self.channels.values_mut().for_each(|channel| channel.forget_idle(now_ms));
        records
    }

    /// Forgets a partition that somebody else owns now.
    pub fn forget(&mut self, partition: u32, now_ms: i64) {
        self.orphans.retain(|(owned, _)| *owned != partition);
        let gone = self.items.values().filter(|item| item.partition == partition);
        for id in gone.map(|item| item.notification.id.clone()).collect::<Vec<_>>() {
            self.drop_item(&id, now_ms);
        }
    }

    /// Starts what a lane has to send, if it has.
    fn launch(&mut self, name: &str, key: &LaneKey, now_ms: i64, step: &mut Step) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        let limits = channel.limits();
        let lane = channel.lane(key, limits);
        if lane.current.is_none() {
            let account = |id: &str| {
                self.items.get(id).map(|item| (item.notification.account.as_str(), item.notification.version))
            };
            let Plan { ids, is_frozen, left_out } = lane.plan(now_ms, self.limits.max_per_account_hour, account);
            for id in left_out {
                if let Some(item) = self.items.remove(&id) {
                    let why =
                        "too many messages about the account within an hour; a newer one tells how it is".to_owned();
                    step.records.push((item.partition, ended(&item.notification, Status::Suppressed, &why, now_ms)));
                }
            }
            if !ids.is_empty() {
                let attempts =
                    ids.iter().filter_map(|id| self.items.get(id)).map(|item| item.notification.attempts).max();
                let attempts = attempts.unwrap_or(0);
                // Before a message goes it is written down what it tells of: a repeat is the same message, whatever
                // else has become due meanwhile.
                if !is_frozen {
                    let group = crate::identity::delivery_id(ids.iter().map(String::as_str));
                    for id in &ids {
                        if let Some(item) = self.items.get_mut(id) {
                            item.notification.group_id.clone_from(&group);
                            let record = v1::Notification { time_ms: now_ms, ..item.notification.clone() };
                            step.records.push((item.partition, record));
                        }
                    }
                }
                lane.current = Some(Current { ids, attempts, tries: attempts, retry_ms: now_ms, flying: false });
            }
        }
        if let Some(current) = lane.current.as_mut().filter(|current| !current.flying && current.retry_ms <= now_ms) {
            let mut notifications: Vec<v1::Notification> =
                current.ids.iter().filter_map(|id| self.items.get(id)).map(|item| item.notification.clone()).collect();
            notifications.sort_by(|a, b| {
                (a.due_ms, &a.account, a.version, &a.id).cmp(&(b.due_ms, &b.account, b.version, &b.id))
            });
            if notifications.is_empty() {
                lane.current = None;
            } else {
                current.flying = true;
                let id = crate::identity::delivery_id(current.ids.iter().map(String::as_str));
                let attempt = current.attempts + 1;
                channel.launched();
                self.flying.insert(id.clone(), (name.to_owned(), key.clone()));
                let recipient = key.recipient.clone();
                step.deliveries.push(Delivery { id, channel: name.to_owned(), recipient, attempt, notifications });
            }
        }
        self.reschedule(name, key, now_ms);
    }

    fn reschedule(&mut self, name: &str, key: &LaneKey, now_ms: i64) {
        if let Some(channel) = self.channels.get_mut(name) {
            let account = |id: &str| {
                self.items.get(id).map(|item| (item.notification.account.as_str(), item.notification.version))
            };
            channel.schedule(key, now_ms, self.limits.max_per_account_hour, account);
        }
    }

    fn is_current(&self, id: &str) -> bool {
        self.items.get(id).is_some_and(|item| self.current_of(item).is_some())
    }

    /// What is being sent, if the item is of it.
    fn current_of(&self, item: &Item) -> Option<&Current> {
        let lane = self.channels.get(&item.channel)?.peek(&item.lane)?;
        lane.current.as_ref().filter(|current| current.ids.contains(&item.notification.id))
    }

    fn drop_item(&mut self, id: &str, now_ms: i64) {
        let Some(item) = self.items.remove(id) else { return };
        if let Some(channel) = self.channels.get_mut(&item.channel) {
            let limits = channel.limits();
            channel.lane(&item.lane, limits).remove(&item.notification);
        }
        self.reschedule(&item.channel, &item.lane, now_ms);
    }
}

impl Limits {
    /// The pause after so many failures.
    fn pause_ms(&self, failures: u32, random: f64) -> i64 {
        let (first, longest) =
            (Duration::from_millis(self.retry_first_ms), Duration::from_millis(self.retry_longest_ms));
        i64::try_from(backoff::pause(first, longest, failures, random).as_millis()).unwrap_or(i64::MAX)
    }
}

/// The record of how it ended. Only one that can be retried keeps all that it tells of.
fn ended(notification: &v1::Notification, status: Status, why: &str, now_ms: i64) -> v1::Notification {
    let mut record = v1::Notification {
        status: status.into(),
        error: crate::values::one_line(why, MAX_ERROR_CHARACTERS),
        time_ms: now_ms,
        ..notification.clone()
    };
    if status != Status::Dead {
        record.lock = None;
    }
    record
}
