//! The control service as its clients see it: a real server on a free port, the real embedded log, generated clients.

#![allow(clippy::unwrap_used, missing_docs)]

mod actions;
mod edges;
mod events;
mod harness;
mod lists;
mod service;
mod watches;
