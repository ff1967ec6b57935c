//! An installation as an administrator secures it: certificates and tokens made with the commands, a server that others
//! can reach, an edge whose certificate is renewed while it runs, and is revoked in the end.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use tidegate_tests::command::{self, Ended};
use tidegate_tests::hostile::PolicyClient;
use tidegate_tests::installation::TIMEOUT;
use tidegate_tests::metrics::Metrics;
use tidegate_tests::process::{Launch, Process};
use tidegate_tests::programs;
use tidegate_tests::secured::certificate;
use xtask::ports::free_port;
use xtask::wait::wait_until;

const PEOPLE: &str = "[[person]]\nname = \"jo\"\nrole = \"admin\"\n";

struct Secured {
    server: Process,
    control: SocketAddr,
    ops: SocketAddr,
    dir: TempDir,
}

impl Secured {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let make = |arguments: &[&str]| certificate(dir.path(), arguments).unwrap();
        make(&["authority", "--out", "ca"]);
        make(&["server", "--authority", "ca", "--out", "control", "--name", "localhost", "--name", "127.0.0.1"]);
        make(&["user", "--authority", "ca", "--out", "jo", "--trust-domain", "example.org", "--name", "jo"]);
        fs::write(path("people.toml"), PEOPLE).unwrap();
        fs::write(path("tokens.toml"), "").unwrap();
        let (control, ops) = (free_port().unwrap(), free_port().unwrap());
        let text = format!(
            "[log]\nkind = \"embedded\"\ndirectory = {:?}\n\n[history]\nlisten = \"127.0.0.1:0\"\n\n[control]\nlisten = \"0.0.0.0:{control}\"\n\n\
             [control.tls]\ncertificate = {:?}\nkey = {:?}\nclient_ca = {:?}\n\n\
             [access]\ntrust_domain = \"example.org\"\npeople = {:?}\ntokens = {:?}\n\n[ops]\nlisten = \"127.0.0.1:{ops}\"\n",
            path("log"),
            path("control.pem"),
            path("control.key"),
            path("ca.pem"),
            path("people.toml"),
            path("tokens.toml"),
        );
        let config = path("tidegate.toml");
        fs::write(&config, text).unwrap();
        let (control, ops) = (loopback(control), loopback(ops));
        let launch = Launch::new("server", programs::tidegate().unwrap()).arg("serve");
        let launch = launch.args([Path::new("--config"), &config]).ops(ops);
        let mut server = launch.start(dir.path()).unwrap();
        server.wait_until_ready(TIMEOUT).unwrap();
        Self { server, control, ops, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        let mut command = Command::new(programs::tidegate().unwrap());
        command.args(arguments).envs(environment.iter().copied()).current_dir(self.dir.path());
        command.env("TIDEGATE_SERVER", format!("https://{}", self.control)).env("TIDEGATE_CA", "ca.pem");
        command.env("TIDEGATE_TOKENS", "tokens.toml");
        command::run(command, TIMEOUT).unwrap()
    }

    /// As jo, an admin, with a certificate.
    fn as_jo(&self, arguments: &[&str]) -> Value {
        let identity = [("TIDEGATE_CERTIFICATE", "jo.pem"), ("TIDEGATE_KEY", "jo.key")];
        serde_json::from_str(&self.run(arguments, &identity).succeeded().unwrap().stdout).unwrap()
    }

    fn make_edge_certificate(&self) {
        let names = ["--trust-domain", "example.org", "--site", "ams", "--node", "mx1"];
        let edge = ["certificate", "edge", "--authority", "ca", "--out", "mx1", "--replace"];
        self.run(&[&edge[..], &names[..]].concat(), &[]).succeeded().unwrap();
    }

    /// Whether the edge is connected, and since when.
    fn edge(&self) -> (bool, String) {
        let edges = self.as_jo(&["edges", "--json"]);
        let edge = edges.as_array().unwrap().iter().find(|edge| edge["node"] == "mx1");
        edge.map_or((false, String::new()), |edge| {
            (edge["connected"] == true, edge["since"].as_str().unwrap().to_owned())
        })
    }

