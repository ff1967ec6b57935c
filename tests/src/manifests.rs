//! Whether the objects of a rendered chart fit each other: names, selectors, ports, files. Each check gives a line for each
//! problem.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::chart::{RELEASE, Rendered};

/// Kinds that make pods, and where their pod template is.
const WORKLOADS: [(&str, &str); 4] = [
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("Job", "/spec/template"),
];

/// Names of pods' containers that are not ours.
const FOREIGN: [&str; 1] = ["postfix"];

/// A pod, or the template of some.
#[derive(Debug, Clone, Copy)]
pub struct Pod<'a> {
    /// Kind and name of what makes it.
    pub owner: &'a Value,
    /// The pod, or its template: with `metadata` and `spec`.
    pub template: &'a Value,
}

/// All pods, templates of pods, and pods of hooks.
pub fn pods(rendered: &Rendered) -> Vec<Pod<'_>> {
    let of = |owner: &'_ Value| -> Option<&'static str> {
        let kind = text(owner, "/kind");
        let found = WORKLOADS.iter().find(|(known, _)| *known == kind).map(|(_, path)| *path);
        found.or((kind == "Pod").then_some(""))
    };
    let found = rendered.objects.iter().filter_map(|owner| Some(Pod { owner, template: owner.pointer(of(owner)?)? }));
    found.collect()
}

/// Every problem of every check.
pub fn problems(rendered: &Rendered) -> Vec<String> {
    let checks: [fn(&Rendered) -> Vec<String>; 8] = [
        names_are_ours_and_once,
        selectors_find_their_pods,
        services_reach_ports,
        probes_ask_ports,
        volumes_are_there_and_used,
        references_are_there,
        no_rights_are_left,
        policies_and_scalers_find_what_they_are_for,
    ];
    let found = checks.iter().flat_map(|check| check(rendered));
    found.map(|problem| format!("{}: {problem}", rendered.name)).collect()
}

fn names_are_ours_and_once(rendered: &Rendered) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut problems = Vec::new();
    for object in &rendered.objects {
        let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
        if !seen.insert((kind, text(object, "/metadata/namespace"), name)) {
            problems.push(format!("{kind} {name} is there twice"));
        }
        let is_ours = name.starts_with(RELEASE) || kind == "KafkaTopic";
        let instance = text(object, "/metadata/labels/app.kubernetes.io~1instance");
        if !is_ours || instance != RELEASE || name.len() > 63 {
            problems.push(format!("{kind} {name} is not named or labelled after the release"));
        }
    }
    problems
}

fn selectors_find_their_pods(rendered: &Rendered) -> Vec<String> {
    let with_selector = pods(rendered).into_iter().filter(|pod| !matches!(text(pod.owner, "/kind"), "Pod" | "Job"));
    let wrong = with_selector.filter(|pod| {
        let selector = pod.owner.pointer("/spec/selector/matchLabels").unwrap_or(&Value::Null);
        !selects(selector, pod.template)
    });
    wrong.map(|pod| format!("{} does not select its own pods", name(pod.owner))).collect()
}

fn services_reach_ports(rendered: &Rendered) -> Vec<String> {
    let mut problems = Vec::new();
    for service in of_kind(rendered, "Service") {
        let selector = service.pointer("/spec/selector").unwrap_or(&Value::Null);
        let reached: Vec<_> = pods(rendered).into_iter().filter(|pod| selects(selector, pod.template)).collect();
        if reached.len() != 1 {
            problems.push(format!("{} reaches pods of {} workloads", name(service), reached.len()));
        }
        for port in list(service, "/spec/ports") {
            let target = text(port, "/targetPort");
            if !reached.iter().all(|pod| ports(pod).contains(target)) {
                problems.push(format!("{} sends to the port {target:?}, which its pods do not have", name(service)));
            }
        }
    }
    for monitor in of_kind(rendered, "ServiceMonitor") {
        let selector = monitor.pointer("/spec/selector/matchLabels").unwrap_or(&Value::Null);
        for endpoint in list(monitor, "/spec/endpoints") {
            let port = text(endpoint, "/port");
            let has_port = |service: &&Value| list(service, "/spec/ports").iter().any(|one| text(one, "/name") == port);
            let scraped: BTreeSet<&str> = of_kind(rendered, "Service")
                .filter(|service| is_within(selector, service.pointer("/metadata/labels")))
                .filter(has_port)
                .map(|service| text(service, "/metadata/labels/app.kubernetes.io~1component"))
                .collect();
            let lasting = pods(rendered).into_iter().filter(|pod| !matches!(text(pod.owner, "/kind"), "Pod" | "Job"));
            let wanted: BTreeSet<&str> = lasting.map(|pod| component(pod.template)).collect();
            if scraped != wanted {
                problems.push(format!("{} scrapes {scraped:?} of {wanted:?}", name(monitor)));
            }
        }
    }
    for ingress in of_kind(rendered, "Ingress") {
        for path in list(ingress, "/spec/rules").iter().flat_map(|rule| list(rule, "/http/paths")) {
            let (service, port) = (text(path, "/backend/service/name"), text(path, "/backend/service/port/name"));
            let is_backend = |one: &&Value| {
                text(one, "/metadata/name") == service
                    && list(one, "/spec/ports").iter().any(|known| text(known, "/name") == port)
            };
            if !of_kind(rendered, "Service").any(|one| is_backend(&one)) {
                problems.push(format!("{} leads to {service}:{port}, which is not there", name(ingress)));
            }
        }
    }
    problems
}

