//! The rules that the code's structure keeps, checked with the tests: who may depend on whom, what pure crates may
//! touch, how long a file may be, what may lie where. `services/ARCHITECTURE.md` says why.

#![allow(clippy::unwrap_used, missing_docs)]

mod build;
mod layers;
mod manifest;
mod sources;

use std::path::{Path, PathBuf};

use manifest::Manifest;

/// The workspace's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The manifests of all crates of the workspace.
fn members() -> Vec<Manifest> {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let list = text.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
    let folders = list.split(',').map(|item| item.trim().trim_matches('"')).filter(|item| !item.is_empty());
    folders.map(|folder| Manifest::read(&root().join(folder))).collect()
}

/// Fails with every problem at once.
fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "{} problems:\n  {}\n", problems.len(), problems.join("\n  "));
}

#[test]
fn dependencies_point_downward() {
    assert_none(&members().iter().flat_map(layers::upward_dependencies).collect::<Vec<_>>());
}

#[test]
fn pure_crates_depend_on_nothing_impure() {
    assert_none(&members().iter().flat_map(layers::impure_dependencies).collect::<Vec<_>>());
}

#[test]
fn pure_crates_touch_no_clock_no_file_and_no_socket() {
    let pure = members().into_iter().filter(|member| layers::is_pure(&member.name));
    assert_none(&pure.flat_map(|member| sources::impure_lines(&member.folder.join("src"))).collect::<Vec<_>>());
}

#[test]
fn crates_inherit_from_the_workspace() {
    assert_none(&members().iter().flat_map(Manifest::not_inherited).collect::<Vec<_>>());
}

#[test]
fn crates_are_documented() {
    assert_none(&members().iter().flat_map(|member| sources::undocumented(&member.folder)).collect::<Vec<_>>());
}

#[test]
fn files_are_short_and_well_named() {
    assert_none(
        &sources::rust_files(&root()).iter().flat_map(|file| sources::shape_problems(file)).collect::<Vec<_>>(),
    );
}

#[test]
fn nothing_is_left_undone() {
    assert_none(&sources::rust_files(&root()).iter().flat_map(|file| sources::undone_lines(file)).collect::<Vec<_>>());
}

#[test]
fn the_top_level_stays_small() {
    assert_none(&sources::strangers_at_the_top(&root()));
}

#[test]
fn the_edge_is_built_without_datafusion() {
    assert_none(&build::forbidden_in("tidegate-edge", &["datafusion", "arrow", "tidegate-detect"]));
}

#[test]
fn demo_and_tests_share_their_build_products() {
    assert_none(&build::built_twice());
}
