//! Threads of their own, for work that computes: it must not keep others on the service's threads waiting.

use std::io;
use tokio::runtime::{Builder, Handle, Runtime};

/// Some threads; what still runs on them when this is dropped is given up.
pub(crate) struct OwnThreads(Option<Runtime>);

impl OwnThreads {
    /// So many, called `name`.
    pub fn new(name: &str, count: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(count).thread_name(name).enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Where to spawn.
    pub fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for OwnThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // A runtime must not be waited for from within another one.
            runtime.shutdown_background();
        }
    }
}
