//! Checkpoints in a store: what is written, what is taken up, and who may write.

use crate::lab::{BEGIN_MS, event, partition, rules};
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;
use tidegate_bus::Bounds;
use tidegate_detect::{Engine, EngineError, EngineLimits, Rules, Statistics, Taken};
use tidegate_domain::Account;
use tidegate_stream::Partition;
use tidegate_stream::checkpoint::{
    CheckpointMetrics, Checkpoints, Expected, FORMAT, Finish, Folder, Found, Manifest, Outcome, Owner, Restored,
    Writer, restore,
};

const FOLDER: &str = "installation/stream/p00000";

struct Lab {
    store: Arc<dyn ObjectStore>,
    rules: (Statistics, Rules),
    metrics: CheckpointMetrics,
}

impl Lab {
    fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, rules: rules(), metrics: CheckpointMetrics::new(&mut Registry::default()) }
    }

    fn in_memory() -> Self {
        Self::new(Arc::new(InMemory::new()))
    }

    fn folder(&self) -> Folder {
        Checkpoints::new(Arc::clone(&self.store), Path::from("installation/stream")).folder(0)
    }

    fn writer(&self, base: Option<Manifest>) -> Writer {
        let owner = Owner { partition: 0, partitions: 1, statistics: self.rules.0.clone() };
        Writer::start(self.folder(), owner, base, self.metrics.clone())
    }

    fn engine(&self) -> Result<Engine, EngineError> {
        Engine::new(self.rules.0.clone(), self.rules.1.clone(), EngineLimits::default())
    }

    async fn restored(&self) -> Restored {
        self.restored_for(expected()).await
    }

    async fn restored_for(&self, expected: Expected) -> Restored {
        restore(&self.folder(), expected, || self.engine(), async |_| Ok(true)).await.unwrap()
    }

    async fn found(&self) -> Found {
        self.restored().await.taken.unwrap()
    }

    async fn files(&self) -> Vec<String> {
        let all: Vec<_> = self.store.list(Some(&Path::from(FOLDER))).try_collect().await.unwrap();
        let mut names: Vec<String> = all.iter().map(|file| file.location.filename().unwrap().to_owned()).collect();
        names.sort_unstable();
        names
    }

    async fn spoil(&self, name: &str) {
        let path = Path::from(format!("{FOLDER}/{name}"));
        let mut octets = self.store.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
        let middle = octets.len() / 2;
        octets[middle] ^= 1;
        self.store.put(&path, PutPayload::from(octets)).await.unwrap();
    }
}

fn expected() -> Expected {
    let events = Bounds { first: 0, next: 1_000 };
    Expected { partition: 0, partitions: 1, events, since_ms: BEGIN_MS - 1_000 }
}

