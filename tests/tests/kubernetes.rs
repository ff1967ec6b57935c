//! The chart on a real Kubernetes control plane: every object admitted, hooks in order, upgraded, refused, rolled back. Too
//! slow for every test run, so it is done by `cargo xtask kube`.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tidegate_tests::chart;
use tidegate_tests::command::{self, Ended};
use xtask::kube::ControlPlane;
use xtask::tools;

/// Set by `cargo xtask kube`.
const WANTED: &str = "TIDEGATE_KUBE";
const TIMEOUT: Duration = Duration::from_mins(3);
const NAMESPACE: &str = chart::NAMESPACE;
const RELEASE: &str = chart::RELEASE;
/// What the values name and the release does not have.
const SURROUNDINGS: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mail", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
  {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "mail"}, "value": 1000},
  {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "shared"}, "spec": {
    "storageClassName": "shared", "accessModes": ["ReadWriteMany"], "capacity": {"storage": "1Gi"},
    "persistentVolumeReclaimPolicy": "Retain", "nfs": {"server": "nfs.example.org", "path": "/tidegate"}}}
]}"#;

struct Installation {
    plane: ControlPlane,
    values: PathBuf,
    dir: tempfile::TempDir,
}

impl Installation {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let plane = ControlPlane::start(&dir.path().join("plane")).unwrap();
        let file = dir.path().join("surroundings.json");
        fs::write(&file, SURROUNDINGS).unwrap();
        plane.kubectl(&["apply", "-f", file.to_str().unwrap()]).unwrap();
        let values = data().join("cases/everything.yaml");
        Self { plane, values, dir }
    }

    fn helm(&self, arguments: &[&str]) -> Ended {
        let mut command = chart::helm(arguments).unwrap();
        command.args(["--namespace", NAMESPACE, "--kubeconfig"]).arg(self.plane.kubeconfig());
        command::run(command, TIMEOUT).unwrap()
    }

    /// Upgrades (or installs) to a chart with these values changed.
    fn upgrade(&self, chart: &Path, set: &[&str]) -> Ended {
        let (chart, values) = (chart.to_str().unwrap(), self.values.to_str().unwrap());
        let sets: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
        let arguments =
            ["upgrade", RELEASE, chart, "--install", "--history-max", "50", "--timeout", "60s", "--values", values];
        self.helm(&[&arguments[..], &sets].concat())
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        self.plane.kubectl(&[&["--namespace", NAMESPACE], arguments].concat()).unwrap().trim().to_owned()
    }

    fn wait_until_rolled_out(&self) {
        for name in [
            "deployment/t-tidegate-control",
            "deployment/t-tidegate-stream",
            "deployment/t-tidegate-notifier",
            "statefulset/t-tidegate-edge",
        ] {
            self.kubectl(&["rollout", "status", name, "--timeout=120s"]);
        }
    }

    /// The pods of a component, by their unique ids.
    fn pods(&self, component: &str) -> BTreeSet<String> {
        let selector = format!("app.kubernetes.io/component={component}");
        let ids = r"jsonpath={range .items[?(@.status.phase=='Running')]}{.metadata.uid}{' '}{end}";
        let listed = self.kubectl(&["get", "pods", "--selector", &selector, "-o", ids]);
        listed.split_whitespace().map(str::to_owned).collect()
    }

    fn all_pods(&self) -> Vec<(&'static str, BTreeSet<String>)> {
        ["control", "edge", "notifier", "stream"].map(|component| (component, self.pods(component))).into()
    }

    /// Which components have other pods than before.
    fn rolled(&self, before: &[(&'static str, BTreeSet<String>)]) -> Vec<&'static str> {
        self.wait_until_rolled_out();
        let after = self.all_pods();
        before.iter().zip(&after).filter(|(before, after)| before.1 != after.1).map(|(before, _)| before.0).collect()
    }

    fn time(&self, object: &str, field: &str) -> String {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={{{field}}}")])
    }
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/chart")
}

/// The chart as an older version of itself. There is no released one yet that could be upgraded from.
fn version_before(dir: &Path) -> PathBuf {
    let before = dir.join("before");
    tools::run(Command::new("cp").arg("-R").arg(chart::folder()).arg(&before)).unwrap();
    let manifest = before.join("Chart.yaml");
    let text = fs::read_to_string(&manifest).unwrap();
    let text =
        text.replace("\nversion: 0.1.0", "\nversion: 0.0.9").replace("appVersion: \"0.1.0\"", "appVersion: \"0.0.9\"");
    assert!(text.contains("version: 0.0.9") && text.contains("appVersion: \"0.0.9\""), "{text}");
    fs::write(&manifest, text).unwrap();
    before
}

fn is_wanted() -> bool {
    let wanted = std::env::var_os(WANTED).is_some();
    if !wanted {
        eprintln!("skipped: `cargo xtask kube` runs it");
    }
    wanted
}

#[test]
fn every_case_is_admitted() {
    if !is_wanted() {
        return;
    }
    let installation = Installation::new();
    let cases = chart::cases(&data().join("cases")).unwrap();
    for case in cases.iter().chain(&chart::cases(&chart::folder().join("examples")).unwrap()) {
        let text = chart::template(case).unwrap().unwrap();
        let file = installation.dir.path().join("rendered.yaml");
        // Objects of other namespaces, as Strimzi's, stay there.
        fs::write(&file, text.replace("namespace: kafka\n", "namespace: mail\n")).unwrap();
        let arguments = ["apply", "--dry-run=server", "--validate=strict", "-f", file.to_str().unwrap()];
        let admitted = installation.plane.kubectl(&arguments);
        let admitted = admitted.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        eprintln!("{}: {} objects are admitted", case.name, admitted.lines().count());
    }
}

#[test]
fn it_is_installed_upgraded_refused_and_rolled_back() {
    if !is_wanted() {
        return;
    }
    let installation = Installation::new();
    let before = version_before(installation.dir.path());
    let older = ["image.server.digest=", "image.edge.tag="];
    installation.upgrade(&before, &older).succeeded().unwrap();
    installation.wait_until_rolled_out();

    // Topics first, and only when the job has ended everything else.
    let made = ".metadata.creationTimestamp";
    let job = "job/t-tidegate-topics";
    let ended = installation.time(job, ".status.completionTime");
    assert!(!ended.is_empty() && ended <= installation.time("deployment/t-tidegate-stream", made), "{ended}");

    let tested = installation.helm(&["test", RELEASE, "--timeout", "60s"]).succeeded().unwrap();
    assert!(tested.stdout.contains("Succeeded"), "{}", tested.report());

    // To this version: its images are others, so everything rolls.
    let pods = installation.all_pods();
    assert!(pods.iter().all(|(_, pods)| !pods.is_empty()), "{pods:?}");
    installation.upgrade(&chart::folder(), &older).succeeded().unwrap();
    assert_eq!(installation.rolled(&pods), ["control", "edge", "notifier", "stream"]);

    // Values that running processes take, and values of one component.
    for (set, expected) in [
        (&["rules.content=mode = \"enforce\""][..], &[][..]),
        (&["access.people[0].role=viewer"], &[]),
        (&["control.config.control.max_edges=100"], &["control"]),
        (&["statistics.content=-- none"], &["stream"]),
    ] {
        let pods = installation.all_pods();
        installation.upgrade(&chart::folder(), &[&older[..], set].concat()).succeeded().unwrap();
        assert_eq!(installation.rolled(&pods), expected, "{set:?}");
        installation.upgrade(&chart::folder(), &older).succeeded().unwrap();
        installation.wait_until_rolled_out();
    }

    // A topic is wrong: the job says so at once, and nothing is touched.
    let pods = installation.all_pods();
    let template = || installation.time("deployment/t-tidegate-stream", ".metadata.generation");
    let generation = template();
    let wrong = ["image.registry=ghcr.io", "image.server.digest=", "image.server.tag=wrong-topics"];
    let refused = installation.upgrade(&chart::folder(), &wrong);
    assert_ne!(refused.code(), 0, "{}", refused.report());
    assert!(refused.stderr.contains("t-tidegate-topics"), "{}", refused.report());
    assert_eq!(installation.time(job, ".status.conditions[?(@.type=='Failed')].reason"), "PodFailurePolicy");
    assert_eq!((installation.rolled(&pods), template()), (vec![], generation));

    installation.helm(&["rollback", RELEASE, "1", "--timeout", "60s"]).succeeded().unwrap();
    assert_eq!(installation.rolled(&pods), ["control", "edge", "notifier", "stream"]);
    let image = installation.time("deployment/t-tidegate-stream", ".spec.template.spec.containers[0].image");
    assert!(image.ends_with("tidegate:0.0.9"), "{image}");

    installation.helm(&["uninstall", RELEASE, "--wait", "--timeout", "60s"]).succeeded().unwrap();
    let kinds = "deployments,statefulsets,services,configmaps,serviceaccounts,networkpolicies,certificates,persistentvolumeclaims";
    let left = installation.kubectl(&["get", kinds, "-o", "name", "--selector", "app.kubernetes.io/instance=t"]);
    let left: Vec<&str> = left.lines().collect();
    assert_eq!(
        left,
        [
            "persistentvolumeclaim/state-t-tidegate-edge-0",
            "persistentvolumeclaim/state-t-tidegate-edge-1",
            "persistentvolumeclaim/t-tidegate-tokens"
        ]
    );
}
