//! What operators see of checkpoints.

use crate::metrics::{PartitionLabel, ResultLabel};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// Metrics of checkpoints. A clone shares them.
#[derive(Debug, Clone)]
pub struct CheckpointMetrics {
    results: Family<ResultLabel, Counter>,
    restores: Family<ResultLabel, Counter>,
    bytes: Counter,
    write_seconds: Histogram,
    pause_seconds: Histogram,
    written_ms: Family<PartitionLabel, Gauge>,
}

impl CheckpointMetrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            results: Family::default(),
            restores: Family::default(),
            bytes: Counter::default(),
            write_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            pause_seconds: Histogram::new(exponential_buckets(0.000_01, 2.0, 16)),
            written_ms: Family::default(),
        };
        registry.register(
            "checkpoints",
            "Checkpoints, by what became of them: written, failed (tried again), stale (another owner's turn)",
            metrics.results.clone(),
        );
        registry.register(
            "restores",
            "Partitions taken over, by what their windows were made of: the newest checkpoint, an older one, or the log",
            metrics.restores.clone(),
        );
        registry.register_with_unit(
            "checkpoints_written",
            "Size of all checkpoints",
            Unit::Bytes,
            metrics.bytes.clone(),
        );
        registry.register_with_unit(
            "checkpoint_write",
            "Time to write a checkpoint to the store",
            Unit::Seconds,
            metrics.write_seconds.clone(),
        );
        registry.register_with_unit(
            "checkpoint_pause",
            "Time that copying changed windows keeps events waiting, each time",
            Unit::Seconds,
            metrics.pause_seconds.clone(),
        );
        registry.register(
            "checkpoint_written_milliseconds",
            "When the newest checkpoint of a partition was made, in milliseconds since 1970",
            metrics.written_ms.clone(),
        );
        // A counter that appears with its first count tells Prometheus of no increase.
        for result in ["written", "failed", "stale"] {
            drop(metrics.results.get_or_create(&ResultLabel { result }));
        }
        metrics
    }

    pub(super) fn written(&self, partition: u32, octets: usize, took: Duration, at_ms: i64) {
        self.results.get_or_create(&ResultLabel { result: "written" }).inc();
        self.bytes.inc_by(octets as u64);
        self.write_seconds.observe(took.as_secs_f64());
        self.written_ms.get_or_create(&PartitionLabel { partition }).set(at_ms);
    }

    pub(super) fn failed(&self) {
        self.results.get_or_create(&ResultLabel { result: "failed" }).inc();
    }

    pub(super) fn stale(&self) {
        self.results.get_or_create(&ResultLabel { result: "stale" }).inc();
    }

    pub(crate) fn restored(&self, from: &'static str) {
        self.restores.get_or_create(&ResultLabel { result: from }).inc();
    }

    pub(crate) fn paused(&self, took: Duration) {
        self.pause_seconds.observe(took.as_secs_f64());
    }

    /// The partition went to another worker.
    pub(crate) fn forget(&self, partition: u32) {
        self.written_ms.remove(&PartitionLabel { partition });
    }
}
