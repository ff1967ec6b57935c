//! Ends a server together with the process that started it, however that process ends.
//!
//! `Drop` does not run when a test is killed, so a small shell waits at the other end of a pipe: when the pipe closes,
//! it kills. It costs one sleeping process per server.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::error::{Context, Result};

/// Holds a kill command back for as long as it lives: dropping it, or the end of this process, carries it out.
#[derive(Debug)]
pub struct Leash {
    watcher: Child,
}

impl Leash {
    /// Kills the process group `group` at the end.
    ///
    /// # Errors
    /// When no shell could be started.
    pub fn on_group(group: u32) -> Result<Self> {
        Self::with(&format!("kill -s KILL -- -{group}"))
    }

    /// Runs a shell command at the end.
    ///
    /// # Errors
    /// When no shell could be started.
    pub fn with(kill: &str) -> Result<Self> {
        let watcher = Command::new("sh")
            .arg("-c")
            .arg(format!("read -r released && exit 0; {kill}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own: Ctrl-C must not end the watcher before its work is done.
            .process_group(0)
            .spawn()
            .context(|| "starting sh, which ends servers together with their test".into())?;
        Ok(Self { watcher })
    }

    /// Lets the server live on, also after this process.
    pub fn release(mut self) {
        if let Some(pipe) = &mut self.watcher.stdin {
            // A watcher that is gone needs no release.
            let _ = pipe.write_all(b"released\n");
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}
