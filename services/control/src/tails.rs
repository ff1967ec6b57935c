//! The newest records of topics that nobody keeps whole: the audit, notifications, and inspections that are waited for.

use crate::metrics::{Metrics, TopicLabel};
use crate::waiters::Waiters;
use parking_lot::RwLock;
use prost::Message as _;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tidegate_bus::{Batch, Bus, BusError, ReadFrom, Record, Topic};
use tidegate_proto::v1;
use tidegate_runtime::backoff::Backoff;
use tidegate_runtime::error_line;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Most octets of records that one tail keeps.
const MAX_OCTETS: usize = 128 << 20;
/// How many notifications are kept at hand.
const NOTIFICATIONS: usize = 20_000;
/// How long one read waits when nothing comes.
const READ_WAIT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The newest records of each such topic.
pub(crate) struct Tails {
    /// Who asked what.
    pub audit: Tail<v1::AuditRecord>,
    /// Who was told what; of each notification how far it is.
    pub notifications: Tail<v1::Notification>,
    /// Those who wait for an account's statistics.
    pub inspections: Arc<Waiters<v1::Inspection>>,
}

/// The newest records of one topic, by time; of each id the last one.
pub(crate) struct Tail<T> {
    records: RwLock<Records<T>>,
    most: usize,
    added: broadcast::Sender<Arc<T>>,
}

struct Records<T> {
    by_time: BTreeMap<Key, Kept<T>>,
    times: HashMap<String, i64>,
    octets: usize,
}

/// Where a record stands: its time and its id.
pub(crate) type Key = (i64, String);

struct Kept<T> {
    record: Arc<T>,
    octets: usize,
}

impl Tails {
    /// Keeps nothing yet, and of the audit at most `audit_records`.
    pub fn new(audit_records: usize, watch_buffer: usize) -> Self {
        Self {
            audit: Tail::new(audit_records, watch_buffer),
            notifications: Tail::new(NOTIFICATIONS, 1),
            inspections: Arc::default(),
        }
    }

    /// Follows the topics until `shutdown`; a log that fails is tried again for ever.
    pub async fn run(self: Arc<Self>, bus: Arc<dyn Bus>, metrics: Metrics, shutdown: CancellationToken) {
        let mut next = BTreeMap::new();
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let failed = tokio::select! {
                () = shutdown.cancelled() => return,
                failed = self.follow(&*bus, &mut next, &metrics, &mut backoff) => failed,
            };
            metrics.feed_failures.inc();
            tracing::warn!(error = error_line(&failed), "following the audit failed; trying again");
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
    }

    /// Reads on until it fails.
    async fn follow(
        &self,
        bus: &dyn Bus,
        next: &mut BTreeMap<(Topic, u32), u64>,
        metrics: &Metrics,
        backoff: &mut Backoff,
    ) -> BusError {
        let opened = async {
            if next.is_empty() {
                *next = self.beginnings(bus).await?;
            }
            let from = next.iter().map(|(&(topic, partition), &offset)| ReadFrom { topic, partition, offset });
            bus.read(&from.collect::<Vec<_>>()).await
        };
        let mut reader = match opened.await {
            Ok(reader) => reader,
            Err(error) => return error,
        };
        loop {
            match reader.next(READ_WAIT).await {
                Ok(batch) => {
                    backoff.reset();
                    for at in &batch.next {
                        next.insert((at.topic, at.partition), at.offset);
                    }
                    self.take(batch, metrics);
                }
                Err(error) => return error,
            }
        }
    }

    /// Where to begin, so that as much is read as is kept.
    async fn beginnings(&self, bus: &dyn Bus) -> Result<BTreeMap<(Topic, u32), u64>, BusError> {
        let mut next = BTreeMap::new();
        for (topic, most) in
            [(Topic::Audit, self.audit.most), (Topic::Notifications, self.notifications.most), (Topic::Inspections, 0)]
        {
            for partition in 0..bus.partitions() {
                let bounds = bus.bounds(topic, partition).await?;
                next.insert((topic, partition), bounds.first.max(bounds.next.saturating_sub(most as u64)));
            }
        }
        Ok(next)
    }

