//! What dashboards and alerts name is there: every metric in `/metrics` of a running system, every label value that an
//! alert asks for, every runbook in deploy/README.md. And every metric that a system has says what it is. Prometheus itself
//! scrapes it and evaluates the rules, and `promtool` runs the alerts' unit tests.
// A test that is skipped says why.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tidegate_tests::hostile::PolicyClient;
use tidegate_tests::http;
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use tidegate_tests::process::{Launch, Process};
use tidegate_tests::programs;
use tidegate_tests::secured::Credentials;
use xtask::paths::{find_program, workspace_root};
use xtask::ports::free_port;
use xtask::prometheus::{PrometheusRig, promtool};
use xtask::wait::wait_until;

const RULES: &str = "helm/tidegate/rules/tidegate.rules.yaml";
const RULE_TESTS: &str = "tests/data/tidegate.rules.test.yaml";
const DASHBOARDS: &str = "helm/tidegate/dashboards";

/// Locks at the third message, so that a decision, a refusal and a notification are counted.
const LOCKING: &str = "mode = \"enforce\"\n\n[[rule]]\nname = \"third\"\nwhen = \"messages_1m >= 3\"\naction = \"lock\"\n\
                       reason = \"test\"\nsource = \"test\"\nreply = \"locked\"\n\n[[rule]]\nname = \"second\"\nwhen = \"messages_1m >= 2\"\naction = \"observe\"\nreason = \"test\"\nsource = \"test\"\n";

/// A server with everything that it can do, asked by name and TLS, and an edge.
struct System {
    server: Server,
    edge: Process,
    edge_ops: SocketAddr,
    policy: SocketAddr,
    rspamd: SocketAddr,
    credentials: Credentials,
    dir: TempDir,
}

