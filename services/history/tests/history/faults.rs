//! The store fails: it is tried again, nothing is lost or doubled, and operators are told.

use crate::faulty::{Fault, Faulty};
use crate::lab::{DAY_MS, Lab, quick, submission, until};
use object_store::local::LocalFileSystem;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tempfile::TempDir;
use tidegate_access::Access;
use tidegate_history::HistoryConfig;

const COUNTED: &str = "SELECT count(*), count(DISTINCT sequence) FROM events";

#[tokio::test(flavor = "multi_thread")]
async fn after_every_kind_of_fault_each_event_stands_once() {
    let store = Faulty::new(Arc::new(LocalFileSystem::new()));
    let config = HistoryConfig { store_timeout_ms: 1_000, ..quick() };
    let lab = Lab::start_over(store.clone(), config).await;
    let mut count = 0;
    let mut next = |more: u64| {
        let events: Vec<_> =
            (count + 1..=count + more).map(|number| submission("jo@example.org", number, DAY_MS)).collect();
        count += more;
        (events, count)
    };
    let (events, count) = next(10);
    lab.send(events).await;
    lab.wait_for(COUNTED, &[&format!("{count}|{count}")]).await;
    for fault in [Fault::Down, Fault::Full, Fault::TakesAndFails, Fault::Hangs] {
        store.set(fault);
        let (events, _) = next(10);
        lab.send(events).await;
        until("attempts that fail", || async { store.failed.load(Ordering::SeqCst) >= 3 }).await;
        until("readiness to tell it", || async { !lab.health.report().0 }).await;
        let (is_ready, report) = lab.health.report();
        assert!(!is_ready && report.contains("history-store"), "{fault:?}: {report}");
        let failures = "tidegate_history_commit_failures_total{table=\"events\"}";
        until("the metric to tell it", || async { lab.metric(failures) > 0.0 }).await;
        let (events, count) = next(10);
        lab.send(events).await;
        store.set(Fault::None);
        lab.wait_for(COUNTED, &[&format!("{count}|{count}")]).await;
        until("readiness", || async { lab.health.report().0 }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_out() {
    let folder = TempDir::new().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&disk).output();
    if !mount.is_ok_and(|ended| ended.status.success()) {
        eprintln!("skipped: a small disk cannot be mounted here (that needs root)");
        return;
    }
    let unmount = Unmount(disk.clone());
    let filler = disk.join("filler");
    let lab = Lab::start_at(&disk.join("history"), quick(), Access::off()).await;
    lab.send((1..=10).map(|number| submission("jo@example.org", number, DAY_MS))).await;
    lab.wait_for(COUNTED, &["10|10"]).await;
    // Nothing is left.
    let filled = std::fs::write(&filler, vec![7; 4 << 20]);
    assert!(filled.is_err(), "the disk is not small");
    lab.send((11..=20).map(|number| submission("jo@example.org", number, DAY_MS))).await;
    until("readiness to tell it", || async { lab.health.report().1.contains("o space left") }).await;
    std::fs::remove_file(&filler).unwrap();
    lab.wait_for(COUNTED, &["20|20"]).await;
    until("readiness", || async { lab.health.report().0 }).await;
    drop(lab);
    drop(unmount);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy"]).arg(&self.0).status();
    }
}
