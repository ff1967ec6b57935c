//! The gate of a gRPC service: takes connections, finds out who calls, ends what a credential no longer allows, and
//! writes the audit.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod append;
mod audit;
mod caller;
mod clock;
mod door;
mod gate;
mod listener;
mod metrics;
mod standing;

pub use append::append;
pub use audit::{Audit, new_id};
pub use caller::Caller;
pub use clock::now_ms;
pub use door::{Door, DoorBounds, DoorError};
pub use gate::{Gate, Gated, as_bearer};
pub use listener::Peer;
pub use metrics::GateMetrics;
pub use standing::Standing;
