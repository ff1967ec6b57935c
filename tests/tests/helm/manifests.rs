//! Every set of values makes objects that Kubernetes takes and that fit each other.

use crate::{case, cases};
use serde_json::Value;
use std::fs;
use tidegate_tests::chart::{self, Case, Rendered};
use tidegate_tests::manifests;

/// Renders cases, of which none may be refused.
fn rendered(cases: &[Case]) -> Vec<Rendered> {
    let results = chart::render_all(cases).unwrap();
    results
        .into_iter()
        .zip(cases)
        .map(|(result, case)| result.unwrap_or_else(|error| panic!("{}: {error}", case.name)))
        .collect()
}

#[test]
fn helm_finds_nothing_to_say() {
    for case in cases() {
        let mut lint = chart::helm(&["lint", "--strict", "--values"]).unwrap();
        let output = lint.arg(&case.file).arg(chart::folder()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}: {}", case.name, String::from_utf8_lossy(&said));
    }
}

#[test]
fn every_case_makes_objects_that_are_valid_and_fit() {
    let rendered = rendered(&cases());
    let problems: Vec<String> = rendered.iter().flat_map(manifests::problems).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let (problems, known) = chart::schema_problems(&rendered.iter().collect::<Vec<_>>()).unwrap();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    let builtin = rendered.iter().flat_map(|one| &one.objects).filter(|object| {
        let group = manifests::text(object, "/apiVersion");
        !group.contains('.') || group.contains(".k8s.io")
    });
    assert_eq!(known, builtin.count(), "objects whose schemas were looked at");
}

#[test]
fn the_examples_are_valid() {
    let rendered = rendered(&chart::cases(&chart::folder().join("examples")).unwrap());
    let (problems, known) = chart::schema_problems(&rendered.iter().collect::<Vec<_>>()).unwrap();
    assert!(problems.is_empty() && known > 30, "{known} objects: {}", problems.join("\n"));
}

/// What is said at the end names three commands that are there.
#[test]
fn the_notes_say_the_next_three_commands() {
    for (name, third) in
        [("minimal", "port-forward service/t-tidegate-control 7710"), ("everything", "get service t-tidegate-control")]
    {
        let mut install = chart::helm(&["install", chart::RELEASE, "--dry-run=client", "--values"]).unwrap();
        let output = install.arg(case(name, &[]).file).arg(chart::folder()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let (_, notes) = said.split_once("NOTES:").unwrap_or_else(|| panic!("{name}: {said}"));
        for command in ["rollout status deployment/t-tidegate-stream", "helm test t", third] {
            assert!(notes.contains(command), "{name}: {command} is missing in\n{notes}");
        }
    }
}

/// All switches, one by one turned over, where everything is on and where nearly nothing is.
#[test]
fn each_switch_may_be_on_or_off() {
    let documents = chart::yaml_documents(&[chart::folder().join("values.yaml")]).unwrap();
    let mut switches = Vec::new();
    find_switches("", &documents[0][0], &mut switches);
    assert!(switches.len() > 15, "{switches:?}");
    let given = |name: &str, switch: &str| {
        let case = case(name, &[]);
        let values = chart::yaml_documents(&[case.file]).unwrap();
        let pointer = format!("/{}", switch.replace('.', "/"));
        [&values[0][0], &documents[0][0]].iter().find_map(|values| values.pointer(&pointer)?.as_bool()).unwrap()
    };
    let turned = ["everything", "minimal"].iter().flat_map(|name| {
        switches.iter().map(|switch| case(name, &[&format!("{switch}={}", !given(name, switch))])).collect::<Vec<_>>()
    });
    let turned: Vec<Case> = turned.collect();
    let mut problems = Vec::new();
    let mut valid = Vec::new();
    for (result, case) in chart::render_all(&turned).unwrap().into_iter().zip(&turned) {
        match result {
            Ok(rendered) => {
                problems.extend(manifests::problems(&rendered));
                valid.push(rendered);
            }
            // Some do not go with the rest, and are told so.
            Err(error) if error.contains("problem(s) in the values") || error.contains("value must be") => {}
            Err(error) => problems.push(format!("{}: {error}", case.name)),
        }
    }
    problems.extend(chart::schema_problems(&valid.iter().collect::<Vec<_>>()).unwrap().0);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(valid.len() * 3 > turned.len() * 2, "{} of {} are refused", turned.len() - valid.len(), turned.len());
}

fn find_switches(path: &str, values: &Value, found: &mut Vec<String>) {
    for (key, value) in values.as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Bool(_) => found.push(path),
            Value::Object(_) => find_switches(&path, value, found),
            _ => {}
        }
    }
}

