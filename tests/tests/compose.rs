//! `deploy/compose.yaml`, cross-checked: images are what the Dockerfile makes, ports are those of the configuration, files that
//! are mounted are there, and the programs take their configuration.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tidegate_tests::chart;
use tidegate_tests::command;
use tidegate_tests::installation::TIMEOUT;
use tidegate_tests::manifests::{list, text};
use tidegate_tests::programs;
use xtask::paths::workspace_root;
use xtask::tools;

fn deploy() -> PathBuf {
    workspace_root().join("deploy")
}

fn yaml(file: &Path) -> Value {
    chart::yaml_documents(&[file.to_owned()]).unwrap().remove(0).remove(0)
}

fn read(file: &str) -> String {
    fs::read_to_string(deploy().join(file)).unwrap()
}

fn services(compose: &Value) -> impl Iterator<Item = (&str, &Value)> {
    compose["services"].as_object().unwrap().iter().map(|(name, service)| (name.as_str(), service))
}

/// `from:to` of a mount; what is no path is a volume.
fn mounts(service: &Value) -> Vec<(&str, &str)> {
    let mounts = list(service, "/volumes").iter().map(|mount| mount.as_str().unwrap());
    mounts.map(|mount| (mount.split(':').next().unwrap(), mount.split(':').nth(1).unwrap())).collect()
}

#[test]
fn what_is_mounted_is_there_and_what_is_waited_for_too() {
    let compose = yaml(&deploy().join("compose.yaml"));
    let volumes: BTreeSet<&str> = compose["volumes"].as_object().unwrap().keys().map(String::as_str).collect();
    let mut used = BTreeSet::new();
    for (name, service) in services(&compose) {
        for (from, _) in mounts(service) {
            if from.starts_with('.') {
                assert!(deploy().join(from).exists(), "{name} mounts {from}");
            } else {
                assert!(volumes.contains(from), "{name} mounts the volume {from}");
                used.insert(from);
            }
        }
        for (other, how) in service["depends_on"].as_object().into_iter().flatten() {
            let other_service = &compose["services"][other];
            assert!(other_service.is_object(), "{name} waits for {other}");
            let is_kept = match text(how, "/condition") {
                "service_healthy" => other_service["healthcheck"].is_object(),
                "service_completed_successfully" => {
                    !matches!(text(other_service, "/restart"), "always" | "unless-stopped")
                }
                condition => condition == "service_started",
            };
            assert!(is_kept, "{name} waits for {other}: {how}");
        }
    }
    assert_eq!(used, volumes);
}

#[test]
fn images_have_versions_and_ours_are_what_the_dockerfile_makes() {
    let compose = yaml(&deploy().join("compose.yaml"));
    let dockerfile = read("Dockerfile");
    let version = env!("CARGO_PKG_VERSION");
    for (name, service) in services(&compose) {
        let image = text(service, "/image");
        let tag = image.rsplit_once(':').map(|(_, tag)| tag).unwrap_or_default();
        assert!(!tag.is_empty() && tag != "latest", "{name}: {image}");
        let Some(build) = service.get("build") else { continue };
        assert_eq!(tag, version, "{name}: {image}");
        let context = deploy().join(text(build, "/context"));
        let file = match text(build, "/dockerfile") {
            "" => context.join("Dockerfile"),
            file => context.join(file),
        };
        assert!(file.is_file(), "{name} is built from {}", file.display());
        let target = text(build, "/target");
        assert!(target.is_empty() || dockerfile.contains(&format!(" AS {target}\n")), "{name}: {target}");
    }
    // The chart has the same images.
    let values = yaml(&chart::folder().join("values.yaml"));
    for (service, key) in [("stream", "server"), ("edge", "edge")] {
        let image = format!(
            "{}/{}:{version}",
            text(&values, "/image/registry"),
            text(&values, &format!("/image/{key}/repository"))
        );
        assert_eq!(text(&compose["services"][service], "/image"), image);
    }
    let chart = yaml(&chart::folder().join("Chart.yaml"));
    assert_eq!(chart["appVersion"], version);
}

#[test]
fn our_containers_have_no_rights() {
    let compose = yaml(&deploy().join("compose.yaml"));
    let ours = services(&compose).filter(|(_, service)| text(service, "/image").contains("/tidegate/tidegate"));
    let mut count = 0;
    for (name, service) in ours {
        let is_bound =
            service["user"] == "65532:65532" && service["read_only"] == true && service["cap_drop"][0] == "ALL";
        assert!(is_bound, "{name}");
        count += 1;
    }
    assert!(count >= 8, "{count} services are ours");
}

