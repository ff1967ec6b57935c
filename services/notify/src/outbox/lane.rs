//! A lane: what waits for one recipient, what is being sent, and what was sent within the hour.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use tidegate_proto::v1;

const HOUR_MS: i64 = 3_600_000;

#[derive(Debug)]
pub(crate) struct Lane {
    window_ms: i64,
    max_per_hour: usize,
    /// By when they became due.
    waiting: BTreeSet<(i64, String)>,
    /// Those that were to be told of in one message before a restart, by its id.
    frozen: BTreeMap<String, BTreeSet<String>>,
    /// What is being sent, or will be tried again.
    pub current: Option<Current>,
    /// Messages within the hour.
    sent: VecDeque<SentMark>,
    /// Where it stands among the channel's lanes that are due.
    pub scheduled_ms: Option<i64>,
}

/// Notifications that go in one message.
#[derive(Debug)]
pub(crate) struct Current {
    pub ids: Vec<String>,
    /// Attempts that the receiver answered.
    pub attempts: u32,
    /// All attempts, for the pause.
    pub tries: u32,
    pub retry_ms: i64,
    pub flying: bool,
}

#[derive(Debug)]
struct SentMark {
    at_ms: i64,
    message: String,
    accounts: BTreeSet<String>,
}

/// What goes next.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Go in one message; none: nothing goes now.
    pub ids: Vec<String>,
    /// Whether it is written down that they go together.
    pub is_frozen: bool,
    /// Are not told at all.
    pub left_out: Vec<String>,
}

impl Lane {
    pub fn new(window_ms: i64, max_per_hour: usize) -> Self {
        Self {
            window_ms,
            max_per_hour,
            waiting: BTreeSet::new(),
            frozen: BTreeMap::new(),
            current: None,
            sent: VecDeque::new(),
            scheduled_ms: None,
        }
    }

    pub fn add(&mut self, notification: &v1::Notification) {
        if notification.group_id.is_empty() {
            self.waiting.insert((notification.due_ms, notification.id.clone()));
        } else {
            self.frozen.entry(notification.group_id.clone()).or_default().insert(notification.id.clone());
        }
    }

    pub fn remove(&mut self, notification: &v1::Notification) {
        self.waiting.remove(&(notification.due_ms, notification.id.clone()));
        if let Some(group) = self.frozen.get_mut(&notification.group_id) {
            group.remove(&notification.id);
            if group.is_empty() {
                self.frozen.remove(&notification.group_id);
            }
        }
        if let Some(current) = &mut self.current {
            current.ids.retain(|id| *id != notification.id);
            if current.ids.is_empty() && !current.flying {
                self.current = None;
            }
        }
    }