/// Topics before anything that uses them, and by Strimzi before they are checked.
#[test]
fn hooks_come_in_order() {
    let hooks = |name: &str| {
        let rendered = chart::render(&case(name, &[])).unwrap();
        let mut hooks: Vec<(i64, String, String)> = Vec::new();
        for object in &rendered.objects {
            let annotation = |name: &str| manifests::text(object, &format!("/metadata/annotations/helm.sh~1{name}"));
            if annotation("hook").starts_with("pre-") || annotation("hook").starts_with("post-") {
                let weight = annotation("hook-weight").parse().unwrap();
                // The job stays for a day, so that its log can be read; what it needed goes with its success.
                let goes = if manifests::text(object, "/kind") == "Job" {
                    "before-hook-creation"
                } else {
                    "before-hook-creation,hook-succeeded"
                };
                assert_eq!(annotation("hook-delete-policy"), goes, "{}", manifests::name(object));
                hooks.push((weight, annotation("hook").to_owned(), manifests::name(object)));
            }
        }
        hooks.sort();
        hooks
    };
    for (name, when) in [
        ("minimal", "pre-install,pre-upgrade"),
        ("everything", "pre-install,pre-upgrade"),
        ("strimzi", "post-install,post-upgrade"),
    ] {
        let hooks = hooks(name);
        assert!(hooks.iter().all(|(_, hook, _)| hook == when), "{name}: {hooks:?}");
        assert_eq!(hooks.last().unwrap().2, "Job t-tidegate-topics", "{name}: {hooks:?}");
        assert!(hooks.len() >= 3 && hooks[hooks.len() - 2].0 < hooks.last().unwrap().0, "{name}: {hooks:?}");
    }
    assert!(hooks("volumes").is_empty(), "nobody makes topics that are there already");
}

/// Strimzi makes what `tidegate topics create` would make.
#[test]
fn strimzis_topics_are_those_of_the_services() {
    let rendered = chart::render(&case("strimzi", &[])).unwrap();
    let mut topics: Vec<(String, String)> = manifests::of_kind(&rendered, "KafkaTopic")
        .map(|topic| {
            assert_eq!(topic["spec"]["partitions"], 12);
            let name = manifests::text(topic, "/spec/topicName").to_owned();
            (name, manifests::text(topic, "/spec/config/cleanup.policy").to_owned())
        })
        .collect();
    topics.sort();
    let mut wanted: Vec<(String, String)> = tidegate_bus::Topic::ALL
        .iter()
        .map(|topic| {
            let policy = if topic.kept() == tidegate_bus::Kept::Compact { "compact" } else { "delete" };
            (format!("tidegate.{}", topic.suffix()), policy.to_owned())
        })
        .collect();
    wanted.sort();
    assert_eq!(topics, wanted);
}

/// Files that others write are taken when they are there.
#[test]
fn dashboards_and_rules_are_embedded() {
    let rendered = chart::render(&case("everything", &[])).unwrap();
    let listed = |folder: &str, ending: &str| {
        let folder = chart::folder().join(folder);
        let files =
            fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut files: Vec<String> = files.filter(|name| name.ends_with(ending)).collect();
        files.sort();
        files
    };
    let mut embedded = Vec::new();
    for map in
        manifests::of_kind(&rendered, "ConfigMap").filter(|map| map["metadata"]["labels"]["grafana_dashboard"] == "1")
    {
        for (name, text) in map["data"].as_object().unwrap() {
            let file = fs::read_to_string(chart::folder().join("dashboards").join(name)).unwrap();
            assert_eq!(text.as_str(), Some(file.as_str()), "{name}");
            embedded.push(name.clone());
        }
    }
    embedded.sort();
    assert_eq!(embedded, listed("dashboards", ".json"));
    let rules = manifests::of_kind(&rendered, "PrometheusRule").count();
    assert_eq!(rules, usize::from(!listed("rules", ".yaml").is_empty()));
}
