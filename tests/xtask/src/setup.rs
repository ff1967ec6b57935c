//! Finds out which programs and libraries are missing for a purpose, and installs them where it can: with apt, as root,
//! on Debian and its like. Elsewhere it says in one line what to install.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Result};
use crate::paths::{find_program, target_dir};
use crate::progress::Progress;
use crate::{kafka, kube_parts, tools};

/// What the machine is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Building and running the demo.
    Demo,
    /// The whole test run.
    Test,
    /// Measuring.
    Bench,
    /// A Kafka for development.
    Kafka,
    /// A Postfix for development.
    Postfix,
    /// The checks of `cargo xtask lint`.
    Lint,
    /// Debian packages.
    Deb,
    /// The chart on a Kubernetes control plane.
    Kube,
    /// The packages on a booted Debian.
    MailHost,
}

impl Purpose {
    /// Purposes by the names that `--for` takes.
    pub const NAMES: [(&'static str, Self); 9] = [
        ("demo", Self::Demo),
        ("test", Self::Test),
        ("bench", Self::Bench),
        ("kafka", Self::Kafka),
        ("postfix", Self::Postfix),
        ("lint", Self::Lint),
        ("deb", Self::Deb),
        ("kube", Self::Kube),
        ("mail-host", Self::MailHost),
    ];
}

/// How a need shows that it is met.
#[derive(Debug, Clone, Copy)]
enum Sign {
    /// A program that can be found.
    Program(&'static str),
    /// A C library with its headers, by its name for `pkg-config`.
    Library { name: &'static str, header: &'static str },
    /// A Python module.
    PythonModule(&'static str),
}

/// One thing that is needed, and the Debian package that brings it.
#[derive(Debug, Clone, Copy)]
struct Need {
    sign: Sign,
    package: &'static str,
}

const fn program(name: &'static str, package: &'static str) -> Need {
    Need { sign: Sign::Program(name), package }
}

/// What compiling takes beyond cargo: librdkafka is C and C++ under `configure` and `make`, and links OpenSSL.
const BUILD: [Need; 5] = [
    program("cc", "gcc"),
    program("c++", "g++"),
    program("make", "make"),
    program("pkg-config", "pkg-config"),
    Need { sign: Sign::Library { name: "openssl", header: "/usr/include/openssl/ssl.h" }, package: "libssl-dev" },
];

const KAFKA: [Need; 2] = [program("java", "default-jre-headless"), program("mvn", "maven")];

const POSTFIX: [Need; 4] = [
    program("postfix", "postfix"),
    program("dovecot", "dovecot-core"),
    program("openssl", "openssl"),
    program("swaks", "swaks"),
];

/// Prometheus and promtool for the alerts, debootstrap for a clean root that packages are installed into, systemd for its
/// opinion of units.
const DEPLOY: [Need; 4] = [
    program("prometheus", "prometheus"),
    program("debootstrap", "debootstrap"),
    program("systemd-analyze", "systemd"),
    SHLIBDEPS,
];

/// Finds out which packages a program's libraries are in.
const SHLIBDEPS: Need = program("dpkg-shlibdeps", "dpkg-dev");

/// rspamd as a filter before the edge, Go for `grpcurl`, Helm and a client in Go, Python with room for clients in Python and
/// Kubernetes' schemas, a Java compiler for a client in Java, buildah for container images, Chromium for the console, npm
/// for axe-core, and strace to kill a journal's owner between two system calls.
const TEST: [Need; 10] = [
    program("rspamd", "rspamd"),
    program("buildah", "buildah"),
    program("go", "golang-go"),
    program("strace", "strace"),
    program("chromium", "chromium"),
    program("chromedriver", "chromium-driver"),
    program("npm", "npm"),
    program("javac", "default-jdk-headless"),
    program("python3", "python3"),
    Need { sign: Sign::PythonModule("ensurepip"), package: "python3-venv" },
];

/// Python with room for `buf`, which comes from PyPI.
const LINT: [Need; 2] =
    [program("python3", "python3"), Need { sign: Sign::PythonModule("ensurepip"), package: "python3-venv" }];

/// Go for the control plane and Helm, and OpenSSL for the key that signs its service accounts' tokens.
const KUBE: [Need; 2] = [program("go", "golang-go"), program("openssl", "openssl")];

/// A Debian, and how it is booted.
const MAIL_HOST: [Need; 3] =
    [program("debootstrap", "debootstrap"), program("systemd-nspawn", "systemd-container"), SHLIBDEPS];

fn needs(purpose: Purpose) -> Vec<Need> {
    match purpose {
        Purpose::Demo => BUILD.to_vec(),
        Purpose::Test => [&BUILD[..], &KAFKA, &POSTFIX, &TEST, &DEPLOY].concat(),
        Purpose::Bench => [&BUILD[..], &KAFKA].concat(),
        Purpose::Kafka => KAFKA.to_vec(),
        Purpose::Postfix => POSTFIX.to_vec(),
        Purpose::Lint => [&BUILD[..], &LINT].concat(),
        Purpose::Deb => [&BUILD[..], &[SHLIBDEPS]].concat(),
        Purpose::Kube => [&BUILD[..], &LINT, &KUBE].concat(),
        Purpose::MailHost => [&BUILD[..], &MAIL_HOST].concat(),
    }
}

impl Need {
    fn is_met(&self) -> bool {
        match self.sign {
            Sign::Program(name) => find_program(name).is_some(),
            Sign::Library { name, header } => {
                Path::new(header).is_file() || succeeds(Command::new("pkg-config").args(["--exists", name]))
            }
            Sign::PythonModule(name) => succeeds(Command::new("python3").args(["-c", &format!("import {name}")])),
        }
    }
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Installs what is missing for `purpose`; costs a few milliseconds when nothing is.
///
/// # Errors
/// One line that says what to install, where this program cannot do it; or why apt failed.
pub fn install_missing(purpose: Purpose, progress: &Progress) -> Result<()> {
    let missing: Vec<&str> = needs(purpose).iter().filter(|need| !need.is_met()).map(|need| need.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if find_program("apt-get").is_none() {
        return Err(Error::new(format!(
            "please install what brings these Debian packages' programs on your system, then try again: {names}"
        )));
    }
    if !is_root() {
        return Err(Error::new(format!(
            "please run, then try again: sudo apt-get install --no-install-recommends {names}"
        )));
    }
    progress.step(&format!("installing {names}"));
    let _guard = NoDaemons::put_up()?;
    apt(&["update"])?;
    if missing.contains(&"postfix") {
        leave_postfix_unconfigured()?;
    }
    apt(&[&["install", "--no-install-recommends"], &missing[..]].concat())?;
    match needs(purpose).iter().find(|need| !need.is_met()) {
        None => Ok(()),
        Some(need) => Err(Error::new(format!("{} is installed, but {:?} is still not there", need.package, need.sign))),
    }
}

/// Fetches the real parts that `purpose` wants and no package brings, unless they are here. The programs that this takes
/// must be [installed](install_missing).
///
/// # Errors
/// When a registry cannot be reached, or a part cannot be built.
pub fn fetch_parts(purpose: Purpose) -> Result<()> {
    if matches!(purpose, Purpose::Test | Purpose::Kafka | Purpose::Bench) {
        kafka::fetch()?;
    }
    if purpose == Purpose::Test {
        tools::grpcurl()?;
        tools::axe()?;
        tools::helm()?;
        tools::python_with_kubernetes_schemas()?;
        tools::python_of_analysts()?;
        tools::flight_sql_jdbc()?;
    }
    if purpose == Purpose::Kube {
        tools::helm()?;
        tools::python_with_kubernetes_schemas()?;
        kube_parts::fetch()?;
    }
    if purpose == Purpose::Lint {
        tools::buf()?;
    }
    Ok(())
}

/// Whether this process runs as root.
fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status.lines().find_map(|line| line.strip_prefix("Uid:")).is_some_and(|ids| {
            // Real, effective, saved and file system user.
            ids.split_whitespace().nth(1) == Some("0")
        })
    })
}

/// Runs apt with its output in a log; an error shows the log's end.
fn apt(arguments: &[&str]) -> Result<()> {
    let log = target_dir().join("apt.log");
    let output =
        fs::OpenOptions::new().create(true).append(true).open(&log).context(|| format!("opening {}", log.display()))?;
    let errors = output.try_clone().context(|| format!("opening {} twice", log.display()))?;
    let status = Command::new("apt-get")
        .args(["-q", "-y", "-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .status()
        .context(|| "running apt-get".into())?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(format!("apt-get {} failed ({status}):\n{}", arguments.join(" "), crate::daemon::tail(&log))))
}

/// Answers the package's question, so that there is no /etc/postfix/main.cf and no mail server at the next boot either.
/// Not for a Postfix that is there already: then nothing is missing and this is not called.
fn leave_postfix_unconfigured() -> Result<()> {
    let mut selections = Command::new("debconf-set-selections")
        .stdin(Stdio::piped())
        .spawn()
        .context(|| "running debconf-set-selections".into())?;
    if let Some(mut input) = selections.stdin.take() {
        input
            .write_all(b"postfix postfix/main_mailer_type select No configuration\n")
            .context(|| "answering Postfix's question".into())?;
    }
    let status = selections.wait().context(|| "waiting for debconf-set-selections".into())?;
    if status.success() { Ok(()) } else { Err(Error::new(format!("debconf-set-selections failed ({status})"))) }
}

/// Keeps packages from starting their daemons while they are installed (Debian's `policy-rc.d`); taken down on drop.
struct NoDaemons {
    ours: bool,
}

impl NoDaemons {
    const FILE: &str = "/usr/sbin/policy-rc.d";

    fn put_up() -> Result<Self> {
        // A container's image often has one that says the same; it stays.
        if Path::new(Self::FILE).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(Self::FILE, "#!/bin/sh\nexit 101\n")
            .and_then(|()| fs::set_permissions(Self::FILE, fs::Permissions::from_mode(0o755)))
            .context(|| format!("writing {}", Self::FILE))?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(Self::FILE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_met_by_what_is_there_only() {
        assert!(program("sh", "dash").is_met());
        assert!(!program("no-such-program-here", "none").is_met());
        let library = Sign::Library { name: "no-such-library-here", header: "/no/such/header.h" };
        assert!(!Need { sign: library, package: "none" }.is_met());
    }

    #[test]
    fn each_package_is_named_once() {
        for (_, purpose) in Purpose::NAMES {
            let mut packages: Vec<_> = needs(purpose).iter().map(|need| need.package).collect();
            packages.sort_unstable();
            let count = packages.len();
            packages.dedup();
            assert_eq!(packages.len(), count, "{purpose:?}");
        }
    }
}
