//! A channel: its lanes, which of them are due, and whether it can be reached.

use super::ChannelLimits;
use super::lane::Lane;
use std::collections::{BTreeSet, HashMap};
use tidegate_proto::v1;

/// Whom a lane is for. What is written for users is never mixed with what is written for administrators.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LaneKey {
    pub channel: String,
    pub recipient: String,
    pub is_user: bool,
}

#[derive(Debug)]
pub(crate) struct Channel {
    limits: ChannelLimits,
    lanes: HashMap<LaneKey, Lane>,
    due: BTreeSet<(i64, LaneKey)>,
    flying: usize,
    /// Attempts in a row that did not reach it.
    failures: u32,
    closed_until_ms: i64,
}

impl LaneKey {
    pub fn of(notification: &v1::Notification) -> Self {
        Self {
            channel: notification.channel.clone(),
            recipient: notification.recipient.clone(),
            is_user: notification.audience() == v1::Audience::User,
        }
    }
}

impl Channel {
    pub fn new(limits: ChannelLimits) -> Self {
        Self { limits, lanes: HashMap::new(), due: BTreeSet::new(), flying: 0, failures: 0, closed_until_ms: i64::MIN }
    }

    pub fn limits(&self) -> ChannelLimits {
        self.limits
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }

    pub fn lane(&mut self, key: &LaneKey, limits: ChannelLimits) -> &mut Lane {
        let window_ms = if key.is_user { 0 } else { limits.window_ms };
        self.lanes.entry(key.clone()).or_insert_with(|| Lane::new(window_ms, limits.max_per_hour))
    }

    pub fn peek(&self, key: &LaneKey) -> Option<&Lane> {
        self.lanes.get(key)
    }

    /// The lane that is due, while the channel takes messages.
    pub fn next_due(&mut self, now_ms: i64) -> Option<LaneKey> {
        if self.flying >= self.room() || self.closed_until_ms > now_ms {
            return None;
        }
        let (_, key) = self.due.first().filter(|(at_ms, _)| *at_ms <= now_ms)?;
        Some(key.clone())
    }

    pub fn next_ms(&self) -> Option<i64> {
        let (at_ms, _) = self.due.first()?;
        (self.flying < self.room()).then(|| (*at_ms).max(self.closed_until_ms))
    }

    pub fn launched(&mut self) {
        self.flying += 1;
    }

    pub fn released(&mut self) {
        self.flying -= 1;
    }

    /// An attempt has ended; `closed_ms`: the channel was not reached, and is left alone for so long.
    pub fn landed(&mut self, closed_ms: Option<i64>, now_ms: i64) {
        self.flying -= 1;
        match closed_ms {
            None => (self.failures, self.closed_until_ms) = (0, i64::MIN),
            Some(pause_ms) => {
                // Those that were on their way together fail together: that is one failure.
                if self.closed_until_ms <= now_ms {
                    self.failures = self.failures.saturating_add(1);
                    self.closed_until_ms = now_ms.saturating_add(pause_ms);
                }
            }
        }
    }

    /// Puts a lane where it belongs among those that are due.
    pub fn schedule<'a>(
        &mut self,
        key: &LaneKey,
        now_ms: i64,
        max_per_account_hour: usize,
        account: impl Fn(&str) -> Option<(&'a str, u64)>,
    ) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if let Some(at_ms) = lane.scheduled_ms.take() {
            self.due.remove(&(at_ms, key.clone()));
        }
        if let Some(at_ms) = lane.next_ms(now_ms, max_per_account_hour, account) {
            lane.scheduled_ms = Some(at_ms);
            self.due.insert((at_ms, key.clone()));
        }
    }

    /// Forgets lanes that have nothing to send and have sent nothing within the hour.
    pub fn forget_idle(&mut self, now_ms: i64) {
        self.lanes.retain(|_, lane| !lane.is_idle(now_ms));
    }

    /// One that was not reached is tried with one message.
    fn room(&self) -> usize {
        if self.failures > 0 { 1 } else { self.limits.concurrency }
    }
}