    fn published(&self) -> f64 {
        Metrics::read(self.ops).unwrap().value("tidegate_control_events_published_total", &[])
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[test]
fn people_and_programs_prove_who_they_are_with_what_the_commands_made() {
    let secured = Secured::start();
    assert_eq!(secured.as_jo(&["whoami", "--json"])["role"], "admin");
    for name in ["ca.key", "ca.pem", "control.key", "jo.key", "jo.pem"] {
        let mode = fs::metadata(secured.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let nobody = secured.run(&["whoami"], &[]);
    assert_eq!(nobody.code(), 1, "{}", nobody.report());
    assert!(nobody.stderr.contains("a valid credential is needed"), "{}", nobody.report());

    let create =
        ["token", "create", "--name", "shop", "--role", "viewer", "--domain", "Example.net", "--expires", "30d"];
    let created = secured.run(&create, &[]).succeeded().unwrap();
    let token = created.stdout.trim().to_owned();
    assert!(token.starts_with("tg_") && !created.stderr.contains(&token), "{}", created.report());
    fs::write(secured.path("shop.token"), &created.stdout).unwrap();
    let whoami = ["whoami", "--json"];
    let by_file = || secured.run(&whoami, &[("TIDEGATE_TOKEN_FILE", "shop.token")]);
    wait_until("the token counts", TIMEOUT, || by_file().code() == 0).unwrap();
    let who: Value = serde_json::from_str(&by_file().stdout).unwrap();
    assert_eq!((&who["name"], &who["role"]), (&Value::from("shop"), &Value::from("viewer")), "{who}");
    secured.run(&whoami, &[("TIDEGATE_TOKEN", &token)]).succeeded().unwrap();
    let listed = secured.run(&["token", "list", "--json"], &[]).succeeded().unwrap();
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!((&listed[0]["valid"], &listed[0]["domains"][0]), (&Value::from(true), &Value::from("example.net")));
    let id = listed[0]["id"].as_str().unwrap();
    secured.run(&["token", "revoke", id], &[]).succeeded().unwrap();
    wait_until("the token is revoked", TIMEOUT, || by_file().code() == 1).unwrap();

    // A token is not sent where others could read it.
    let plain = format!("http://192.0.2.1:{}", secured.control.port());
    let plain = secured.run(&["whoami", "--server", &plain], &[("TIDEGATE_TOKEN", &token)]);
    assert!(plain.stderr.contains("without TLS"), "{}", plain.report());
    let denied = secured.as_jo(&["audit", "list", "--json", "--denied"]);
    assert!(denied.to_string().contains("is revoked"), "{denied}");
}

#[test]
fn an_edge_goes_on_with_a_renewed_certificate_and_stays_out_with_a_revoked_one() {
    let mut secured = Secured::start();
    secured.make_edge_certificate();
    let (policy, ops) = (loopback(free_port().unwrap()), loopback(free_port().unwrap()));
    let tls = |section: &str| {
        let path = |name: &str| secured.path(name);
        let (certificate, key, ca) = (path("mx1.pem"), path("mx1.key"), path("ca.pem"));
        format!("[{section}]\ncertificate = {certificate:?}\nkey = {key:?}\nca = {ca:?}\n")
    };
    let text = format!(
        "node = \"mx1\"\nsite = \"ams\"\nstate_directory = {:?}\n[policy]\nlisten = [\"inet:{policy}\"]\n\
         [control]\nendpoint = \"https://{}\"\nmax_backoff_ms = 500\n{}[ops]\nlisten = \"{ops}\"\n",
        secured.path("mx1"),
        secured.control,
        tls("control.tls"),
    );
    fs::create_dir_all(secured.path("mx1")).unwrap();
    fs::write(secured.path("edge.toml"), text).unwrap();
    let launch = Launch::new("edge", programs::tidegate_edge().unwrap());
    let launch = launch.args([Path::new("--config"), &secured.path("edge.toml")]).ops(ops);
    let mut edge = launch.start(secured.dir.path()).unwrap();
    wait_until("the edge is connected", TIMEOUT, || secured.edge().0).unwrap();
    let mut mail = PolicyClient::connect(policy).unwrap();
    let mut send = |instance: &str| {
        let before = secured.published();
        mail.message("jo@example.org", instance, "somebody@example.com").unwrap();
        wait_until("the event is published", TIMEOUT, || secured.published() > before).unwrap();
    };
    send("first");

    let (_, since) = secured.edge();
    secured.make_edge_certificate();
    edge.wait_for_line("the certificate was renewed; connecting anew with it", TIMEOUT).unwrap();
    wait_until("it is connected anew", TIMEOUT, || secured.edge().0 && secured.edge().1 != since).unwrap();
    send("second");
    edge.wait_for_line("the certificate was renewed; events are published with it", TIMEOUT).unwrap();

    fs::write(secured.path("people.toml"), format!("revoked = [\"edge/ams/mx1\"]\n{PEOPLE}")).unwrap();
    wait_until("it is cut off", TIMEOUT, || !secured.edge().0).unwrap();
    let denied = || secured.as_jo(&["audit", "list", "--json", "--denied"]).to_string();
    wait_until("its attempts stand in the audit", TIMEOUT, || denied().contains("edge/ams/mx1 is revoked")).unwrap();
    assert!(secured.server.is_running() && edge.is_running());
}
