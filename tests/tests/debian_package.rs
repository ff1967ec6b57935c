//! The Debian package of the edge as a mail host gets it: it installs into a clean root with a real Postfix, the edge starts
//! from it as its own user, mail goes through it, and when it is removed mail still flows. Where the removal would stop
//! mail, it is refused. What the units forbid is nothing that the programs do.
// A test that is skipped says why.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use tempfile::TempDir;
use tidegate_tests::command::{self, Ended};
use tidegate_tests::debian::{copy_root, debian};
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use tidegate_tests::mail::BURST_RULES;
use tidegate_tests::process::{Launch, Process};
use tidegate_tests::programs;
use xtask::deb::{self, Compression};
use xtask::leash::Leash;
use xtask::paths::{find_program, workspace_root};
use xtask::ports::free_port;
use xtask::sink::Sink;
use xtask::smtp::SmtpClient;
use xtask::wait::wait_until;

/// The most that `systemd-analyze security` may give a unit, in tenths: what is left then is that it uses the network.
const MOST_EXPOSURE: u32 = 15;
const UNITS: [&str; 4] =
    ["tidegate-edge.service", "tidegate-edge-renew.service", "tidegate-edge-renew.timer", "tidegate.service"];

/// The user `nobody`.
const NOBODY: u32 = 65_534;

/// Only root can make a root.
fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t0\t"))
}

/// Why the tests that need a clean root cannot run here, if they cannot.
fn reason_to_skip() -> Option<&'static str> {
    if !is_root() {
        return Some("a clean root can be made by root only");
    }
    if find_program("debootstrap").is_none() || find_program("dpkg-shlibdeps").is_none() {
        return Some("no debootstrap or dpkg-shlibdeps here; `cargo xtask setup --for test` installs them");
    }
    clean_root().is_err().then_some("debootstrap could not make a root; is Debian's archive in reach?")
}

/// A Debian with Postfix and nothing of ours, made once.
fn clean_root() -> Result<PathBuf, String> {
    static FAILED: Mutex<bool> = Mutex::new(false);
    let mut failed = FAILED.lock().unwrap();
    if *failed {
        return Err("it failed before".to_owned());
    }
    let made = debian("debian-12-postfix", "libssl3,postfix,zlib1g");
    *failed = made.is_err();
    made.map_err(|error| error.to_string())
}

/// A root of its own with the package beside it.
struct Host {
    root: PathBuf,
    /// Ends what was started in it.
    leash: Option<Leash>,
    dir: TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Postfix's own user has to pass.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = dir.path().join("root");
        copy_root(&clean_root().unwrap(), &root).unwrap();
        let package = package(dir.path());
        fs::copy(&package, root.join("tmp/tidegate-edge.deb")).unwrap();
        Self { root, leash: None, dir }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new("chroot");
        command.arg(&self.root).args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command::run(command, TIMEOUT).unwrap()
    }

    fn install(&self) -> Ended {
        self.run(&["dpkg", "-i", "/tmp/tidegate-edge.deb"]).succeeded().unwrap()
    }

    /// Makes the host's configuration complete.
    fn configure(&self, control: SocketAddr, ops: SocketAddr) {
        let file = self.path("/etc/tidegate/edge.toml");
        let text = fs::read_to_string(&file).unwrap();
        let text = text.replace("#: node = \"mx1.ams.example.org\"", "node = \"mx1\"");
        let text = text.replace("#: site = \"ams\"", "site = \"ams\"");
        let text = text.replace("http://127.0.0.1:7710", &format!("http://{control}"));
        let text = text.replace("#: listen = \"127.0.0.1:7790\"", &format!("listen = \"{ops}\""));
        let text = text.replace("#: address_accounts = [\"192.0.2.0/28\"]", "address_accounts = [\"127.0.0.0/8\"]");
        fs::write(file, text).unwrap();
    }

    /// Starts the unit's service as systemd would: its program, its arguments, its user.
    fn start_edge(&self, ops: SocketAddr) -> Process {
        let unit = fs::read_to_string(self.path("/usr/lib/systemd/system/tidegate-edge.service")).unwrap();
        let value = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        let (start, user, group) = (value("ExecStart="), value("User="), value("Group="));
        let mut launch = Launch::new("edge", find_program("chroot").unwrap()).arg(format!("--userspec={user}:{group}"));
        launch = launch.arg(&self.root).args(start.split(' ')).ops(ops);
        launch.env("PATH", "/usr/bin:/bin").start(self.dir.path()).unwrap()
    }

    /// A Postfix in the root that relays all mail of this machine to `sink`; gives its address.
    fn start_postfix(&mut self, sink: SocketAddr, more: &[&str]) -> SocketAddr {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
        let settings = [
            "myhostname=mail.test",
            "mydestination=",
            "alias_maps=",
            "mynetworks=127.0.0.0/8",
            "inet_interfaces=127.0.0.1",
            "inet_protocols=ipv4",
            "disable_dns_lookups=yes",
            "smtp_host_lookup=native",
            "maillog_file=/var/log/mail.log",
            "smtpd_relay_restrictions=permit_mynetworks,reject",
            "smtp_tls_security_level=none",
        ];
        let transport = format!("default_transport=smtp:[127.0.0.1]:{}", sink.port());
        self.postconf(&[&settings[..], &[&transport], more].concat());
        // One smtpd, in the chroot as Debian has it; Postfix's log by its own daemon.
        self.run(&["postconf", "-MX", "smtp/inet"]).succeeded().unwrap();
        let listener = format!("{}/inet={} inet n - y - - smtpd", address.port(), address.port());
        self.run(&["postconf", "-M", &listener]).succeeded().unwrap();
        self.run(&["postconf", "-M", "postlog/unix-dgram=postlog unix-dgram n - n - 1 postlogd"]).succeeded().unwrap();
        self.run(&["postfix", "start"]).succeeded().unwrap();
        self.leash = Some(Leash::with(&format!("chroot {} postfix stop", self.root.display())).unwrap());
        wait_until("Postfix", TIMEOUT, || TcpStream::connect(address).is_ok()).unwrap();
        address
    }

    fn postconf(&self, settings: &[&str]) {
        self.run(&[&["postconf", "-e"], settings].concat()).succeeded().unwrap();
    }

    fn wiring(&self) -> String {
        self.run(&["/usr/lib/tidegate-edge/postfix-wiring"]).succeeded().unwrap().stdout
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.leash = None;
    }
}

