//! Lets no more into the journal's queue than it takes, so that callers wait instead of being refused.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Batches on their way to the disk, at most: half of what the journal queues, since its own tasks queue there, too.
const MAX_BATCHES: usize = 4_096;
/// The same in KiB.
const MAX_KIB: u32 = 32 << 10;

/// Counts what is on its way to the disk.
pub(crate) struct Gate {
    batches: Arc<Semaphore>,
    kib: Arc<Semaphore>,
}

/// Room for one batch, given back when it is dropped.
pub(crate) struct Pass {
    _batch: Option<OwnedSemaphorePermit>,
    _kib: Option<OwnedSemaphorePermit>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { batches: Arc::new(Semaphore::new(MAX_BATCHES)), kib: Arc::new(Semaphore::new(MAX_KIB as usize)) }
    }
}

impl Gate {
    /// Waits for room, first come, first served. A batch larger than all room waits until it is alone.
    pub(crate) async fn enter(&self, bytes: usize) -> Pass {
        let kib = u32::try_from(bytes.div_ceil(1_024)).unwrap_or(MAX_KIB).min(MAX_KIB);
        // The semaphores are never closed, so there is always a permit to come.
        let batch = self.batches.clone().acquire_owned().await.ok();
        let kib = self.kib.clone().acquire_many_owned(kib).await.ok();
        Pass { _batch: batch, _kib: kib }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn a_batch_waits_for_room_and_a_huge_one_to_be_alone() {
        let gate = Gate::default();
        let small = gate.enter(10).await;
        assert!(gate.enter(usize::MAX).now_or_never().is_none());
        drop(small);
        let huge = gate.enter(usize::MAX).await;
        assert!(gate.enter(1).now_or_never().is_none());
        drop(huge);
        assert!(gate.enter(1).now_or_never().is_some());
    }
}
