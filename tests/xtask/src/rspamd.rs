//! rspamd as a milter, without its network checks: two subjects decide. Where it is asked to, it tells a service about
//! each message it has scanned (`metadata_exporter`), also of those it refused.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::daemon::Daemon;
use crate::error::{Context, Error, Result};
use crate::paths::find_program;
use crate::ports::free_port;

/// A message with this in its subject is refused at the end of message.
pub const REJECTED_SUBJECT: &str = "cheap pills";
/// A message with this in its subject passes, with `X-Spam: Yes` and the like added.
pub const MARKED_SUBJECT: &str = "maybe pills";

const START_TIMEOUT: Duration = Duration::from_mins(1);

/// Modules of the stock configuration that ask the network, or keep mail back for reasons of their own.
const MODULES_OFF: [&str; 18] = [
    "arc",
    "asn",
    "bimi",
    "chartable",
    "dkim",
    "dkim_signing",
    "dmarc",
    "fuzzy_check",
    "greylist",
    "hfilter",
    "mx_check",
    "neural",
    "phishing",
    "ratelimit",
    "rbl",
    "reputation",
    "spf",
    "surbl",
];

/// A running rspamd. Dropping it kills it.
#[derive(Debug)]
pub struct RspamdRig {
    port: u16,
    daemon: Daemon,
}

impl RspamdRig {
    /// Starts rspamd with its files in `dir`. Each scanned message is posted to `metadata_url`, if there is one.
    ///
    /// # Errors
    /// When rspamd is missing or does not start.
    pub fn start(dir: &Path, metadata_url: Option<&str>) -> Result<Self> {
        let program = find_program("rspamd")
            .ok_or_else(|| Error::new("no rspamd here: `cargo xtask setup --for test` installs it"))?;
        fs::create_dir_all(dir).context(|| format!("making {}", dir.display()))?;
        let dir = dir.canonicalize().context(|| format!("finding {}", dir.display()))?;
        let port = free_port()?;
        for (name, text) in configuration(&dir, port, metadata_url) {
            let file = dir.join(name);
            let folder = file.parent().unwrap_or(&dir);
            fs::create_dir_all(folder).context(|| format!("making {}", folder.display()))?;
            fs::write(&file, text).context(|| format!("writing {}", file.display()))?;
        }
        let mut command = Command::new(program);
        // `-i`: as root it would refuse to run its workers as root, and another user could not read `dir`.
        command.args(["-f", "-i"]);
        for variable in ["LOCAL_CONFDIR", "DBDIR", "RUNDIR", "LOGDIR"] {
            command.arg(format!("--var={variable}={}", dir.display()));
        }
        let mut daemon = Daemon::spawn("rspamd", command, &dir.join("rspamd.out"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        daemon
            .wait_for("taking connections", START_TIMEOUT, || TcpStream::connect(address).ok())
            .map_err(|error| Error::new(format!("{error}\n{}", crate::daemon::tail(&dir.join("rspamd.log")))))?;
        Ok(Self { port, daemon })
    }

    /// Its milter, as `smtpd_milters` wants it.
    pub fn milter(&self) -> String {
        format!("inet:127.0.0.1:{}", self.port)
    }

    /// What it printed; its own log is `rspamd.log` beside it.
    pub fn log(&self) -> &Path {
        self.daemon.log()
    }
}

/// The files that change the stock configuration: name and text.
fn configuration(dir: &Path, port: u16, metadata_url: Option<&str>) -> Vec<(PathBuf, String)> {
    let file = |name: &str, text: &str| (PathBuf::from(name), text.to_owned());
    let mut files: Vec<_> =
        MODULES_OFF.iter().map(|module| file(&format!("local.d/{module}.conf"), "enabled = false;\n")).collect();
    files.extend([
        // No name server: nothing may ask the network.
        file("override.d/options.inc", "filters = \"\";\ndisable_hyperscan = true;\ndns { nameserver = [\"127.0.0.1:9\"]; timeout = 0.1s; retransmits = 1; }\n"),
        file("override.d/logging.inc", "level = \"info\";\n"),
        file("override.d/worker-normal.inc", "enabled = false;\n"),
        file("override.d/worker-controller.inc", "enabled = false;\n"),
        file("override.d/worker-fuzzy.inc", "enabled = false;\n"),
        (
            "override.d/worker-proxy.inc".into(),
            format!(
                "bind_socket = \"127.0.0.1:{port}\";\nmilter = yes;\ncount = 1;\ntimeout = 60s;\n\
                 upstream \"local\" {{ default = yes; self_scan = yes; }}\n"
            ),
        ),
        file(
            "override.d/actions.conf",
            "reject = 15;\nadd_header = 6;\ngreylist = null;\n",
        ),
        file("override.d/milter_headers.conf", "extended_spam_headers = true;\nskip_authenticated = false;\n"),
        (
            "override.d/multimap.conf".into(),
            ["rejected", "marked"]
                .map(|kind| {
                    let score = if kind == "rejected" { 20 } else { 8 };
                    format!(
                        "SUBJECT_{} {{ type = \"header\"; header = \"Subject\"; regexp = true; score = {score}; \
                         map = \"{}/{kind}.map\"; }}\n",
                        kind.to_uppercase(),
                        dir.display()
                    )
                })
                .concat(),
        ),
        ("rejected.map".into(), format!("/{REJECTED_SUBJECT}/i\n")),
        ("marked.map".into(), format!("/{MARKED_SUBJECT}/i\n")),
        (
            "override.d/metadata_exporter.conf".into(),
            metadata_url.map_or_else(
                || "enabled = false;\n".into(),
                |url| {
                    format!(
                        "rules {{ tidegate {{ backend = \"http\"; url = \"{url}\"; selector = \"default\"; formatter = \"json\"; }} }}\n"
                    )
                },
            ),
        ),
    ]);
    files
}