fn package(out: &Path) -> PathBuf {
    deb::build(&deb::EDGE, &programs::tidegate_edge().unwrap(), out, Compression::None).unwrap()
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()))
}

/// Sends one message; gives the server's last answer.
fn send(server: SocketAddr, sender: &str) -> String {
    let mut client = SmtpClient::connect(server).unwrap();
    client.send(sender, &["somebody@example.com"], "Subject: hello\r\n\r\nhello\r\n").unwrap().reply.to_string()
}

#[test]
fn a_mail_host_installs_runs_and_removes_it_and_mail_flows_all_the_while() {
    if let Some(reason) = reason_to_skip() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut host = Host::new();
    let installed = host.install();
    for told in ["not started yet", "node: must be set", "tidegate-edge enrol", "examples"] {
        assert!(installed.stdout.contains(told), "{told} in {}", installed.report());
    }
    let passwd = host.run(&["getent", "passwd", "tidegate"]).succeeded().unwrap().stdout;
    assert!(passwd.trim_end().ends_with(":/nonexistent:/usr/sbin/nologin"), "{passwd}");
    let sockets = fs::metadata(host.path("/var/spool/postfix/tidegate")).unwrap();
    assert_eq!(sockets.mode() & 0o7777, 0o2750);
    for unit in ["multi-user.target.wants/tidegate-edge.service", "timers.target.wants/tidegate-edge-renew.timer"] {
        assert!(fs::symlink_metadata(host.path("/etc/systemd/system").join(unit)).is_ok(), "{unit} is not enabled");
    }

    let server = Server::start(host.dir.path(), "server", "serve", &Log::Embedded, BURST_RULES).unwrap();
    let ops = loopback();
    host.configure(server.control, ops);
    host.run(&["tidegate-edge", "--check-config"]).succeeded().unwrap();
    let mut edge = host.start_edge(ops);
    edge.wait_until_ready(TIMEOUT).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", edge.pid())).unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
    assert_eq!(uid.split('\t').next(), passwd.split(':').nth(2), "{status}");
    let socket = fs::metadata(host.path("/var/spool/postfix/tidegate/milter.sock")).unwrap();
    assert_eq!((socket.gid(), socket.mode() & 0o777), (sockets.gid(), 0o660), "Postfix may open it");

    // As the example says it, the path within Postfix's chroot.
    let sink = Sink::start().unwrap();
    let example =
        fs::read_to_string(host.path("/usr/share/doc/tidegate-edge/examples/postfix-milter.main.cf")).unwrap();
    let settings: Vec<&str> = example.lines().filter(|line| !line.starts_with('#')).collect();
    let postfix = host.start_postfix(sink.address(), &settings);
    assert!(send(postfix, "a@example.org").starts_with("250"));
    let events = || edge.metric("tidegate_edge_events_total", &[]).unwrap_or(0.0);
    wait_until("the edge has seen the message", TIMEOUT, || events() > 0.5).unwrap();
    assert_eq!(host.wiring(), "safe smtpd_milters\n");

    // An upgrade keeps the configuration.
    let before = fs::read_to_string(host.path("/etc/tidegate/edge.toml")).unwrap();
    host.run(&["dpkg", "-i", "/tmp/tidegate-edge.deb"]).succeeded().unwrap();
    assert_eq!(fs::read_to_string(host.path("/etc/tidegate/edge.toml")).unwrap(), before);

    // Where mail would stop, it stays.
    host.postconf(&["milter_default_action=tempfail"]);
    let refused = host.run(&["dpkg", "-r", "tidegate-edge"]);
    assert_ne!(refused.code(), 0);
    for told in ["Postfix would refuse mail", "  smtpd_milters", "milter_default_action=accept"] {
        assert!(refused.stderr.contains(told), "{told} in {}", refused.report());
    }
    assert!(host.path("/usr/bin/tidegate-edge").exists());
    host.postconf(&["milter_default_action=accept"]);
    let removed = host.run(&["dpkg", "-r", "tidegate-edge"]).succeeded().unwrap();
    for told in ["Postfix still asks tidegate-edge. Mail flows without it", "  smtpd_milters", "postfix reload"] {
        assert!(removed.stderr.contains(told), "{told} in {}", removed.report());
    }
    edge.stop(TIMEOUT).unwrap();
    for gone in ["/usr/bin/tidegate-edge", "/var/spool/postfix/tidegate/milter.sock"] {
        assert!(!host.path(gone).exists(), "{gone}");
    }
    assert!(host.path("/etc/tidegate/edge.toml").exists() && host.path("/var/lib/tidegate-edge").exists());
    assert!(send(postfix, "b@example.org").starts_with("250"));
    wait_until("both messages have arrived", TIMEOUT, || sink.total() == 2).unwrap();

    host.run(&["dpkg", "-P", "tidegate-edge"]).succeeded().unwrap();
    for gone in ["/etc/tidegate", "/var/lib/tidegate-edge", "/var/spool/postfix/tidegate"] {
        assert!(!host.path(gone).exists(), "{gone}");
    }
    assert!(send(postfix, "c@example.org").starts_with("250"));
}

