//! Whether who opened a stream may still have it.

use crate::clock::now_ms;
use std::sync::Arc;
use std::time::Duration;
use tidegate_access::{Access, Principal};
use tokio::sync::watch;

/// How often the clock is looked at: a certificate or token ends by time, too.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Whether who opened a stream may still have it.
pub(crate) struct Standing {
    access: Arc<Access>,
    principal: Principal,
    changes: watch::Receiver<u64>,
}

impl Standing {
    /// Of `principal`, who was identified a moment ago.
    pub fn new(access: Arc<Access>, principal: Principal) -> Self {
        let changes = access.changes();
        Self { access, principal, changes }
    }

    /// Waits until it does not hold any more. May be dropped and called again.
    pub async fn lost(&mut self) {
        // Asked first, for what changed since it was identified.
        while self.access.still_holds(&self.principal, now_ms()) {
            tokio::select! {
                changed = self.changes.changed() => if changed.is_err() {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                },
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }
}
