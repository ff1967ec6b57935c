//! Dovecot as a login server for Postfix (SASL), and nothing else: no IMAP, no ports, all files in one folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::daemon::Daemon;
use crate::error::{Context, Error, Result};
use crate::paths::find_program;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// An account that can log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The SASL login, usually an address.
    pub name: String,
    /// Its password in plain text.
    pub password: String,
}

impl User {
    /// An account from its login and password.
    pub fn new(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self { name: name.into(), password: password.into() }
    }
}

/// A running Dovecot. Dropping it kills it.
#[derive(Debug)]
pub struct DovecotRig {
    dir: PathBuf,
    daemon: Daemon,
}

impl DovecotRig {
    /// Starts the login server with its files in `dir`. Needs root, as Dovecot does.
    ///
    /// # Errors
    /// When Dovecot is missing or does not start.
    pub fn start(dir: &Path, users: &[User]) -> Result<Self> {
        let program = find_program("dovecot")
            .ok_or_else(|| Error::new("no dovecot here: `cargo xtask setup --for postfix` installs it"))?;
        fs::create_dir_all(dir).context(|| format!("making {}", dir.display()))?;
        // Dovecot's and Postfix's own users have to pass.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).context(|| format!("opening {}", dir.display()))?;
        let dir = dir.canonicalize().context(|| format!("finding {}", dir.display()))?;
        write_users(&dir, users)?;
        let file = dir.join("dovecot.conf");
        fs::write(&file, configuration(&dir)).context(|| format!("writing {}", file.display()))?;
        let mut command = Command::new(program);
        command.arg("-F").arg("-c").arg(&file);
        let mut daemon = Daemon::spawn("Dovecot", command, &dir.join("dovecot.log"))?;
        let socket = auth_socket(&dir);
        daemon.wait_for("making its login socket", START_TIMEOUT, || socket.exists().then_some(()))?;
        Ok(Self { dir, daemon })
    }

    /// The socket for Postfix's `smtpd_sasl_path`.
    pub fn auth_socket(&self) -> PathBuf {
        auth_socket(&self.dir)
    }

    /// Replaces the accounts; Dovecot reads them at the next login.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_users(&self, users: &[User]) -> Result<()> {
        write_users(&self.dir, users)
    }

    /// Dovecot's log.
    pub fn log(&self) -> &Path {
        self.daemon.log()
    }

    /// Lets it run on after this process, and gives its process id.
    pub fn detach(self) -> u32 {
        self.daemon.detach()
    }
}

fn auth_socket(dir: &Path) -> PathBuf {
    dir.join("auth.sock")
}

fn write_users(dir: &Path, users: &[User]) -> Result<()> {
    let lines: Vec<_> = users.iter().map(|user| format!("{}:{{PLAIN}}{}\n", user.name, user.password)).collect();
    let (file, new) = (dir.join("users"), dir.join("users.new"));
    fs::write(&new, lines.concat())
        .and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&new, &file))
        .context(|| format!("writing {}", file.display()))
}

fn configuration(dir: &Path) -> String {
    format!(
        "base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/dovecot.log
auth_verbose = yes
protocols =
ssl = no
auth_mechanisms = plain login
auth_username_format = %Lu
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = {dir}/users
}}
service auth {{
  unix_listener {dir}/auth.sock {{
    mode = 0666
  }}
}}
",
        dir = dir.display()
    )
}