#[test]
fn ports_are_those_of_the_configuration() {
    let compose = yaml(&deploy().join("compose.yaml"));
    let (server, edge) = (read("compose/control.toml"), read("compose/edge.toml"));
    let stream = read("compose/stream.toml");
    let listens = |config: &str, port: &str| config.contains(&format!("listen = \"0.0.0.0:{port}\""));
    for (name, service) in services(&compose) {
        for port in list(service, "/ports") {
            let port = port.as_str().unwrap();
            assert!(port.starts_with("127.0.0.1:"), "{name} can be reached from other machines: {port}");
            let inside = port.rsplit(':').next().unwrap();
            match name {
                "control" | "history" => assert!(listens(&server, inside), "{name}: {port}"),
                "postfix" => {
                    assert!(read("compose/postfix/master.cf").lines().any(|line| line.starts_with(inside)), "{port}");
                }
                "prometheus" | "grafana" => {}
                other => panic!("{other} has the port {port}"),
            }
        }
    }
    let prometheus = yaml(&deploy().join("compose/prometheus.yaml"));
    let mut scraped = BTreeSet::new();
    for job in list(&prometheus, "/scrape_configs") {
        for target in list(job, "/static_configs").iter().flat_map(|config| list(config, "/targets")) {
            let (host, port) = target.as_str().unwrap().split_once(':').unwrap();
            // As the chart's ServiceMonitor calls them, and as the alerts know them.
            assert_eq!(text(job, "/job_name"), format!("tidegate-{host}"));
            let config = match host {
                "edge" => &edge,
                "stream" => &stream,
                _ => &server,
            };
            assert!(compose["services"][host].is_object() && listens(config, port), "{target}");
            scraped.insert(host.to_owned());
        }
    }
    assert_eq!(scraped, ["control", "edge", "history", "stream"].map(str::to_owned).into());
    for config in [&server, &stream] {
        let brokers = config.lines().find_map(|line| line.strip_prefix("bootstrap_servers = ")).unwrap();
        let (host, port) = brokers.trim_matches('"').split_once(':').unwrap();
        let advertised = text(&compose["services"][host], "/environment/KAFKA_ADVERTISED_LISTENERS");
        assert!(advertised.ends_with(&format!("{host}:{port}")), "{advertised}");
    }
    let partitions = |config: &str| config.lines().find(|line| line.starts_with("partitions = ")).map(str::to_owned);
    assert_eq!(partitions(&server), partitions(&stream));
    let datasource = yaml(&deploy().join("compose/grafana/provisioning/datasources/prometheus.yaml"));
    assert_eq!(datasource["datasources"][0]["url"], "http://prometheus:9090");
}

/// The programs look at their configuration, with mounted files in a folder that stands for the container's root.
#[test]
fn the_programs_take_their_configuration() {
    let compose = yaml(&deploy().join("compose.yaml"));
    for name in ["topics", "stream", "control", "history", "edge"] {
        let service = &compose["services"][name];
        let dir = tempfile::tempdir().unwrap();
        let inside = |path: &str| dir.path().join(path.trim_start_matches('/'));
        for (from, to) in mounts(service) {
            let place = inside(to);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            if from == "certificates" {
                fill_certificates(&place);
            } else if !from.starts_with('.') {
                fs::create_dir_all(&place).unwrap();
            } else if deploy().join(from).is_file() {
                fs::write(&place, moved(&read(from), dir.path())).unwrap();
            } else {
                tools::run(Command::new("cp").arg("-R").arg(deploy().join(from)).arg(&place)).unwrap();
            }
        }
        let arguments = list(service, "/command").iter().map(|argument| moved(argument.as_str().unwrap(), dir.path()));
        let mut arguments: Vec<String> = arguments.collect();
        let config = arguments.last().unwrap().clone();
        for path in fs::read_to_string(&config)
            .unwrap()
            .split(['"', ':'])
            .filter(|part| part.starts_with(dir.path().to_str().unwrap()))
        {
            let path = Path::new(path);
            // Who makes topics reads no rules, and control keeps no history.
            let is_needed = name != "topics" && !(name == "control" && path.ends_with("history"));
            let is_there = !is_needed || path.exists() || path.parent().unwrap().is_dir();
            assert!(is_there, "{name}: nothing is mounted at {}", path.display());
        }
        let program = if name == "edge" { programs::tidegate_edge() } else { programs::tidegate() };
        // What looks at topics has no check of its own; it reads the same file.
        if name == "topics" {
            arguments.splice(..2, ["control".to_owned()]);
        }
        let mut command = Command::new(program.unwrap());
        command.args(&arguments).arg("--check-config");
        let ended = command::run(command, TIMEOUT).unwrap();
        assert_eq!(ended.code(), 0, "{name}: {}", ended.report());
    }
}

/// A text with the container's paths below `root`.
fn moved(text: &str, root: &Path) -> String {
    let below = |text: String, path: &str| text.replace(path, &format!("{}{path}", root.display()));
    ["/etc/tidegate", "/var/lib/tidegate", "/run/tidegate"].into_iter().fold(text.to_owned(), below)
}

/// What the services that make certificates leave.
fn fill_certificates(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let data = workspace_root().join("services/control/tests/data");
    for (file, names) in [
        ("ca.pem", &["ca"][..]),
        ("server.pem", &["control", "edge", "admin"]),
        ("server.key", &["control", "edge", "admin"]),
    ] {
        let (_, ending) = file.split_once('.').unwrap();
        for name in names {
            fs::copy(data.join(file), folder.join(format!("{name}.{ending}"))).unwrap();
        }
    }
}