#[test]
fn each_setting_of_postfix_that_names_the_edge_is_found() {
    if let Some(reason) = reason_to_skip() {
        eprintln!("skipped: {reason}");
        return;
    }
    let host = Host::new();
    host.install();
    assert_eq!(host.wiring(), "");
    let config = host.path("/etc/tidegate/edge.toml");
    let text = fs::read_to_string(&config).unwrap();
    let listen = "listen = [\"unix:/var/spool/postfix/tidegate/milter.sock\"]";
    assert!(text.contains(listen));
    let more = "listen = [\"unix:/var/spool/postfix/tidegate/milter.sock\",\n  \"inet:127.0.0.1:7722\"]";
    fs::write(&config, text.replace(listen, more)).unwrap();
    let file = host.path("/etc/postfix/master.cf");
    let services = fs::read_to_string(&file).unwrap()
        + "submission inet n - y - - smtpd\n\
           \x20 -o smtpd_milters=inet:127.0.0.1:7722\n\
           \x20 -o { smtpd_recipient_restrictions = check_policy_service { unix:tidegate/policy.sock, default_action=DUNNO } }\n\
           smtps inet n - y - - smtpd\n\
           \x20 -o smtpd_milters=unix:tidegate/milter.sock\n\
           \x20 -o milter_default_action=accept\n\
           \x20 -o smtpd_sender_restrictions=check_policy_service,unix:tidegate/policy.sock\n\
           2525 inet n - y - - smtpd\n\
           \x20 -o smtpd_milters=inet:127.0.0.1:11332\n";
    fs::write(&file, services).unwrap();
    let mut found: Vec<_> = host.wiring().lines().map(str::to_owned).collect();
    found.sort();
    let expected = [
        "safe smtps/inet/smtpd_milters",
        "safe submission/inet/smtpd_recipient_restrictions",
        "unsafe smtps/inet/smtpd_sender_restrictions",
        "unsafe submission/inet/smtpd_milters",
    ];
    assert_eq!(found, expected, "another milter, 2525's, is none of ours");
}

