//! One of our programs while it runs: started, asked, stopped, killed, started again.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask::daemon::Daemon;

use crate::http::{self, Response};
use crate::metrics::Metrics;

/// How to start a program.
#[derive(Debug, Clone)]
pub struct Launch {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    ops: Option<SocketAddr>,
}

/// A started program. Dropping it kills it, and so does the end of the test process.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    dir: PathBuf,
    starts: usize,
    /// The last start, also when it has ended.
    daemon: Daemon,
}

impl Launch {
    /// `program`, which errors and its log call `name`.
    pub fn new(name: &str, program: impl Into<PathBuf>) -> Self {
        let (arguments, environment) = (Vec::new(), Vec::new());
        Self { name: name.to_owned(), program: program.into(), arguments, environment, ops: None }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Says where it will serve `/readyz` and `/metrics`.
    pub fn ops(mut self, address: SocketAddr) -> Self {
        self.ops = Some(address);
        self
    }

    /// Starts it in `dir`, with its output in `dir/NAME.log`; does not wait.
    ///
    /// # Errors
    /// When the program is missing or the log cannot be written.
    pub fn start(self, dir: &Path) -> Result<Process> {
        let daemon = self.spawn(dir)?;
        Ok(Process { launch: self, dir: dir.to_owned(), starts: 1, daemon })
    }

    fn spawn(&self, dir: &Path) -> Result<Daemon> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().cloned()).current_dir(dir);
        Ok(Daemon::spawn(&self.name, command, &self.log(dir))?)
    }

    fn log(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.log", self.name))
    }
}

