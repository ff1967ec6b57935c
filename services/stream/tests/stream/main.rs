//! The core of a partition, and its checkpoints, through the crate's public interface.
#![allow(clippy::unwrap_used, missing_docs)]

mod announcements;
mod checkpoints;
mod inspections;
mod lab;
mod lives;
mod partition;
mod running;
mod settings;
mod sightings;
