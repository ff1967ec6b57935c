//! The files of checkpoints, in an object store.

use super::config::CheckpointConfig;
use super::manifest::{DamagedError, MAX_OCTETS, Manifest};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long the store may take to list, to answer for a small file, or to take one.
const SMALL: Duration = Duration::from_secs(10);
/// How long it may take for a segment.
const LARGE: Duration = Duration::from_mins(2);

/// Where checkpoints are.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    store: Arc<dyn ObjectStore>,
    root: Path,
}

/// The checkpoints of one partition.
#[derive(Debug, Clone)]
pub struct Folder {
    store: Arc<dyn ObjectStore>,
    path: Path,
}

/// Why a checkpoint could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The configuration names no store.
    #[error("stream.checkpoints.url `{url}` {message}")]
    Url {
        /// What it says.
        url: String,
        /// What is wrong with it.
        message: String,
    },
    /// The store answered with an error.
    #[error("{doing} {path}")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// With which file or folder.
        path: String,
        /// Why it failed.
        #[source]
        source: object_store::Error,
    },
    /// The store did not answer.
    #[error("{doing} {path}: no answer within {within:?}")]
    Slow {
        /// What was being done.
        doing: &'static str,
        /// With which file or folder.
        path: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// A file is damaged, or of a newer version.
    #[error("reading {path}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        #[source]
        source: DamagedError,
    },
}

impl Checkpoints {
    /// The store that the configuration names; none, when there are to be no checkpoints.
    ///
    /// # Errors
    /// When there is no such store.
    pub fn open(config: &CheckpointConfig, group: &str) -> Result<Option<Self>, CheckpointError> {
        let wrong = |message: String| CheckpointError::Url { url: config.url.clone().unwrap_or_default(), message };
        if !config.enabled {
            return Ok(None);
        }
        let Some(url) = config.parsed_url().map_err(wrong)? else { return Ok(None) };
        let options = config.options.clone();
        let (store, root) = tidegate_store::open(&url, options).map_err(|error| wrong(error.to_string()))?;
        Ok(Some(Self::new(store, root.join(group))))
    }

    /// Checkpoints below `root` in a store.
    pub fn new(store: Arc<dyn ObjectStore>, root: Path) -> Self {
        Self { store, root }
    }

    /// Those of a partition.
    pub fn folder(&self, partition: u32) -> Folder {
        Folder { store: Arc::clone(&self.store), path: self.root.clone().join(format!("p{partition:05}")) }
    }
}

impl fmt::Display for Checkpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.store, self.root)
    }
}

impl Folder {
    /// Sequence numbers of the manifests and names of the segments that are there, each rising.
    pub(super) async fn list(&self) -> Result<(Vec<u64>, Vec<String>), CheckpointError> {
        let files: Vec<_> =
            self.wait(SMALL, "listing", &self.path, self.store.list(Some(&self.path)).try_collect()).await?;
        let (mut manifests, mut segments) = (Vec::new(), Vec::new());
        for name in files.iter().filter_map(|file| file.location.filename()) {
            if let Some(sequence) = sequence_of(name) {
                manifests.push(sequence);
            } else if epoch_of(name).is_some() {
                segments.push(name.to_owned());
            }
        }
        manifests.sort_unstable();
        segments.sort_unstable();
        Ok((manifests, segments))
    }

    /// Reads a manifest.
    pub(super) async fn manifest(&self, sequence: u64) -> Result<Manifest, CheckpointError> {
        let path = self.path.clone().join(manifest_name(sequence));
        let found = self.wait(SMALL, "reading", &path, self.store.get(&path)).await?;
        let damaged = |source| CheckpointError::Damaged { path: path.to_string(), source };
        if found.meta.size > MAX_OCTETS {
            return Err(damaged(DamagedError::Damaged(format!("it has {} octets", found.meta.size))));
        }
        let octets = self.wait(SMALL, "reading", &path, found.bytes()).await?;
        let manifest = Manifest::parse(&octets).map_err(damaged)?;
        if manifest.sequence != sequence {
            return Err(damaged(DamagedError::Damaged(format!("it says that it is number {}", manifest.sequence))));
        }
        Ok(manifest)
    }

    /// Creates a manifest; gives whether it did: not, when there is one of this number.
    pub(super) async fn create(&self, sequence: u64, octets: Vec<u8>) -> Result<bool, CheckpointError> {
        let path = self.path.clone().join(manifest_name(sequence));
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.wait(SMALL, "writing", &path, self.store.put_opts(&path, PutPayload::from(octets), options)).await {
            Ok(_) => Ok(true),
            Err(CheckpointError::Store { source: object_store::Error::AlreadyExists { .. }, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads a segment.
    pub(super) async fn segment(&self, name: &str) -> Result<bytes::Bytes, CheckpointError> {
        let path = self.path.clone().join(name);
        self.wait(LARGE, "reading", &path, async { self.store.get(&path).await?.bytes().await }).await
    }

    /// Writes a segment.
    pub(super) async fn put_segment(&self, name: &str, octets: bytes::Bytes) -> Result<(), CheckpointError> {
        let path = self.path.clone().join(name);
        self.wait(LARGE, "writing", &path, self.store.put(&path, PutPayload::from_bytes(octets))).await.map(drop)
    }

    /// Deletes a manifest.
    pub(super) async fn delete_manifest(&self, sequence: u64) -> Result<(), CheckpointError> {
        self.delete(&manifest_name(sequence)).await
    }

    /// Deletes a file; that it is gone already is fine.
    pub(super) async fn delete(&self, name: &str) -> Result<(), CheckpointError> {
        let path = self.path.clone().join(name);
        match self.wait(SMALL, "deleting", &path, self.store.delete(&path)).await {
            Err(CheckpointError::Store { source: object_store::Error::NotFound { .. }, .. }) => Ok(()),
            other => other,
        }
    }

    /// What a damaged file of this name is told as.
    pub(super) fn damaged(&self, name: &str, what: impl Into<String>) -> CheckpointError {
        let path = self.path.clone().join(name).to_string();
        CheckpointError::Damaged { path, source: DamagedError::Damaged(what.into()) }
    }

    /// Waits for the store, but not for ever: its client tries again for minutes, and a partition waits meanwhile.
    async fn wait<T>(
        &self,
        within: Duration,
        doing: &'static str,
        path: &Path,
        answer: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, CheckpointError> {
        let path = || format!("{path} in {}", self.store);
        match tokio::time::timeout(within, answer).await {
            Ok(answer) => answer.map_err(|source| CheckpointError::Store { doing, path: path(), source }),
            Err(_) => Err(CheckpointError::Slow { doing, path: path(), within }),
        }
    }
}

fn manifest_name(sequence: u64) -> String {
    format!("m-{sequence:020}.json")
}

fn sequence_of(name: &str) -> Option<u64> {
    name.strip_prefix("m-")?.strip_suffix(".json")?.parse().ok()
}

pub(super) fn segment_name(epoch: u64, number: u64) -> String {
    format!("s-{epoch:010}-{number:010}.tgs")
}

/// The epoch of the owner that wrote a segment.
pub(super) fn epoch_of(name: &str) -> Option<u64> {
    name.strip_prefix("s-")?.strip_suffix(".tgs")?.split_once('-')?.0.parse().ok()
}
