//! The loop: reads states, commits what is due, sends it, commits what came of it.

use crate::channels::Channels;
use crate::config::NotifyConfig;
use crate::contacts::ContactsFile;
use crate::metrics::{ChannelLabel, Metrics};
use crate::outbox::{Delivery, Outbox, Outcome};
use crate::reminders::Reminders;
use crate::routing::{Router, Told};
use crate::service::NotifyError;
use crate::sharing::{Taken, TakingOver};
use crate::smtp::chain;
use crate::take_over::{MAX_COMMIT, Owned, decode, domain_exemption};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_bus::{Batch, Bus, BusError, Membership, ReadFrom, Reader, Record, Topic, partition_of};
use tidegate_proto::v1;
use tidegate_runtime::Health;
use tidegate_runtime::backoff::Backoff;
use tidegate_runtime::shutdown::CancellationToken;
use tokio::task::{JoinError, JoinSet};

/// How long a passing fault of the log is waited out, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How often what is done now and then is done.
const TICK: Duration = Duration::from_secs(1);
/// How long messages that are on their way at the end may take.
const LAST_MESSAGES: Duration = Duration::from_secs(4);
/// Name of this service in readiness reports.
pub(crate) const PART: &str = "notify";

/// Tells the time, in milliseconds since 1970 UTC.
pub(crate) type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

pub(crate) struct Worker {
    pub bus: Arc<dyn Bus>,
    pub config: Arc<NotifyConfig>,
    pub channels: Channels,
    pub contacts: ContactsFile,
    pub metrics: Metrics,
    pub health: Health,
    pub clock: Clock,
    pub membership: Box<dyn Membership>,
    pub wanted: BTreeSet<u32>,
    pub partitions: BTreeMap<u32, Owned>,
    pub taking_over: TakingOver,
    pub outbox: Outbox,
    pub told: Told,
    pub reminders: Reminders,
    /// Read, and not yet taken.
    pub backlog: VecDeque<Record>,
    /// Where to read on when the backlog is taken.
    pub backlog_next: Vec<ReadFrom>,
    pub sending: JoinSet<(String, Outcome)>,
    /// Which message each task sends, for one that ends without a word.
    pub tasks: HashMap<tokio::task::Id, (String, String, Instant)>,
    pub is_full: bool,
}

/// What the loop waits for.
enum Next {
    Wanted(Result<BTreeSet<u32>, BusError>),
    Taken(Box<Result<Taken, JoinError>>),
    Landed(Result<(tokio::task::Id, (String, Outcome)), JoinError>),
    Batch(Result<Batch, BusError>),
    Tick,
    Due,
}

