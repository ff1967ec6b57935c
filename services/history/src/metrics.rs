//! What operators watch.

use crate::tables::Table;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tidegate_bus::Topic;

/// The history service's metrics. A clone shares them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub rows: Family<TableLabel, Counter>,
    pub commits: Family<TableLabel, Counter>,
    pub commit_failures: Family<TableLabel, Counter>,
    pub commit_seconds: Family<TableLabel, Histogram>,
    pub age_seconds: Family<TableLabel, Histogram>,
    pub rejected: Family<TableLabel, Counter>,
    pub repeats: Counter,
    pub missed: Counter,
    pub damaged: Counter,
    pub waiting: Family<TableLabel, Gauge>,
    pub owned: Gauge,
    pub files: Family<TableLabel, Gauge>,
    pub bytes: Family<TableLabel, Gauge>,
    pub upkeep: Family<UpkeepLabel, Counter>,
    pub upkeep_seconds: Family<UpkeepKindLabel, Histogram>,
    pub queries: Family<QueryLabel, Counter>,
    pub query_seconds: Histogram,
    pub queries_running: Gauge,
    pub queries_waiting: Gauge,
    pub query_rows: Counter,
    pub prepared: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TableLabel {
    pub table: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct UpkeepLabel {
    pub kind: &'static str,
    pub result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct UpkeepKindLabel {
    pub kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct QueryLabel {
    pub result: &'static str,
}

impl Metrics {
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("tidegate_history");
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 18));
        let metrics = Self {
            rows: Family::default(),
            commits: Family::default(),
            commit_failures: Family::default(),
            commit_seconds: Family::new_with_constructor(seconds),
            age_seconds: Family::new_with_constructor(seconds),
            rejected: Family::default(),
            repeats: Counter::default(),
            missed: Counter::default(),
            damaged: Counter::default(),
            waiting: Family::default(),
            owned: Gauge::default(),
            files: Family::default(),
            bytes: Family::default(),
            upkeep: Family::default(),
            upkeep_seconds: Family::new_with_constructor(seconds),
            queries: Family::default(),
            query_seconds: seconds(),
            queries_running: Gauge::default(),
            queries_waiting: Gauge::default(),
            query_rows: Counter::default(),
            prepared: Gauge::default(),
        };
        registry.register("rows", "Rows written, by table", metrics.rows.clone());
        registry.register("commits", "Commits made, by table", metrics.commits.clone());
        registry.register(
            "commit_failures",
            "Commits that failed and were tried again, by table",
            metrics.commit_failures.clone(),
        );
        registry.register_with_unit(
            "commit",
            "Time to write the files of a commit and make it",
            Unit::Seconds,
            metrics.commit_seconds.clone(),
        );
        registry.register_with_unit(
            "row_age",
            "From reading the oldest record of a commit until it can be queried",
            Unit::Seconds,
            metrics.age_seconds.clone(),
        );
        registry.register(
            "rejected",
            "Records that could not be read and stand in the table rejected, by topic",
            metrics.rejected.clone(),
        );
        registry.register("repeats", "Events that an edge had published before, left out", metrics.repeats.clone());
        registry.register("missed", "Records that the log had deleted before they were read", metrics.missed.clone());
        registry.register("damaged", "Records that the log found damaged and set aside", metrics.damaged.clone());
        registry.register("waiting_rows", "Rows read and not yet committed, by table", metrics.waiting.clone());
        registry.register("partitions_owned", "Partitions that are written here", metrics.owned.clone());
        registry.register("table_files", "Files of the table", metrics.files.clone());
        registry.register_with_unit("table", "Size of the table's files", Unit::Bytes, metrics.bytes.clone());
        registry.register("upkeep", "Compactions, retentions, vacuums and erasures, by result", metrics.upkeep.clone());
        registry.register_with_unit("upkeep", "Time each took", Unit::Seconds, metrics.upkeep_seconds.clone());
        registry.register("queries", "Queries, by how they ended", metrics.queries.clone());
        registry.register_with_unit("query", "Time that queries took", Unit::Seconds, metrics.query_seconds.clone());
        registry.register("queries_running", "Queries that run now", metrics.queries_running.clone());
        registry.register("queries_waiting", "Queries that wait for others to end", metrics.queries_waiting.clone());
        registry.register("query_rows", "Rows that queries gave", metrics.query_rows.clone());
        registry.register("prepared_statements", "Prepared statements that are remembered", metrics.prepared.clone());
        metrics.begin_at_zero();
        metrics
    }

    /// A counter that appears with its first count tells Prometheus of no increase: those that alerts look at are there
    /// from the start.
    fn begin_at_zero(&self) {
        for table in Table::ALL.map(Table::name) {
            for counters in [&self.rows, &self.commits, &self.commit_failures] {
                drop(counters.get_or_create(&TableLabel { table }));
            }
            for gauges in [&self.waiting, &self.files, &self.bytes] {
                drop(gauges.get_or_create(&TableLabel { table }));
            }
        }
        for topic in [Topic::Events, Topic::Accounts, Topic::Audit] {
            drop(self.rejected.get_or_create(&TableLabel { table: topic.suffix() }));
        }
        for result in ["done", "dropped"] {
            drop(self.queries.get_or_create(&QueryLabel { result }));
        }
        for kind in ["compaction", "retention", "vacuum", "erasure"] {
            for result in ["done", "overtaken", "failed"] {
                drop(self.upkeep.get_or_create(&UpkeepLabel { kind, result }));
            }
        }
    }
}