    /// A message about these accounts was sent; a second mark of the same message adds its accounts.
    pub fn mark_sent<'a>(&mut self, message: &str, accounts: impl IntoIterator<Item = &'a str>, at_ms: i64) {
        let accounts = accounts.into_iter().map(ToOwned::to_owned);
        if let Some(mark) = self.sent.iter_mut().rev().find(|mark| mark.message == message) {
            mark.accounts.extend(accounts);
            return;
        }
        self.sent.push_back(SentMark { at_ms, message: message.to_owned(), accounts: accounts.collect() });
        // What is older than the bound counts needs not be kept.
        while self.sent.len() > self.max_per_hour.max(1_000) {
            self.sent.pop_front();
        }
    }

    /// When it has something to do; none: not before something else happens.
    pub fn next_ms<'a>(
        &mut self,
        now_ms: i64,
        max_per_account_hour: usize,
        account: impl Fn(&str) -> Option<(&'a str, u64)>,
    ) -> Option<i64> {
        if let Some(current) = &self.current {
            return (!current.flying).then_some(current.retry_ms);
        }
        if !self.frozen.is_empty() {
            return Some(i64::MIN);
        }
        let opens_ms = self.opens_ms(now_ms)?;
        if opens_ms > now_ms {
            return Some(opens_ms);
        }
        let mut room_ms = i64::MAX;
        for (about, ids) in self.by_account(&account) {
            match self.account_room_ms(about, now_ms, max_per_account_hour) {
                None => return Some(opens_ms),
                // The older ones are to be left out.
                Some(_) if ids.len() > 1 => return Some(opens_ms),
                Some(at_ms) => room_ms = room_ms.min(at_ms),
            }
        }
        Some(room_ms)
    }

    /// Takes out what goes in the next message.
    pub fn plan<'a>(
        &mut self,
        now_ms: i64,
        max_per_account_hour: usize,
        account: impl Fn(&str) -> Option<(&'a str, u64)>,
    ) -> Plan {
        if let Some((_, group)) = self.frozen.pop_first() {
            return Plan { ids: group.into_iter().collect(), is_frozen: true, left_out: Vec::new() };
        }
        if self.opens_ms(now_ms).is_none_or(|opens_ms| opens_ms > now_ms) {
            return Plan::default();
        }
        let (mut may_go, mut left_out) = (BTreeSet::new(), Vec::new());
        for (about, ids) in self.by_account(&account) {
            if self.account_room_ms(about, now_ms, max_per_account_hour).is_none() {
                may_go.extend(ids);
            } else {
                // Only the newest waits on.
                left_out.extend(ids.into_iter().rev().skip(1));
            }
        }
        let goes = |id: &String| may_go.contains(id);
        let chosen: BTreeSet<(i64, String)> =
            self.waiting.iter().filter(|(_, id)| goes(id)).take(super::MAX_GROUP).cloned().collect();
        self.waiting.retain(|(_, id)| !left_out.contains(id));
        self.waiting.retain(|one| !chosen.contains(one));
        Plan { ids: chosen.into_iter().map(|(_, id)| id).collect(), is_frozen: false, left_out }
    }

    pub fn is_idle(&self, now_ms: i64) -> bool {
        let sent_lately = self.sent.back().is_some_and(|mark| mark.at_ms > now_ms - HOUR_MS);
        self.current.is_none() && self.waiting.is_empty() && self.frozen.is_empty() && !sent_lately
    }

    /// When what waits may go: the window has passed, and the recipient has not had too many messages.
    fn opens_ms(&mut self, now_ms: i64) -> Option<i64> {
        let (first_ms, _) = self.waiting.first()?;
        let opens_ms = first_ms.saturating_add(self.window_ms);
        while self.sent.front().is_some_and(|mark| mark.at_ms <= now_ms - HOUR_MS) {
            self.sent.pop_front();
        }
        let over = self.sent.len().checked_sub(self.max_per_hour);
        let room_ms = over.and_then(|over| self.sent.get(over)).map(|mark| mark.at_ms + HOUR_MS);
        Some(room_ms.map_or(opens_ms, |room_ms| room_ms.max(opens_ms)))
    }

    /// What waits, by account, the newest version last.
    fn by_account<'a>(&self, account: &impl Fn(&str) -> Option<(&'a str, u64)>) -> Vec<(&'a str, Vec<String>)> {
        let mut found: HashMap<&str, Vec<(u64, String)>> = HashMap::new();
        for (_, id) in &self.waiting {
            if let Some((about, version)) = account(id) {
                found.entry(about).or_default().push((version, id.clone()));
            }
        }
        let newest_last = |(about, mut ids): (&'a str, Vec<(u64, String)>)| {
            ids.sort_unstable();
            (about, ids.into_iter().map(|(_, id)| id).collect())
        };
        found.into_iter().map(newest_last).collect()
    }

    /// When the recipient may be told of the account again; none: now.
    fn account_room_ms(&self, account: &str, now_ms: i64, max_per_account_hour: usize) -> Option<i64> {
        let within = |mark: &&SentMark| mark.at_ms > now_ms - HOUR_MS && mark.accounts.contains(account);
        let marks: Vec<i64> = self.sent.iter().filter(within).map(|mark| mark.at_ms).collect();
        let over = marks.len().checked_sub(max_per_account_hour)?;
        marks.get(over).map(|at_ms| at_ms + HOUR_MS)
    }
}
