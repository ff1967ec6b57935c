//! Taking up the newest checkpoint that can be used.

use super::folder::{CheckpointError, Folder};
use super::manifest::Manifest;
use super::segment::SegmentReader;
use super::writer::KEPT;
use futures::{StreamExt, TryStreamExt};
use tidegate_bus::Bounds;
use tidegate_detect::{Engine, Loaded};
use tidegate_runtime::error_line;

/// Segments that are fetched while another is read.
const FETCHED_AHEAD: usize = 4;

/// What a checkpoint has to go with.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// The partition.
    pub partition: u32,
    /// How many there are.
    pub partitions: u32,
    /// Events that the log has.
    pub events: Bounds,
    /// No window reaches back beyond this time, in milliseconds since 1970.
    pub since_ms: i64,
}

/// What was found.
#[derive(Debug)]
pub struct Restored {
    /// The windows, and what they cover. None: the log has to be read.
    pub taken: Option<Found>,
    /// Checkpoints that were newer and could not be used.
    pub passed_over: u64,
}

/// The checkpoint that was taken.
#[derive(Debug)]
pub struct Found {
    /// The engine with its windows.
    pub engine: Engine,
    /// What it covers, and its segments.
    pub manifest: Manifest,
    /// What did not fit the statistics.
    pub loaded: Loaded,
}

/// Makes engines of checkpoints, the newest first, until one can be used. `is_of_this_log` says whether a manifest's
/// last event is the log's event at that place.
///
/// # Errors
/// What the two functions give. That of the store only makes an older checkpoint, or none, usable.
pub async fn restore<E, F>(
    folder: &Folder,
    expected: Expected,
    new_engine: impl Fn() -> Result<Engine, E>,
    is_of_this_log: impl Fn(Manifest) -> F,
) -> Result<Restored, E>
where
    F: Future<Output = Result<bool, E>>,
{
    let mut restored = Restored { taken: None, passed_over: 0 };
    let partition = expected.partition;
    let manifests = match folder.list().await {
        Ok((manifests, _)) => manifests,
        Err(error) => {
            tracing::warn!(partition, error = error_line(&error), "no checkpoint can be read; the log is");
            restored.passed_over = 1;
            return Ok(restored);
        }
    };
    for sequence in manifests.into_iter().rev().take(KEPT) {
        let unusable = match folder.manifest(sequence).await {
            Ok(manifest) => match reason_against(&manifest, expected) {
                Some(reason) => reason,
                None if !is_of_this_log(manifest.clone()).await? => "it was made from another log".to_owned(),
                None => match load(folder, &manifest, new_engine()?).await {
                    Ok((engine, loaded)) => {
                        restored.taken = Some(Found { engine, manifest, loaded });
                        return Ok(restored);
                    }
                    Err(error) => error_line(&error),
                },
            },
            Err(error) => error_line(&error),
        };
        restored.passed_over += 1;
        tracing::warn!(partition, sequence, reason = unusable, "a checkpoint cannot be used; trying the one before");
    }
    Ok(restored)
}

fn reason_against(manifest: &Manifest, expected: Expected) -> Option<String> {
    let covered = &manifest.covered;
    if (manifest.partition, manifest.partitions) != (expected.partition, expected.partitions) {
        return Some(format!("it is of partition {} of {}", manifest.partition, manifest.partitions));
    }
    if covered.events_next > expected.events.next {
        let end = expected.events.next;
        return Some(format!("it covers events before {}, and the log ends at {end}", covered.events_next));
    }
    if covered.last_event.is_none_or(|last| last.time_ms < expected.since_ms) {
        return Some("all its events are too old for every window".to_owned());
    }
    None
}

/// Reads all segments of a checkpoint into an engine.
async fn load(folder: &Folder, manifest: &Manifest, mut engine: Engine) -> Result<(Engine, Loaded), CheckpointError> {
    let mut all = Loaded::default();
    let fetches = futures::stream::iter(manifest.segments.clone()).map(|segment| {
        let folder = folder.clone();
        async move { folder.segment(&segment.name).await.map(|octets| (segment, octets)) }
    });
    let mut fetched = fetches.buffered(FETCHED_AHEAD);
    while let Some((segment, octets)) = fetched.try_next().await? {
        let damaged = |what: String| folder.damaged(&segment.name, what);
        let mut reader = SegmentReader::open(&octets).map_err(|error| damaged(error.to_string()))?;
        if reader.checksum() != segment.checksum {
            return Err(damaged("it is not the segment that the manifest means".to_owned()));
        }
        while let Some(block) = reader.next_block().map_err(|error| damaged(error.to_string()))? {
            let loaded = engine.load(reader.layout(), &block).map_err(|error| damaged(error.to_string()))?;
            all = Loaded { accounts: all.accounts + loaded.accounts, ..loaded };
            // Others have their turn between two blocks.
            tokio::task::yield_now().await;
        }
    }
    Ok((engine, all))
}
