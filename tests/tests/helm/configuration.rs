//! The configuration that the chart renders is taken by the programs that get it, with every file where it says.

use crate::{case, cases};
use std::fs;
use std::path::Path;
use std::process::Command;
use tidegate_tests::chart::{self, Rendered};
use tidegate_tests::command;
use tidegate_tests::installation::TIMEOUT;
use tidegate_tests::manifests::{self, Pod, containers, text};
use tidegate_tests::pod_files::{PodFiles, Secret};
use tidegate_tests::programs;
use tidegate_tests::secured::certificate;

const RULES: &str = include_str!("../../../services/detect/defaults/rules.toml");
const AUTHORITY: &str = include_str!("../../../services/control/tests/data/ca.pem");
const CERTIFICATE: &str = include_str!("../../../services/control/tests/data/server.pem");
const KEY: &str = include_str!("../../../services/control/tests/data/server.key");
const STATISTICS: &str = include_str!("../../../services/detect/defaults/statistics.sql");

/// Whatever somebody could have in a Secret, or in a ConfigMap of their own; `authority` is one that signs.
fn any_secret(name: &str, authority: &Path) -> Secret {
    if name.ends_with("-authority") {
        return ["crt", "key"]
            .map(|kind| {
                let file = authority.join(format!("ca.{}", if kind == "crt" { "pem" } else { kind }));
                (format!("tls.{kind}"), fs::read_to_string(file).unwrap())
            })
            .into();
    }
    let keys = [
        ("ca.crt", AUTHORITY),
        ("ca.pem", AUTHORITY),
        ("authority.pem", AUTHORITY),
        ("tls.crt", CERTIFICATE),
        ("tls.key", KEY),
        ("username", "tidegate\n"),
        ("password", "secret\n"),
        ("url", "https://pager.example.org/hook\n"),
        ("secret", "signs\n"),
        ("tokens.toml", ""),
        ("hash.key", "the secret of all edges\n"),
        ("rules.toml", RULES),
        ("statistics.sql", STATISTICS),
    ];
    keys.into_iter().map(|(key, content)| (key.to_owned(), content.to_owned())).collect()
}

/// Lets the program that a pod runs look at its configuration.
fn check(rendered: &Rendered, pod: &Pod<'_>, container: &str, root: &Path, authority: &Path) {
    let secret = |name: &str| Some(any_secret(name, authority));
    let files = PodFiles::write(rendered, pod, container, root, &secret, &str::to_owned);
    let files = files.unwrap_or_else(|error| panic!("{}: {}: {error:#}", rendered.name, manifests::name(pod.owner)));
    // Control makes the file of tokens on its volume; the others read it.
    let tokens = files.path("/var/lib/tidegate/tokens");
    if tokens.exists() && container != "control" {
        fs::write(tokens.join("tokens.toml"), "").unwrap();
    }
    let mut arguments = files.arguments().to_vec();
    let program = if container == "edge" { programs::tidegate_edge() } else { programs::tidegate() };
    // What looks at topics has no check of its own; it reads the same file.
    if arguments[0] == "topics" {
        arguments.splice(..2, ["control".to_owned()]);
    }
    let mut command = Command::new(program.unwrap());
    command.args(&arguments).arg("--check-config").envs(files.environment().iter().cloned());
    let ended = command::run(command, TIMEOUT).unwrap();
    assert_eq!(ended.code(), 0, "{}: {}: {}", rendered.name, manifests::name(pod.owner), ended.report());
}

#[test]
fn the_programs_take_what_is_rendered() {
    let mut checked = 0;
    let authority = tempfile::tempdir().unwrap();
    certificate(authority.path(), &["authority", "--out", "ca"]).unwrap();
    // With other rules and statistics, and with the shipped ones.
    let traced = ["traces.endpoint=http://otel-collector.observability.svc:4317", "traces.sampleRatio=1"];
    let others = ["rules.mode=observe", "accounts.defaultRealm=example.org"];
    let more = case("minimal", &[&others[..], &traced].concat());
    let cases: Vec<_> = cases().into_iter().chain([more]).collect();
    for rendered in chart::render_all(&cases).unwrap().into_iter().map(Result::unwrap) {
        let dir = tempfile::tempdir().unwrap();
        for (index, pod) in manifests::pods(&rendered).iter().enumerate() {
            let ours = ["stream", "control", "notifier", "history", "edge", "topics"];
            let names = containers(pod.template).map(|container| text(container, "/name"));
            for container in names.filter(|name| ours.contains(name)) {
                check(&rendered, pod, container, &dir.path().join(format!("pod-{index}")), authority.path());
                checked += 1;
            }
        }
    }
    assert!(checked > 20, "{checked} were checked");
}
