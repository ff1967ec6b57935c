//! What can be set.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use tidegate_runtime::config::{Problems, Validate, key};
use tidegate_runtime::tls::ServerTls;

/// The history service's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryConfig {
    /// Whether `tidegate serve` keeps a history. On Kafka it also needs a `url`.
    pub enabled: bool,
    /// Where the tables are: a directory, or the URL of an object store (`s3://bucket/path`, `gs://bucket/path`,
    /// `az://container/path`). Not set: beside the embedded log; with Kafka it must be set.
    pub url: Option<String>,
    /// Options of the object store, e.g. `aws_region`, over those of the environment.
    pub options: BTreeMap<String, String>,
    /// Name of the group that shares the partitions.
    pub group: String,
    /// What came is written to the tables after so long, in milliseconds.
    pub commit_interval_ms: u64,
    /// ... or when it is so many records.
    pub commit_records: usize,
    /// The store must take a commit with its files within so long, in milliseconds; then it is tried again.
    pub store_timeout_ms: u64,
    /// Days that are kept.
    pub retention_days: u32,
    /// Where analysts connect with Arrow Flight SQL.
    pub listen: SocketAddr,
    /// Certificate of that address.
    pub tls: Option<ServerTls>,
    /// Most connections at a time; more wait to be accepted.
    pub max_connections: usize,
    /// Tables are tidied up so often, in milliseconds.
    pub upkeep_interval_ms: u64,
    /// Files that were replaced are deleted after so long, in seconds: until then queries may be reading them.
    pub vacuum_after_s: u64,
    /// Memory that tidying up may take, in octets; what needs more goes through the spill directory.
    pub upkeep_memory_bytes: u64,
    /// Where queries and upkeep put what does not fit in memory; none: the system's directory for temporary files.
    pub spill_directory: Option<PathBuf>,
    /// Bounds of queries.
    pub queries: QueryConfig,
}

/// Bounds of queries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueryConfig {
    /// Memory that one may take, in octets.
    pub memory_bytes: u64,
    /// What one may put in the spill directory, in octets.
    pub spill_bytes: u64,
    /// How long one may take, in milliseconds, until its last row has been taken.
    pub timeout_ms: u64,
    /// How many may run at once; further ones wait.
    pub concurrency: usize,
    /// How many may wait; further ones are refused.
    pub max_waiting: usize,
    /// Threads that one query may use.
    pub threads: usize,
    /// Prepared statements that are remembered, for all clients together.
    pub max_prepared: usize,
    /// Longest statement, in octets.
    pub max_statement_bytes: usize,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            url: None,
            options: BTreeMap::new(),
            group: "history".to_owned(),
            commit_interval_ms: 5_000,
            commit_records: 200_000,
            store_timeout_ms: 120_000,
            retention_days: 400,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7730)),
            tls: None,
            max_connections: 256,
            upkeep_interval_ms: 60_000,
            vacuum_after_s: 86_400,
            upkeep_memory_bytes: 512 << 20,
            spill_directory: None,
            queries: QueryConfig::default(),
        }
    }
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            spill_bytes: 10 << 30,
            timeout_ms: 300_000,
            concurrency: 4,
            max_waiting: 64,
            threads: 2,
            max_prepared: 1_000,
            max_statement_bytes: 1 << 20,
        }
    }
}

impl HistoryConfig {
    /// Where what does not fit in memory goes.
    pub(crate) fn spill_directory(&self) -> PathBuf {
        self.spill_directory.clone().unwrap_or_else(std::env::temp_dir)
    }
}

impl Validate for HistoryConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        if let Some(Err(problem)) = self.url.as_deref().map(tidegate_store::parse) {
            problems.add(path, "url", problem);
        }
        problems.check_set(path, "group", &self.group);
        problems.check_range(path, "commit_interval_ms", self.commit_interval_ms, 100..=3_600_000);
        problems.check_range(path, "commit_records", self.commit_records, 1_000..=5_000_000);
        problems.check_range(path, "store_timeout_ms", self.store_timeout_ms, 1_000..=3_600_000);
        problems.check_range(path, "retention_days", self.retention_days, 1..=36_500);
        problems.check_range(path, "max_connections", self.max_connections, 1..=100_000);
        problems.check_range(path, "upkeep_interval_ms", self.upkeep_interval_ms, 100..=86_400_000);
        problems.check_range(path, "vacuum_after_s", self.vacuum_after_s, 60..=30 * 86_400);
        problems.check_range(path, "upkeep_memory_bytes", self.upkeep_memory_bytes, 64 << 20..=1 << 40);
        self.queries.validate(&key(path, "queries"), problems);
    }
}

impl Validate for QueryConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        problems.check_range(path, "memory_bytes", self.memory_bytes, 16 << 20..=1 << 40);
        problems.check_range(path, "spill_bytes", self.spill_bytes, 0..=1 << 44);
        problems.check_range(path, "timeout_ms", self.timeout_ms, 100..=86_400_000);
        problems.check_range(path, "concurrency", self.concurrency, 1..=1_000);
        problems.check_range(path, "max_waiting", self.max_waiting, 0..=100_000);
        problems.check_range(path, "threads", self.threads, 1..=1_024);
        problems.check_range(path, "max_prepared", self.max_prepared, 1..=1_000_000);
        problems.check_range(path, "max_statement_bytes", self.max_statement_bytes, 1_000..=64 << 20);
    }
}
