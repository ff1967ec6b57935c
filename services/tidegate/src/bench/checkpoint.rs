//! Windows written down and taken up again, in a directory.

use super::Scale;
use super::detect;
use super::report::Figure;
use super::stopwatch::Stopwatch;
use super::traffic::{Tail, Traffic};
use anyhow::{Context as _, bail};
use prometheus_client::registry::Registry;
use std::time::{Duration, Instant};
use tidegate_bus::Bounds;
use tidegate_detect::{Engine, EngineLimits, Taken};
use tidegate_stream::checkpoint::{
    CheckpointConfig, CheckpointMetrics, Checkpoints, Covered, EventPlace, Expected, Finish, Folder, Outcome, Owner,
    Writer, restore,
};

/// Octets that the worker copies at once.
const BLOCK: usize = 2 << 20;

/// Measures a whole checkpoint, one of what a batch changed, and taking both up.
pub async fn measure(scale: Scale) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for accounts in [20_000, scale.of(200_000)] {
        figures.extend(measure_one(accounts).await?);
    }
    Ok(figures)
}

async fn measure_one(accounts: u64) -> anyhow::Result<Vec<Figure>> {
    let directory = tempfile::tempdir().context("making a folder")?;
    let url = directory.path().to_str().context("the folder's path is no UTF-8")?.to_owned();
    let config = CheckpointConfig { url: Some(url), ..CheckpointConfig::default() };
    let folder = Checkpoints::open(&config, "bench")?.context("no checkpoints")?.folder(0);
    let mut traffic = Traffic::new(accounts, Tail::Heavy)?;
    let (mut engine, now_ms) = detect::engine(accounts, &mut traffic)?;
    let stats = engine.stats();
    let owner = Owner { partition: 0, partitions: 1, statistics: engine.statistics().clone() };
    let metrics = CheckpointMetrics::new(&mut Registry::default());
    let writer = Writer::start(folder.clone(), owner, None, metrics);
    let covered =
        Covered { events_next: 1, last_event: Some(EventPlace { offset: 0, time_ms: now_ms }), ..Covered::default() };
    let with = format!("{accounts} accounts, {:.0} MiB in memory", stats.octets as f64 / f64::from(1 << 20));
    let mut figures = Vec::new();
    for (what, changed) in [("checkpoint, everything", None), ("checkpoint, what 1,000 events changed", Some(1_000))] {
        if let Some(events) = changed {
            engine.process(&traffic.batch(events, now_ms, 1_000)?)?;
        }
        let watch = Stopwatch::start();
        let mut pauses = write(&writer, &mut engine, &covered, now_ms).await?;
        let spent = watch.spent();
        pauses.sort_by(f64::total_cmp);
        let longest = pauses.last().copied().unwrap_or(0.0);
        let octets = newest_octets(directory.path())?;
        let settings = format!("{with}, {:.1} MiB on disk", octets as f64 / f64::from(1 << 20));
        let wall = Figure::rate(what, settings, "s", 1, spent);
        figures.push(Figure { value: spent.wall_s, ..wall });
        let what = if changed.is_none() { "checkpoint, longest pause" } else { "checkpoint of changes, longest pause" };
        let pause = Figure::rate(what, with.clone(), "ms", pauses.len() as u64, spent);
        figures.push(Figure { value: longest, ..pause });
    }
    let watch = Stopwatch::start();
    let restored = take_up(&folder, now_ms).await?;
    let spent = watch.spent();
    if restored.stats().accounts != stats.accounts {
        bail!("{} of {} accounts came back from the checkpoint", restored.stats().accounts, stats.accounts);
    }
    figures.push(Figure { value: spent.wall_s, ..Figure::rate("restore", with, "s", 1, spent) });
    Ok(figures)
}

/// Writes a checkpoint as the worker does; gives how long each copying took, in milliseconds.
async fn write(writer: &Writer, engine: &mut Engine, covered: &Covered, at_ms: i64) -> anyhow::Result<Vec<f64>> {
    settle(writer).await?;
    writer.begin(engine.begin_changes(writer.wants_everything()));
    let mut pauses = Vec::new();
    loop {
        while !writer.has_room() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (began, mut accounts) = (Instant::now(), Vec::with_capacity(BLOCK + BLOCK / 8));
        let taken = engine.take_changes(BLOCK, &mut accounts);
        pauses.push(began.elapsed().as_secs_f64() * 1_000.0);
        writer.accounts(accounts);
        if taken == Taken::Last {
            writer.finish(Finish { covered: covered.clone(), at_ms });
            settle(writer).await?;
            return Ok(pauses);
        }
    }
}

async fn settle(writer: &Writer) -> anyhow::Result<()> {
    while writer.outcome() == Outcome::Busy {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    if writer.outcome() == Outcome::Stale {
        bail!("the checkpoint could not be written");
    }
    Ok(())
}

async fn take_up(folder: &Folder, now_ms: i64) -> anyhow::Result<Engine> {
    let (statistics, rules) = detect::definitions()?;
    let new_engine = || Engine::new(statistics.clone(), rules.clone(), EngineLimits::default());
    let expected = Expected { partition: 0, partitions: 1, events: Bounds { first: 0, next: 1 }, since_ms: now_ms - 1 };
    let restored = restore(folder, expected, new_engine, async |_| Ok(true)).await?;
    Ok(restored.taken.context("the checkpoint could not be read")?.engine)
}

/// Octets of the newest segment below a folder.
fn newest_octets(directory: &std::path::Path) -> anyhow::Result<u64> {
    let folder = directory.join("bench/p00000");
    let mut newest = None;
    for file in std::fs::read_dir(&folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "tgs") {
            newest = newest.max(Some(path));
        }
    }
    Ok(std::fs::metadata(newest.context("there is no segment")?)?.len())
}
