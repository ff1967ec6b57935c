//! A mail host as an administrator has it: a booted Debian with systemd and Postfix, both Debian packages installed. What the
//! units forbid, the programs do not need; they come back after a crash and a reboot, and locks hold all the while.
//! It takes `systemd-nspawn` and root, so this is no part of a run of all tests: `cargo xtask mail-host`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use serde_json::Value;
use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tidegate_tests::command::{self, Ended};
use tidegate_tests::debian::{copy_root, debian};
use tidegate_tests::programs;
use xtask::deb::{self, Compression};
use xtask::leash::Leash;
use xtask::wait::wait_until;

const TIMEOUT: Duration = Duration::from_mins(2);
/// What Postfix answers to a message that it takes.
const TAKEN: &str = "250 2.0.0 Ok: queued as";
const LOCKED: &str = "127.0.0.1";
const FREE: &str = "127.0.0.2";

/// A booted Debian with a network of its own.
struct Host {
    root: PathBuf,
    container: Child,
    leash: Leash,
    dir: TempDir,
}

impl Host {
    fn boot() -> Self {
        let base = debian("debian-12-systemd", "dbus,libssl3,postfix,swaks,systemd,systemd-sysv,zlib1g").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        copy_root(&base, &root).unwrap();
        for (package, program) in [(&deb::SERVER, programs::tidegate()), (&deb::EDGE, programs::tidegate_edge())] {
            let file = deb::build(package, &program.unwrap(), dir.path(), Compression::None).unwrap();
            fs::copy(&file, root.join(format!("opt/{}.deb", package.name))).unwrap();
            fs::remove_file(file).unwrap();
        }
        let (container, leash) = start(&root, dir.path());
        let host = Self { root, container, leash, dir };
        host.wait_until_booted();
        host
    }

    /// Shuts it down in order, and boots it again.
    fn reboot(&mut self) {
        // It may be gone before it has answered.
        self.run(&["systemctl", "reboot"]);
        wait_until("the host to shut down", TIMEOUT, || self.container.try_wait().unwrap().is_some()).unwrap();
        (self.container, self.leash) = start(&self.root, self.dir.path());
        self.wait_until_booted();
    }

    fn wait_until_booted(&self) {
        let state = || self.run(&["systemctl", "is-system-running"]).stdout;
        wait_until("the host to boot", TIMEOUT, || state().trim() == "running").unwrap_or_else(|error| {
            let console = fs::read_to_string(self.dir.path().join("console")).unwrap_or_default();
            panic!("{error}: {}\n{console}", self.run(&["systemctl", "--failed"]).report())
        });
    }

    /// The first process of the container.
    fn leader(&self) -> String {
        let pid = self.container.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().next().unwrap_or("0").to_owned()
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.leader());
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd", "--"]).args(arguments);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command::run(command, TIMEOUT).unwrap()
    }

    fn must(&self, line: &str) -> String {
        let ended = self.run(&["sh", "-c", line]);
        assert_eq!(ended.code(), 0, "{line}: {}\n{}", ended.report(), self.journal());
        ended.stdout
    }

    /// What both programs have told.
    fn journal(&self) -> String {
        self.run(&["journalctl", "--no-pager", "--all", "-u", "tidegate*"]).stdout
    }

    fn state(&self, unit: &str, property: &str) -> String {
        let told = self.run(&["systemctl", "show", "--value", "--property", property, unit]).stdout;
        told.trim().to_owned()
    }

    fn wait_until_active(&self, unit: &str) {
        wait_until("a unit to be active", TIMEOUT, || self.state(unit, "ActiveState") == "active")
            .unwrap_or_else(|error| panic!("{unit}: {error}\n{}", self.journal()));
    }

    /// Waits until the server has states for the edge, and the edge them.
    fn wait_until_attached(&self) {
        let attached = || {
            let edges: Value =
                serde_json::from_str(&self.run(&["tidegate", "edges", "--json"]).stdout).unwrap_or_default();
            edges.as_array().is_some_and(|edges| edges.iter().any(|edge| edge["connected"] == true))
        };
        wait_until("the edge to be attached", TIMEOUT, attached)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.journal()));
    }

    /// Sends a message from this address; gives the conversation.
    fn send(&self, address: &str) -> String {
        let from = format!("jo@{}", if address == LOCKED { "locked.test" } else { "free.test" });
        let arguments = ["swaks", "--server", "127.0.0.1", "--local-interface", address, "--from", &from];
        self.run(&[&arguments[..], &["--to", "somebody@example.com", "--hide-informational"]].concat()).stdout
    }

    fn wait_until_sent(&self, address: &str, answer: &str) {
        wait_until("that answer", TIMEOUT, || self.send(address).contains(answer))
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.send(address), self.journal()));
    }
}

/// Boots the Debian in `root`; it ends with the leash.
fn start(root: &Path, dir: &Path) -> (Child, Leash) {
    let console = File::create(dir.join("console")).unwrap();
    let mut nspawn = Command::new("systemd-nspawn");
    nspawn.args(["--quiet", "--boot", "--register=no", "--keep-unit", "--private-network", "--console=pipe"]);
    nspawn.arg("--directory").arg(root).stdin(Stdio::null());
    nspawn.stdout(console.try_clone().unwrap()).stderr(console);
    let container = nspawn.spawn().unwrap();
    // Its first process, which takes all others along, and then itself.
    let pid = container.id();
    let leash = Leash::with(&format!("kill -KILL $(cat /proc/{pid}/task/{pid}/children) {pid}")).unwrap();
    (container, leash)
}

