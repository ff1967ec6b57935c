//! The loop: tidies one table after the other, now and then. Where several processes share the partitions, the one that
//! has the first does it; should two do it at once, only one of their commits succeeds.

use super::merge::{Room, files, merge};
use super::plan::merges;
use super::retention::{date_text, forget_before, vacuum};
use crate::config::HistoryConfig;
use crate::files::TARGET_OCTETS;
use crate::lake::{Committed, Lake, LakeTable};
use crate::metrics::{Metrics, TableLabel, UpkeepKindLabel, UpkeepLabel};
use crate::service::Clock;
use crate::threads::OwnThreads;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_runtime::error_line;
use tidegate_runtime::shutdown::CancellationToken;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};

/// How often the store is looked through for files that no table names: that lists all of them.
const VACUUM_INTERVAL: Duration = Duration::from_hours(1);

/// Tidies the tables.
pub(crate) struct Upkeep {
    tidier: Tidier,
    interval: Duration,
    is_keeper: watch::Receiver<bool>,
    threads: OwnThreads,
}

/// What it takes.
#[derive(Clone)]
struct Tidier {
    lake: Lake,
    metrics: Metrics,
    clock: Clock,
    room: Room,
    retention_days: i64,
    vacuum_after: Duration,
    /// Held while files are rewritten, so that erasing need not race with it.
    rewriting: Arc<Mutex<()>>,
}

impl Upkeep {
    /// Not before `is_keeper` says so. `rewriting` is held while files are rewritten.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn new(
        config: &HistoryConfig,
        lake: Lake,
        metrics: Metrics,
        clock: Clock,
        is_keeper: watch::Receiver<bool>,
        rewriting: Arc<Mutex<()>>,
    ) -> io::Result<Self> {
        let tidier = Tidier {
            lake,
            metrics,
            clock,
            room: Room::of(config),
            retention_days: config.retention_days.into(),
            vacuum_after: Duration::from_secs(config.vacuum_after_s),
            rewriting,
        };
        let interval = Duration::from_millis(config.upkeep_interval_ms);
        Ok(Self { tidier, interval, is_keeper, threads: OwnThreads::new("upkeep", 1)? })
    }

    /// Where files are rewritten.
    pub fn threads(&self) -> Handle {
        self.threads.handle()
    }

    /// Works until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut vacuumed = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.interval) => {}
            }
            if !*self.is_keeper.borrow_and_update() {
                continue;
            }
            let is_due = vacuumed.elapsed() >= VACUUM_INTERVAL.min(self.tidier.vacuum_after);
            if is_due {
                vacuumed = Instant::now();
            }
            let tidier = self.tidier.clone();
            let tidying = self.threads.handle().spawn(async move { Box::pin(tidier.tidy(is_due)).await });
            let stop = tidying.abort_handle();
            tokio::select! {
                // What is half done is in no table.
                () = shutdown.cancelled() => return stop.abort(),
                ended = tidying => if let Err(error) = ended {
                    tracing::error!(%error, "tidying up ended without a word");
                },
            }
        }
    }
}

impl Tidier {
    async fn tidy(&self, with_vacuum: bool) {
        for table in self.lake.tables() {
            let name = table.table().name();
            self.note("retention", name, self.retain(table)).await;
            self.note("compaction", name, Box::pin(self.compact(table))).await;
            if with_vacuum {
                self.note("vacuum", name, async {
                    Ok::<_, crate::lake::LakeError>(Some(vacuum(table, self.vacuum_after).await?))
                })
                .await;
            }
            self.measure(table).await;
        }
    }

    /// Counts what was done, and tells of it. `work` gives how many files it took out; none: somebody else came first.
    async fn note<E: std::error::Error + Send + Sync + 'static>(
        &self,
        kind: &'static str,
        table: &str,
        work: impl Future<Output = Result<Option<usize>, E>>,
    ) {
        let began = Instant::now();
        let result = match work.await {
            Ok(Some(0)) => return,
            Ok(Some(files)) => {
                tracing::info!(kind, table, files, "tidied up");
                "done"
            }
            Ok(None) => "overtaken",
            Err(error) => {
                tracing::warn!(kind, table, error = %error_line(&error), "tidying up failed; it is tried again later");
                "failed"
            }
        };
        self.metrics.upkeep.get_or_create(&UpkeepLabel { kind, result }).inc();
        let label = UpkeepKindLabel { kind };
        self.metrics.upkeep_seconds.get_or_create(&label).observe(began.elapsed().as_secs_f64());
    }

    async fn retain(&self, table: &Arc<LakeTable>) -> Result<Option<usize>, crate::lake::LakeError> {
        let mut state = table.refresh().await?;
        let oldest = date_text((self.clock)(), self.retention_days);
        let (count, done) = forget_before(table, &mut state, &oldest).await?;
        Ok((done == Committed::Done).then_some(count))
    }

    async fn compact(&self, table: &Arc<LakeTable>) -> Result<Option<usize>, super::merge::RewriteError> {
        let _rewriting = self.rewriting.lock().await;
        let mut state = table.refresh().await?;
        let mut count = 0;
        let today = date_text((self.clock)(), 0);
        for group in merges(&files(&state, table).await?, TARGET_OCTETS / 2, &today) {
            if merge(table, &mut state, &group, &self.room).await? == Committed::Overtaken {
                return Ok(None);
            }
            count += group.len();
        }
        Ok(Some(count))
    }

    async fn measure(&self, table: &Arc<LakeTable>) {
        let Ok(files) = files(&table.newest(), table).await else { return };
        let label = TableLabel { table: table.table().name() };
        let bytes: u64 = files.iter().map(|file| file.size).sum();
        self.metrics.files.get_or_create(&label).set(i64::try_from(files.len()).unwrap_or(i64::MAX));
        self.metrics.bytes.get_or_create(&label).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
