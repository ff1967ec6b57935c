//! A change of values rolls the pods that it concerns, and no others.

use crate::case;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_tests::chart;
use tidegate_tests::manifests;

/// Pod templates by what makes the pods.
fn templates(set: &[&str]) -> BTreeMap<String, String> {
    let rendered = chart::render(&case("everything", set)).unwrap();
    let lasting = manifests::pods(&rendered)
        .into_iter()
        .filter(|pod| matches!(manifests::text(pod.owner, "/kind"), "Deployment" | "StatefulSet"));
    lasting.map(|pod| (manifests::name(pod.owner), pod.template.to_string())).collect()
}

#[test]
fn a_change_rolls_only_what_it_concerns() {
    let before = templates(&[]);
    let all: BTreeSet<&str> = ["control", "edge", "notifier", "stream"].into();
    assert_eq!(before.len(), all.len());
    let cases: [(&str, &[&str]); 13] = [
        // Taken by the running processes.
        ("rules.content=mode = \"enforce\"", &[]),
        ("access.people[0].role=viewer", &[]),
        ("stream.autoscaling.maxReplicas=20", &[]),
        ("networkPolicies.egress.enabled=false", &[]),
        ("control.replicas=5", &[]),
        // Read at the start.
        ("statistics.content=-- none", &["stream"]),
        ("rules.mode=observe", &["stream"]),
        ("stream.checkpoints.url=s3://tidegate/other", &["stream"]),
        ("control.config.control.max_edges=100", &["control"]),
        ("notifier.config.notify.provider=Other", &["notifier"]),
        ("edge.site=fra", &["edge"]),
        ("traces.endpoint=http://collector:4317", &["control", "edge", "notifier", "stream"]),
        ("kafka.partitions=48", &["control", "edge", "notifier", "stream"]),
    ];
    for (set, expected) in cases {
        let after = templates(&[set]);
        let changed: BTreeSet<&str> = all
            .iter()
            .copied()
            .filter(|name| {
                let key = |templates: &BTreeMap<String, String>| {
                    templates.iter().find(|(owner, _)| owner.ends_with(name)).map(|(_, template)| template.clone())
                };
                key(&before) != key(&after)
            })
            .collect();
        assert_eq!(changed, expected.iter().copied().collect(), "{set}");
    }
}
