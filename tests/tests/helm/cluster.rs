//! The rendered pods, run here: exactly their files, arguments and environment, with paths and addresses of this machine,
//! against a real Kafka that wants a login. First what the hooks do, then the services, then `helm test`.

use crate::data;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use tidegate_tests::chart::{self, Case, Rendered};
use tidegate_tests::command::{self, Ended};
use tidegate_tests::hostile::{self, PolicyClient};
use tidegate_tests::installation::TIMEOUT;
use tidegate_tests::manifests::{self, containers, text};
use tidegate_tests::pod_files::{PodFiles, Secret};
use tidegate_tests::process::{Launch, Process};
use tidegate_tests::programs;
use tidegate_tests::secured::Credentials;
use xtask::kafka::KafkaRig;
use xtask::ports::free_port;
use xtask::wait::wait_until;

const USER: &str = "tidegate";
const PASSWORD: &str = "it's a secret";

struct Cluster {
    rendered: Rendered,
    kafka: KafkaRig,
    control: SocketAddr,
    credentials: Credentials,
    secrets: BTreeMap<String, Secret>,
    dir: tempfile::TempDir,
}

/// A pod's process, and where it is asked how it is.
struct Running {
    process: Process,
    policy: SocketAddr,
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()))
}

impl Cluster {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let case = Case { name: "cluster".into(), file: data("cluster.yaml"), set: Vec::new() };
        let rendered = chart::render(&case).unwrap();
        let kafka = KafkaRig::start_with_login(&dir.path().join("kafka"), USER, PASSWORD).unwrap();
        let credentials = Credentials::make(&dir.path().join("credentials")).unwrap();
        let mut cluster = Self { rendered, kafka, control: loopback(), credentials, secrets: BTreeMap::new(), dir };
        cluster.make_secrets();
        cluster
    }

    /// What cert-manager and an administrator would put into Secrets.
    fn make_secrets(&mut self) {
        let credential = |name: &str| self.credentials.file(name).display().to_string();
        let make = |kind: &str, out: &str, more: &[&str]| {
            let mut command = Command::new(programs::tidegate().unwrap());
            command.args(["certificate", kind, "--authority", &credential("ca"), "--out", &credential(out)]);
            command.args(["--trust-domain", "example.org"]).args(more);
            command::run(command, TIMEOUT).unwrap().succeeded().unwrap();
        };
        make("user", "helm-test", &["--name", "helm-test"]);
        make("user", "jo", &["--name", "jo"]);
        let nodes = ["mx1", "mx2"];
        for node in nodes {
            make("edge", node, &["--site", "ams", "--node", node]);
        }
        let read = |file: &str| std::fs::read_to_string(self.credentials.file(file)).unwrap();
        let pair = |name: &str| -> Secret {
            let files =
                [("tls.crt", format!("{name}.pem")), ("tls.key", format!("{name}.key")), ("ca.crt", "ca.pem".into())];
            files.into_iter().map(|(key, file)| (key.to_owned(), read(&file))).collect()
        };
        let mut secrets = BTreeMap::from([
            ("t-tidegate-control-tls".to_owned(), pair("server")),
            ("t-tidegate-history-tls".to_owned(), pair("server")),
            ("t-tidegate-test-tls".to_owned(), pair("helm-test")),
            ("hash-key".to_owned(), Secret::from([("hash.key".to_owned(), "the secret of all edges".to_owned())])),
        ]);
        let login = [("username".to_owned(), USER.to_owned()), ("password".to_owned(), format!("{PASSWORD}\n"))];
        secrets.insert("kafka-user".to_owned(), Secret::from(login));
        for node in nodes {
            secrets.insert(format!("edge-tls of {node}"), pair(node));
        }
        self.secrets = secrets;
    }

    /// The files of a container, in the folder `place`; addresses of the cluster are those of this machine, and `policy` is
    /// that of an edge's mail server, or of history's analysts.
    fn files(&self, owner: &str, container: &str, place: &str, ops: SocketAddr, policy: SocketAddr) -> PodFiles {
        let (control, brokers) = (self.control.to_string(), self.kafka.bootstrap_for_login().unwrap());
        let change = |text: &str| {
            text.replace("kafka.example.org:9092", &brokers)
                .replace("0.0.0.0:7710", &control)
                .replace("https://t-tidegate-control.mail.svc:7710", &format!("https://{control}"))
                .replace("0.0.0.0:7730", &policy.to_string())
                .replace("0.0.0.0:7780", &ops.to_string())
                .replace("0.0.0.0:7790", &ops.to_string())
                .replace("127.0.0.1:7723", &policy.to_string())
        };
        let secret =
            |name: &str| self.secrets.get(name).or_else(|| self.secrets.get(&format!("{name} of {place}"))).cloned();
        let pod = manifests::pods(&self.rendered).into_iter().find(|pod| manifests::name(pod.owner) == owner).unwrap();
        PodFiles::write(&self.rendered, &pod, container, &self.root(place), &secret, &change).unwrap()
    }

    fn root(&self, place: &str) -> PathBuf {
        // Workers share their volume, as the claim says.
        self.dir.path().join(place)
    }

    fn run(&self, owner: &str, container: &str) -> Ended {
        let files = self.files(owner, container, container, loopback(), loopback());
        let mut command = Command::new(programs::tidegate().unwrap());
        command.args(files.arguments()).envs(files.environment().iter().cloned());
        command::run(command, TIMEOUT).unwrap()
    }

    fn start(&self, owner: &str, container: &str, place: &str) -> Running {
        let (ops, policy) = (loopback(), loopback());
        let files = self.files(owner, container, place, ops, policy);
        let program = if container == "edge" { programs::tidegate_edge() } else { programs::tidegate() };
        let mut launch = Launch::new(place, program.unwrap()).args(files.arguments()).ops(ops);
        for (name, value) in files.environment() {
            launch = launch.env(name, value);
        }
        Running { process: launch.start(&self.root(place)).unwrap(), policy }
    }

    fn as_jo(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new(programs::tidegate().unwrap());
        command.args(arguments).env("TIDEGATE_SERVER", format!("https://{}", self.control));
        for (name, file) in [("TIDEGATE_CA", "ca.pem"), ("TIDEGATE_CERTIFICATE", "jo.pem"), ("TIDEGATE_KEY", "jo.key")]
        {
            command.env(name, self.credentials.file(file));
        }
        command::run(command, TIMEOUT).unwrap()
    }
}