impl System {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Credentials::make(&dir.path().join("credentials")).unwrap();
        let hook = loopback();
        let sections = format!(
            "{}[console]\nlisten = \"{}\"\n\n[notify]\nadministrators = [\"abuse@example.org\"]\n\n\
             [[notify.webhook]]\nname = \"hook\"\nurl = \"http://{hook}/\"\ntemplate = \"generic\"\ngroup_window_ms = 100\n",
            credentials.sections(),
            loopback(),
        );
        let server = Server::start_with(dir.path(), "server", "serve", &Log::Embedded, LOCKING, &sections).unwrap();
        let mut certificate = std::process::Command::new(programs::tidegate().unwrap());
        certificate.args(["certificate", "edge", "--trust-domain", "example.org", "--site", "ams", "--node", "mx1"]);
        certificate.arg("--authority").arg(credentials.file("ca")).arg("--out").arg(credentials.file("mx1"));
        tidegate_tests::command::run(certificate, TIMEOUT).unwrap().succeeded().unwrap();
        let (policy, milter, rspamd, edge_ops) = (loopback(), loopback(), loopback(), loopback());
        let text = format!(
            "node = \"mx1\"\nsite = \"ams\"\nstate_directory = {:?}\n[policy]\nlisten = [\"inet:{policy}\"]\n\
             [milter]\nlisten = [\"inet:{milter}\"]\n[rspamd]\nlisten = \"{rspamd}\"\n\
             [control]\nendpoint = \"https://{}\"\n[control.tls]\ncertificate = {:?}\nkey = {:?}\nca = {:?}\n\
             [ops]\nlisten = \"{edge_ops}\"\n",
            dir.path().join("edge"),
            server.control,
            credentials.file("mx1.pem"),
            credentials.file("mx1.key"),
            credentials.file("ca.pem"),
        );
        let config = dir.path().join("edge.toml");
        fs::create_dir(dir.path().join("edge")).unwrap();
        fs::write(&config, text).unwrap();
        let launch = Launch::new("edge", programs::tidegate_edge().unwrap()).arg("--config").arg(config);
        let mut edge = launch.ops(edge_ops).start(dir.path()).unwrap();
        edge.wait_until_ready(TIMEOUT).unwrap();
        Self { server, edge, edge_ops, policy, rspamd, credentials, dir }
    }

    /// Mail until an account is locked and refused; it is unlocked, and something is denied.
    fn work(&self) {
        let mut mail = PolicyClient::connect(self.policy).unwrap();
        let mut instance = 0;
        wait_until("the account is locked and refused", TIMEOUT, || {
            instance += 1;
            // A refusal is what it is for.
            let _ = mail.message("jo@example.org", &instance.to_string(), "somebody@example.com");
            self.edge.metric("tidegate_edge_refusals_total", &[]).unwrap_or(0.0) > 0.0
        })
        .unwrap();
        // Mail of nobody, and a verdict that is none.
        mail.message("", "nobody", "somebody@example.com").unwrap();
        let mut filter = TcpStream::connect(self.rspamd).unwrap();
        filter.write_all(b"POST /rspamd HTTP/1.0\r\nContent-Length: 8\r\n\r\nnonsense").unwrap();
        wait_until("both are counted", TIMEOUT, || {
            let counted = |name| self.edge.metric(name, &[]).is_ok_and(|count| count > 0.0);
            counted("tidegate_edge_ignored_total") && counted("tidegate_edge_verdicts_total")
        })
        .unwrap();
        let amy = self.credentials.token("amy", "admin", &[]).unwrap();
        let admin = |arguments: &[&str]| self.credentials.admin(self.server.control, &amy, arguments).unwrap();
        wait_until("the token counts", TIMEOUT, || admin(&["whoami"]).code() == 0).unwrap();
        let unlock = ["accounts", "unlock", "jo@example.org", "--reason", "test", "--password-changed", "now"];
        admin(&unlock).succeeded().unwrap();
        admin(&["accounts", "show", "jo@example.org", "--statistics"]).succeeded().unwrap();
        let viewer = self.credentials.token("vi", "viewer", &[]).unwrap();
        let viewer =
            || self.credentials.admin(self.server.control, &viewer, &["rules", "disable", "third", "--reason", "x"]);
        wait_until("a viewer is denied", TIMEOUT, || viewer().unwrap().stderr.contains("needs the role admin"))
            .unwrap();
        let channel_failed = || self.server.process.metric("tidegate_notify_channel_failures", &[]);
        wait_until("the webhook has failed", TIMEOUT, || channel_failed().unwrap_or(0.0) > 0.0).unwrap();
        let written = || self.server.process.metric("tidegate_stream_checkpoints_total", &[("result", "written")]);
        wait_until("a checkpoint is written", TIMEOUT, || written().unwrap_or(0.0) > 0.0).unwrap();
    }

    /// Both programs' `/metrics`.
    fn texts(&self) -> Vec<String> {
        let read = |address| http::get(address, "/metrics").unwrap().body;
        vec![read(self.server.process.ops_address().unwrap()), read(self.edge_ops)]
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()))
}

fn repository(path: &str) -> PathBuf {
    workspace_root().join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    words.filter(|word| word.starts_with("tidegate_")).map(str::to_owned).collect()
}

/// All expressions of a dashboard, of its panels and of its variables.
fn expressions(dashboard: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dashboard];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(text) if name == "expr" || name == "definition" => found.push(text.clone()),
                        other => open.push(other),
                    }
                }
            }
            Value::Array(values) => open.extend(values),
            _ => {}
        }
    }
    found
}

fn dashboards() -> Vec<(String, Value)> {
    let entries = fs::read_dir(repository(DASHBOARDS)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let named = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (named(path), serde_json::from_str(&read(path)).unwrap())).collect()
}

/// The alerts of the rules file: each with the lines of its rule.
fn alerts() -> BTreeMap<String, String> {
    let text = read(&repository(RULES));
    let mut found = BTreeMap::new();
    for part in text.split("\n      - alert: ").skip(1) {
        let (name, rule) = part.split_once('\n').unwrap();
        found.insert(name.to_owned(), rule.split("\n  - name: ").next().unwrap().to_owned());
    }
    found
}

