//! `deploy/Dockerfile`, built and run by buildah: both images on a base with nothing but libraries, from programs that are
//! built already. Skipped, with a message, where there is no buildah, no apt, or no right to change roots.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tidegate_tests::command::{self, Ended};
use tidegate_tests::installation::TIMEOUT;
use tidegate_tests::manifests::{list, text};
use tidegate_tests::process::Launch;
use tidegate_tests::programs;
use xtask::parts::part;
use xtask::paths::{find_program, workspace_root};
use xtask::ports::free_port;
use xtask::tools;

/// What the programs need of Debian: no shell, no package manager.
const LIBRARIES: [&str; 4] = ["libc6", "libgcc-s1", "libssl3", "zlib1g"];
const BASE: &str = "localhost/base:1";
const BUILD_TIMEOUT: Duration = Duration::from_mins(5);

/// buildah with a store of its own.
struct Buildah {
    dir: tempfile::TempDir,
}

impl Buildah {
    /// None, with a message, where it cannot work.
    fn new() -> Option<Self> {
        let missing = ["buildah", "apt-get", "dpkg-deb", "strip"].into_iter().find(|name| find_program(name).is_none());
        if let Some(missing) = missing {
            eprintln!("skipped: there is no {missing}");
            return None;
        }
        let buildah = Self { dir: tempfile::tempdir().unwrap() };
        // It needs to be root, or a user with a range of ids, and to be allowed to change roots.
        let probe = buildah.run(&["from", "scratch"], TIMEOUT);
        if probe.code() != 0 {
            eprintln!("skipped: buildah cannot work here: {}", probe.stderr.trim_end());
            return None;
        }
        Some(buildah)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        for (option, folder) in [("--root", "root"), ("--runroot", "run")] {
            command.arg(option).arg(self.dir.path().join(folder));
        }
        command.args(["--storage-driver", "vfs"]).args(arguments).env("BUILDAH_ISOLATION", "chroot");
        command
    }

    fn run(&self, arguments: &[&str], timeout: Duration) -> Ended {
        command::run(self.command(arguments), timeout).unwrap()
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        self.run(arguments, BUILD_TIMEOUT).succeeded().unwrap().stdout.trim().to_owned()
    }

    fn import_base(&self, folder: &Path) {
        let container = self.succeed(&["from", "scratch"]);
        self.succeed(&["copy", "--quiet", &container, &folder.display().to_string(), "/"]);
        self.succeed(&["commit", "--quiet", &container, BASE]);
        self.succeed(&["rm", &container]);
    }

    /// Builds a target of the Dockerfile from the programs in a folder, and gives what the image says of itself.
    fn build(&self, target: &str, programs: &Path) -> Value {
        let empty = self.dir.path().join("empty");
        fs::create_dir_all(&empty).unwrap();
        let file = workspace_root().join("deploy/Dockerfile").display().to_string();
        let (context, base) = (format!("programs={}", programs.display()), format!("BASE={BASE}"));
        let arguments = ["build", "--pull=never", "--file", &file, "--build-context", &context, "--build-arg", &base];
        let more = ["--build-arg", "VERSION=1.2.3", "--build-arg", "REVISION=abc", "--target", target, "--tag", target];
        self.succeed(&[&arguments[..], &more, &[&empty.display().to_string()]].concat());
        serde_json::from_str(&self.succeed(&["inspect", "--type", "image", target])).unwrap()
    }
}

/// A root with libraries alone.
fn base() -> PathBuf {
    part("image-base-1", |folder| {
        let (packages, root) = (folder.join("packages"), folder.join("root"));
        fs::create_dir_all(&packages).unwrap();
        fs::create_dir_all(root.join("etc/ssl/certs")).unwrap();
        tools::run(Command::new("apt-get").args(["-q", "download"]).args(LIBRARIES).current_dir(&packages))?;
        for package in fs::read_dir(&packages).unwrap().map(|entry| entry.unwrap().path()) {
            tools::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&root))?;
        }
        fs::copy("/etc/ssl/certs/ca-certificates.crt", root.join("etc/ssl/certs/ca-certificates.crt")).unwrap();
        fs::create_dir_all(root.join("tmp")).unwrap();
        Ok(())
    })
    .unwrap()
    .join("root")
}

