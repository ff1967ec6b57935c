//! The layers of the workspace, and what the pure ones may depend on.

use crate::manifest::Manifest;

/// Each crate's layer. A crate depends only on crates of lower layers.
const LAYERS: [(&str, u8); 20] = [
    ("tidegate-domain", 0),
    ("tidegate-mta", 1),
    ("tidegate-detect", 1),
    ("tidegate-journal", 1),
    ("tidegate-proto", 2),
    ("tidegate-bus", 2),
    ("tidegate-runtime", 2),
    ("tidegate-store", 2),
    ("tidegate-access", 2),
    ("tidegate-gate", 2),
    ("tidegate-edge", 3),
    ("tidegate-stream", 3),
    ("tidegate-control", 3),
    ("tidegate-history", 3),
    ("tidegate-notify", 3),
    ("tidegate-console", 3),
    ("tidegate", 4),
    ("tidegate-tests", 4),
    ("tidegate-fuzz", 4),
    // Below all others: it must build without any of them.
    ("xtask", 0),
];

/// Within one layer: the bus carries what `proto` defines, and checks its configuration as `runtime` lays down.
/// `access` checks its configuration likewise. The gate asks `access` who calls, and writes the audit to the bus.
const WITHIN_A_LAYER: [(&str, &str); 7] = [
    ("tidegate-bus", "tidegate-proto"),
    ("tidegate-bus", "tidegate-runtime"),
    ("tidegate-access", "tidegate-runtime"),
    ("tidegate-gate", "tidegate-access"),
    ("tidegate-gate", "tidegate-bus"),
    ("tidegate-gate", "tidegate-proto"),
    ("tidegate-gate", "tidegate-runtime"),
];

/// The journal keeps records and does not know what they mean.
const NEVER: [(&str, &str); 1] = [("tidegate-journal", "tidegate-domain")];

/// Crates without sockets, files, clocks and async.
const PURE: [&str; 3] = ["tidegate-domain", "tidegate-mta", "tidegate-detect"];

/// What would let a pure crate reach the outside world.
const IMPURE: [&str; 14] = [
    "async-trait",
    "axum",
    "futures",
    "hyper",
    "hyper-util",
    "prometheus-client",
    "rdkafka",
    "rusqlite",
    "socket2",
    "tokio",
    "tokio-stream",
    "tokio-util",
    "tonic",
    "tracing",
];

/// Only `proto` and what lies above it knows the wire format.
const PROTOBUF: [&str; 2] = ["prost", "prost-types"];

/// Whether this crate has to be pure.
pub fn is_pure(name: &str) -> bool {
    PURE.contains(&name)
}

/// Dependencies on crates of the same or a higher layer.
pub fn upward_dependencies(member: &Manifest) -> Vec<String> {
    let Some(layer) = layer(&member.name) else {
        return vec![format!("{}: give it a layer in tests/tests/structure/layers.rs", member.name)];
    };
    let problem = |name: &str| {
        let below = layer_is_below(&member.name, name, layer)?;
        (!below).then(|| format!("{} (layer {layer}) must not depend on {name}", member.name))
    };
    let mut problems: Vec<_> = member.dependencies().filter_map(problem).collect();
    if member.ships("xtask") && member.name != "tidegate-tests" {
        problems.push(format!("{} must not depend on xtask, except in its tests", member.name));
    }
    if member.name == "xtask" {
        problems.extend(member.dependencies().map(|name| format!("xtask must not have dependencies, but has {name}")));
    }
    problems
}

/// None for a crate that is not ours.
fn layer_is_below(from: &str, to: &str, from_layer: u8) -> Option<bool> {
    let to_layer = layer(to)?;
    let allowed = to_layer < from_layer || WITHIN_A_LAYER.contains(&(from, to));
    Some(allowed && !NEVER.contains(&(from, to)))
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, layer)| *layer)
}

/// Dependencies of a pure crate that reach the outside world.
pub fn impure_dependencies(member: &Manifest) -> Vec<String> {
    if !is_pure(&member.name) {
        return Vec::new();
    }
    let forbidden = |name: &&str| IMPURE.contains(name) || PROTOBUF.contains(name);
    member.dependencies().filter(forbidden).map(|name| format!("{} must not depend on {name}", member.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_layers_are_below() {
        assert_eq!(layer_is_below("tidegate-edge", "tidegate-bus", 3), Some(true));
        assert_eq!(layer_is_below("tidegate-edge", "tidegate-stream", 3), Some(false));
        assert_eq!(layer_is_below("tidegate-domain", "tidegate-proto", 0), Some(false));
        assert_eq!(layer_is_below("tidegate-bus", "tidegate-proto", 2), Some(true));
        assert_eq!(layer_is_below("tidegate-proto", "tidegate-bus", 2), Some(false));
        assert_eq!(layer_is_below("tidegate-journal", "tidegate-domain", 1), Some(false));
        assert_eq!(layer_is_below("tidegate", "serde", 4), None);
    }
}
