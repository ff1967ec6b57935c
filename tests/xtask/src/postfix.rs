//! A private Postfix: own configuration, queue, data and log in one folder, one submission port on loopback, logins
//! by a private Dovecot, and all outgoing mail to one SMTP server. Touches nothing under /etc. Needs root, as Postfix does.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::daemon::{signal_group, tail};
use crate::dovecot::{DovecotRig, User};
use crate::error::{Context, Error, Result};
use crate::leash::Leash;
use crate::paths::find_program;
use crate::ports::free_port;
use crate::wait::{wait_for, wait_until};

const START_TIMEOUT: Duration = Duration::from_mins(1);

/// Where in a message's life Postfix asks a policy service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyStage {
    /// At MAIL (with `delay_reject` Postfix refuses at RCPT all the same).
    Sender,
    /// At each RCPT.
    Recipient,
    /// At DATA.
    Data,
    /// After the content.
    EndOfData,
}

impl PolicyStage {
    const ALL: [Self; 4] = [Self::Sender, Self::Recipient, Self::Data, Self::EndOfData];

    fn parameter(self) -> &'static str {
        match self {
            Self::Sender => "smtpd_sender_restrictions",
            Self::Recipient => "smtpd_recipient_restrictions",
            Self::Data => "smtpd_data_restrictions",
            Self::EndOfData => "smtpd_end_of_data_restrictions",
        }
    }
}

/// How a private Postfix is set up.
#[derive(Debug, Clone)]
pub struct PostfixOptions {
    /// Milters in their order, as `smtpd_milters` has them: `unix:/path` or `inet:127.0.0.1:port`. Mail passes when
    /// one is down (`milter_default_action=accept`).
    pub milters: Vec<String>,
    /// Policy services, `unix:/path` or `inet:127.0.0.1:port`, and when to ask them. Mail passes when one is down.
    pub policies: Vec<(PolicyStage, String)>,
    /// The accounts that can log in.
    pub users: Vec<User>,
    /// Where all outgoing mail goes.
    pub relay_to: SocketAddr,
    /// `smtpd_delay_reject`: Postfix's default is to refuse no sooner than at RCPT. Milters refuse at MAIL either way.
    pub delay_reject: bool,
    /// The port for submission; a free one if not given.
    pub port: Option<u16>,
    /// More lines for `main.cf`.
    pub more: Vec<String>,
}

impl PostfixOptions {
    /// No milter, no policy service, no account: a Postfix that relays nothing.
    pub fn relaying_to(relay_to: SocketAddr) -> Self {
        Self {
            milters: Vec::new(),
            policies: Vec::new(),
            users: Vec::new(),
            relay_to,
            delay_reject: true,
            port: None,
            more: Vec::new(),
        }
    }
}

/// A running Postfix with its Dovecot. Dropping it kills both; the queue stays until the folder is removed.
#[derive(Debug)]
pub struct PostfixRig {
    dir: PathBuf,
    port: u16,
    dovecot: DovecotRig,
    leash: Option<Leash>,
}

impl PostfixRig {
    /// Starts Postfix and Dovecot with their files in `dir`, and waits until Postfix takes connections.
    ///
    /// # Errors
    /// When a package is missing, the caller is not root, or one of them does not start.
    pub fn start(dir: &Path, options: &PostfixOptions) -> Result<Self> {
        fs::create_dir_all(dir).context(|| format!("making {}", dir.display()))?;
        // Postfix's own user has to pass.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).context(|| format!("opening {}", dir.display()))?;
        let dir = dir.canonicalize().context(|| format!("finding {}", dir.display()))?;
        let dovecot = DovecotRig::start(&dir.join("dovecot"), &options.users)?;
        let port = options.port.map_or_else(free_port, Ok)?;
        write_configuration(&dir, port, options, &dovecot.auth_socket())?;
        make_certificate(&dir)?;
        postfix(&dir, "start")?;
        // The master process leads a process group of its own. Its id is read now: the folder may go before it ends.
        let pid_file = dir.join("queue/pid/master.pid");
        let pid = fs::read_to_string(&pid_file).context(|| format!("reading {}", pid_file.display()))?;
        let leash = Leash::with(&format!("kill -s KILL -- -{}", pid.trim()))?;
        let rig = Self { dir, port, dovecot, leash: Some(leash) };
        wait_for("Postfix to take connections", START_TIMEOUT, || TcpStream::connect(rig.address()).ok())
            .map_err(|error| Error::new(format!("{error}\n{}", tail(&rig.log()))))?;
        Ok(rig)
    }