/// The two programs, without what only a debugger reads.
fn stripped(folder: &Path) {
    for program in [programs::tidegate(), programs::tidegate_edge()] {
        let program = program.unwrap();
        let mut strip = Command::new("strip");
        strip.arg("--strip-debug").arg("-o").arg(folder.join(program.file_name().unwrap())).arg(&program);
        command::run(strip, TIMEOUT).unwrap().succeeded().unwrap();
    }
}

fn words(list: &[Value]) -> Vec<&str> {
    list.iter().filter_map(Value::as_str).collect()
}

#[test]
fn both_images_are_built_and_run_without_a_shell_and_without_rights() {
    let Some(buildah) = Buildah::new() else { return };
    let base = base();
    assert!(!base.join("bin/sh").exists() && !base.join("usr/bin/sh").exists());
    buildah.import_base(&base);
    let programs = tempfile::tempdir().unwrap();
    stripped(programs.path());

    for (target, program) in [("server", "tidegate"), ("edge", "tidegate-edge")] {
        let image = buildah.build(target, programs.path());
        let config = &image["OCIv1"]["config"];
        assert_eq!(config["User"], "65532:65532", "{target}");
        assert_eq!(words(list(config, "/Entrypoint")), [format!("/usr/local/bin/{program}")]);
        let label = |name: &str| text(config, &format!("/Labels/org.opencontainers.image.{name}"));
        assert_eq!((label("title"), label("licenses")), (program, "Apache-2.0"));
        assert_eq!((label("version"), label("revision")), ("1.2.3", "abc"));
        let container = buildah.succeed(&["from", "--pull-never", target]);
        let version = buildah.succeed(&["run", &container, "--", &format!("/usr/local/bin/{program}"), "--version"]);
        assert_eq!(version, format!("{program} {}", env!("CARGO_PKG_VERSION")));
        let shell = buildah.run(&["run", &container, "--", "/bin/sh", "-c", "true"], TIMEOUT);
        assert_ne!(shell.code(), 0, "there is no shell in it");
    }

    let container = buildah.succeed(&["from", "--pull-never", "server"]);
    serves_as_nobody(&buildah, &container, &command_of(&buildah, "server"));
}

/// What the image runs when nothing else is said.
fn command_of(buildah: &Buildah, image: &str) -> Vec<String> {
    let image: Value = serde_json::from_str(&buildah.succeed(&["inspect", "--type", "image", image])).unwrap();
    let config = &image["OCIv1"]["config"];
    [list(config, "/Entrypoint"), list(config, "/Cmd")]
        .concat()
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// A process's number in a line of its status.
fn status(pid: u32, name: &str) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Whether a process is another one's child, or a child's.
fn is_below(pid: u32, ancestor: u32) -> bool {
    let parents = std::iter::successors(Some(pid), |&pid| status(pid, "PPid:").filter(|&parent| parent > 1));
    parents.into_iter().any(|pid| pid == ancestor)
}

/// The server takes its configuration from where a volume has it, and writes only where a volume is meant to be.
fn serves_as_nobody(buildah: &Buildah, container: &str, command: &[String]) {
    let config = tempfile::tempdir().unwrap();
    let address = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
    let (control, ops) = (address(), address());
    let text = format!(
        "[log]\nkind = \"embedded\"\ndirectory = \"/var/lib/tidegate/log\"\n[control]\nlisten = \"{control}\"\n[ops]\nlisten = \"{ops}\"\n"
    );
    fs::write(config.path().join("tidegate.toml"), text).unwrap();
    // The folder itself is the user's own alone; others may look.
    tools::run(Command::new("chmod").args(["-R", "a+rX"]).arg(config.path())).unwrap();
    let volume = format!("{}:/etc/tidegate:ro", config.path().display());
    let run = buildah.command(&["run", "--volume", &volume, container, "--"]);
    let mut launch = Launch::new("server", run.get_program()).env("BUILDAH_ISOLATION", "chroot").ops(ops);
    launch = launch.args(run.get_args().map(std::ffi::OsStr::to_owned)).args(command.iter().cloned());
    let log = tempfile::tempdir().unwrap();
    let mut server = launch.start(log.path()).unwrap();
    server.wait_until_ready(TIMEOUT).unwrap();
    let users: Vec<u32> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let command = fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let is_server = command.starts_with("/usr/local/bin/tidegate\0serve");
            (is_server && is_below(pid, server.pid())).then(|| status(pid, "Uid:"))?
        })
        .collect();
    assert_eq!(users, [65_532]);
    server.stop(TIMEOUT).unwrap();
}