fn probes_ask_ports(rendered: &Rendered) -> Vec<String> {
    let mut problems = Vec::new();
    for pod in pods(rendered) {
        let lasts = !matches!(text(pod.owner, "/kind"), "Pod" | "Job");
        for container in containers(pod.template).filter(|container| is_ours(container)) {
            let wanted: &[&str] = match (lasts, text(container, "/name")) {
                (false, _) => &[],
                // Mail flows also while an edge is cut off, so it has no readiness.
                (true, "edge") => &["startupProbe", "livenessProbe"],
                (true, _) => &["startupProbe", "livenessProbe", "readinessProbe"],
            };
            for probe in wanted {
                let port = text(container, &format!("/{probe}/httpGet/port"));
                let path = text(container, &format!("/{probe}/httpGet/path"));
                let known = list(container, "/ports").iter().any(|known| text(known, "/name") == port);
                if !known || !matches!(path, "/healthz" | "/readyz") {
                    problems.push(format!("{}: {probe} asks {port:?}{path}", name(pod.owner)));
                }
            }
        }
    }
    problems
}

fn volumes_are_there_and_used(rendered: &Rendered) -> Vec<String> {
    let mut problems = Vec::new();
    for pod in pods(rendered) {
        let claims = list(pod.owner, "/spec/volumeClaimTemplates").iter().map(|claim| text(claim, "/metadata/name"));
        let mut volumes: Vec<&str> =
            list(pod.template, "/spec/volumes").iter().map(|volume| text(volume, "/name")).chain(claims).collect();
        volumes.sort_unstable();
        let mut mounted: Vec<&str> = containers(pod.template)
            .flat_map(|container| list(container, "/volumeMounts"))
            .map(|mount| text(mount, "/name"))
            .collect();
        mounted.sort_unstable();
        mounted.dedup();
        if volumes != mounted {
            problems.push(format!("{} has the volumes {volumes:?}, and mounts {mounted:?}", name(pod.owner)));
        }
        for mount in containers(pod.template).flat_map(|container| list(container, "/volumeMounts")) {
            if mount.pointer("/subPath").is_some() {
                problems.push(format!("{}: what is mounted by subPath is never exchanged", name(pod.owner)));
            }
        }
    }
    problems
}

/// ConfigMaps, claims and service accounts are the release's own, unless values name others with `our-` or `tables`.
fn references_are_there(rendered: &Rendered) -> Vec<String> {
    let mut problems = Vec::new();
    let is_there =
        |kind: &str, wanted: &str| of_kind(rendered, kind).any(|object| text(object, "/metadata/name") == wanted);
    let is_given = |wanted: &str| wanted.starts_with("our-") || wanted == "tables" || wanted == "default";
    for pod in pods(rendered) {
        let mut wanted = vec![("ServiceAccount", text(pod.template, "/spec/serviceAccountName"))];
        for volume in list(pod.template, "/spec/volumes") {
            wanted.extend(volume.pointer("/configMap/name").and_then(Value::as_str).map(|name| ("ConfigMap", name)));
            let claim = volume.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str);
            wanted.extend(claim.map(|name| ("PersistentVolumeClaim", name)));
        }
        for (kind, wanted) in wanted {
            if !is_there(kind, wanted) && !is_given(wanted) {
                problems.push(format!("{} wants the {kind} {wanted}, which is not there", name(pod.owner)));
            }
        }
    }
    problems
}

