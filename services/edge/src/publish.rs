//! From sessions to the log: nothing waits, nothing is counted twice.
//!
//! ```text
//! sessions ──> queue in memory ──> live lane ──> publisher ──> log
//!                 │ full               │ not known to be durable
//!                 └──────> spool <─────┘ (newer events)
//!                            └──> drain (spooled lane) ──> publisher ──> log
//! ```
//!
//! The stream drops repeats by the highest number that it has seen for each node and lane in a partition. So within a
//! lane numbers must arrive rising, and an event that may have arrived must keep its number whenever it is sent again.
//!
//! - **Live lane**: one batch is on its way at a time. When it is not known to be durable in time (it may be in the log,
//!   it may not, it may still arrive), it is *kept*: written to disk with its numbers, and sent again, the same events
//!   under the same numbers in the same order, until the log says that it has them. Meanwhile newer events go to the
//!   spool. No live event overtakes the kept batch, so its repeats are repeats, and its first arrival is not taken for
//!   one. It is never moved to the spool: there it would get other numbers, and count twice if it had arrived.
//! - **Spooled lane**: an event gets no number when it is written to the spool. Its number follows from its offset there
//!   (`base + offset`) when it is read: the same on every attempt and after every restart. One batch is on its way at a
//!   time, and the next one is read when it is durable. What was sent is then trimmed; a kill in between only sends it
//!   again. The spool commits with `fsync`, so that a power failure cannot give an offset to two events.
//! - **Draining** pauses after each batch for as long as the batch took, and entirely while a live batch is kept: live
//!   events never wait for it.
//! - **Numbers** survive restarts ([`numbers`]).
//!
//! What can be lost: events in memory when the process is killed (those of the last milliseconds; an orderly end writes
//! them to the spool), what is dropped because the spool is full or too old, and what a full disk refuses. All but the
//! first is counted.

mod drain;
mod kafka;
mod live;
mod numbers;
mod send;
mod spool;

pub(crate) use drain::Drain;
pub(crate) use kafka::KafkaPublisher;
pub(crate) use live::LiveLane;
pub(crate) use numbers::Numbers;
pub(crate) use send::Sender;
pub(crate) use spool::{Spool, SpoolLevel};

/// Most events in a batch.
const BATCH_MAX_EVENTS: usize = 500;
/// Most octets of events in a batch, but for a single larger event; gRPC servers take 4 MiB by default.
const BATCH_MAX_OCTETS: usize = 1 << 20;
