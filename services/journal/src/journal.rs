//! The handle that everybody uses.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::thread::{self, JoinHandle, ThreadId};

use rusqlite::{Connection, OptionalExtension, params};

use crate::error::JournalError;
use crate::options::{Options, Retention};
use crate::queue::{Queue, Refused};
use crate::reader::{self, Limits, ReadPool};
use crate::record::{Batch, Bounds, Committed, ReadBatch, TopicSize};
use crate::retention::{self, MaintainReport};
use crate::schema::{self, as_u64};
use crate::stats::{Counters, Stats, add};
use crate::topics::{PartitionState, Topic, Topics};
use crate::writer::{Done, Request, Shared, Watcher, Writer};
use crate::{damaged, file};

/// Damaged records that one read has set aside, at most; the next read finds the others.
const SET_ASIDE_PER_READ: usize = 100;

/// An open journal. Clones are handles to the same one; the file is closed with the last of them.
///
/// All calls block, except for [`Journal::submit`], [`Journal::bounds`], [`Journal::stats`] and the like,
/// which only look at memory. An async shell uses `submit` with a callback, `on_append` to be woken, and a
/// thread for blocking calls for the rest.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    queue: Arc<Queue<Request>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    writer_thread: ThreadId,
    next_watcher: AtomicU64,
}

impl Journal {
    /// Opens the journal in the file `path`, or in `journal.db` if `path` is a directory; what is missing
    /// is created. A damaged file is set aside as `<file>.damaged-<n>` (the newest four are kept), and a
    /// new file begins with what could be read of it; [`Stats`] counts both.
    ///
    /// # Errors
    /// `InUse` if another process (or this one) has it open; `NotAJournal` and `NewerFormat` for files that
    /// are not ours to change; `InvalidOption`; `Io`, `Sql` and `DiskFull` from the system.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, JournalError> {
        options.check()?;
        let (lock, files, opened) = file::open(path.as_ref(), &options)?;
        let topics = Topics::default();
        for topic in opened.topics {
            topics.insert(topic);
        }
        let counters = Counters::default();
        add(&counters.salvaged_records, opened.salvaged_records);
        add(&counters.damaged_files, files.damaged_files().len() as u64);
        let queue = Arc::new(Queue::new(options.queue_max_batches, options.queue_max_bytes));
        let shared = Arc::new(Shared {
            readers: ReadPool::new(files.clone(), options.read_connections),
            files,
            options,
            log_id: opened.log_id,
            topics,
            counters,
            watchers: RwLock::default(),
        });
        let writer = Writer::new(opened.connection, shared.clone());
        let (requests, path) = (queue.clone(), shared.files.main.clone());
        let spawned = thread::Builder::new().name("journal-writer".to_owned()).spawn(move || {
            // However the writer ends, waiting callers are told, and the lock goes after the connection.
            let _lock = lock;
            let _close = RefuseOnDrop { queue: &requests, path: &path };
            writer.run(&requests);
        });
        let writer = spawned.map_err(|source| {
            let path = shared.files.main.clone();
            JournalError::Io { action: "start the writer's thread for", path, source }
        })?;
        let writer_thread = writer.thread().id();
        let inner =
            Inner { shared, queue, writer: Mutex::new(Some(writer)), writer_thread, next_watcher: AtomicU64::new(0) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Identifies the log: 16 hexadecimal digits, the same for as long as offsets keep their meaning. A
    /// position that was stored elsewhere for another `log_id` is worth nothing here.
    pub fn log_id(&self) -> &str {
        &self.inner.shared.log_id
    }

    /// Creates a topic, or finds it as asked. `retention`'s numbers may differ from before: they then apply.
    ///
    /// # Errors
    /// `TopicName`, `PartitionLimit`; `PartitionCount` and `RetentionKind` if the topic exists otherwise.
    pub fn create_topic(&self, name: &str, partitions: u32, retention: Retention) -> Result<(), JournalError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > 200 || !name.bytes().all(allowed) {
            return Err(JournalError::TopicName { name: name.chars().take(200).collect() });
        }
        if !(1..=schema::MAX_PARTITIONS).contains(&partitions) {
            return Err(JournalError::PartitionLimit { topic: name.to_owned(), asked: partitions });
        }
        let name = name.to_owned();
        self.on_writer(move |writer| create_topic(writer, &name, partitions, retention))?
    }

