//! Writing down the windows of a partition now and then, a few megabytes between two batches.

use crate::checkpoint::{CheckpointMetrics, Finish, Folder, Manifest, Outcome, Owner, Writer};
use crate::partition::Partition;
use std::time::{Duration, Instant};
use tidegate_detect::Taken;

/// Octets of accounts that are copied at once, about: some milliseconds.
const BLOCK: usize = 2 << 20;

/// The checkpoints of an owned partition.
pub(crate) struct Checkpointing {
    folder: Folder,
    owner: Owner,
    metrics: CheckpointMetrics,
    interval: Duration,
    writer: Writer,
    due: Instant,
    is_collecting: bool,
    /// Where the last one ended.
    covered_to: u64,
}

impl Checkpointing {
    /// Goes on after `base`, or begins anew.
    pub fn new(
        folder: Folder,
        owner: Owner,
        base: Option<Manifest>,
        interval: Duration,
        metrics: CheckpointMetrics,
    ) -> Self {
        // Not all partitions at the same time.
        let first = interval.mul_f64(f64::from(owner.partition % 16 + 1) / 16.0);
        let covered_to = base.as_ref().map_or(0, |base| base.covered.events_next);
        let writer = Writer::start(folder.clone(), owner.clone(), base, metrics.clone());
        Self { folder, owner, metrics, interval, writer, due: Instant::now() + first, is_collecting: false, covered_to }
    }

    /// Whether a checkpoint is being collected: [`Checkpointing::step`] should come soon.
    pub fn is_collecting(&self) -> bool {
        self.is_collecting
    }

    /// Whether [`Checkpointing::step`] has something to do.
    pub fn has_work(&self, now: Instant) -> bool {
        self.is_collecting || (now >= self.due && self.writer.outcome() == Outcome::Idle)
    }

    /// Begins a checkpoint when it is due, and copies a block of it. Everything before `events_next` has been decided
    /// upon, what was decided is durable, and locks that ended until `now_ms` are ended.
    pub fn step(&mut self, core: &mut Partition, events_next: u64, now: Instant, now_ms: i64) {
        if !self.has_work(now) {
            return;
        }
        if !self.is_collecting {
            self.due = now + self.interval;
            if events_next == self.covered_to {
                return;
            }
            let everything = core.begin_changes(self.writer.wants_everything());
            self.writer.begin(everything);
            self.is_collecting = true;
        }
        if self.writer.outcome() == Outcome::Stale {
            self.is_collecting = false;
        } else if self.writer.has_room() {
            self.copy(core, events_next, now_ms);
        }
    }

    fn copy(&mut self, core: &mut Partition, events_next: u64, now_ms: i64) {
        let began = Instant::now();
        let mut accounts = Vec::with_capacity(BLOCK + BLOCK / 8);
        let taken = core.take_changes(BLOCK, &mut accounts);
        match taken {
            Taken::More => self.writer.accounts(accounts),
            Taken::Last => {
                self.writer.accounts(accounts);
                self.writer.finish(Finish { covered: core.covered(events_next), at_ms: now_ms });
                self.covered_to = events_next;
            }
            Taken::Lost => self.writer.abort(),
        }
        self.is_collecting = taken == Taken::More;
        self.metrics.paused(began.elapsed());
    }

    /// The log took a commit: this is the owner. If another one had written checkpoints, it was the one before.
    pub fn is_owner(&mut self) {
        if self.writer.outcome() == Outcome::Stale {
            self.is_collecting = false;
            self.writer = Writer::start(self.folder.clone(), self.owner.clone(), None, self.metrics.clone());
        }
    }
}