impl Process {
    /// Kills it if it still runs, and starts it with the same arguments. The last start's log becomes `NAME.1.log`, the
    /// next one's `NAME.2.log`, so that the log has lines of this start only.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_again(&mut self) -> Result<()> {
        self.kill();
        let kept = self.dir.join(format!("{}.{}.log", self.launch.name, self.starts));
        fs::rename(self.log(), &kept).with_context(|| format!("keeping the log as {}", kept.display()))?;
        self.daemon = self.launch.spawn(&self.dir)?;
        self.starts += 1;
        Ok(())
    }

    /// From its next start on it is this program.
    pub fn becomes(&mut self, program: PathBuf) {
        self.launch.program = program;
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Errors
    /// When the program ends before that, or `timeout` has passed: with the last answer and the log's end.
    pub fn wait_until_ready(&mut self, timeout: Duration) -> Result<()> {
        let address = self.ops()?;
        let mut last = "nothing".to_owned();
        let found = self.daemon.wait_for("/readyz to answer 200", timeout, || {
            match http::get(address, "/readyz") {
                Ok(response) if response.status == 200 => return Some(()),
                Ok(response) => last = format!("{} {}", response.status, response.body.trim_end()),
                Err(error) => last = format!("{error:#}"),
            }
            None
        });
        found.with_context(|| format!("the last answer of /readyz was: {last}"))
    }

    /// Waits until this start's log holds `text`.
    ///
    /// # Errors
    /// When the program ends before that, or `timeout` has passed.
    pub fn wait_for_line(&mut self, text: &str, timeout: Duration) -> Result<()> {
        Ok(self.daemon.wait_for_line(text, timeout)?)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When `timeout` has passed.
    pub fn wait_for_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        Ok(self.daemon.wait_for_exit(timeout)?)
    }

    /// Whether it runs, also when it is paused.
    pub fn is_running(&mut self) -> bool {
        self.daemon.exited().is_none()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// What this start has printed.
    pub fn log(&self) -> &Path {
        self.daemon.log()
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// SIGTERM; returns when it has ended by itself.
    ///
    /// # Errors
    /// When it has not ended within `grace`, and was killed.
    pub fn stop(&mut self, grace: Duration) -> Result<ExitStatus> {
        Ok(self.daemon.stop(grace)?)
    }

    /// SIGSTOP: it stays, but does nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// SIGCONT: it goes on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    /// Any signal by name, e.g. `HUP`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, name: &str) -> Result<()> {
        Ok(self.daemon.signal(name)?)
    }

    /// `GET path` where it serves health and metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn get(&self, path: &str) -> Result<Response> {
        http::get(self.ops()?, path)
    }

    /// All its metrics now.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::read(self.ops()?)
    }

    /// The sum of its series with this name and at least these labels; see [`Metrics::value`].
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(self.metrics()?.value(name, labels))
    }

    /// Where it serves health and metrics.
    ///
    /// # Errors
    /// When it was started without such an address.
    pub fn ops_address(&self) -> Result<SocketAddr> {
        self.ops()
    }

    fn ops(&self) -> Result<SocketAddr> {
        self.launch.ops.with_context(|| format!("{} was started without an address for /readyz", self.launch.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;
    use xtask::wait::wait_until;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> Launch {
        Launch::new("sample", "/bin/sh").args(["-c", script])
    }

    /// Answers each request with the next of these, over and over the last one.
    fn server(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let mut next = answers.iter().copied();
            let mut answer = "";
            for mut stream in listener.incoming().flatten() {
                answer = next.next().unwrap_or(answer);
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        address
    }

    #[test]
    fn is_ready_when_it_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let address = server(&["HTTP/1.0 503 No\r\n\r\nlog: not started\n", "HTTP/1.0 200 OK\r\n\r\n"]);
        let mut process = shell("exec sleep 1000").ops(address).start(dir.path()).unwrap();
        process.wait_until_ready(TIMEOUT).unwrap();
        assert!(process.is_running());
    }

    #[test]
    fn one_that_never_is_ready_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let address = server(&["HTTP/1.0 503 No\r\n\r\nlog: not started\n"]);
        let mut process = shell("exec sleep 1000").ops(address).start(dir.path()).unwrap();
        let error = format!("{:#}", process.wait_until_ready(Duration::from_millis(200)).unwrap_err());
        assert!(error.contains("503 log: not started"), "{error}");
        let mut process = shell("echo broken; exit 1").ops(address).start(dir.path()).unwrap();
        let error = format!("{:#}", process.wait_until_ready(TIMEOUT).unwrap_err());
        assert!(error.contains("sample ended") && error.contains("broken"), "{error}");
    }

    #[test]
    fn metrics_are_read_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let address = server(&["HTTP/1.0 200 OK\r\n\r\nevents_total{lane=\"live\"} 3\n# EOF\n"]);
        let process = shell("exec sleep 1000").ops(address).start(dir.path()).unwrap();
        assert_eq!(process.metric("events_total", &[("lane", "live")]).unwrap(), 3.0);
    }

    #[test]
    fn each_start_has_its_own_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut process =
            shell("echo \"start in $PLACE\"; exec sleep 1000").env("PLACE", "here").start(dir.path()).unwrap();
        process.wait_for_line("start in here", TIMEOUT).unwrap();
        let first = process.pid();
        process.start_again().unwrap();
        process.wait_for_line("start in here", TIMEOUT).unwrap();
        assert_ne!(process.pid(), first);
        for log in ["sample.1.log", "sample.log"] {
            assert_eq!(fs::read_to_string(dir.path().join(log)).unwrap(), "start in here\n");
        }
    }

    #[test]
    fn pauses_goes_on_and_stops_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        // It starts no other program: a shell that is stopped while it starts one is not in the state T.
        let script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do :; done";
        let mut process = shell(script).start(dir.path()).unwrap();
        process.wait_for_line("ready", TIMEOUT).unwrap();
        let state = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
        };
        process.pause().unwrap();
        wait_until("it to pause", TIMEOUT, || state(process.pid()) == 'T').unwrap();
        process.resume().unwrap();
        wait_until("it to go on", TIMEOUT, || state(process.pid()) != 'T').unwrap();
        assert!(process.stop(TIMEOUT).unwrap().success());
        assert!(!process.is_running());
    }
}