    /// The submission server's address: AUTH PLAIN and LOGIN, STARTTLS offered, XCLIENT allowed.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Its certificate, for `localhost` and 127.0.0.1, which is its own authority.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("etc/certificate.pem")
    }

    /// Postfix's log.
    pub fn log(&self) -> PathBuf {
        log(&self.dir)
    }

    /// The folder of `main.cf`, for `postconf -c`, `postqueue -c` and the like.
    pub fn config_dir(&self) -> PathBuf {
        self.dir.join("etc")
    }

    /// The queue's folder.
    pub fn queue_dir(&self) -> PathBuf {
        self.dir.join("queue")
    }

    /// The login server.
    pub fn dovecot(&self) -> &DovecotRig {
        &self.dovecot
    }

    /// How many messages are in the queue, in any state.
    ///
    /// # Errors
    /// When `postqueue` fails.
    pub fn queued(&self) -> Result<usize> {
        let output = Command::new(program("postqueue")?)
            .arg("-c")
            .arg(self.config_dir())
            .arg("-j")
            .output()
            .context(|| "running postqueue".into())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).lines().count());
        }
        Err(Error::new(format!("postqueue -j: {}", String::from_utf8_lossy(&output.stderr))))
    }

    /// Waits until all mail has left the queue.
    ///
    /// # Errors
    /// When some is still there after `timeout`.
    pub fn wait_until_delivered(&self, timeout: Duration) -> Result<()> {
        wait_until("Postfix's queue to empty", timeout, || self.queued().is_ok_and(|count| count == 0))
            .map_err(|error| Error::new(format!("{error}\n{}", tail(&self.log()))))
    }

    /// Sets `main.cf` parameters (`name=value`) and reloads, e.g. to wire other milters into a running server.
    ///
    /// # Errors
    /// When Postfix refuses them.
    pub fn reconfigure(&self, settings: &[String]) -> Result<()> {
        run(Command::new(program("postconf")?).arg("-c").arg(self.config_dir()).arg("-e").args(settings))?;
        postfix(&self.dir, "reload")
    }

    /// Lets both run on after this process; [`stop_detached`] ends them.
    ///
    /// # Errors
    /// When Dovecot's process id cannot be written down.
    pub fn detach(mut self) -> Result<()> {
        if let Some(leash) = self.leash.take() {
            leash.release();
        }
        let file = self.dir.join("dovecot.pid");
        let pid = self.dovecot.detach();
        fs::write(&file, pid.to_string()).context(|| format!("writing {}", file.display()))
    }
}

/// Stops a Postfix and Dovecot that were let go with [`PostfixRig::detach`].
///
/// # Errors
/// When there is none in this folder.
pub fn stop_detached(dir: &Path) -> Result<()> {
    let file = dir.join("dovecot.pid");
    let pid =
        fs::read_to_string(&file).context(|| format!("no Postfix was started here: reading {}", file.display()))?;
    let stopped = postfix(dir, "stop");
    if let Ok(group) = pid.trim().parse() {
        signal_group("TERM", group)?;
    }
    fs::remove_file(&file).context(|| format!("removing {}", file.display()))?;
    stopped
}

fn log(dir: &Path) -> PathBuf {
    dir.join("postfix.log")
}

fn program(name: &str) -> Result<PathBuf> {
    find_program(name)
        .ok_or_else(|| Error::new(format!("no {name} here: `cargo xtask setup --for postfix` installs Postfix")))
}

