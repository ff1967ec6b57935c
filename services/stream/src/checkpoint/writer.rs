//! Writing checkpoints of one partition, in a task of its own.

use super::folder::{CheckpointError, Folder, epoch_of, segment_name};
use super::manifest::{Covered, FORMAT, Manifest, SegmentRef};
use super::metrics::CheckpointMetrics;
use super::segment::{Segment, SegmentWriter};
use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tidegate_detect::Statistics;
use tidegate_runtime::backoff::Backoff;
use tidegate_runtime::error_line;
use tokio::sync::mpsc;

/// Manifests that are kept, with their segments.
pub(super) const KEPT: usize = 3;
/// Blocks of accounts that wait to be compressed, at most.
const WAITING: usize = 4;
/// A checkpoint of more segments than this is written anew.
const MAX_SEGMENTS: usize = 64;
/// What changed may take so much, and twice what everything took, before everything is written anew.
const MAX_CHANGED: u64 = 32 << 20;
/// How long a failing store is waited for, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Whose checkpoints are written.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The partition.
    pub partition: u32,
    /// How many there are.
    pub partitions: u32,
    /// What the windows are of.
    pub statistics: Statistics,
}

/// The end of a checkpoint.
#[derive(Debug, Clone)]
pub struct Finish {
    /// What it covers, together with those before it.
    pub covered: Covered,
    /// When it was made, in milliseconds since 1970.
    pub at_ms: i64,
}

/// What a [`Writer`] can do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It waits for the next checkpoint.
    Idle,
    /// It is writing.
    Busy,
    /// Another owner has taken the partition's checkpoints over; it does nothing any more.
    Stale,
}

/// Writes the checkpoints of one partition. Dropping it ends it; a checkpoint that is not complete is not there.
#[derive(Debug)]
pub struct Writer {
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    outcome: AtomicU8,
    wants_everything: AtomicBool,
}

#[derive(Debug)]
enum Order {
    Begin { everything: bool },
    Accounts(Vec<u8>),
    Finish(Finish),
    Abort,
}

const IDLE: u8 = 0;
const BUSY: u8 = 1;
const STALE: u8 = 2;

impl Writer {
    /// Goes on after the checkpoint `base`, which the engine was made of, or begins anew. It must be called on a tokio
    /// runtime.
    pub fn start(folder: Folder, owner: Owner, base: Option<Manifest>, metrics: CheckpointMetrics) -> Self {
        let shared = Arc::new(Shared {
            outcome: AtomicU8::new(BUSY),
            wants_everything: AtomicBool::new(base.as_ref().is_none_or(|base| base.format != FORMAT)),
        });
        let (orders, receiver) = mpsc::channel(WAITING);
        let segments = base.as_ref().map(|base| base.segments.clone()).unwrap_or_default();
        let writing = Writing {
            folder,
            owner,
            metrics,
            shared: Arc::clone(&shared),
            writer: format!("{:016x}", RandomState::new().hash_one(Instant::now())),
            epoch: base.as_ref().map_or(0, |base| base.epoch),
            sequence: 0,
            next_segment: 0,
            segments,
            kept: VecDeque::new(),
        };
        let task = tokio::spawn(writing.run(base, receiver));
        Self { orders, shared, task }
    }

    /// What it can do now.
    pub fn outcome(&self) -> Outcome {
        match self.shared.outcome.load(Ordering::Acquire) {
            IDLE => Outcome::Idle,
            BUSY => Outcome::Busy,
            _ => Outcome::Stale,
        }
    }

    /// Whether the next checkpoint should hold everything, and not only what changed.
    pub fn wants_everything(&self) -> bool {
        self.shared.wants_everything.load(Ordering::Acquire)
    }

    /// Begins a checkpoint of everything, or of what changed since the last. Only while idle.
    pub fn begin(&self, everything: bool) {
        self.shared.outcome.store(BUSY, Ordering::Release);
        self.give(Order::Begin { everything });
    }

    /// Room for a block of accounts, or for the end; none while blocks are waiting to be compressed.
    pub fn has_room(&self) -> bool {
        self.orders.capacity() >= 2
    }

    /// Adds accounts that the engine gave.
    pub fn accounts(&self, accounts: Vec<u8>) {
        self.give(Order::Accounts(accounts));
    }

    /// Ends the checkpoint: it is written as soon as that can be.
    pub fn finish(&self, finish: Finish) {
        self.give(Order::Finish(finish));
    }

    /// Throws away what was given since [`Writer::begin`].
    pub fn abort(&self) {
        self.give(Order::Abort);
    }