#[test]
fn units_are_hardened_and_systemd_understands_them() {
    if find_program("systemd-analyze").is_none() {
        eprintln!("skipped: no systemd-analyze here; `cargo xtask setup --for test` installs it");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for name in UNITS {
        let text = fs::read_to_string(workspace_root().join("deploy/systemd").join(name)).unwrap();
        // The programs are where they were built.
        let folder = programs::tidegate().unwrap().parent().unwrap().display().to_string();
        fs::write(dir.path().join(name), text.replace("/usr/local/bin", &folder)).unwrap();
    }
    for name in UNITS {
        let unit = dir.path().join(name);
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&unit);
        let verified = command::run(verify, TIMEOUT).unwrap();
        assert!(verified.code() == 0 && !verified.stderr.contains(name), "{name}: {}", verified.report());
        if !name.ends_with(".service") {
            continue;
        }
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--no-pager", &format!("--threshold={MOST_EXPOSURE}")]).arg(&unit);
        let judged = command::run(security, TIMEOUT).unwrap();
        let score = judged.stdout.lines().last().unwrap_or_default().to_owned();
        assert_eq!(judged.code(), 0, "{name}: {score}, more than {MOST_EXPOSURE} tenths\n{}", judged.report());
        println!("{name}: {score}");
    }
}

/// Names of system calls of a set of systemd's, with those of the sets in it.
fn calls_of(set: &str) -> BTreeSet<String> {
    let mut list = Command::new("systemd-analyze");
    list.args(["syscall-filter", "--no-pager", set]);
    let told = command::run(list, TIMEOUT).unwrap().succeeded().unwrap().stdout;
    let words = told.lines().skip(1).map(str::trim).filter(|line| !line.starts_with('#') && !line.is_empty());
    words
        .flat_map(|word| if word.starts_with('@') { calls_of(word) } else { BTreeSet::from([word.to_owned()]) })
        .collect()
}

#[test]
fn what_the_unit_forbids_the_edge_does_not_do() {
    if let Some(reason) = reason_to_skip() {
        eprintln!("skipped: {reason}");
        return;
    }
    if find_program("strace").is_none() || find_program("systemd-analyze").is_none() {
        eprintln!("skipped: no strace or systemd-analyze here; `cargo xtask setup --for test` installs them");
        return;
    }
    let unit = fs::read_to_string(workspace_root().join("deploy/systemd/tidegate-edge.service")).unwrap();
    let mut allowed = BTreeSet::new();
    for filter in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let without = filter.strip_prefix('~');
        for set in without.unwrap_or(filter).split(' ') {
            let calls = calls_of(set);
            assert!(!calls.is_empty(), "{set}");
            match without {
                None => allowed.extend(calls),
                Some(_) => allowed.retain(|call| !calls.contains(call)),
            }
        }
    }
    assert!(allowed.contains("read") && !allowed.contains("chown"));

    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "server", "serve", &Log::Embedded, BURST_RULES).unwrap();
    let (policy, ops) = (loopback(), loopback());
    let config = dir.path().join("edge.toml");
    let socket = dir.path().join("milter.sock");
    fs::create_dir(dir.path().join("state")).unwrap();
    let text = format!(
        "node = \"mx1\"\nsite = \"ams\"\nstate_directory = {:?}\n[milter]\nlisten = [\"unix:{}\"]\n\
         [policy]\nlisten = [\"inet:{policy}\"]\n[control]\nendpoint = \"http://{}\"\n[ops]\nlisten = \"{ops}\"\n",
        dir.path().join("state"),
        socket.display(),
        server.control,
    );
    fs::write(&config, text).unwrap();
    let trace = dir.path().join("state/trace");
    // Not as root, for whom SQLite does more; and from the program's own start on: systemd sets the filter just before.
    for path in [dir.path(), &dir.path().join("state")] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let nobody = NOBODY.to_string();
    let launch = Launch::new("edge", "setpriv").args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"]);
    let launch = launch.args(["strace", "-f", "-c", "-U", "calls,name", "-o"]).arg(&trace);
    let launch = launch.arg(programs::tidegate_edge().unwrap()).arg("--config").arg(&config).ops(ops);
    let mut edge = launch.start(dir.path()).unwrap();
    edge.wait_until_ready(TIMEOUT).unwrap();
    let mut mail = tidegate_tests::hostile::PolicyClient::connect(policy).unwrap();
    mail.message("jo@example.org", "1", "somebody@example.com").unwrap();
    let published = || edge.metric("tidegate_edge_events_published_total", &[]).unwrap_or(0.0);
    wait_until("the event is published", TIMEOUT, || published() > 0.5).unwrap();
    edge.stop(TIMEOUT).unwrap();
    let trace = fs::read_to_string(trace).unwrap();
    let lines = trace.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (calls, name) = (words.next()?, words.next()?);
        calls.parse::<u64>().ok().map(|_| name.to_owned())
    });
    let made: BTreeSet<String> = lines.filter(|name| name != "total").collect();
    assert!(made.len() > 20, "{trace}");
    let forbidden: Vec<&String> = made.difference(&allowed).collect();
    assert!(forbidden.is_empty(), "the edge does what its unit forbids: {forbidden:?}");
}
