//! A server process that a test or a developer's command started: its log, its readiness and its end.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::error::{Context, Error, Result};
use crate::leash::Leash;
use crate::wait::wait_for;

/// How many of a log's last lines an error shows.
const TAIL_LINES: usize = 25;

/// A running server. Dropping it kills it and all processes of its group.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    log: PathBuf,
    child: Child,
    leash: Option<Leash>,
    status: Option<ExitStatus>,
}

impl Daemon {
    /// Starts `command` in a process group of its own, with its output appended to `log`.
    ///
    /// # Errors
    /// When the program is missing or the log cannot be written.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let open = || OpenOptions::new().create(true).append(true).open(log);
        let output = open().context(|| format!("opening {name}'s log {}", log.display()))?;
        let errors = output.try_clone().context(|| format!("opening {name}'s log twice"))?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .context(|| format!("starting {name} ({})", command.get_program().to_string_lossy()))?;
        let leash = Leash::on_group(child.id())?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), child, leash: Some(leash), status: None })
    }

    /// The process id, which is also the id of its process group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with what the server printed.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How the server ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Polls `look` until it gives a value. Fails early when the server ends, and shows the end of its log.
    ///
    /// # Errors
    /// When the server has ended, or `timeout` has passed.
    pub fn wait_for<T>(&mut self, what: &str, timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
        let name = self.name.clone();
        let found = wait_for(&format!("{name}: {what}"), timeout, || match look() {
            Some(value) => Some(Ok(value)),
            None => self.exited().map(|status| Err(Error::new(format!("{name} ended ({status}) before {what}")))),
        });
        found.and_then(|value| value).map_err(|error| Error::new(format!("{error}\n{}", tail(&self.log))))
    }

    /// Waits until `text` appears in the log.
    ///
    /// # Errors
    /// When the server has ended, or `timeout` has passed.
    pub fn wait_for_line(&mut self, text: &str, timeout: Duration) -> Result<()> {
        let log = self.log.clone();
        self.wait_for(&format!("a line with `{text}`"), timeout, || log_contains(&log, text).then_some(()))
    }

    /// Waits until the server ends by itself.
    ///
    /// # Errors
    /// When `timeout` has passed.
    pub fn wait_for_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        wait_for(&what, timeout, || self.exited()).map_err(|error| Error::new(format!("{error}\n{}", tail(&self.log))))
    }

    /// Sends a signal by name (`TERM`, `STOP`, `CONT`, `HUP`) to the server and its children.
    ///
    /// # Errors
    /// When no shell could be started, or the server is gone.
    pub fn signal(&self, signal: &str) -> Result<()> {
        signal_group(signal, self.pid())
    }

    /// Asks the server to end (SIGTERM), and kills it when it does not within `grace`.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self, grace: Duration) -> Result<ExitStatus> {
        if self.exited().is_none() {
            self.signal("TERM")?;
        }
        let ended = self.wait_for_exit(grace);
        self.kill();
        ended
    }

    /// SIGKILL for the server and everything it started; returns when the server is gone.
    pub fn kill(&mut self) {
        self.leash = None;
        if self.status.is_none() {
            self.status = self.child.wait().ok();
        }
    }

    /// Lets the server live on after this process, and gives its process id.
    pub fn detach(mut self) -> u32 {
        if let Some(leash) = self.leash.take() {
            leash.release();
        }
        // Without a leash `Drop` has nothing to kill, but it would wait.
        self.status = Some(ExitStatus::default());
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal by name to a process group.
///
/// # Errors
/// When no shell could be started, or the group is gone.
pub fn signal_group(signal: &str, group: u32) -> Result<()> {
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -s {signal} -- -{group}")])
        .stderr(Stdio::null())
        .status()
        .context(|| "running sh to send a signal".into())?;
    if sent.success() { Ok(()) } else { Err(Error::new(format!("no process group {group} to send SIG{signal} to"))) }
}

/// Whether a log holds `text`. A log that is not there yet holds nothing.
pub fn log_contains(log: &Path, text: &str) -> bool {
    fs::read(log).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
}

/// The last lines of a log, under its name, for an error's text.
pub fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    format!("--- end of {} ---\n{last}\n---", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn kills_the_children_of_its_server_too() {
        let log = temporary("group");
        let mut daemon = Daemon::spawn("parent", shell("sleep 1000 & echo child $!; wait"), &log).unwrap();
        daemon.wait_for_line("child ", Duration::from_secs(10)).unwrap();
        let child = fs::read_to_string(&log).unwrap().trim().replace("child ", "");
        daemon.kill();
        // A killed child stays a zombie until init has reaped it, where there is an init that does.
        wait_for("the child's end", Duration::from_secs(10), || {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z")).then_some(())
        })
        .unwrap();
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn an_early_end_shows_the_log() {
        let log = temporary("early");
        let mut daemon = Daemon::spawn("quitter", shell("echo no such luck; exit 3"), &log).unwrap();
        let error = daemon.wait_for_line("ready", Duration::from_secs(10)).unwrap_err().to_string();
        assert!(error.contains("quitter ended") && error.contains("no such luck"), "{error}");
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn stops_with_a_signal_that_a_server_can_catch() {
        let log = temporary("stop");
        let script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
        let mut daemon = Daemon::spawn("polite", shell(script), &log).unwrap();
        daemon.wait_for_line("ready", Duration::from_secs(10)).unwrap();
        assert!(daemon.stop(Duration::from_secs(10)).unwrap().success());
        assert!(log_contains(&log, "bye"));
        fs::remove_file(log).unwrap();
    }
}