async fn settled(writer: &Writer) -> Outcome {
    for _ in 0..20_000 {
        if writer.outcome() != Outcome::Busy {
            return writer.outcome();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the writer is still busy");
}

/// Writes a checkpoint as the worker does.
async fn write(writer: &Writer, partition: &mut Partition, events_next: u64) -> Outcome {
    begin(writer, partition, events_next).await;
    settled(writer).await
}

async fn begin(writer: &Writer, partition: &mut Partition, events_next: u64) {
    assert_eq!(settled(writer).await, Outcome::Idle);
    writer.begin(partition.begin_changes(writer.wants_everything()));
    loop {
        let mut accounts = Vec::new();
        let taken = partition.take_changes(1_000, &mut accounts);
        while !writer.has_room() {
            tokio::task::yield_now().await;
        }
        writer.accounts(accounts);
        if taken == Taken::Last {
            writer.finish(Finish { covered: partition.covered(events_next), at_ms: BEGIN_MS });
            return;
        }
    }
}

/// An account sends one message: the event `offset`.
fn send(partition: &mut Partition, offset: u64, account: u64) {
    let name = format!("user{account}@example.org");
    partition.events(&[event(offset, &name, offset + 1, BEGIN_MS, BEGIN_MS)]).unwrap();
}

fn messages(engine: &Engine, account: u64) -> Option<f64> {
    let account = Account::parse(&format!("user{account}@example.org")).unwrap();
    let columns = engine.columns(&account, BEGIN_MS).unwrap();
    columns.into_iter().find(|(name, _)| name == "messages_24h").and_then(|(_, value)| value)
}

#[tokio::test]
async fn each_holds_what_changed_and_all_together_are_the_windows() {
    let lab = Lab::in_memory();
    let writer = lab.writer(None);
    let mut first = partition(&lab.rules, 0);
    for account in 0..100 {
        send(&mut first, account, account);
    }
    assert_eq!(write(&writer, &mut first, 100).await, Outcome::Idle);
    for offset in 100..103 {
        send(&mut first, offset, offset % 2);
        assert_eq!(write(&writer, &mut first, offset + 1).await, Outcome::Idle);
    }
    let found = lab.found().await;
    let raw: Vec<u64> = found.manifest.segments.iter().map(|segment| segment.raw_octets).collect();
    assert_eq!(raw.len(), 4);
    assert!(raw[1..].iter().all(|changed| changed * 20 < raw[0]), "{raw:?}");
    assert_eq!((found.manifest.covered.events_next, found.engine.stats().accounts), (103, 100));
    assert_eq!([0, 1, 2].map(|account| messages(&found.engine, account)), [Some(3.0), Some(2.0), Some(1.0)]);
    assert_eq!(found.manifest.covered.lanes[0].sequence, 103);

    // Another owner goes on, and only adds what changes.
    let writer = lab.writer(Some(found.manifest.clone()));
    let mut second = Partition::new(0, found.engine, 0);
    second.resume(found.manifest.covered);
    send(&mut second, 103, 7);
    assert_eq!(write(&writer, &mut second, 104).await, Outcome::Idle);
    let found = lab.found().await;
    assert_eq!((found.manifest.segments.len(), found.manifest.epoch), (5, 2));
    assert_eq!([0, 7, 8].map(|account| messages(&found.engine, account)), [Some(3.0), Some(2.0), Some(1.0)]);
}

#[tokio::test]
async fn old_ones_are_deleted_and_long_chains_begun_anew() {
    let lab = Lab::in_memory();
    let writer = lab.writer(None);
    let mut partition = partition(&lab.rules, 0);
    for offset in 0..150 {
        send(&mut partition, offset, offset % 10);
        assert_eq!(write(&writer, &mut partition, offset + 1).await, Outcome::Idle);
        let files = lab.files().await;
        let manifests = files.iter().filter(|name| name.starts_with("m-")).count();
        assert!(manifests <= 3 && files.len() < 3 + 64 + 4, "{files:?}");
    }
    let found = lab.found().await;
    assert!(found.manifest.segments.len() < 64);
    assert_eq!(messages(&found.engine, 3), Some(15.0));
}

#[tokio::test]
async fn a_damaged_one_gives_way_to_the_one_before_and_at_last_to_the_log() {
    let lab = Lab::in_memory();
    let writer = lab.writer(None);
    let mut partition = partition(&lab.rules, 0);
    for offset in 0..4 {
        send(&mut partition, offset, 1);
        assert_eq!(write(&writer, &mut partition, offset + 1).await, Outcome::Idle);
    }
    let newest = lab.found().await.manifest;
    lab.spoil(&newest.segments.last().unwrap().name).await;
    let restored = lab.restored().await;
    let taken = restored.taken.unwrap();
    assert_eq!((taken.manifest.covered.events_next, restored.passed_over), (3, 1));
    assert_eq!(messages(&taken.engine, 1), Some(3.0));
    lab.spoil(&format!("m-{:020}.json", taken.manifest.sequence)).await;
    let restored = lab.restored().await;
    assert_eq!((restored.taken.unwrap().manifest.covered.events_next, restored.passed_over), (2, 2));
    lab.store.delete(&Path::from(format!("{FOLDER}/{}", newest.segments[0].name))).await.unwrap();
    let restored = lab.restored().await;
    assert!(restored.taken.is_none() && restored.passed_over == 3, "{restored:?}");

    // Who begins anew writes after the damaged ones, and in the end deletes them.
    let mut anew = Partition::new(0, lab.engine().unwrap(), 0);
    let writer = lab.writer(None);
    for offset in 0..4 {
        send(&mut anew, offset, 1);
        assert_eq!(write(&writer, &mut anew, offset + 1).await, Outcome::Idle);
    }
    assert_eq!(messages(&lab.found().await.engine, 1), Some(4.0));
    assert_eq!(lab.files().await.len(), 3 + 4);
}

#[tokio::test]
async fn an_owner_of_before_cannot_write_any_more_and_the_right_one_gets_its_turn_back() {
    let lab = Lab::in_memory();
    let mut partitions = [partition(&lab.rules, 0), partition(&lab.rules, 0)];
    let before = lab.writer(None);
    send(&mut partitions[0], 0, 1);
    assert_eq!(write(&before, &mut partitions[0], 1).await, Outcome::Idle);
    let found = lab.found().await;
    let after = lab.writer(Some(found.manifest.clone()));
    assert_eq!(settled(&after).await, Outcome::Idle);
    send(&mut partitions[0], 1, 1);
    assert_eq!(write(&before, &mut partitions[0], 2).await, Outcome::Stale);
    let found = lab.found().await;
    assert_eq!((found.manifest.epoch, found.manifest.covered.events_next), (2, 1), "what it wrote does not stand");

    partitions[1] = Partition::new(0, found.engine, 0);
    partitions[1].resume(found.manifest.covered);
    send(&mut partitions[1], 1, 2);
    assert_eq!(write(&after, &mut partitions[1], 2).await, Outcome::Idle);

    // An owner of before that begins anew (it does not know yet) takes the turn; the right one takes it back.
    let unknowing = lab.writer(None);
    assert_eq!(write(&unknowing, &mut partitions[0], 2).await, Outcome::Idle);
    send(&mut partitions[1], 2, 2);
    assert_eq!(write(&after, &mut partitions[1], 3).await, Outcome::Stale);
    let again = lab.writer(None);
    assert_eq!(write(&again, &mut partitions[1], 3).await, Outcome::Idle);
    let found = lab.found().await;
    assert_eq!((found.manifest.epoch, messages(&found.engine, 2)), (4, Some(2.0)));
    send(&mut partitions[0], 2, 1);
    assert_eq!(write(&unknowing, &mut partitions[0], 3).await, Outcome::Stale);
}

#[tokio::test]
async fn a_store_that_fails_is_waited_for_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let lab = Lab::new(Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap()));
    let in_the_way = directory.path().join("installation");
    let mut partition = partition(&lab.rules, 0);
    let writer = lab.writer(None);
    assert_eq!(settled(&writer).await, Outcome::Idle);
    std::fs::write(&in_the_way, "no folder can be here").unwrap();
    send(&mut partition, 0, 1);
    begin(&writer, &mut partition, 1).await;
    // Meanwhile the worker goes on, and what changes is for the next checkpoint.
    send(&mut partition, 1, 1);
    send(&mut partition, 2, 2);
    assert!(lab.restored().await.taken.is_none());
    assert_eq!(writer.outcome(), Outcome::Busy);
    std::fs::remove_file(&in_the_way).unwrap();
    assert_eq!(settled(&writer).await, Outcome::Idle);
    assert_eq!(messages(&lab.found().await.engine, 1), Some(1.0));
    assert_eq!(write(&writer, &mut partition, 3).await, Outcome::Idle);
    let found = lab.found().await;
    assert_eq!((messages(&found.engine, 1), messages(&found.engine, 2)), (Some(2.0), Some(1.0)));
}