fn main_cf() -> Vec<String> {
    let example = xtask::paths::workspace_root().join("deploy/examples/mail-servers/postfix-milter.main.cf");
    let wired = fs::read_to_string(example).unwrap();
    let ours = "inet_interfaces=loopback-only\ninet_protocols=ipv4\nmydestination=\nmynetworks=127.0.0.0/8\n\
                default_transport=discard:\nsmtpd_relay_restrictions=permit_mynetworks,reject\n";
    ours.lines()
        .chain(wired.lines())
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.replace(" = ", "="))
        .collect()
}

fn edit(file: &Path, changes: &[(&str, &str)]) {
    let mut text = fs::read_to_string(file).unwrap();
    for (line, instead) in changes {
        assert!(text.contains(line), "{line} in {text}");
        text = text.replace(line, instead);
    }
    fs::write(file, text).unwrap();
}

#[test]
fn a_booted_mail_host_locks_through_crashes_and_reboots() {
    let mut host = Host::boot();
    for setting in main_cf() {
        host.must(&format!("postconf -e '{setting}'"));
    }
    host.must("postfix reload");

    // The server runs at once, all in one process; the edge has to be told its name.
    host.must("dpkg -i /opt/tidegate.deb /opt/tidegate-edge.deb");
    host.wait_until_active("tidegate");
    assert_eq!(host.state("tidegate-edge", "ActiveState"), "inactive");
    let edge_toml = host.root.join("etc/tidegate/edge.toml");
    let addresses = ("#: address_accounts = [\"192.0.2.0/28\"]", "address_accounts = [\"127.0.0.0/8\"]");
    let name = ("#: node = \"mx1.ams.example.org\"", "node = \"mx1\"");
    edit(&edge_toml, &[name, ("#: site = \"ams\"", "site = \"ams\""), addresses]);
    host.must("systemctl start tidegate-edge");
    host.wait_until_attached();
    for unit in ["tidegate", "tidegate-edge"] {
        let status = host.must(&format!("cat /proc/{}/status", host.state(unit, "MainPID")));
        for bound in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"] {
            assert!(status.contains(bound), "{unit}: {bound} in {status}");
        }
        let owner = host.must(&format!("stat -c %U /proc/{}", host.state(unit, "MainPID")));
        assert_eq!(owner.trim(), "tidegate", "{unit}");
    }

    for address in [LOCKED, FREE] {
        assert!(host.send(address).contains(TAKEN), "{}", host.send(address));
    }
    host.must(&format!("tidegate accounts lock address:{LOCKED} --actor amy --reason 'sends what it should not'"));
    let refusal = "550 5.7.1";
    host.wait_until_sent(LOCKED, refusal);
    assert!(host.send(FREE).contains(TAKEN));

    // Killed, it is started again, and knows.
    host.must("systemctl kill --signal=KILL tidegate-edge");
    wait_until("the edge to be started again", TIMEOUT, || host.state("tidegate-edge", "NRestarts") == "1").unwrap();
    host.wait_until_sent(LOCKED, refusal);
    // Without the server, locks hold.
    host.must("systemctl stop tidegate");
    assert!(host.send(LOCKED).contains(refusal) && host.send(FREE).contains(TAKEN));
    // After a reboot everything is there, and Postfix was started when the edge listened.
    host.reboot();
    let at = |unit: &str, property: &str| host.state(unit, property).parse::<u64>().unwrap();
    let edge_listens = at("tidegate-edge", "ActiveEnterTimestampMonotonic");
    let postfix_starts = at("postfix@-.service", "InactiveExitTimestampMonotonic");
    assert!(0 < edge_listens && edge_listens <= postfix_starts, "{edge_listens} {postfix_starts}");
    assert!(host.send(LOCKED).contains(refusal), "{}\n{}", host.send(LOCKED), host.journal());
    assert!(host.send(FREE).contains(TAKEN));
    host.wait_until_attached();
    host.must(&format!(
        "tidegate accounts unlock address:{LOCKED} --actor amy --reason 'cleaned' --password-changed now"
    ));
    host.wait_until_sent(LOCKED, TAKEN);

    // What was sent can be asked for.
    wait_until("the history to have it", TIMEOUT, || {
        host.run(&["tidegate", "sql", "--csv", "SELECT count(*) > 5 FROM events"]).stdout.contains("true")
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", host.journal()));

    // Wrong configuration is told once, not every two seconds.
    edit(&edge_toml, &[("node = \"mx1\"", "node = \"mx 1\"")]);
    assert_ne!(host.run(&["systemctl", "restart", "tidegate-edge"]).code(), 0);
    wait_until("the edge to have failed", TIMEOUT, || host.state("tidegate-edge", "ActiveState") == "failed").unwrap();
    assert_eq!(host.state("tidegate-edge", "NRestarts"), "0", "{}", host.journal());
    assert!(host.journal().contains("node: "), "{}", host.journal());
    assert!(host.send(LOCKED).contains(TAKEN), "mail flows without the edge");
    edit(&edge_toml, &[("node = \"mx 1\"", "node = \"mx1\"")]);
    host.must("systemctl restart tidegate-edge");
    host.wait_until_attached();

    let journal = host.journal();
    for fault in ["panicked", "not permitted", "Permission denied", "Bad system call", "Read-only file system"] {
        assert!(!journal.contains(fault), "{fault} in\n{journal}");
    }
    host.must("dpkg -r tidegate tidegate-edge");
    assert_eq!(host.state("tidegate-edge", "ActiveState"), "inactive");
    assert!(host.send(FREE).contains(TAKEN));
}
