//! rspamd as a milter, without its network checks: two subjects decide. Where it is asked to, it tells a service about
//! each message it has scanned (`metadata_exporter`), also of those it refused.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
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
        for (name, text) in files(&dir, port, metadata_url) {
            let file = dir.join(name);
            fs::write(&file, text).context(|| format!("writing {}", file.display()))?;
        }
        let mut command = Command::new(program);
        // `-i`: as root it would refuse to run its workers as root, and another user could not read `dir`.
        command.args(["-f", "-i", "-c"]).arg(dir.join("rspamd.conf")).current_dir(&dir);
        let mut daemon = Daemon::spawn("rspamd", command, &dir.join("rspamd.log"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        daemon.wait_for("taking connections", START_TIMEOUT, || TcpStream::connect(address).ok())?;
        Ok(Self { port, daemon })
    }

    /// Its milter, as `smtpd_milters` wants it.
    pub fn milter(&self) -> String {
        format!("inet:127.0.0.1:{}", self.port)
    }

    /// rspamd's log.
    pub fn log(&self) -> &Path {
        self.daemon.log()
    }
}

/// A configuration of its own instead of the stock one, most of whose modules ask the network: name and text of each
/// file. With so few top-level domains rspamd starts in a second; compiling the full list takes it ten.
fn files(dir: &Path, port: u16, metadata_url: Option<&str>) -> [(&'static str, String); 4] {
    let exporter = metadata_url.map_or_else(String::new, |url| {
        format!(r#"tidegate {{ backend = "http"; url = "{url}"; selector = "default"; formatter = "json"; }}"#)
    });
    let configuration = format!(
        r#"options {{
  pidfile = "{dir}/rspamd.pid";
  control_socket = "{dir}/rspamd.sock mode=0600";
  tempdir = "{dir}";
  hs_cache_dir = "{dir}";
  url_tld = "{dir}/tld.txt";
  filters = "";
  dns {{ nameserver = ["127.0.0.1:9"]; timeout = 0.1s; retransmits = 1; }}
}}
logging {{ type = "console"; level = "info"; }}
lua = "${{RULESDIR}}/rspamd.lua";
modules {{ path = "${{PLUGINSDIR}}"; fallback_path = "${{SHAREDIR}}/lua"; }}
actions {{ reject = 15; add_header = 6; }}
worker "rspamd_proxy" {{
  bind_socket = "127.0.0.1:{port}";
  milter = yes;
  count = 1;
  timeout = 60s;
  spam_header = "X-Spam";
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
multimap {{
  SUBJECT_REJECTED {{ type = "header"; header = "Subject"; regexp = true; score = 20; map = "{dir}/rejected.map"; }}
  SUBJECT_MARKED {{ type = "header"; header = "Subject"; regexp = true; score = 8; map = "{dir}/marked.map"; }}
}}
milter_headers {{ use = []; extended_spam_headers = true; skip_authenticated = false; }}
metadata_exporter {{ rules {{ {exporter} }} }}
"#,
        dir = dir.display(),
    );
    [
        ("rspamd.conf", configuration),
        ("tld.txt", "com\nnet\norg\ntest\n".into()),
        ("rejected.map", format!("/{REJECTED_SUBJECT}/i\n")),
        ("marked.map", format!("/{MARKED_SUBJECT}/i\n")),
    ]
}