    /// The names of all topics, sorted.
    pub fn topics(&self) -> Vec<String> {
        self.inner.shared.topics.all().iter().map(|topic| topic.name.to_string()).collect()
    }

    /// How many partitions a topic has.
    pub fn partitions(&self, topic: &str) -> Result<u32, JournalError> {
        Ok(self.inner.shared.topics.get(topic)?.partition_count())
    }

    /// Hands a batch to the writer and returns at once. `done` is called exactly once: on the writer's
    /// thread after the commit or its failure, or right here when the batch is not accepted
    /// (`QueueFull`, `BatchTooLarge`, `Closed`). It must be quick and must not block. Batches become
    /// durable in the order in which they were submitted.
    pub fn submit(&self, batch: Batch, done: Done) {
        let (bytes, limit) = (batch.bytes(), self.inner.shared.options.queue_max_bytes);
        if bytes > limit {
            return done(Err(JournalError::BatchTooLarge { bytes, limit }));
        }
        match self.inner.queue.try_push(Request::Commit { batch, done }, bytes) {
            Ok(()) => {}
            Err(Refused::Full(request)) => {
                add(&self.inner.shared.counters.queue_full, 1);
                let (batches, bytes) = self.inner.queue.level();
                refuse(request, JournalError::QueueFull { batches, bytes });
            }
            Err(Refused::Closed(request)) => refuse(request, self.closed()),
        }
    }

    /// Submits a batch, waiting for room in the queue, and waits until it is durable.
    pub fn commit(&self, batch: Batch) -> Result<Committed, JournalError> {
        self.not_on_writer_thread()?;
        let (bytes, limit) = (batch.bytes(), self.inner.shared.options.queue_max_bytes);
        if bytes > limit {
            return Err(JournalError::BatchTooLarge { bytes, limit });
        }
        let (sender, receiver): (SyncSender<_>, Receiver<_>) = sync_channel(1);
        // The receiver waits below, so sending cannot fail.
        let done: Done = Box::new(move |result| drop(sender.send(result)));
        self.inner.queue.push(Request::Commit { batch, done }, bytes).map_err(|_| self.closed())?;
        receiver.recv().map_err(|_| self.closed())?
    }

