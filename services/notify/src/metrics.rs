//! What operators watch.

use crate::Kind;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tidegate_proto::v1;

/// The notification service's metrics. A clone shares them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    notifications: Family<ResultLabels, Counter>,
    attempts: Family<ChannelLabels, Counter>,
    pub failures: Family<ChannelLabel, Gauge>,
    pub pending: Gauge,
    pub reading_paused: Counter,
    pub send_seconds: Histogram,
    pub commit_failures: Counter,
    pub skipped: Counter,
    pub owned: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    channel: String,
    kind: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChannelLabels {
    channel: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ChannelLabel {
    pub channel: String,
}

impl Metrics {
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("tidegate_notify");
        let metrics = Self {
            notifications: Family::default(),
            attempts: Family::default(),
            failures: Family::default(),
            pending: Gauge::default(),
            reading_paused: Counter::default(),
            send_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 18)),
            commit_failures: Counter::default(),
            skipped: Counter::default(),
            owned: Gauge::default(),
        };
        registry.register("notifications", "Notifications, by what became of them", metrics.notifications.clone());
        registry.register("attempts", "Messages that were tried, by how it ended", metrics.attempts.clone());
        registry.register(
            "channel_failures",
            "Attempts in a row that did not reach the channel",
            metrics.failures.clone(),
        );
        registry.register("pending", "Notifications that are to be sent", metrics.pending.clone());
        let help = "Times that reading accounts began to wait, because max_pending notifications are to be sent";
        registry.register("reading_paused", help, metrics.reading_paused.clone());
        let help = "Time for one message, from connecting to the last answer";
        registry.register_with_unit("send", help, Unit::Seconds, metrics.send_seconds.clone());
        registry.register(
            "commit_failures",
            "Commits that failed and were tried again",
            metrics.commit_failures.clone(),
        );
        registry.register("records_skipped", "Records that are not what their topic holds", metrics.skipped.clone());
        registry.register("partitions_owned", "Partitions whose notifications are sent here", metrics.owned.clone());
        metrics
    }

    /// A counter that appears with its first count tells Prometheus of no increase: those that alerts look at are there
    /// from the start.
    pub fn begin_at_zero<'a>(&self, channels: impl IntoIterator<Item = &'a str>) {
        for channel in channels {
            for kind in Kind::ALL.map(Kind::as_str) {
                for result in ["pending", "sent", "dead", "suppressed"] {
                    let labels = ResultLabels { channel: channel.to_owned(), kind, result };
                    drop(self.notifications.get_or_create(&labels));
                }
            }
        }
    }

    /// Counts a record that was committed.
    pub fn count(&self, record: &v1::Notification) {
        let result = match record.status() {
            v1::NotificationStatus::Pending if record.group_id.is_empty() => "pending",
            // Told already when it became pending.
            v1::NotificationStatus::Pending | v1::NotificationStatus::Unspecified => return,
            v1::NotificationStatus::Sent => "sent",
            v1::NotificationStatus::Dead => "dead",
            v1::NotificationStatus::Suppressed => "suppressed",
        };
        let labels = ResultLabels { channel: record.channel.clone(), kind: Kind::of(record).as_str(), result };
        self.notifications.get_or_create(&labels).inc();
    }

    /// Counts an attempt.
    pub fn tried(&self, channel: &str, result: &'static str) {
        self.attempts.get_or_create(&ChannelLabels { channel: channel.to_owned(), result }).inc();
    }
}