    /// What cannot be given would make a checkpoint with a hole: the writer is not used any more then.
    fn give(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            self.shared.outcome.store(STALE, Ordering::Release);
            self.task.abort();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task's own.
struct Writing {
    folder: Folder,
    owner: Owner,
    metrics: CheckpointMetrics,
    shared: Arc<Shared>,
    writer: String,
    epoch: u64,
    sequence: u64,
    next_segment: u64,
    /// Of the newest checkpoint.
    segments: Vec<SegmentRef>,
    /// The newest manifests, oldest first, with the names of their segments.
    kept: VecDeque<(u64, Vec<String>)>,
}

/// Another owner was there first.
struct Stale;

impl Writing {
    async fn run(mut self, base: Option<Manifest>, mut orders: mpsc::Receiver<Order>) {
        if self.claim_patiently(base.as_ref()).await.is_err() {
            return;
        }
        self.shared.outcome.store(IDLE, Ordering::Release);
        let mut segment: Option<(SegmentWriter, bool)> = None;
        while let Some(order) = orders.recv().await {
            match order {
                Order::Begin { everything } => {
                    segment = Some((SegmentWriter::new(&self.owner.statistics.layout()), everything));
                }
                Order::Accounts(accounts) => segment = add(segment.take(), accounts).await,
                Order::Finish(finish) => {
                    match segment.take() {
                        Some((writer, everything)) => {
                            if self.publish_patiently(writer.finish(), everything, &finish).await.is_err() {
                                return;
                            }
                        }
                        None => self.fail("compressing accounts"),
                    }
                    self.shared.outcome.store(IDLE, Ordering::Release);
                }
                Order::Abort => {
                    segment = None;
                    self.fail("keeping up with changes");
                    self.shared.outcome.store(IDLE, Ordering::Release);
                }
            }
        }
    }

    /// What was given is lost: the next checkpoint has to hold everything.
    fn fail(&self, doing: &str) {
        self.metrics.failed();
        self.shared.wants_everything.store(true, Ordering::Release);
        tracing::warn!(partition = self.owner.partition, "{doing} failed; the next checkpoint will hold everything");
    }

    async fn claim_patiently(&mut self, base: Option<&Manifest>) -> Result<(), Stale> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            match self.claim(base).await {
                Ok(()) => return Ok(()),
                Err(error) => self.wait("taking over", &error, &mut backoff).await,
            }
        }
    }

    /// Makes the newest manifest this owner's, so that the one before learns that it is not the owner any more, and
    /// deletes what nobody needs.
    async fn claim(&mut self, base: Option<&Manifest>) -> Result<(), CheckpointError> {
        let (manifests, segments) = self.folder.list().await?;
        self.sequence = manifests.last().copied().unwrap_or(0);
        let highest = segments.iter().filter_map(|name| epoch_of(name)).max().unwrap_or(0);
        self.epoch = self.epoch.max(highest) + 1;
        self.kept.clear();
        let (outdated, newest) = manifests.split_at(manifests.len().saturating_sub(KEPT));
        for sequence in newest {
            let names = match self.folder.manifest(*sequence).await {
                Ok(manifest) => {
                    self.epoch = self.epoch.max(manifest.epoch + 1);
                    names_of(&manifest.segments)
                }
                Err(CheckpointError::Damaged { .. }) => Vec::new(),
                Err(error) => return Err(error),
            };
            self.kept.push_back((*sequence, names));
        }
        if let Some(base) = base {
            let claimed = Manifest { writer: self.writer.clone(), ..base.clone() };
            while let Err(Stale) = self.create(claimed.clone()).await? {
                // An owner before this one was just writing its last.
            }
        }
        for sequence in outdated {
            self.folder.delete_manifest(*sequence).await?;
        }
        let needed: BTreeSet<&String> = self.kept.iter().flat_map(|(_, names)| names).collect();
        for name in segments.iter().filter(|name| !needed.contains(name)) {
            if epoch_of(name).is_some_and(|epoch| epoch < self.epoch) {
                self.folder.delete(name).await?;
            }
        }
        Ok(())
    }