fn postfix(dir: &Path, command: &str) -> Result<()> {
    run(Command::new(program("postfix")?).arg("-c").arg(dir.join("etc")).arg(command))
        .map_err(|error| Error::new(format!("{error}\n{}", tail(&log(dir)))))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().context(|| format!("running {command:?}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Error::new(format!("{command:?} failed ({}):\n{}", output.status, String::from_utf8_lossy(&said))))
}

/// A certificate for `localhost` that nobody trusts, so that STARTTLS can be tried.
fn make_certificate(dir: &Path) -> Result<()> {
    run(Command::new(program("openssl")?)
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "30", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(dir.join("etc/key.pem"))
        .arg("-out")
        .arg(dir.join("etc/certificate.pem")))
}

fn write_configuration(dir: &Path, port: u16, options: &PostfixOptions, auth_socket: &Path) -> Result<()> {
    for folder in ["etc", "queue", "data"] {
        let folder = dir.join(folder);
        fs::create_dir_all(&folder).context(|| format!("making {}", folder.display()))?;
    }
    // Postfix insists that the data folder belongs to its own user.
    run(Command::new("chown").arg("postfix").arg(dir.join("data")))?;
    let write = |name: &str, text: String| {
        let file = dir.join("etc").join(name);
        fs::write(&file, text).context(|| format!("writing {}", file.display()))
    };
    write("main.cf", main_cf(dir, options, auth_socket))?;
    write("master.cf", master_cf(port))
}

fn main_cf(dir: &Path, options: &PostfixOptions, auth_socket: &Path) -> String {
    let mut lines = vec![format!(
        "compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
maillog_file = {dir}/postfix.log
maillog_file_prefixes = {dir}
myhostname = mail.test
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
default_transport = smtp:[127.0.0.1]:{relay_port}
relayhost =
smtp_tls_security_level = none
smtp_host_lookup = native
disable_dns_lookups = yes
biff = no
in_flow_delay = 0
smtpd_client_connection_count_limit = 0
smtpd_peername_lookup = no
smtpd_authorized_xclient_hosts = 127.0.0.0/8
smtpd_tls_security_level = may
smtpd_tls_cert_file = {dir}/etc/certificate.pem
smtpd_tls_key_file = {dir}/etc/key.pem
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {auth}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_milters = {milters}
milter_default_action = accept
smtpd_delay_reject = {delay_reject}",
        dir = dir.display(),
        relay_port = options.relay_to.port(),
        auth = auth_socket.display(),
        milters = options.milters.join(", "),
        delay_reject = if options.delay_reject { "yes" } else { "no" },
    )];
    for stage in PolicyStage::ALL {
        let services = options.policies.iter().filter(|(at, _)| *at == stage);
        let checks: Vec<String> = services
            .map(|(_, service)| format!("check_policy_service {{ {service}, default_action=DUNNO }}"))
            .collect();
        if !checks.is_empty() {
            lines.push(format!("{} = {}", stage.parameter(), checks.join(", ")));
        }
    }
    lines.extend(options.more.iter().cloned());
    lines.join("\n") + "\n"
}

/// Postfix's usual services, none in a chroot, and one SMTP server.
fn master_cf(port: u16) -> String {
    format!(
        "127.0.0.1:{port} inet n - n - - smtpd
  -o syslog_name=postfix/submission
pickup    unix  n - n 60    1 pickup
cleanup   unix  n - n -     0 cleanup
qmgr      unix  n - n 300   1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -     - trivial-rewrite
bounce    unix  - - n -     0 bounce
defer     unix  - - n -     0 bounce
trace     unix  - - n -     0 bounce
verify    unix  - - n -     1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -     - proxymap
smtp      unix  - - n -     - smtp
relay     unix  - - n -     - smtp
showq     unix  n - n -     - showq
error     unix  - - n -     - error
retry     unix  - - n -     - error
discard   unix  - - n -     - discard
anvil     unix  - - n -     1 anvil
scache    unix  - - n -     1 scache
postlog   unix-dgram n - n - 1 postlogd
"
    )
}
