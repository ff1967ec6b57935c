//! Windows written down, so that a restart does not read a day of events again.
//!
//! Each partition has a folder in an object store, `<url>/<group>/p00003`, with two kinds of files:
//!
//! - **segments**, `s-<epoch>-<number>.tgs` ([`segment`]): accounts and their panes. The first of a checkpoint holds all
//!   accounts, each later one those that changed since the one before it;
//! - **manifests**, `m-<sequence>.json` ([`manifest`]): which segments make up the windows, and what of the log they
//!   cover. A checkpoint is there when its manifest is.
//!
//! A manifest is only ever created, never written over: of two owners that want the same sequence number the store
//! takes one, and the other learns of the first's epoch. The newest three are kept, with the segments that they name.
//!
//! A partition is taken over from the newest checkpoint that can be read ([`restore`]), and events since are replayed;
//! when none can, its windows are rebuilt from the events that the log still has. Nothing is decided twice: states say
//! up to where they were decided.
//!
//! Writing ([`writer`]) has a task of its own for each partition. The worker only copies what changed, a few megabytes
//! between two batches; when the last are copied, what they cover is the position of that moment.

mod config;
mod folder;
mod manifest;
mod metrics;
mod restore;
mod segment;
mod writer;

pub use config::CheckpointConfig;
pub use folder::{CheckpointError, Checkpoints, Folder};
pub use manifest::{Covered, DamagedError, EventPlace, FORMAT, LaneMark, Manifest, SegmentRef};
pub use metrics::CheckpointMetrics;
pub use restore::{Expected, Found, Restored, restore};
pub use segment::{Segment, SegmentReader, SegmentWriter};
pub use writer::{Finish, Outcome, Owner, Writer};