    /// Reads from `from_offset` on: at most `max_records`, and no more than `max_bytes` of keys and values,
    /// but always one record if there is one. An offset before the first begins at the first: compare
    /// the first record's offset. Damaged records are passed over, counted and set aside.
    ///
    /// # Errors
    /// `OffsetPastEnd` if `from_offset` does not exist yet; `UnknownTopic`, `UnknownPartition`.
    pub fn read(
        &self,
        topic: &str,
        partition: u32,
        from_offset: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<ReadBatch, JournalError> {
        let topic = self.inner.shared.topics.get_partition(topic, partition)?;
        // Known before the snapshot is taken, so everything before it is in the snapshot.
        let Bounds { first_offset, next_offset } = topic.bounds(partition);
        if from_offset > next_offset {
            let topic = topic.name.to_string();
            return Err(JournalError::OffsetPastEnd { topic, partition, offset: from_offset, next_offset });
        }
        let range = (from_offset.max(first_offset), next_offset);
        let limits = Limits { max_records: max_records.max(1), max_bytes };
        let run = self.reading(|connection| reader::read(connection, &topic, partition, range, limits))?;
        if run.broken {
            self.inner.shared.files.mark_suspect();
        }
        self.set_aside(&topic, partition, run.damaged);
        Ok(ReadBatch { records: run.records, next_offset: run.next_offset, skipped_damaged: run.skipped })
    }

    /// Where a partition begins and ends.
    pub fn bounds(&self, topic: &str, partition: u32) -> Result<Bounds, JournalError> {
        Ok(self.inner.shared.topics.get_partition(topic, partition)?.bounds(partition))
    }

    /// The first offset whose record has a time of `time_ms` or later; the next offset if there is none.
    /// Times may go back within a partition: records after the offset found may be earlier again, but none
    /// before it is as late. Where a clock was set far back, this looks at all records written since.
    pub fn offset_for_time(&self, topic: &str, partition: u32, time_ms: i64) -> Result<u64, JournalError> {
        let topic = self.inner.shared.topics.get_partition(topic, partition)?;
        let Bounds { first_offset, next_offset } = topic.bounds(partition);
        let range = (first_offset, next_offset);
        self.reading(|connection| reader::offset_for_time(connection, &topic, partition, range, time_ms))
    }

    /// The position that a group committed for a partition.
    pub fn position(&self, group: &str, topic: &str, partition: u32) -> Result<Option<u64>, JournalError> {
        let topic = self.inner.shared.topics.get_partition(topic, partition)?;
        self.reading(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT next_offset FROM positions WHERE group_name = ?1 AND topic_id = ?2 AND partition = ?3",
            )?;
            let position = statement.query_row(params![group, topic.id, partition], |row| row.get(0)).optional()?;
            Ok(position.map(as_u64))
        })
    }

    /// Has `watcher` called with topic, partition and next offset after each commit that appended to a
    /// partition, on the writer's thread: it must be quick and must not block. It ends with the returned guard.
    pub fn on_append(&self, watcher: impl Fn(&str, u32, u64) + Send + Sync + 'static) -> Subscription {
        let id = self.inner.next_watcher.fetch_add(1, Ordering::Relaxed);
        let watcher: Arc<Watcher> = Arc::new(watcher);
        let watchers = &self.inner.shared.watchers;
        watchers.write().unwrap_or_else(PoisonError::into_inner).push((id, watcher));
        Subscription { shared: Arc::downgrade(&self.inner.shared), id }
    }

    /// Deletes what lies before `up_to_offset` (of what exists), in chunks; returns how many records.
    pub fn trim(&self, topic: &str, partition: u32, up_to_offset: u64) -> Result<u64, JournalError> {
        let topic = self.inner.shared.topics.get_partition(topic, partition)?;
        let mut trimmed = 0;
        loop {
            let topic = topic.clone();
            let (count, more) =
                self.on_writer(move |writer| retention::trim_step(writer, &topic, partition, up_to_offset))??;
            trimmed += count;
            if !more {
                return Ok(trimmed);
            }
        }
    }

    /// Deletes what is too old at `now_ms`, compacts, and gives unused space back: to be called every few
    /// seconds or minutes. It works in chunks of 2,000 records, between which appends go on.
    pub fn maintain(&self, now_ms: i64) -> Result<MaintainReport, JournalError> {
        let mut report = MaintainReport::default();
        for topic in self.inner.shared.topics.all() {
            for partition in 0..topic.partition_count() {
                let topic = topic.clone();
                self.repeat(&mut report, move |writer, _| retention::maintain_step(writer, &topic, partition, now_ms))?;
            }
            self.repeat(&mut report, move |writer, _| retention::enforce_bytes(writer, &topic, 0))?;
        }
        self.repeat(&mut report, retention::reclaim_step)?;
        Ok(report)
    }

    /// How many records and bytes a topic holds, and how many it had to drop.
    pub fn topic_size(&self, topic: &str) -> Result<TopicSize, JournalError> {
        Ok(self.inner.shared.topics.get(topic)?.size())
    }

    /// Counters since the journal was opened.
    pub fn stats(&self) -> Stats {
        let shared = &self.inner.shared;
        let (queued_batches, queued_bytes) = self.inner.queue.level();
        Stats {
            queued_batches: queued_batches as u64,
            queued_bytes: queued_bytes as u64,
            file_bytes: shared.files.main_bytes(),
            wal_bytes: shared.files.wal_bytes(),
            ..shared.counters.snapshot()
        }
    }

    /// Commits what is queued, and closes the file; every later call that needs it answers `Closed`. From
    /// inside a callback it does not wait for that.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Runs chunks of work on the writer until there is no more.
    fn repeat(
        &self,
        report: &mut MaintainReport,
        step: impl Fn(&mut Writer, bool) -> Result<retention::Step, JournalError> + Send + Clone + 'static,
    ) -> Result<(), JournalError> {
        let mut begun = false;
        loop {
            let step = step.clone();
            let done = self.on_writer(move |writer| step(writer, begun))??;
            report.add(&done.report);
            if !done.more {
                return Ok(());
            }
            begun = true;
        }
    }

    /// Runs `work` on the writer's thread and waits for it.
    fn on_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> T + Send + 'static,
    ) -> Result<T, JournalError> {
        self.not_on_writer_thread()?;
        let (sender, receiver) = sync_channel(1);
        // The receiver waits below, so sending cannot fail.
        let task = Request::Task(Box::new(move |writer| drop(sender.send(work(writer)))));
        self.inner.queue.push(task, 0).map_err(|_| self.closed())?;
        receiver.recv().map_err(|_| self.closed())
    }

    fn reading<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, JournalError> {
        let result = self.inner.shared.readers.with(read).ok_or_else(|| self.closed())?;
        result.map_err(|error| self.inner.shared.error("read", error))
    }

    fn set_aside(&self, topic: &Arc<Topic>, partition: u32, mut offsets: Vec<u64>) {
        if offsets.is_empty() {
            return;
        }
        offsets.truncate(SET_ASIDE_PER_READ);
        let topic = topic.clone();
        let task = Box::new(move |writer: &mut Writer| {
            if damaged::set_aside(writer, &topic, partition, &offsets).is_err() {
                add(&writer.shared.counters.housekeeping_failures, 1);
            }
        });
        // If the queue is full, the next read finds them again.
        drop(self.inner.queue.try_push(Request::Task(task), 0));
    }

    fn not_on_writer_thread(&self) -> Result<(), JournalError> {
        if thread::current().id() == self.inner.writer_thread { Err(JournalError::OnWriterThread) } else { Ok(()) }
    }

    fn closed(&self) -> JournalError {
        JournalError::Closed { path: self.inner.shared.files.main.clone() }
    }
}