impl Worker {
    /// Works until `shutdown`, then waits a little for messages that are on their way.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), NotifyError> {
        let result = self.work(&shutdown).await;
        let last = tokio::time::timeout(LAST_MESSAGES, async {
            while let Some(landed) = self.sending.join_next_with_id().await {
                self.landed(landed, &shutdown).await;
            }
        });
        drop(last.await);
        for number in self.partitions.keys().copied().collect::<Vec<_>>() {
            self.commit_position(number, &shutdown).await;
        }
        result
    }

    async fn work(&mut self, shutdown: &CancellationToken) -> Result<(), NotifyError> {
        let mut reader: Option<Box<dyn Reader>> = None;
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if reader.is_none() && !self.partitions.is_empty() {
                self.backlog.clear();
                self.backlog_next.clear();
                match self.bus.read(&self.positions()).await {
                    Ok(opened) => reader = Some(opened),
                    Err(error) => fault("reading", &error, &mut backoff, shutdown).await,
                }
            }
            let lost_one = self.take_backlog(shutdown).await | self.send_due(shutdown).await;
            if lost_one {
                reader = None;
            }
            if shutdown.is_cancelled() {
                return Ok(());
            }
            let (wait, may_read) = (self.until_due(), self.has_room() && self.backlog.is_empty());
            let next = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                wanted = self.membership.next() => Next::Wanted(wanted),
                Some(taken) = self.taking_over.tasks.join_next() => Next::Taken(Box::new(taken)),
                Some(landed) = self.sending.join_next_with_id() => Next::Landed(landed),
                batch = read(&mut reader), if may_read => Next::Batch(batch),
                _ = tick.tick() => Next::Tick,
                () = tokio::time::sleep(wait) => Next::Due,
            };
            match next {
                Next::Wanted(Ok(wanted)) => {
                    self.share(wanted, shutdown).await;
                    reader = None;
                }
                Next::Wanted(Err(source)) => return Err(NotifyError::Membership { source }),
                Next::Taken(taken) => {
                    if self.taken_over(*taken) {
                        reader = None;
                    }
                }
                Next::Landed(landed) => {
                    if self.landed(landed, shutdown).await {
                        reader = None;
                    }
                }
                Next::Batch(Ok(batch)) => {
                    backoff.reset();
                    self.metrics.skipped.inc_by(batch.damaged);
                    self.backlog.extend(batch.records);
                    self.backlog_next = batch.next;
                }
                Next::Batch(Err(error)) => {
                    reader = None;
                    fault("reading", &error, &mut backoff, shutdown).await;
                }
                Next::Tick => {
                    if self.now_and_then(shutdown).await {
                        reader = None;
                    }
                }
                // The loop begins with it.
                Next::Due => {}
            }
        }
    }

    /// Takes what was read as far as there is room, and commits what is due with the position. Gives whether a partition
    /// was lost.
    async fn take_backlog(&mut self, shutdown: &CancellationToken) -> bool {
        let now_ms = (self.clock)();
        let mut lost = false;
        let mut due: BTreeMap<u32, Vec<v1::Notification>> = BTreeMap::new();
        let mut count = 0;
        while self.outbox.pending() + count < self.config.max_pending
            && let Some(record) = self.backlog.pop_front()
        {
            let Some(owned) = self.partitions.get_mut(&record.partition) else { continue };
            match record.topic {
                Topic::Accounts => {
                    (owned.accounts_next, owned.moved) = (record.offset + 1, true);
                    let found = self.observe(&record, now_ms);
                    count += found.len();
                    due.entry(record.partition).or_default().extend(found);
                }
                Topic::Notifications => {
                    owned.notifications_next = record.offset + 1;
                    if !owned.own.remove(&record.offset) {
                        self.take_foreign(&record, now_ms);
                    }
                }
                Topic::Settings => {
                    owned.settings_next = record.offset + 1;
                    if let Some((subject, exemptions)) = domain_exemption(&record) {
                        self.reminders.observe(record.partition, &subject, 0, &exemptions);
                    }
                }
                Topic::Events | Topic::Commands | Topic::Audit | Topic::Rules | Topic::Inspections => {}
            }
            // A state's notifications are committed together, or a part of them would never be told.
            if due.get(&record.partition).is_some_and(|records| records.len() >= MAX_COMMIT) {
                let records = due.remove(&record.partition).unwrap_or_default();
                lost |= !self.commit_due(record.partition, records, shutdown).await;
            }
        }
        if self.backlog.is_empty() {
            for at in std::mem::take(&mut self.backlog_next) {
                let Some(owned) = self.partitions.get_mut(&at.partition) else { continue };
                match at.topic {
                    Topic::Accounts => (owned.accounts_next, owned.moved) = (at.offset, true),
                    Topic::Notifications => owned.notifications_next = at.offset,
                    Topic::Settings => owned.settings_next = at.offset,
                    Topic::Events | Topic::Commands | Topic::Audit | Topic::Rules | Topic::Inspections => {}
                }
            }
        }
        for (partition, records) in due.into_iter().filter(|(_, records)| !records.is_empty()) {
            lost |= !self.commit_due(partition, records, shutdown).await;
        }
        let is_full = !self.has_room();
        if is_full && !self.is_full {
            self.metrics.reading_paused.inc();
            tracing::warn!(pending = self.outbox.pending(), "reading accounts waits: too much is to be sent");
        }
        self.is_full = is_full;
        lost
    }

    /// What a state makes due.
    fn observe(&mut self, record: &Record, now_ms: i64) -> Vec<v1::Notification> {
        let Some(value) = record.value.clone() else {
            self.reminders.observe(record.partition, &String::from_utf8_lossy(&record.key), 0, &[]);
            return Vec::new();
        };
        let Ok(state) = v1::AccountState::decode(value) else {
            self.metrics.skipped.inc();
            return Vec::new();
        };
        if state.account.as_bytes() != record.key.as_ref() {
            // What comes of it would belong to another partition.
            self.metrics.skipped.inc();
            return Vec::new();
        }
        self.reminders.observe(record.partition, &state.account, state.version, &state.exemptions);
        let router = Router { config: &self.config, contacts: &self.contacts.contacts };
        let due = router.due(&state, self.told.version(&state.account), now_ms);
        if let Some(last) = state.timeline.iter().max_by_key(|milestone| milestone.version) {
            self.told.note(&state.account, last.version, last.at_ms.max(now_ms));
        }
        due
    }

    /// Somebody else has written a record: one of the dead is to be sent once more.
    fn take_foreign(&mut self, record: &Record, now_ms: i64) {
        match decode(record) {
            Some(notification) if notification.status() == v1::NotificationStatus::Pending => {
                tracing::info!(id = notification.id, account = notification.account, "to be sent once more");
                self.outbox.restore(record.partition, notification, now_ms);
            }
            Some(_) => {}
            None => drop(self.metrics.skipped.inc()),
        }
    }

    /// Commits what is due, with the position; then it is to be sent. Gives false when the partition was lost.
    async fn commit_due(
        &mut self,
        partition: u32,
        records: Vec<v1::Notification>,
        shutdown: &CancellationToken,
    ) -> bool {
        if !self.commit(partition, records.clone(), true, shutdown).await {
            return false;
        }
        let now_ms = (self.clock)();
        for record in records {
            self.outbox.take(partition, record, now_ms);
        }
        true
    }

    /// Starts what is due. Gives whether a partition was lost.
    async fn send_due(&mut self, shutdown: &CancellationToken) -> bool {
        // What was to go in one message before a restart can lie in several partitions.
        if !self.taking_over.numbers.is_empty() {
            return false;
        }
        let now_ms = (self.clock)();
        let step = self.outbox.poll(now_ms);
        let lost = self.commit_by_partition(step.records, shutdown).await;
        for delivery in step.deliveries {
            let is_lost = |one: &v1::Notification| lost.contains(&self.partition_of(one));
            if shutdown.is_cancelled() || delivery.notifications.iter().any(is_lost) {
                self.outbox.release(&delivery.id, now_ms);
            } else {
                self.send(delivery);
            }
        }
        self.metrics.pending.set(i64::try_from(self.outbox.pending()).unwrap_or(i64::MAX));
        !lost.is_empty()
    }

    fn send(&mut self, delivery: Delivery) {
        let language =
            delivery.notifications.first().and_then(|first| self.contacts.contacts.language_of(&first.account));
        let (channels, language) = (self.channels.clone(), language.map(ToOwned::to_owned));
        let (id, channel) = (delivery.id.clone(), delivery.channel.clone());
        let task = self.sending.spawn(async move {
            let outcome = channels.send(&delivery, language).await;
            (delivery.id, outcome)
        });
        self.tasks.insert(task.id(), (id, channel, Instant::now()));
    }

    /// An attempt has ended, and perhaps others with it. Gives whether a partition was lost.
    async fn landed(
        &mut self,
        first: Result<(tokio::task::Id, (String, Outcome)), JoinError>,
        shutdown: &CancellationToken,
    ) -> bool {
        let mut landed = vec![first];
        while let Some(next) = self.sending.try_join_next_with_id() {
            landed.push(next);
        }
        let mut records = Vec::new();
        for one in landed {
            let task = one.as_ref().map_or_else(JoinError::id, |(task, _)| *task);
            let Some((id, channel, began)) = self.tasks.remove(&task) else { continue };
            let outcome = match one {
                Ok((_, (_, outcome))) => outcome,
                Err(error) => Outcome::Busy(format!("sending failed: {error}"), None),
            };
            self.metrics.send_seconds.observe(began.elapsed().as_secs_f64());
            let (result, why) = match &outcome {
                Outcome::Sent => ("sent", ""),
                Outcome::Refused(why) => ("refused", why.as_str()),
                Outcome::Busy(why, _) => ("busy", why.as_str()),
                Outcome::Unreachable(why) => ("unreachable", why.as_str()),
            };
            self.metrics.tried(&channel, result);
            if why.is_empty() {
                tracing::info!(id, channel, "sent");
            } else {
                tracing::warn!(id, channel, result, why, "could not be sent");
            }
            records.extend(self.outbox.finish(&id, outcome, (self.clock)(), rand::random()));
        }
        for (channel, failures) in self.outbox.failures() {
            self.metrics.failures.get_or_create(&ChannelLabel { channel: channel.to_owned() }).set(i64::from(failures));
        }
        !self.commit_by_partition(records, shutdown).await.is_empty()
    }

    /// What is done now and then. Gives whether a partition was lost.
    async fn now_and_then(&mut self, shutdown: &CancellationToken) -> bool {
        let now_ms = (self.clock)();
        self.contacts.reload();
        self.told.forget_before(now_ms.saturating_sub(self.config.max_age_ms()));
        self.reminders.forget_told_before(crate::routing::told_since_ms(&self.config, now_ms));
        self.take_over_missing();
        let expired = self.outbox.expire(now_ms);
        let mut lost = !self.commit_by_partition(expired, shutdown).await.is_empty();
        if self.has_room() {
            lost |= self.remind(now_ms, shutdown).await;
        }
        for number in self.partitions.keys().copied().collect::<Vec<_>>() {
            lost |= !self.commit_position(number, shutdown).await;
        }
        lost
    }

    /// Makes reminders due whose time has come.
    async fn remind(&mut self, now_ms: i64, shutdown: &CancellationToken) -> bool {
        let router = Router { config: &self.config, contacts: &self.contacts.contacts };
        let mut due: BTreeMap<u32, Vec<v1::Notification>> = BTreeMap::new();
        for reminder in self.reminders.take_due(now_ms) {
            let all = router.reminders(&reminder.subject, reminder.version, &reminder.exemption, now_ms);
            due.entry(reminder.partition)
                .or_default()
                .extend(all.into_iter().filter(|one| !self.reminders.is_told(&one.id)));
        }
        let mut lost = false;
        for (partition, records) in due.into_iter().filter(|(_, records)| !records.is_empty()) {
            for one in &records {
                self.reminders.note_told(&one.id, now_ms);
            }
            lost |= !self.commit_due(partition, records, shutdown).await;
        }
        lost
    }

    pub async fn commit_position(&mut self, number: u32, shutdown: &CancellationToken) -> bool {
        let moved = self.partitions.get(&number).is_some_and(|owned| owned.moved);
        !moved || self.commit(number, Vec::new(), true, shutdown).await
    }

    /// Commits records to their partitions. Gives the partitions that were lost.
    async fn commit_by_partition(
        &mut self,
        records: Vec<(u32, v1::Notification)>,
        shutdown: &CancellationToken,
    ) -> BTreeSet<u32> {
        let mut by_partition: BTreeMap<u32, Vec<v1::Notification>> = BTreeMap::new();
        for (partition, record) in records {
            by_partition.entry(partition).or_default().push(record);
        }
        let mut lost = BTreeSet::new();
        for (partition, records) in by_partition {
            if !self.commit(partition, records, false, shutdown).await {
                lost.insert(partition);
            }
        }
        lost
    }

    /// Commits, waiting out faults. Gives false when somebody else owns the partition now, or this process ends.
    async fn commit(
        &mut self,
        partition: u32,
        records: Vec<v1::Notification>,
        with_position: bool,
        shutdown: &CancellationToken,
    ) -> bool {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let Some(owned) = self.partitions.get_mut(&partition) else { return false };
            let position = with_position.then_some(owned.accounts_next);
            match owned.commit_all(records.clone(), position).await {
                Ok(()) => {
                    owned.moved &= !with_position;
                    for record in &records {
                        self.metrics.count(record);
                    }
                    return true;
                }
                Err(BusError::Fenced { .. }) => {
                    tracing::warn!(partition, "somebody else sends the partition's notifications now");
                    self.lose(partition);
                    return false;
                }
                Err(error) => {
                    self.metrics.commit_failures.inc();
                    if shutdown.is_cancelled() {
                        return false;
                    }
                    fault("committing", &error, &mut backoff, shutdown).await;
                }
            }
        }
    }

    fn partition_of(&self, notification: &v1::Notification) -> u32 {
        partition_of(tidegate_proto::notification_key(notification).as_bytes(), self.bus.partitions())
    }

    fn has_room(&self) -> bool {
        self.outbox.pending() < self.config.max_pending
    }

    /// How long nothing is due.
    fn until_due(&self) -> Duration {
        let next_ms = if self.taking_over.numbers.is_empty() { self.outbox.next_ms() } else { None };
        let wait_ms = next_ms.map_or(1_000, |next_ms| next_ms.saturating_sub((self.clock)()).clamp(0, 1_000));
        Duration::from_millis(wait_ms.unsigned_abs())
    }

    fn positions(&self) -> Vec<ReadFrom> {
        let each = self.partitions.iter().flat_map(|(&partition, owned)| {
            let at = |topic, offset| ReadFrom { topic, partition, offset };
            [
                at(Topic::Accounts, owned.accounts_next),
                at(Topic::Notifications, owned.notifications_next),
                at(Topic::Settings, owned.settings_next),
            ]
        });
        each.collect()
    }
}

/// The next batch; never without a reader.
async fn read(reader: &mut Option<Box<dyn Reader>>) -> Result<Batch, BusError> {
    match reader {
        Some(reader) => reader.next(TICK).await,
        None => std::future::pending().await,
    }
}

/// Waits out a passing fault of the log, longer each time.
async fn fault(doing: &str, error: &BusError, backoff: &mut Backoff, shutdown: &CancellationToken) {
    let (error, pause) = (chain(error), backoff.pause());
    tracing::warn!(%error, retry_ms = pause.as_millis(), "{doing} failed; trying again");
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = tokio::time::sleep(pause) => {}
    }
}
