//! Prometheus and its `promtool`: scrapes a running system, and judges rules.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::daemon::Daemon;
use crate::error::{Context, Error, Result};
use crate::paths::find_program;
use crate::ports::free_port;

const START_TIMEOUT: Duration = Duration::from_mins(1);

/// A running Prometheus. Dropping it kills it.
#[derive(Debug)]
pub struct PrometheusRig {
    address: SocketAddr,
    daemon: Daemon,
}

impl PrometheusRig {
    /// Starts Prometheus with its files in `dir`. It scrapes each of `targets`, a job and an address, every second, and
    /// evaluates the rules in `rules` as often.
    ///
    /// # Errors
    /// When Prometheus is missing or does not start.
    pub fn start(dir: &Path, targets: &[(&str, SocketAddr)], rules: &Path) -> Result<Self> {
        let program = find_program("prometheus")
            .ok_or_else(|| Error::new("no prometheus here: `cargo xtask setup --for test` installs it"))?;
        fs::create_dir_all(dir).context(|| format!("making {}", dir.display()))?;
        let mut text = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{:?}]\nscrape_configs:\n",
            rules.display().to_string()
        );
        for (job, address) in targets {
            // Writing into a text never fails.
            let _ = writeln!(text, "  - {{ job_name: {job}, static_configs: [{{ targets: [\"{address}\"] }}] }}");
        }
        let file = dir.join("prometheus.yml");
        fs::write(&file, text).context(|| format!("writing {}", file.display()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .current_dir(dir);
        let mut daemon = Daemon::spawn("Prometheus", command, &dir.join("prometheus.log"))?;
        daemon.wait_for("taking connections", START_TIMEOUT, || TcpStream::connect(address).ok())?;
        Ok(Self { address, daemon })
    }

    /// Where its HTTP API is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        self.daemon.log()
    }
}

/// Runs `promtool` and gives what it said.
///
/// # Errors
/// When it is missing, or finds something wrong: then what it said.
pub fn promtool(arguments: &[&str], folder: &Path) -> Result<String> {
    let program: PathBuf = find_program("promtool")
        .ok_or_else(|| Error::new("no promtool here: `cargo xtask setup --for test` installs it with Prometheus"))?;
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .context(|| "running promtool".into())?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(Error::new(format!("promtool {} failed:\n{said}", arguments.join(" "))))
}
