//! Rules about what cargo builds, asked of cargo itself.

use std::collections::BTreeSet;
use std::process::Command;

use crate::root;

/// Packages that must not be built into `package`, but are.
pub fn forbidden_in(package: &str, forbidden: &[&str]) -> Vec<String> {
    let tree = cargo_tree(&["-p", package, "-e", "normal", "-f", "{p}"]);
    assert!(tree.len() > 10, "cargo tree shows nearly nothing: {tree:?}");
    let name = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let hits = tree.iter().map(|line| name(line)).filter(|name| forbidden.contains(&name.as_str()));
    hits.collect::<BTreeSet<_>>().iter().map(|name| format!("{package} must be built without {name}")).collect()
}

/// Dependencies that the two programs alone need with other features than the whole test build does. Cargo builds such
/// a one twice, with all that depends on it, which costs minutes. The cure is to name the missing features in
/// `[workspace.dependencies]`.
pub fn built_twice() -> Vec<String> {
    let programs = cargo_tree(&["-p", "tidegate", "-p", "tidegate-edge", "-e", "normal,build", "-f", "{p} [{f}]"]);
    let tests = cargo_tree(&["--workspace", "-e", "normal,build,dev", "-f", "{p} [{f}]"]);
    let of_package = |line: &str| {
        let package = line.split(" [").next().unwrap_or_default().to_owned();
        tests
            .iter()
            .filter(|other| other.split(" [").next() == Some(&package))
            .cloned()
            .collect::<Vec<_>>()
            .join(" or ")
    };
    let missing = programs.iter().filter(|line| !tests.contains(*line));
    missing.map(|line| format!("demo builds {line}, the tests {}", of_package(line))).collect()
}

/// The lines of `cargo tree`, each once.
fn cargo_tree(arguments: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        // A package's subtree is shown once, and by its name alone after that: whole, the tree has billions of lines.
        .args(["tree", "--quiet", "--prefix", "none"])
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}
