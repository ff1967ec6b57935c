//! The one thread that writes: it gathers what callers submitted and commits it as one transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::append::{self, ApplyError, Changes, Grown};
use crate::error::JournalError;
use crate::file::Files;
use crate::options::Options;
use crate::queue::Queue;
use crate::reader::ReadPool;
use crate::record::{Batch, Committed, NewRecord};
use crate::retention;
use crate::stats::{Counters, add};
use crate::topics::Topics;

/// Called with the outcome of a submitted batch, exactly once.
pub type Done = Box<dyn FnOnce(Result<Committed, JournalError>) + Send>;

/// Called after a commit with topic, partition and next offset of each partition that grew.
pub(crate) type Watcher = dyn Fn(&str, u32, u64) + Send + Sync;

/// What the writer is asked for.
pub(crate) enum Request {
    /// Append a batch.
    Commit { batch: Batch, done: Done },
    /// Something rarer: create, trim, maintain, set aside.
    Task(Box<dyn FnOnce(&mut Writer) + Send>),
}

/// What the writer, the readers and the handles have in common.
pub(crate) struct Shared {
    pub(crate) files: Files,
    pub(crate) options: Options,
    pub(crate) log_id: String,
    pub(crate) topics: Topics,
    pub(crate) counters: Counters,
    pub(crate) readers: ReadPool,
    pub(crate) watchers: RwLock<Vec<(u64, Arc<Watcher>)>>,
}

impl Shared {
    /// Turns a failure of SQLite into our error, and remembers damage for the next open.
    pub(crate) fn error(&self, action: &'static str, source: rusqlite::Error) -> JournalError {
        let error = JournalError::sql(action, &self.files.main, source);
        if matches!(error, JournalError::Damaged { .. }) {
            self.files.mark_suspect();
        }
        error
    }
}

/// The writer's side of the journal.
pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) shared: Arc<Shared>,
    /// The size of the write-ahead log at which it is emptied.
    empty_log_at_bytes: u64,
}

/// A batch and whom to tell.
type Waiting = (Batch, Done);

impl Writer {
    pub(crate) fn new(connection: Connection, shared: Arc<Shared>) -> Self {
        let empty_log_at_bytes = shared.options.wal_max_bytes;
        Self { connection, shared, empty_log_at_bytes }
    }

    /// Works until the queue is closed and empty.
    pub(crate) fn run(mut self, queue: &Queue<Request>) {
        while let Some(request) = queue.pop() {
            match request {
                Request::Task(task) => self.guarded(|writer| task(writer)),
                Request::Commit { batch, done } => {
                    let group = self.gather(queue, (batch, done));
                    let records: usize = group.iter().map(|(batch, _)| batch.record_count()).sum();
                    self.commit_group(group);
                    self.keep_bounds(records);
                }
            }
        }
        // Leaves one file behind. If it fails, the log is read at the next open.
        self.shared.readers.close();
        self.empty_log();
    }

    /// Takes what else has gathered, in order, up to the group's bound.
    fn gather(&self, queue: &Queue<Request>, first: Waiting) -> Vec<Waiting> {
        let limit = self.shared.options.group_max_records;
        let mut records = first.0.record_count();
        let mut group = vec![first];
        // A batch of positions alone counts as one, so that a group is bounded in any case.
        while records + group.len() <= limit {
            let room = limit - records;
            let fits =
                |request: &Request| matches!(request, Request::Commit { batch, .. } if batch.record_count() <= room);
            let Some(Request::Commit { batch, done }) = queue.pop_if(fits) else { break };
            records += batch.record_count();
            group.push((batch, done));
        }
        group
    }

    fn commit_group(&mut self, group: Vec<Waiting>) {
        let mut valid = Vec::with_capacity(group.len());
        for (batch, done) in group {
            match append::validate(&batch, &self.shared.topics, &self.shared.options) {
                Ok(()) => valid.push((batch, done)),
                Err(error) => self.guarded(|_| done(Err(error))),
            }
        }
        if valid.is_empty() {
            return;
        }
        let failed = match self.try_commit(valid.iter().map(|(batch, _)| batch)) {
            Ok((committed, grown)) => return self.acknowledge(valid, committed, &grown),
            Err(error) => error,
        };
        if valid.len() == 1
            && let Some((_, done)) = valid.pop()
        {
            return self.refuse(done, failed);
        }
        // One batch can be what failed (too large for what room is left): each on its own.
        for (batch, done) in valid {
            match self.try_commit(std::iter::once(&batch)) {
                Ok((committed, grown)) => self.acknowledge(vec![(batch, done)], committed, &grown),
                Err(error) => self.refuse(done, error),
            }
        }
    }

