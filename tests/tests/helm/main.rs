//! The Helm chart: rendered over a matrix of values, checked by Kubernetes' schemas and against itself, its configuration
//! by the programs that get it, and run, as far as that goes without Kubernetes.
#![allow(clippy::unwrap_used, missing_docs)]

mod cluster;
mod configuration;
mod documentation;
mod manifests;
mod refusals;
mod rolls;

use std::path::{Path, PathBuf};
use tidegate_tests::chart::{self, Case};

/// A folder of values files.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/chart").join(name)
}

/// The cases that are rendered.
fn cases() -> Vec<Case> {
    chart::cases(&data("cases")).unwrap()
}

/// One of them, with something changed.
fn case(name: &str, set: &[&str]) -> Case {
    let found = cases().into_iter().find(|case| case.name == name).unwrap();
    let name = format!("{name} {}", set.join(" "));
    Case { name: name.trim_end().to_owned(), set: set.iter().map(|&set| set.to_owned()).collect(), ..found }
}