    fn take(&self, batch: Batch, metrics: &Metrics) {
        for record in batch.records {
            let Some(value) = &record.value else { continue };
            let octets = value.len();
            let decoded = match record.topic {
                Topic::Audit => v1::AuditRecord::decode(&**value)
                    .map(|record| self.audit.add((record.time_ms, record.id.clone()), record, octets)),
                Topic::Notifications => v1::Notification::decode(&**value)
                    .map(|record| self.notifications.add((record.time_ms, record.id.clone()), record, octets)),
                Topic::Inspections => v1::Inspection::decode(&**value).map(|inspection| {
                    let id = inspection.command_id.clone();
                    self.inspections.tell(&id, || inspection);
                }),
                _ => continue,
            };
            if let Err(error) = decoded {
                skip(&record, &error, metrics);
            }
        }
    }
}

fn skip(record: &Record, error: &prost::DecodeError, metrics: &Metrics) {
    let topic = record.topic.suffix();
    metrics.records_skipped.get_or_create(&TopicLabel { topic }).inc();
    let (partition, offset) = (record.partition, record.offset);
    tracing::warn!(topic, partition, offset, %error, "skipped a record that does not decode");
}

impl<T> Tail<T> {
    fn new(most: usize, watch_buffer: usize) -> Self {
        let records = Records { by_time: BTreeMap::new(), times: HashMap::new(), octets: 0 };
        Self { records: RwLock::new(records), most, added: broadcast::Sender::new(watch_buffer) }
    }

    /// Adds a record of so many octets, in place of an earlier one with its id; the oldest make room.
    fn add(&self, key: Key, record: T, octets: usize) {
        let record = Arc::new(record);
        let mut records = self.records.write();
        if let Some(time_ms) = records.times.insert(key.1.clone(), key.0)
            && let Some(replaced) = records.by_time.remove(&(time_ms, key.1.clone()))
        {
            records.octets -= replaced.octets;
        }
        records.octets += octets;
        records.by_time.insert(key, Kept { record: Arc::clone(&record), octets });
        while (records.by_time.len() > self.most || records.octets > MAX_OCTETS)
            && let Some(((_, id), oldest)) = records.by_time.pop_first()
        {
            records.octets -= oldest.octets;
            records.times.remove(&id);
        }
        drop(records);
        // Nobody may listen.
        let _ = self.added.send(record);
    }

    /// At most `most` records that `matches`, the newest first, from before `before` on.
    pub fn newest(&self, before: Option<&Key>, most: usize, matches: impl Fn(&T) -> bool) -> Vec<(Key, Arc<T>)> {
        let records = self.records.read();
        let older = match before {
            Some(before) => records.by_time.range(..before.clone()),
            None => records.by_time.range::<Key, _>(..),
        };
        let matching = older.rev().filter(|(_, kept)| matches(&kept.record));
        matching.take(most).map(|(key, kept)| (key.clone(), Arc::clone(&kept.record))).collect()
    }

    /// The time of the oldest record; none: there is no record.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.records.read().by_time.first_key_value().map(|((time_ms, _), _)| *time_ms)
    }

    /// Every record from now on; who falls too far behind is told so.
    pub fn added(&self) -> broadcast::Receiver<Arc<T>> {
        self.added.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a plain list: of each id the last record, the newest by time, at most so many.
        #[test]
        fn a_tail_keeps_the_newest(added in proptest::collection::vec((0u8..8, 0i64..20), 0..40), most in 1usize..6) {
            let tail = Tail::new(most, 1);
            let mut model: Vec<(i64, String)> = Vec::new();
            for (n, (id, time_ms)) in added.into_iter().enumerate() {
                let key = (time_ms, format!("{id}"));
                tail.add(key.clone(), n, 10);
                model.retain(|(_, known)| *known != key.1);
                model.push(key);
                model.sort();
                let excess = model.len().saturating_sub(most);
                model.drain(..excess);
                let kept: Vec<Key> = tail.newest(None, 100, |_| true).into_iter().map(|(key, _)| key).collect();
                prop_assert_eq!(kept, model.iter().rev().cloned().collect::<Vec<_>>());
                prop_assert_eq!(tail.oldest_ms(), model.first().map(|key| key.0));
                prop_assert_eq!(tail.records.read().octets, model.len() * 10);
                prop_assert_eq!(tail.records.read().times.len(), model.len());
            }
            if let Some(middle) = model.get(model.len() / 2) {
                let older = tail.newest(Some(middle), 1, |_| true);
                let expected = model.iter().rev().find(|key| *key < middle);
                prop_assert_eq!(older.first().map(|(key, _)| key), expected);
            }
        }
    }
}