    fn try_commit<'b>(
        &mut self,
        batches: impl Iterator<Item = &'b Batch>,
    ) -> Result<(Vec<Committed>, Vec<Grown>), JournalError> {
        self.transact("append to", |transaction, shared, changes| {
            batches.map(|batch| append::apply(transaction, &shared.topics, batch, changes)).collect()
        })
    }

    /// Runs `work` in one transaction, stores the counters it changed, commits, and publishes them.
    pub(crate) fn transact<T>(
        &mut self,
        action: &'static str,
        work: impl FnOnce(&Transaction<'_>, &Shared, &mut Changes) -> Result<T, ApplyError>,
    ) -> Result<(T, Vec<Grown>), JournalError> {
        let shared = self.shared.clone();
        let mut changes = Changes::default();
        let attempt = || -> Result<T, ApplyError> {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction, &shared, &mut changes)?;
            changes.store(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        match attempt() {
            Ok(result) => Ok((result, changes.publish())),
            Err(ApplyError::Topic(error)) => Err(error),
            Err(ApplyError::Sql(error)) => Err(shared.error(action, error)),
        }
    }

    fn acknowledge(&self, group: Vec<Waiting>, committed: Vec<Committed>, grown: &[Grown]) {
        let counters = &self.shared.counters;
        add(&counters.commits, 1);
        add(&counters.batches, group.len() as u64);
        for ((batch, done), committed) in group.into_iter().zip(committed) {
            add(&counters.appended_records, batch.record_count() as u64);
            let bytes: usize = batch.appends.iter().flat_map(|append| &append.records).map(NewRecord::bytes).sum();
            add(&counters.appended_bytes, bytes as u64);
            self.call(|| done(Ok(committed)));
        }
        let watchers = self.shared.watchers.read().unwrap_or_else(PoisonError::into_inner).clone();
        for Grown { topic, partition, next_offset } in grown {
            for (_, watcher) in &watchers {
                self.call(|| watcher(&topic.name, *partition, *next_offset));
            }
        }
    }

    fn refuse(&self, done: Done, error: JournalError) {
        if matches!(error, JournalError::DiskFull { .. }) {
            add(&self.shared.counters.disk_full, 1);
        }
        self.call(|| done(Err(error)));
    }

    /// Drops the oldest of topics that are over their bytes, and keeps the write-ahead log bounded.
    fn keep_bounds(&mut self, appended_records: usize) {
        let topics = self.shared.topics.all();
        for topic in topics {
            if let Err(error) = retention::enforce_bytes(self, &topic, appended_records) {
                // The next commit tries again; the caller's records are safe and acknowledged.
                drop(error);
                add(&self.shared.counters.housekeeping_failures, 1);
            }
        }
        let wal_bytes = self.shared.files.wal_bytes();
        if wal_bytes > self.empty_log_at_bytes {
            add(&self.shared.counters.forced_checkpoints, 1);
            let emptied = self.empty_log();
            // Another program that reads the file can be in the way: do not wait for it at every commit.
            let limit = self.shared.options.wal_max_bytes;
            self.empty_log_at_bytes = if emptied { limit } else { wal_bytes.saturating_add(limit) };
        }
    }

    /// Holds up readers for a moment and moves the whole write-ahead log into the main file.
    fn empty_log(&mut self) -> bool {
        let _no_reader = self.shared.readers.hold_up();
        let busy = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        let emptied = match busy {
            Ok(busy) => busy == 0,
            Err(error) => {
                // Only remembered (damage) and counted: the log is complete without it.
                let _ = self.shared.error("empty the write-ahead log of", error);
                false
            }
        };
        if !emptied {
            add(&self.shared.counters.housekeeping_failures, 1);
        }
        emptied
    }

    /// A caller's code must not end the writer.
    fn call(&self, callback: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(callback)).is_err() {
            add(&self.shared.counters.callback_panics, 1);
        }
    }

    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            add(&self.shared.counters.callback_panics, 1);
        }
    }
}
