//! Actions that wait for the state that comes of their command.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tidegate_domain::AccountState;
use tokio::sync::oneshot;

/// The actions that wait, by their command's id.
///
/// Each is told of the very state that its command led to, also when a later command has changed the account
/// before the action looks.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<HashMap<String, oneshot::Sender<Arc<AccountState>>>>);

/// A place among the waiters; given up when dropped.
pub(crate) struct Waiter {
    waiters: Arc<Waiters>,
    command_id: String,
    state: oneshot::Receiver<Arc<AccountState>>,
}

impl Waiters {
    /// Waits for the outcome of `command_id`; to be called before the command is written.
    pub fn wait_for(self: &Arc<Self>, command_id: String) -> Waiter {
        let (sender, state) = oneshot::channel();
        self.0.lock().insert(command_id.clone(), sender);
        Waiter { waiters: Arc::clone(self), command_id, state }
    }

    /// Tells whoever waits for the command that `state` is the outcome of.
    pub fn tell(&self, state: &Arc<AccountState>) {
        let Some(outcome) = &state.last_command else { return };
        let waiting = self.0.lock().remove(&outcome.id);
        if let Some(waiting) = waiting {
            // Who no longer waits does not need it.
            let _ = waiting.send(Arc::clone(state));
        }
    }
}

impl Waiter {
    /// The state that the command led to. Never ends when the command has none.
    pub async fn outcome(&mut self) -> Arc<AccountState> {
        match (&mut self.state).await {
            Ok(state) => state,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.waiters.0.lock().remove(&self.command_id);
    }
}