fn no_rights_are_left(rendered: &Rendered) -> Vec<String> {
    let mut problems = Vec::new();
    for pod in pods(rendered) {
        let spec = &pod.template["spec"];
        let context = &spec["securityContext"];
        let is_bound = context["runAsNonRoot"] == true
            && context["runAsUser"].as_u64().is_some_and(|user| user > 0)
            && context["seccompProfile"]["type"] == "RuntimeDefault"
            && spec["automountServiceAccountToken"] == false;
        let shares = ["hostNetwork", "hostPID", "hostIPC"].iter().any(|key| spec[key] == true);
        if !is_bound || shares {
            problems
                .push(format!("{}: its pods could be root, or have a token or the host's namespaces", name(pod.owner)));
        }
        for container in containers(pod.template) {
            let image = text(container, "/image");
            let tag = image.rsplit('/').next().unwrap_or_default().split_once([':', '@']).map(|(_, tag)| tag);
            if tag.is_none_or(|tag| tag.is_empty() || tag == "latest") {
                problems.push(format!("{}: the image {image} has no version", name(pod.owner)));
            }
            let context = &container["securityContext"];
            let is_bound = context["allowPrivilegeEscalation"] == false
                && context["readOnlyRootFilesystem"] == true
                && context["capabilities"]["drop"] == serde_json::json!(["ALL"]);
            if is_ours(container) && !is_bound {
                problems.push(format!("{}: {} has rights left", name(pod.owner), text(container, "/name")));
            }
            if is_ours(container) && container.pointer("/resources/limits/memory").is_none() {
                problems.push(format!("{}: {} has no bound on memory", name(pod.owner), text(container, "/name")));
            }
            // A password in an environment variable would be in the manifest.
            for variable in list(container, "/env") {
                let name_of = text(variable, "/name");
                if name_of.contains("PASSWORD") || name_of.contains("SECRET") {
                    problems.push(format!("{}: {name_of} is a secret in the manifest", name(pod.owner)));
                }
            }
        }
    }
    problems
}

fn policies_and_scalers_find_what_they_are_for(rendered: &Rendered) -> Vec<String> {
    let mut problems = Vec::new();
    for (kind, path) in
        [("PodDisruptionBudget", "/spec/selector/matchLabels"), ("NetworkPolicy", "/spec/podSelector/matchLabels")]
    {
        for object in of_kind(rendered, kind) {
            let selector = object.pointer(path).unwrap_or(&Value::Null);
            let found: Vec<_> = pods(rendered).into_iter().filter(|pod| selects(selector, pod.template)).collect();
            if found.len() != 1 {
                problems.push(format!("{} is for pods of {} workloads", name(object), found.len()));
            }
            for port in list(object, "/spec/ingress").iter().flat_map(|rule| list(rule, "/ports")) {
                let port = text(port, "/port");
                if !found.iter().all(|pod| ports(pod).contains(port)) {
                    problems.push(format!("{} lets in to {port:?}, which is not there", name(object)));
                }
            }
        }
    }
    for kind in ["HorizontalPodAutoscaler", "ScaledObject"] {
        for object in of_kind(rendered, kind) {
            let target = text(object, "/spec/scaleTargetRef/name");
            let deployment = of_kind(rendered, "Deployment").find(|one| text(one, "/metadata/name") == target);
            if deployment.is_none_or(|one| one.pointer("/spec/replicas").is_some()) {
                problems
                    .push(format!("{} scales {target}, which is not there or has replicas of its own", name(object)));
            }
        }
    }
    problems
}

/// Objects of a kind.
pub fn of_kind<'a>(rendered: &'a Rendered, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    rendered.objects.iter().filter(move |object| text(object, "/kind") == kind)
}

/// All containers of a pod, those that are there before the others too.
pub fn containers(template: &Value) -> impl Iterator<Item = &Value> {
    list(template, "/spec/initContainers").iter().chain(list(template, "/spec/containers"))
}

/// The text at a JSON pointer; empty: none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a JSON pointer; empty: none.
pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Kind and name, for people.
pub fn name(object: &Value) -> String {
    format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"))
}

fn is_ours(container: &Value) -> bool {
    !FOREIGN.contains(&text(container, "/name"))
}

fn component(template: &Value) -> &str {
    text(template, "/metadata/labels/app.kubernetes.io~1component")
}

fn ports<'a>(pod: &Pod<'a>) -> BTreeSet<&'a str> {
    containers(pod.template).flat_map(|container| list(container, "/ports")).map(|port| text(port, "/name")).collect()
}

fn selects(selector: &Value, template: &Value) -> bool {
    is_within(selector, template.pointer("/metadata/labels"))
}

/// Whether all of `wanted`, of which there is something, stands in `labels`.
fn is_within(wanted: &Value, labels: Option<&Value>) -> bool {
    let Some(wanted) = wanted.as_object().filter(|wanted| !wanted.is_empty()) else { return false };
    wanted.iter().all(|(name, value)| labels.is_some_and(|labels| labels.get(name) == Some(value)))
}
