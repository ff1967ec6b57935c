//! A mail host gets its certificate: with the commands that an administrator types, on a server and an edge as they are
//! installed. The token is read from standard input or a file, the key stays on the host, the certificate is renewed while
//! the edge runs, and whoever should not get one does not.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;
use tidegate_tests::command::{self, Ended};
use tidegate_tests::installation::TIMEOUT;
use tidegate_tests::metrics::Metrics;
use tidegate_tests::process::{Launch, Process};
use tidegate_tests::programs;
use tidegate_tests::secured::certificate;
use xtask::ports::free_port;
use xtask::wait::wait_until;

struct Site {
    server: Process,
    control: SocketAddr,
    dir: TempDir,
}

impl Site {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let make = |arguments: &[&str]| certificate(dir.path(), arguments).unwrap();
        make(&["authority", "--out", "ca"]);
        make(&["authority", "--out", "other-ca"]);
        make(&["server", "--authority", "ca", "--out", "control", "--name", "localhost", "--name", "127.0.0.1"]);
        make(&["user", "--authority", "ca", "--out", "jo", "--trust-domain", "example.org", "--name", "jo"]);
        fs::write(path("people.toml"), "[[person]]\nname = \"jo\"\nrole = \"admin\"\n").unwrap();
        let (control, ops) = (loopback(), loopback());
        let text = format!(
            "[log]\nkind = \"embedded\"\ndirectory = {:?}\n\n[control]\nlisten = \"{control}\"\n\n\
             [control.tls]\ncertificate = {:?}\nkey = {:?}\nclient_ca = {:?}\n\n\
             [access]\ntrust_domain = \"example.org\"\npeople = {:?}\ntokens = {:?}\n\n\
             [access.enrolment]\ncertificate = {:?}\nkey = {:?}\nlifetime_days = 30\n\n\
             [access.failures]\nmax = 1000\n\n[history]\nenabled = false\n\n[ops]\nlisten = \"{ops}\"\n",
            path("log"),
            path("control.pem"),
            path("control.key"),
            path("ca.pem"),
            path("people.toml"),
            path("tokens.toml"),
            path("ca.pem"),
            path("ca.key"),
        );
        fs::write(path("tidegate.toml"), text).unwrap();
        let launch = Launch::new("server", programs::tidegate().unwrap()).arg("serve");
        let mut server = launch.arg("--config").arg(path("tidegate.toml")).ops(ops).start(dir.path()).unwrap();
        server.wait_until_ready(TIMEOUT).unwrap();
        Self { server, control, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `tidegate ARGUMENTS` as jo, an admin.
    fn admin(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new(programs::tidegate().unwrap());
        command.args(arguments).current_dir(self.dir.path());
        command.env("TIDEGATE_SERVER", format!("https://{}", self.control)).env("TIDEGATE_CA", "ca.pem");
        command.env("TIDEGATE_CERTIFICATE", "jo.pem").env("TIDEGATE_KEY", "jo.key");
        command.env("TIDEGATE_TOKENS", "tokens.toml");
        command::run(command, TIMEOUT).unwrap()
    }

    /// A token for `edge`, in force.
    fn token(&self, edge: &str, expires: &str) -> String {
        let made = self.admin(&["token", "create", "--enrol", edge, "--expires", expires]).succeeded().unwrap();
        let token = made.stdout.trim().to_owned();
        assert!(token.starts_with("tg_") && !made.stderr.contains(&token), "{}", made.report());
        let who = || {
            let mut command = Command::new(programs::tidegate().unwrap());
            command.args(["whoami", "--json"]).env("TIDEGATE_SERVER", format!("https://{}", self.control));
            command.env("TIDEGATE_CA", self.path("ca.pem")).env("TIDEGATE_TOKEN", &token);
            command::run(command, TIMEOUT).unwrap()
        };
        wait_until("the token counts", TIMEOUT, || who().code() == 0).unwrap();
        token
    }

    /// `tidegate-edge enrol` with the token on standard input.
    fn enrol(&self, token: &str, ca: &str, node: &str, more: &[&str]) -> Ended {
        let control = self.control.to_string();
        let mut arguments =
            vec!["--control", &control, "--ca", ca, "--token-file", "-", "--site", "ams", "--node", node];
        arguments.extend_from_slice(more);
        self.edge(&arguments, Some(token))
    }

    fn edge(&self, arguments: &[&str], input: Option<&str>) -> Ended {
        let mut command = Command::new(programs::tidegate_edge().unwrap());
        command.arg("enrol").args(arguments).current_dir(self.dir.path());
        command.env("TIDEGATE_EDGE_CONFIG", self.path("edge.toml"));
        let Some(input) = input else { return command::run(command, TIMEOUT).unwrap() };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A program that ends before it has read it is seen by its output.
        let _ = writeln!(child.stdin.take().unwrap(), "{input}");
        let output = child.wait_with_output().unwrap();
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        Ended { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn audit(&self, arguments: &[&str]) -> String {
        let list = ["audit", "list", "--json"];
        self.admin(&[&list[..], arguments].concat()).succeeded().unwrap().stdout
    }

    fn connected(&self) -> bool {
        let edges = self.admin(&["edges", "--json"]).succeeded().unwrap().stdout;
        let edges: Value = serde_json::from_str(&edges).unwrap();
        edges.as_array().unwrap().iter().any(|edge| edge["node"] == "mx1" && edge["connected"] == true)
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_host_enrols_with_a_token_runs_and_renews() {
    let mut site = Site::start();
    let token = site.token("ams/mx1", "1h");
    let enrolled = site.enrol(&token, "ca.pem", "mx1", &["--out", "mx1"]).succeeded().unwrap();
    for name in ["mx1.key", "mx1.pem"] {
        assert_eq!(fs::metadata(site.path(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    assert!(!enrolled.stdout.contains(&token) && !enrolled.stderr.contains(&token));
    assert!(enrolled.stderr.contains("they count until"), "{}", enrolled.report());

    // What it printed is a configuration, but for what only the administrator knows.
    let (policy, ops) = (loopback(), loopback());
    let (own, sections) = enrolled.stdout.split_once("\n\n").unwrap();
    let text = format!(
        "{own}\nstate_directory = {:?}\n[policy]\nlisten = [\"inet:{policy}\"]\n[ops]\nlisten = \"{ops}\"\n{sections}",
        site.path("state")
    );
    fs::create_dir(site.path("state")).unwrap();
    fs::write(site.path("edge.toml"), text).unwrap();
    let launch = Launch::new("edge", programs::tidegate_edge().unwrap()).arg("--config").arg(site.path("edge.toml"));
    let mut edge = launch.ops(ops).start(site.dir.path()).unwrap();
    wait_until("the edge is connected", TIMEOUT, || site.connected()).unwrap();
    let ends = || Metrics::read(ops).unwrap().value("tidegate_edge_certificate_not_after_seconds", &[]);
    let first_ends = ends();
    assert!(first_ends > 1.7e9, "{first_ends}");

    let early = site.edge(&["--renew"], None).succeeded().unwrap();
    assert!(early.stdout.starts_with("nothing to do: it counts until"), "{}", early.report());
    let (key, certificate) = (read(&site.path("mx1.key")), read(&site.path("mx1.pem")));
    let renewed = site.edge(&["--renew", "--force"], None).succeeded().unwrap();
    assert!(renewed.stdout.contains("mx1.pem was renewed"), "{}", renewed.report());
    assert!(key != read(&site.path("mx1.key")) && certificate != read(&site.path("mx1.pem")));
    edge.wait_for_line("the certificate was renewed; connecting anew with it", TIMEOUT).unwrap();
    wait_until("it is connected with the new one", TIMEOUT, || site.connected() && ends() >= first_ends).unwrap();

    // One that was cut off between its two renames is brought to its end by the next.
    fs::rename(site.path("mx1.pem"), site.path("mx1.pem.new")).unwrap();
    fs::write(site.path("mx1.pem"), certificate).unwrap();
    site.edge(&["--renew"], None).succeeded().unwrap();
    assert!(!site.path("mx1.pem.new").exists());
    site.edge(&["--renew", "--force"], None).succeeded().unwrap();

    // The audit has all of it.
    let audit = site.audit(&[]);
    assert!(audit.contains("EnrolService/Enrol") && audit.contains("was given out, until"), "{audit}");

    // Revoked by name, it can renew nothing.
    let people = "revoked = [\"edge/ams/mx1\"]\n[[person]]\nname = \"jo\"\nrole = \"admin\"\n";
    fs::write(site.path("people.toml"), people).unwrap();
    wait_until("it is cut off", TIMEOUT, || !site.connected()).unwrap();
    let key = read(&site.path("mx1.key"));
    let refused = site.edge(&["--renew", "--force"], None);
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr.contains("expired or revoked: enrol anew"), "{}", refused.report());
    assert_eq!(key, read(&site.path("mx1.key")), "what was there stays");
    assert!(!site.path("mx1.key.new").exists() && site.server.is_running() && edge.is_running());
}

#[test]
fn whoever_should_not_get_a_certificate_does_not_and_is_told_what_to_do() {
    let site = Site::start();
    let out = ["--out", "mx1"];
    let refused = |ended: &Ended, told: &str| {
        assert_eq!(ended.code(), 1, "{}", ended.report());
        assert!(ended.stderr.contains(told), "{told} in {}", ended.report());
        let left = ["mx1.key", "mx1.pem", "mx1.key.new", "mx1.pem.new"].map(|name| site.path(name).exists());
        assert_eq!(left, [false; 4], "nothing is left behind");
    };
    let token = site.token("ams/mx1", "1h");
    refused(&site.enrol(&token, "ca.pem", "mx2", &out), "you may have a certificate for edge/ams/mx1 only");
    refused(&site.enrol(&token, "other-ca.pem", "mx1", &out), "or it is not what the authority in");
    refused(&site.enrol("", "ca.pem", "mx1", &out), "no token was given");
    let unlike = format!("{}x", &token[..token.len() - 1]);
    refused(&site.enrol(&unlike, "ca.pem", "mx1", &out), "the token is wrong, used, expired or revoked");
    refused(&site.enrol(&token, "ca.pem", "mx1", &["--out", "nowhere/mx1"]), "cannot write");
    fs::write(site.path("token"), &token).unwrap();
    let control = site.control.to_string();
    let from_file =
        ["--control", &control, "--ca", "ca.pem", "--token-file", "token", "--site", "ams", "--node", "mx1"];
    // None of these has used it up.
    site.edge(&[&from_file[..], &["--out", "first"]].concat(), None).succeeded().unwrap();
    let again = site.enrol(&token, "ca.pem", "mx1", &["--out", "first"]);
    assert!(again.stderr.contains("is there already; `enrol --renew` renews it"), "{}", again.report());
    refused(&site.enrol(&token, "ca.pem", "mx1", &out), "refuses");
    let listed = site.admin(&["token", "list", "--json"]).succeeded().unwrap().stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&listed[0]["enrols"], &listed[0]["valid"]), (&Value::from("ams/mx1"), &Value::from(false)), "{listed}");

    let create = ["token", "create", "--enrol", "ams/mx1", "--expires", "1s"];
    let short = site.admin(&create).succeeded().unwrap().stdout;
    wait_until("the token is expired", TIMEOUT, || {
        // In another node's name, so that it is not used up while it counts.
        refused(&site.enrol(&short, "ca.pem", "mx2", &out), "control refuses");
        site.audit(&["--denied"]).contains("is expired")
    })
    .unwrap();
    refused(&site.enrol(&short, "ca.pem", "mx1", &out), "the token is wrong, used, expired or revoked");

    let denied = site.audit(&["--denied"]);
    for told in ["edge/ams/mx1 only", "was used already", "is expired"] {
        assert!(denied.contains(told), "{told} in {denied}");
    }
    // No token comes by the command line.
    for arguments in [&["--token", &token][..], &["--renew", "--control", "x:1"]] {
        assert_eq!(site.edge(arguments, None).code(), 2);
    }
    let never = site.admin(&["token", "create", "--enrol", "ams/mx1", "--expires", "never"]);
    assert!(never.stderr.contains("has an end"), "{}", never.report());
    let wrong = site.admin(&["token", "create", "--enrol", "mx1"]);
    assert!(wrong.stderr.contains("write SITE/NODE"), "{}", wrong.report());
}
