//! Runs a program to its end, e.g. `tidegate accounts list --json`, with a deadline.

use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use xtask::leash::Leash;
use xtask::wait::wait_for;

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The exit status.
    pub status: ExitStatus,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
}

impl Ended {
    /// The exit code; -1 when a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Itself, if the exit code is 0.
    ///
    /// # Errors
    /// The code and what the program printed, if it is another.
    pub fn succeeded(self) -> Result<Self> {
        if self.status.success() { Ok(self) } else { Err(anyhow!("{}", self.report())) }
    }

    /// All of it as text, for a failed assertion.
    pub fn report(&self) -> String {
        let mut report = format!("ended with {}", self.status);
        for (name, text) in [("standard output", &self.stdout), ("standard error", &self.stderr)] {
            if !text.is_empty() {
                let _ = write!(report, "\n--- {name}\n{text}");
            }
        }
        report
    }
}

/// Runs `command` without input and gives what it printed.
///
/// # Errors
/// When it cannot be started, or has not ended within `timeout`: then it is killed.
pub fn run(mut command: Command, timeout: Duration) -> Result<Ended> {
    let what = format!("{command:?}");
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {what}"))?;
    let leash = Leash::on_group(child.id())?;
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // A pipe that breaks ends the text, like one that closes.
            let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = read(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let stderr = read(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let ended = wait_for(&format!("the end of {what}"), timeout, || child.try_wait().transpose());
    // Also ends children that hold the pipes open.
    drop(leash);
    let _ = child.wait();
    let [stdout, stderr] = [stdout, stderr].map(|thread| thread.join().unwrap_or_default());
    match ended {
        Ok(status) => Ok(Ended { status: status.with_context(|| format!("waiting for {what}"))?, stdout, stderr }),
        Err(error) => bail!("{error}; it said:\n{stdout}{stderr}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn gives_what_was_printed_and_the_code() {
        let ended = run(shell("echo out; echo err >&2; exit 2"), Duration::from_secs(30)).unwrap();
        assert_eq!((ended.code(), ended.stdout.as_str(), ended.stderr.as_str()), (2, "out\n", "err\n"));
        let error = ended.succeeded().unwrap_err().to_string();
        assert!(error.contains("exit status: 2") && error.contains("err"), "{error}");
    }

    #[test]
    fn kills_what_does_not_end_and_shows_what_it_said() {
        let error = run(shell("echo busy; sleep 1000 & wait"), Duration::from_millis(300)).unwrap_err().to_string();
        assert!(error.contains("in vain") && error.contains("busy"), "{error}");
    }
}