    async fn publish_patiently(&mut self, segment: Segment, everything: bool, finish: &Finish) -> Result<(), Stale> {
        let began = Instant::now();
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let (raw_octets, octets) = (segment.raw_octets, bytes::Bytes::from(segment.octets));
        let name = segment_name(self.epoch, self.next_segment);
        self.next_segment += 1;
        let mut segments = if everything { Vec::new() } else { self.segments.clone() };
        if raw_octets > 0 {
            let (checksum, octets) = (segment.checksum, octets.len() as u64);
            segments.push(SegmentRef { name: name.clone(), octets, raw_octets, checksum });
        }
        let manifest = Manifest {
            format: FORMAT,
            program: concat!("tidegate ", env!("CARGO_PKG_VERSION")).to_owned(),
            partition: self.owner.partition,
            partitions: self.owner.partitions,
            epoch: self.epoch,
            writer: self.writer.clone(),
            sequence: 0,
            written_ms: finish.at_ms,
            statistics: self.owner.statistics.version().to_owned(),
            covered: finish.covered.clone(),
            segments,
        };
        loop {
            let written = async {
                if raw_octets > 0 {
                    self.folder.put_segment(&name, octets.clone()).await?;
                }
                self.create(manifest.clone()).await
            };
            match written.await {
                Ok(Ok(())) => break,
                Ok(Err(Stale)) => {
                    tracing::warn!(
                        partition = self.owner.partition,
                        "another owner writes the partition's checkpoints"
                    );
                    self.metrics.stale();
                    self.shared.outcome.store(STALE, Ordering::Release);
                    return Err(Stale);
                }
                Err(error) => self.wait("writing", &error, &mut backoff).await,
            }
        }
        self.segments = manifest.segments;
        let (first, changed) = self.segments.split_first().map_or((0, 0), |(first, changed)| {
            (first.raw_octets, changed.iter().map(|segment| segment.raw_octets).sum())
        });
        let is_long = self.segments.len() >= MAX_SEGMENTS || changed > MAX_CHANGED + 2 * first;
        self.shared.wants_everything.store(is_long, Ordering::Release);
        self.metrics.written(self.owner.partition, octets.len(), began.elapsed(), finish.at_ms);
        if let Err(error) = self.delete_old().await {
            tracing::warn!(
                partition = self.owner.partition,
                error = error_line(&error),
                "old checkpoints could not be deleted"
            );
        }
        Ok(())
    }

    /// Creates the manifest with the next number that is free. Stale, when an owner after this one was there first.
    async fn create(&mut self, manifest: Manifest) -> Result<Result<(), Stale>, CheckpointError> {
        loop {
            let sequence = self.sequence + 1;
            let manifest = Manifest { sequence, epoch: self.epoch, ..manifest.clone() };
            let octets =
                manifest.to_octets().map_err(|error| self.folder.damaged("the manifest", error.to_string()))?;
            if self.folder.create(sequence, octets).await? {
                self.sequence = sequence;
                self.kept.push_back((sequence, names_of(&manifest.segments)));
                return Ok(Ok(()));
            }
            let names = match self.folder.manifest(sequence).await {
                Ok(other) if other == manifest => {
                    // This one's, and the answer was lost.
                    self.sequence = sequence;
                    self.kept.push_back((sequence, names_of(&other.segments)));
                    return Ok(Ok(()));
                }
                Ok(other) if other.epoch >= self.epoch && other.writer != self.writer => {
                    return Ok(Err(self.after(&other)));
                }
                Ok(other) => names_of(&other.segments),
                Err(CheckpointError::Damaged { .. }) => Vec::new(),
                Err(error) => return Err(error),
            };
            self.sequence = sequence;
            self.kept.push_back((sequence, names));
        }
    }

    /// Another owner's manifest stands where this one's was to be: whoever claims next has a higher epoch.
    fn after(&mut self, other: &Manifest) -> Stale {
        self.epoch = self.epoch.max(other.epoch + 1);
        Stale
    }

    async fn delete_old(&mut self) -> Result<(), CheckpointError> {
        while self.kept.len() > KEPT {
            let Some((sequence, names)) = self.kept.pop_front() else { return Ok(()) };
            self.folder.delete_manifest(sequence).await?;
            let needed: BTreeSet<&String> = self.kept.iter().flat_map(|(_, names)| names).collect();
            for name in names.iter().filter(|name| !needed.contains(name)) {
                self.folder.delete(name).await?;
            }
        }
        Ok(())
    }

    async fn wait(&self, doing: &str, error: &CheckpointError, backoff: &mut Backoff) {
        self.metrics.failed();
        let (partition, error, pause) = (self.owner.partition, error_line(error), backoff.pause());
        tracing::warn!(partition, error, retry_ms = pause.as_millis(), "{doing} checkpoints failed; trying again");
        tokio::time::sleep(pause).await;
    }
}

/// Compresses a block away from the runtime's threads. None, when that fails or failed before.
async fn add(segment: Option<(SegmentWriter, bool)>, accounts: Vec<u8>) -> Option<(SegmentWriter, bool)> {
    let (mut writer, everything) = segment?;
    let compressed = tokio::task::spawn_blocking(move || writer.add(&accounts).map(|()| writer)).await;
    compressed.ok()?.ok().map(|writer| (writer, everything))
}

fn names_of(segments: &[SegmentRef]) -> Vec<String> {
    segments.iter().map(|segment| segment.name.clone()).collect()
}