#[test]
fn a_lock_travels_to_every_edge_of_what_is_rendered() {
    let cluster = Cluster::new();
    let topics = cluster.run("Job t-tidegate-topics", "topics").succeeded().unwrap();
    assert_eq!(topics.stdout.matches("created").count(), 8, "{}", topics.report());
    let again = cluster.run("Job t-tidegate-topics", "topics").succeeded().unwrap();
    assert_eq!(again.stdout.matches("fine").count(), 8, "{}", again.report());

    let mut control = cluster.start("Deployment t-tidegate-control", "control", "control");
    let mut stream = cluster.start("Deployment t-tidegate-stream", "stream", "stream");
    let mut history = cluster.start("Deployment t-tidegate-history", "history", "history");
    let mut edges = ["mx1", "mx2"].map(|node| cluster.start("DaemonSet t-tidegate-edge", "edge", node));
    for running in [&mut control, &mut stream, &mut history].into_iter().chain(&mut edges) {
        running.process.wait_until_ready(TIMEOUT).unwrap();
    }

    hostile::hijack(edges[0].policy, "eve@example.test").unwrap();
    let mut other = PolicyClient::connect(edges[1].policy).unwrap();
    let mut number = 0;
    wait_until("the other edge refuses it, too", TIMEOUT, || {
        number += 1;
        let action = other.message("eve@example.test", &format!("other.{number}"), "victim@elsewhere.example");
        action.unwrap().starts_with("550 5.7.1 This account is locked.")
    })
    .unwrap();
    assert_eq!(other.message("amy@example.test", "amy.1", "bob@elsewhere.example").unwrap(), "DUNNO");

    let test = manifests::of_kind(&cluster.rendered, "Pod").next().unwrap();
    let steps: Vec<&str> = containers(test).map(|container| text(container, "/name")).collect();
    assert_eq!(steps, ["who-am-i", "lock", "unlock"]);
    for step in steps {
        cluster.run("Pod t-tidegate-test", step).succeeded().unwrap();
    }
    // The canary's certificate is good for the canary's domain alone.
    let who = cluster.as_jo(&["audit", "list", "--json", "--actions"]).succeeded().unwrap();
    assert!(who.stdout.contains("canary@tidegate.invalid") && who.stdout.contains("helm-test"), "{}", who.report());

    for running in [&mut stream, &mut control, &mut history].into_iter().chain(&mut edges) {
        let ended = running.process.stop(TIMEOUT).unwrap();
        assert!(ended.success(), "{ended}: {}", running.process.log().display());
    }
    let tables = cluster.root("history").join("var/lib/tidegate/history");
    assert!(std::fs::read_dir(&tables).unwrap().count() > 0, "history has written tables to {}", tables.display());
}
