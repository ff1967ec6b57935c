//! `deploy/compose.yaml`, cross-checked: images are what the Dockerfile makes, ports are those of the configuration, files that
//! are mounted are there, and the programs take their configuration.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use tidegate_tests::chart;
use tidegate_tests::command;
use tidegate_tests::installation::TIMEOUT;
use tidegate_tests::manifests::{list, text};
use tidegate_tests::programs;
use xtask::paths::workspace_root;

fn deploy() -> PathBuf {
    workspace_root().join("deploy")
}

fn yaml(file: &Path) -> Value {
    chart::yaml_documents(&[file.to_owned()]).unwrap().remove(0).remove(0)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(deploy().join(file)).unwrap()
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
        let image = format!("{}/{}:{version}", text(&values, "/image/registry"), text(&values, &format!("/image/{key}/repository")));
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
        let is_bound = service["user"] == "65532:65532" && service["read_only"] == true && service["cap_drop"][0] == "ALL";
        assert!(is_bound, "{name}");
        count += 1;
    }
    assert!(count >= 8, "{count} services are ours");
}

#[test]
fn ports_are_those_of_the_configuration() {
    let compose = yaml(&deploy().join("compose.yaml"));
    let (server, edge) = (read("compose/tidegate.toml"), read("compose/edge.toml"));
    let listens = |config: &str, port: &str| config.contains(&format!("listen = \"0.0.0.0:{port}\""));
    for (name, service) in services(&compose) {
        for port in list(service, "/ports") {
            let port = port.as_str().unwrap();
            assert!(port.starts_with("127.0.0.1:"), "{name} can be reached from other machines: {port}");
            let inside = port.rsplit(':').next().unwrap();
            match name {
                "control" | "history" => assert!(listens(&server, inside), "{name}: {port}"),
                "postfix" => assert!(read("compose/postfix/master.cf").lines().any(|line| line.starts_with(inside)), "{port}"),
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
            assert_eq!(text(job, "/job_name"), host);
            let config = if host == "edge" { &edge } else { &server };
            assert!(compose["services"][host].is_object() && listens(config, port), "{target}");
            scraped.insert(host.to_owned());
        }
    }
    assert_eq!(scraped, ["control", "edge", "history", "stream"].map(str::to_owned).into());
    let brokers = server.lines().find_map(|line| line.strip_prefix("bootstrap_servers = ")).unwrap();
    let (host, port) = brokers.trim_matches('"').split_once(':').unwrap();
    assert!(text(&compose["services"][host], "/environment/KAFKA_ADVERTISED_LISTENERS").ends_with(&format!("{host}:{port}")));
    let datasource = yaml(&deploy().join("compose/grafana/provisioning/datasources/prometheus.yaml"));
    assert_eq!(datasource["datasources"][0]["url"], "http://prometheus:9090");
}

/// The programs look at their configuration, with mounted files in a folder that stands for the container's root.
#[test]
fn the_programs_take_their_configuration() {
    let compose = yaml(&deploy().join("compose.yaml"));
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().display().to_string();
    for name in ["topics", "stream", "control", "history", "edge"] {
        let service = &compose["services"][name];
        let mut arguments: Vec<String> =
            list(service, "/command").iter().map(|argument| argument.as_str().unwrap().to_owned()).collect();
        let config = arguments.iter().position(|argument| argument == "--config").unwrap() + 1;
        let mounts = mounts(service);
        let is_mounted = |path: &str| mounts.iter().any(|(_, to)| Path::new(path).starts_with(to));
        let (from, _) = mounts.iter().find(|(_, to)| *to == arguments[config]).unwrap();
        let content = read(from);
        // What control and history name, and stream does not read, need not be in stream.
        let section = |line: &str| line.starts_with('[').then(|| line.trim_matches(['[', ']']).to_owned());
        let mut current = String::new();
        for line in content.lines() {
            current = section(line).unwrap_or(current);
            let concerns = match current.split('.').next().unwrap_or_default() {
                "access" => matches!(name, "control" | "history"),
                part @ ("control" | "history" | "stream") => part == name || name == "edge",
                _ => true,
            };
            let paths = line.split(['"', ':']).filter(|part| part.starts_with("/etc/") || part.starts_with("/var/lib/") || part.starts_with("/run/"));
            for path in paths.filter(|_| concerns) {
                assert!(is_mounted(path), "{name}: {path} is not mounted");
            }
        }
        let rules = deploy().join("../services/detect/defaults").canonicalize().unwrap();
        let content = content.replace("/etc/tidegate/rules", &rules.display().to_string());
        let file = dir.path().join(format!("{name}.toml"));
        std::fs::write(&file, content).unwrap();
        arguments[config] = file.display().to_string();
        let program = if name == "edge" { programs::tidegate_edge() } else { programs::tidegate() };
        if name == "topics" {
            arguments.splice(..2, ["control".to_owned()]);
        }
        let mut command = Command::new(program.unwrap());
        command.args(&arguments).arg("--check-config");
        let ended = command::run(command, TIMEOUT).unwrap();
        assert_eq!(ended.code(), 0, "{name} in {root}: {}", ended.report());
    }
}
