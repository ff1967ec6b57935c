//! Requests that wait for an answer that comes over the log.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The requests that wait, by their command's id.
///
/// Each is told of the very answer that its command led to, also when a later command has changed the account before
/// the request looks.
#[derive(Debug)]
pub(crate) struct Waiters<T>(Mutex<HashMap<String, oneshot::Sender<T>>>);

/// A place among the waiters; given up when dropped.
pub(crate) struct Waiter<T> {
    waiters: Arc<Waiters<T>>,
    command_id: String,
    answer: oneshot::Receiver<T>,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Waiters<T> {
    /// Waits for the answer to `command_id`; to be called before the command is written.
    pub fn wait_for(self: &Arc<Self>, command_id: String) -> Waiter<T> {
        let (sender, answer) = oneshot::channel();
        self.0.lock().insert(command_id.clone(), sender);
        Waiter { waiters: Arc::clone(self), command_id, answer }
    }

    /// Gives `answer` to whoever waits for `command_id`.
    pub fn tell(&self, command_id: &str, answer: impl FnOnce() -> T) {
        let waiting = self.0.lock().remove(command_id);
        if let Some(waiting) = waiting {
            // Who no longer waits does not need it.
            let _ = waiting.send(answer());
        }
    }
}

impl<T> Waiter<T> {
    /// The answer that the command led to. Never ends when there is none.
    pub async fn answer(&mut self) -> T {
        match (&mut self.answer).await {
            Ok(answer) => answer,
            Err(_) => std::future::pending().await,
        }
    }
}

impl<T> Drop for Waiter<T> {
    fn drop(&mut self) {
        self.waiters.0.lock().remove(&self.command_id);
    }
}
