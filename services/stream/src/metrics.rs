//! What operators watch.

use crate::checkpoint::CheckpointMetrics;
use crate::output::Output;
use crate::partition::Partition;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tidegate_domain::Change;

/// The stream service's metrics. A clone shares them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    events: Family<ResultLabel, Counter>,
    changes: Family<ChangeLabel, Counter>,
    observed: Family<RuleLabel, Counter>,
    pub commands: Counter,
    pub batch_seconds: Histogram,
    pub commit_seconds: Histogram,
    pub commit_failures: Counter,
    pub rule_reloads: Family<ResultLabel, Counter>,
    pub settings: Family<ResultLabel, Counter>,
    pub settings_in_force: Gauge,
    pub inspections: Family<ResultLabel, Counter>,
    accounts: Family<PartitionLabel, Gauge>,
    panes: Family<PartitionLabel, Gauge>,
    window_bytes: Family<PartitionLabel, Gauge>,
    evicted: Family<PartitionLabel, Gauge>,
    lanes: Family<PartitionLabel, Gauge>,
    senders_forgotten: Family<PartitionLabel, Gauge>,
    pub lag: Family<PartitionLabel, Gauge>,
    pub owned: Gauge,
    pub damaged: Counter,
    pub checkpoints: CheckpointMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ResultLabel {
    pub result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChangeLabel {
    change: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabel {
    rule: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PartitionLabel {
    pub partition: u32,
}

impl Metrics {
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("tidegate_stream");
        let buckets = || exponential_buckets(0.000_1, 2.0, 18);
        let metrics = Self {
            events: Family::default(),
            changes: Family::default(),
            observed: Family::default(),
            commands: Counter::default(),
            batch_seconds: Histogram::new(buckets()),
            commit_seconds: Histogram::new(buckets()),
            commit_failures: Counter::default(),
            rule_reloads: Family::default(),
            settings: Family::default(),
            settings_in_force: Gauge::default(),
            inspections: Family::default(),
            accounts: Family::default(),
            panes: Family::default(),
            window_bytes: Family::default(),
            evicted: Family::default(),
            lanes: Family::default(),
            senders_forgotten: Family::default(),
            lag: Family::default(),
            owned: Gauge::default(),
            damaged: Counter::default(),
            checkpoints: CheckpointMetrics::new(registry),
        };
        registry.register("events", "Events read, by what became of them", metrics.events.clone());
        registry.register("account_changes", "Published changes of account states", metrics.changes.clone());
        registry.register("matches_observed", "Rules that held without changing anything", metrics.observed.clone());
        registry.register("commands", "Commands applied", metrics.commands.clone());
        registry.register_with_unit(
            "batch",
            "Time to add a batch of events to the windows and decide",
            Unit::Seconds,
            metrics.batch_seconds.clone(),
        );
        registry.register_with_unit(
            "commit",
            "Time until states and positions were durable",
            Unit::Seconds,
            metrics.commit_seconds.clone(),
        );
        registry.register(
            "commit_failures",
            "Commits that failed and were tried again",
            metrics.commit_failures.clone(),
        );
        registry.register(
            "rule_reloads",
            "Changes of the rules file, in force or refused, by result",
            metrics.rule_reloads.clone(),
        );
        registry.register("partitions_owned", "Partitions that this worker owns", metrics.owned.clone());
        registry.register("accounts", "Accounts with windows", metrics.accounts.clone());
        registry.register("panes", "Panes kept", metrics.panes.clone());
        registry.register_with_unit(
            "windows",
            "Memory of the windows, about",
            Unit::Bytes,
            metrics.window_bytes.clone(),
        );
        registry.register(
            "accounts_evicted",
            "Accounts forgotten because there were too many",
            metrics.evicted.clone(),
        );
        registry.register(
            "lanes",
            "Lanes (two for each node) whose repeats are recognised; there is room for 100000",
            metrics.lanes.clone(),
        );
        registry.register(
            "senders_forgotten",
            "Accounts whose client addresses were forgotten because there were too many",
            metrics.senders_forgotten.clone(),
        );
        registry.register("lag_records", "Events in the log that are not read yet", metrics.lag.clone());
        registry.register(
            "inspections",
            "Questions for an account's statistics, by what became of them",
            metrics.inspections.clone(),
        );
        registry.register("settings", "Records of settings, by what became of them", metrics.settings.clone());
        registry.register(
            "settings_in_force",
            "Settings that administrators made; there is room for 10000",
            metrics.settings_in_force.clone(),
        );
        registry.register("damaged_records", "Records that the log could not give back", metrics.damaged.clone());
        metrics.begin_at_zero();
        metrics
    }

    /// A counter that appears with its first count tells Prometheus of no increase: those that alerts look at are there
    /// from the start.
    fn begin_at_zero(&self) {
        for result in ["counted", "rebuilt", "duplicate", "void", "unused", "clock_ahead", "rejected"] {
            drop(self.events.get_or_create(&ResultLabel { result }));
        }
        for result in ["taken", "refused"] {
            drop(self.rule_reloads.get_or_create(&ResultLabel { result }));
        }
        for change in Change::ALL {
            drop(self.changes.get_or_create(&ChangeLabel { change: change.as_str() }));
        }
    }

    pub fn count(&self, output: &Output) {
        let counts = output.counts;
        for (result, count) in [
            ("counted", counts.events),
            ("rebuilt", counts.rebuilt),
            ("duplicate", counts.duplicates),
            ("void", counts.void),
            ("unused", counts.unused),
            ("clock_ahead", counts.clock_ahead),
            ("rejected", counts.rejected),
        ] {
            if count > 0 {
                self.events.get_or_create(&ResultLabel { result }).inc_by(count);
            }
        }
        for change in &output.changes {
            self.changes.get_or_create(&ChangeLabel { change: change.as_str() }).inc();
        }
        for rule in &output.observed {
            self.observed.get_or_create(&RuleLabel { rule: rule.name.clone() }).inc();
        }
    }

    /// A partition went to another worker.
    pub fn forget(&self, partition: u32) {
        let label = PartitionLabel { partition };
        let of_partitions = [
            &self.accounts,
            &self.panes,
            &self.window_bytes,
            &self.evicted,
            &self.lanes,
            &self.senders_forgotten,
            &self.lag,
        ];
        for gauges in of_partitions {
            gauges.remove(&label);
        }
        self.checkpoints.forget(partition);
    }

    pub fn partition(&self, partition: u32, core: &Partition) {
        let label = PartitionLabel { partition };
        let stats = core.engine().stats();
        self.lanes.get_or_create(&label).set(gauge(core.lanes()));
        self.senders_forgotten.get_or_create(&label).set(core.forgotten_senders().cast_signed());
        self.accounts.get_or_create(&label).set(gauge(stats.accounts));
        self.panes.get_or_create(&label).set(gauge(stats.panes));
        self.window_bytes.get_or_create(&label).set(gauge(stats.octets));
        self.evicted.get_or_create(&label).set(stats.evicted.cast_signed());
    }
}

fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
