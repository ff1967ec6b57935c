//! From the topics into the tables: each record once, whatever is killed when.
//!
//! A commit of a table bears, for each partition of its topic, the offset up to which records are in it. Where to read
//! on stands therefore in the table itself, and of two commits from the same offset only one succeeds.

mod parcel;
mod pile;
mod positions;
mod seen;
mod worker;

pub(crate) use worker::Sink;
