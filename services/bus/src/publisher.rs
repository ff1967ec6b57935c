//! How events get to the log: straight, or over gRPC to whoever owns it.

mod grpc;
mod to_bus;

pub use grpc::{GrpcPublisher, GrpcPublisherConfig, REQUEST_MAX_EVENTS};
pub use to_bus::BusPublisher;

use crate::BusError;
use async_trait::async_trait;
use tidegate_proto::v1;

/// Publishes events. Implementations are shared behind an `Arc`.
#[async_trait]
pub trait Publisher: Send + Sync + 'static {
    /// Writes events, and answers when they are durable. Those of one account keep their order.
    ///
    /// # Errors
    /// When they are not known to be durable. [`BusError::is_retryable`] tells whether the same events may be taken
    /// later; some can be there already then, and are told from new ones by their ids.
    async fn publish(&self, events: Vec<v1::Event>) -> Result<Published, BusError>;
}

/// What became of the events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// How many are durable.
    pub written: usize,
    /// Those that will never be taken. They are not to be sent again.
    pub rejected: Vec<Rejected>,
}

/// An event that will never be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its place among those that were to be published, from 0.
    pub index: usize,
    /// Why.
    pub reason: String,
}
