//! Reads the few things in a `Cargo.toml` that the rules speak of. Our manifests are plain: one key a line.

use std::fs;
use std::path::{Path, PathBuf};

/// What a crate inherits instead of saying it itself.
const INHERITED: [&str; 5] = ["version", "edition", "rust-version", "license", "publish"];

/// The one dependency that is not in the workspace's list: the harness's own, for tests only.
const HARNESS: &str = "xtask";

/// A crate's manifest.
#[derive(Debug)]
pub struct Manifest {
    /// The package's name.
    pub name: String,
    /// The folder it lies in.
    pub folder: PathBuf,
    lines: Vec<Line>,
}

/// `key = value` under `[section]`.
#[derive(Debug, PartialEq)]
struct Line {
    section: String,
    key: String,
    value: String,
}

impl Manifest {
    /// Reads the manifest in `folder`.
    pub fn read(folder: &Path) -> Self {
        let file = folder.join("Cargo.toml");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("reading {}: {error}", file.display()));
        let lines = parse(&text);
        let is_name = |line: &&Line| line.section == "package" && line.key == "name";
        let name = lines.iter().find(is_name).unwrap_or_else(|| panic!("{} has no name", file.display())).value.clone();
        Self { name: name.trim_matches('"').to_owned(), folder: folder.to_owned(), lines }
    }

    /// The names of all dependencies, of every kind.
    pub fn dependencies(&self) -> impl Iterator<Item = &str> {
        self.dependency_lines().map(|line| name_of(&line.key))
    }

    /// Whether `name` is built into what this crate's users get, not only into its tests.
    pub fn ships(&self, name: &str) -> bool {
        self.dependency_lines().any(|line| name_of(&line.key) == name && !line.section.ends_with("dev-dependencies"))
    }

    /// What this crate says itself but should inherit: lints, package fields, versions of dependencies.
    pub fn not_inherited(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.has("lints", "workspace", "true") {
            problems.push(format!("{}: [lints] workspace = true is missing", self.name));
        }
        for field in INHERITED {
            if !self.has("package", &format!("{field}.workspace"), "true") {
                problems.push(format!("{}: {field}.workspace = true is missing", self.name));
            }
        }
        for line in self.dependency_lines().filter(|line| name_of(&line.key) != HARNESS) {
            let inherited = line.key.ends_with(".workspace") || line.value.contains("workspace = true");
            if !inherited {
                problems.push(format!("{}: {} = {} is not inherited", self.name, line.key, line.value));
            }
        }
        problems
    }

    fn has(&self, section: &str, key: &str, value: &str) -> bool {
        self.lines.iter().any(|line| line.section == section && line.key == key && line.value == value)
    }

    fn dependency_lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.section.ends_with("dependencies"))
    }
}

/// `tokio.workspace` is a line about `tokio`.
fn name_of(key: &str) -> &str {
    key.split('.').next().unwrap_or(key)
}

fn parse(text: &str) -> Vec<Line> {
    let mut section = String::new();
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(header) = line.strip_prefix('[').filter(|_| !line.contains('=')) {
            header.trim_matches(['[', ']']).clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once('=') {
            lines.push(Line { section: section.clone(), key: key.trim().to_owned(), value: value.trim().to_owned() });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Manifest {
        Manifest { name: "x".into(), folder: PathBuf::new(), lines: parse(text) }
    }

    #[test]
    fn all_kinds_of_dependencies_are_seen() {
        let text = "[package]\nname = \"x\"\n[dependencies]\n# why\na.workspace = true\n[dev-dependencies]\nb = \"1\"\n\
                    [target.'cfg(unix)'.build-dependencies]\nc = { workspace = true, features = [\"d\"] }\n";
        assert_eq!(manifest(text).dependencies().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(["a", "b", "c", "d"].map(|name| manifest(text).ships(name)), [true, false, true, false]);
    }

    #[test]
    fn what_is_not_inherited_is_named() {
        let fields = INHERITED.map(|field| format!("{field}.workspace = true\n")).concat();
        let good = format!("[package]\n{fields}[lints]\nworkspace = true\n[dependencies]\na.workspace = true\n");
        assert_eq!(manifest(&good).not_inherited(), Vec::<String>::new());
        assert_eq!(manifest(&good.replace("license.", "licence.")).not_inherited().len(), 1);
        assert_eq!(manifest(&good.replace("[lints]", "[lint]")).not_inherited().len(), 1);
        assert_eq!(manifest(&good.replace("a.workspace = true", "a = \"1\"")).not_inherited().len(), 1);
    }
}