#[tokio::test]
async fn what_does_not_go_with_the_log_is_passed_over() {
    let lab = Lab::in_memory();
    let writer = lab.writer(None);
    let mut partition = partition(&lab.rules, 0);
    send(&mut partition, 9, 1);
    assert_eq!(write(&writer, &mut partition, 10).await, Outcome::Idle);
    let is_taken = async |expected: Expected| lab.restored_for(expected).await.taken.is_some();
    let fits = expected();
    assert!(is_taken(fits).await);
    assert!(!is_taken(Expected { partitions: 2, ..fits }).await, "accounts are in other partitions");
    assert!(!is_taken(Expected { events: Bounds { first: 0, next: 9 }, ..fits }).await, "the log is a shorter one");
    assert!(!is_taken(Expected { since_ms: BEGIN_MS + 1, ..fits }).await, "no window reaches so far");
    assert!(is_taken(Expected { events: Bounds { first: 50, next: 90 }, ..fits }).await, "better than what is left");
    let other_log = restore(&lab.folder(), fits, || lab.engine(), async |_| Ok(false)).await.unwrap();
    assert!(other_log.taken.is_none() && other_log.passed_over == 1);
}

/// A checkpoint of each form that was ever written. With this variable set the tests write that of today.
const WRITE: &str = "TIDEGATE_WRITE_KEPT_CHECKPOINT";

fn kept(form: u32) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/kept/form-{form}"))
}

#[tokio::test]
async fn checkpoints_of_all_older_versions_are_taken_up() {
    if std::env::var_os(WRITE).is_some() {
        write_the_files_to_keep().await;
    }
    for form in 1..=FORMAT {
        let lab = Lab::new(Arc::new(LocalFileSystem::new_with_prefix(kept(form)).unwrap()));
        let Found { engine, manifest, loaded } = lab.found().await;
        assert_eq!((manifest.format, manifest.segments.len(), manifest.covered.events_next), (form, 2, 230));
        assert_eq!(loaded.dropped, [""; 0], "a statistic that was kept is not known any more");
        let account = |number: u64| messages(&engine, number);
        assert_eq!([0, 1, 19].map(account), [Some(210.0), Some(2.0), Some(1.0)]);
        assert_eq!(manifest.covered.lanes.len(), 1);
    }
}

async fn write_the_files_to_keep() {
    std::fs::create_dir_all(kept(FORMAT)).unwrap();
    let lab = Lab::new(Arc::new(LocalFileSystem::new_with_prefix(kept(FORMAT)).unwrap()));
    let writer = lab.writer(None);
    let mut partition = partition(&lab.rules, 0);
    for offset in 0..220 {
        send(&mut partition, offset, offset.saturating_sub(200));
    }
    assert_eq!(write(&writer, &mut partition, 220).await, Outcome::Idle);
    for offset in 220..230 {
        send(&mut partition, offset, u64::from(offset == 229));
    }
    assert_eq!(write(&writer, &mut partition, 230).await, Outcome::Idle);
}