/// How a section of Markdown is linked to.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let headings = markdown.lines().filter_map(|line| line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')));
    let anchor = |heading: &str| {
        let kept = heading.trim().to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn a_running_system_has_what_dashboards_and_alerts_name() {
    let system = System::start();
    system.work();
    let texts = system.texts();
    let (mut kinds, mut helped) = (BTreeMap::new(), BTreeSet::new());
    for text in &texts {
        for line in text.lines() {
            let mut words = line.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some("#"), Some("TYPE"), Some(name)) => drop(kinds.insert(name.to_owned(), words.next().unwrap())),
                (Some("#"), Some("HELP"), Some(name)) => {
                    let help: Vec<&str> = words.collect();
                    assert!(help.join(" ").trim_end_matches('.').len() > 5, "{name} does not say what it is: {help:?}");
                    helped.insert(name.to_owned());
                }
                _ => {}
            }
        }
    }
    let mut there = BTreeSet::new();
    for (name, kind) in &kinds {
        assert!(helped.contains(name), "{name} has no help text");
        assert!(name.starts_with("tidegate_"), "{name} does not say whose it is");
        there.insert(match *kind {
            "counter" => format!("{name}_total"),
            "histogram" => format!("{name}_bucket"),
            _ => name.clone(),
        });
    }
    let mut missing = Vec::new();
    let mut check = |place: &str, text: &str| {
        for name in named(text).into_iter().filter(|name| !there.contains(name)) {
            missing.push(format!("{place}: {name}"));
        }
    };
    for (file, dashboard) in dashboards() {
        let expressions = expressions(&dashboard);
        assert!(expressions.len() > 10, "{file} shows nothing");
        for expression in &expressions {
            check(&file, expression);
        }
    }
    for (alert, rule) in alerts() {
        check(&alert, rule.split("\n        labels:").next().unwrap());
    }
    assert_eq!(missing, [""; 0], "a running system has {there:#?}");

    // A counter that begins with its first count never shows Prometheus an increase.
    let all = texts.concat();
    for (series, label) in [
        ("tidegate_stream_rule_reloads_total", "result=\"refused\""),
        ("tidegate_stream_checkpoints_total", "result=\"failed\""),
        ("tidegate_edge_connections_shed_total", "protocol=\"milter\""),
        ("tidegate_access_reloads_total", "result=\"refused\""),
        ("tidegate_control_tls_reloads_total", "result=\"refused\""),
        ("tidegate_control_records_skipped_total", "topic=\"accounts\""),
        ("tidegate_notify_notifications_total", "result=\"dead\""),
    ] {
        let line = all.lines().find(|line| line.starts_with(series) && line.contains(label));
        assert!(line.is_some_and(|line| line.ends_with(" 0")), "{series} with {label} is not there at 0: {line:?}");
    }
}

#[test]
fn each_alert_says_how_bad_it_is_and_what_to_do_and_is_tested() {
    let runbooks = anchors(&read(&repository("deploy/README.md")));
    let tests = read(&repository(RULE_TESTS));
    let alerts = alerts();
    assert!(alerts.len() > 30);
    for (name, rule) in &alerts {
        assert!(name.starts_with("Tidegate"), "{name}");
        let severity = rule.split_once("severity: ").unwrap().1.lines().next().unwrap();
        assert!(["warning", "critical"].contains(&severity), "{name}: {severity}");
        for annotation in ["summary: ", "description: ", "runbook_url: "] {
            assert!(rule.contains(annotation), "{name} has no {annotation}");
        }
        let runbook = rule.split_once("runbook_url: deploy/README.md#").unwrap().1.lines().next().unwrap();
        assert!(runbooks.contains(runbook), "{name}: deploy/README.md has no section {runbook}");
        let quiet = format!("{{ alertname: {name}, eval_time: ");
        let fires = format!("- alertname: {name}\n");
        let fires = tests
            .split_once(&fires)
            .is_some_and(|(_, rest)| rest.lines().nth(1).is_some_and(|line| line.trim() == "exp_alerts:"));
        assert!(tests.contains(&quiet) && fires, "{name} is not seen quiet and firing in {RULE_TESTS}");
    }
    for runbook in runbooks.iter().filter(|anchor| anchor.starts_with("tidegate") && !anchor.contains('-')) {
        assert!(alerts.keys().any(|name| name.to_lowercase() == *runbook), "there is no alert for {runbook}");
    }
}

