//! There is one process: all partitions are its own.

use crate::{BusError, Membership};
use async_trait::async_trait;
use std::collections::BTreeSet;
use tidegate_runtime::shutdown::CancellationToken;

pub(crate) struct EmbeddedMembership {
    /// None once it was told.
    all: Option<BTreeSet<u32>>,
    closed: CancellationToken,
}

impl EmbeddedMembership {
    pub(crate) fn new(partitions: u32, closed: CancellationToken) -> Self {
        Self { all: Some((0..partitions).collect()), closed }
    }
}

#[async_trait]
impl Membership for EmbeddedMembership {
    async fn next(&mut self) -> Result<BTreeSet<u32>, BusError> {
        if let Some(all) = self.all.take() {
            return Ok(all);
        }
        self.closed.cancelled().await;
        Err(BusError::Closed { doing: "waiting for partitions of a group".to_owned() })
    }
}