fn create_topic(writer: &mut Writer, name: &str, partitions: u32, retention: Retention) -> Result<(), JournalError> {
    let shared = writer.shared.clone();
    let Some(topic) = shared.topics.find(name) else {
        let states = vec![PartitionState::EMPTY; partitions as usize];
        let (topic, _) = writer.transact("create a topic in", |transaction, _, _| {
            Ok(schema::create_topic(transaction, name, states, retention)?)
        })?;
        shared.topics.insert(topic);
        return Ok(());
    };
    let existing = topic.partition_count();
    if existing != partitions {
        return Err(JournalError::PartitionCount { topic: name.to_owned(), existing, asked: partitions });
    }
    if topic.compact != (retention == Retention::Compact) {
        return Err(JournalError::RetentionKind { topic: name.to_owned() });
    }
    if topic.retention() != retention {
        writer.transact("change the retention of a topic in", |transaction, _, _| {
            Ok(schema::store_retention(transaction, topic.id, retention)?)
        })?;
        topic.set_retention(retention);
    }
    Ok(())
}

fn refuse(request: Request, error: JournalError) {
    if let Request::Commit { done, .. } = request {
        done(Err(error));
    }
}

impl Inner {
    fn close(&self) {
        self.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && thread::current().id() != self.writer_thread
        {
            // It catches the panics of callbacks; one of its own is not worth another here.
            drop(writer.join());
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// Closes the queue and refuses what is left in it, so that nobody waits for a writer that is gone.
struct RefuseOnDrop<'w> {
    queue: &'w Queue<Request>,
    path: &'w Path,
}

impl Drop for RefuseOnDrop<'_> {
    fn drop(&mut self) {
        self.queue.close();
        while let Some(request) = self.queue.pop() {
            refuse(request, JournalError::Closed { path: self.path.to_owned() });
        }
    }
}

/// Keeps a watcher of [`Journal::on_append`] registered; dropping it ends that.
#[must_use = "the watcher is removed when this is dropped"]
pub struct Subscription {
    shared: Weak<Shared>,
    id: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.watchers.write().unwrap_or_else(PoisonError::into_inner).retain(|(id, _)| *id != self.id);
        }
    }
}