#[test]
fn promtool_takes_the_rules_and_their_tests_pass() {
    if find_program("promtool").is_none() {
        eprintln!("skipped: no promtool here; `cargo xtask setup --for test` installs it with Prometheus");
        return;
    }
    let root = workspace_root();
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", RULES], &root).unwrap();
    promtool(&["test", "rules", RULE_TESTS], &root).unwrap();
}

#[test]
fn prometheus_scrapes_a_running_system_and_evaluates_the_rules() {
    if find_program("prometheus").is_none() {
        eprintln!("skipped: no prometheus here; `cargo xtask setup --for test` installs it");
        return;
    }
    let mut system = System::start();
    let targets =
        [("tidegate-server", system.server.process.ops_address().unwrap()), ("tidegate-edge", system.edge_ops)];
    let prometheus = PrometheusRig::start(&system.dir.path().join("prometheus"), &targets, &repository(RULES)).unwrap();
    let ask = |path: &str| -> Value {
        let answer = http::get(prometheus.address(), path).unwrap();
        // It says "Service Unavailable" until it has read its own log.
        serde_json::from_str(&answer.body).unwrap_or_default()
    };
    let query = |query: &str| ask(&format!("/api/v1/query?query={query}"))["data"]["result"].clone();
    wait_until("both are scraped", TIMEOUT, || query("sum(up)")[0]["value"][1] == "2").unwrap();
    wait_until("the rules are evaluated", TIMEOUT, || {
        let groups = ask("/api/v1/rules")["data"]["groups"].clone();
        let rules = || groups.as_array().into_iter().flatten().flat_map(|group| group["rules"].as_array().unwrap());
        if let Some(wrong) = rules().find(|rule| rule["health"] == "err") {
            panic!("{}: {}", wrong["name"], wrong["lastError"]);
        }
        rules().count() == alerts().len() && rules().all(|rule| rule["health"] == "ok")
    })
    .unwrap();
    // A healthy system disturbs nobody. Before the first scrape it seemed to be absent.
    let alerts_now = || ask("/api/v1/alerts")["data"]["alerts"].clone();
    wait_until("no alert is on its way", TIMEOUT, || alerts_now() == Value::Array(Vec::new()))
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", alerts_now(), read(prometheus.log())));
    // Every expression of the dashboards is one that Prometheus takes.
    for (file, dashboard) in dashboards() {
        for expression in expressions(&dashboard).into_iter().filter(|text| !text.starts_with("label_values")) {
            let filled =
                expression.replace("$__rate_interval", "1m").replace("$namespace", ".*").replace("$instance", ".*");
            let answer = ask(&format!("/api/v1/query?query={}", percent(&filled)));
            assert_eq!(answer["status"], "success", "{file}: {filled}: {answer}");
        }
    }
    system.edge.kill();
    let is_down =
        || query(&percent("up{job=\"tidegate-edge\"} == 0")).as_array().is_some_and(|found| !found.is_empty());
    wait_until("the edge is missed", TIMEOUT, is_down).unwrap();
    let pending = || alerts_now().to_string().contains("TidegateTargetDown");
    wait_until("the alert is on its way", TIMEOUT, pending).unwrap();
}

/// For a URL's query.
fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |escaped, octet| match octet {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' => escaped + &char::from(octet).to_string(),
        _ => escaped + &format!("%{octet:02X}"),
    })
}
