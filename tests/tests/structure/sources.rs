//! Rules about source files and folders.

use std::fs;
use std::path::{Path, PathBuf};

const MAX_LINES: usize = 500;
/// A root file that is no longer than this is a placeholder.
const STUB_LINES: usize = 3;
/// Documentation in a root file that is as good as a README.
const PAGE_LINES: usize = 3;

/// Names that say nothing about what is inside, so that everything ends up in it.
const EMPTY_NAMES: [&str; 7] = ["utils", "util", "common", "helpers", "helper", "manager", "misc"];

/// Split, so that this file does not find itself.
const UNDONE: [&str; 4] =
    [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!("), concat!("#[ig", "nore")];

/// Clocks, files, sockets, threads and runtimes.
const IMPURE: [&str; 12] = [
    "SystemTime",
    "Instant",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "tokio::",
];

/// What may lie at the top, beside dot files.
const TOP_LEVEL: [&str; 8] = ["Cargo.toml", "Cargo.lock", "README.md", "services", "proto", "deploy", "helm", "tests"];

/// All Rust files below `folder`, except in target folders and hidden ones.
pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("reading {}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Files that are too long, and modules with an empty name.
pub fn shape_problems(file: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    let lines = read(file).lines().count();
    if lines > MAX_LINES {
        problems.push(format!("{}: {lines} lines, at most {MAX_LINES}", file.display()));
    }
    let folder = file.parent().and_then(Path::file_name).unwrap_or_default();
    let names = [file.file_stem().unwrap_or_default(), folder].map(|name| name.to_string_lossy().into_owned());
    if let Some(name) = names.iter().find(|name| EMPTY_NAMES.contains(&name.as_str())) {
        problems.push(format!("{}: `{name}` says nothing about what it is", file.display()));
    }
    problems
}

/// Lines that put work off.
pub fn undone_lines(file: &Path) -> Vec<String> {
    lines_with(file, &read(file), &UNDONE)
}

/// Lines of a pure crate, outside comments and tests, that reach the outside world.
pub fn impure_lines(folder: &Path) -> Vec<String> {
    rust_files(folder).iter().flat_map(|file| lines_with(file, &without_tests(&read(file)), &IMPURE)).collect()
}

/// A crate that nobody explains: its root files start with documentation, and there is a README, or a page of
/// documentation in the root file itself.
pub fn undocumented(folder: &Path) -> Vec<String> {
    let roots = ["src/lib.rs", "src/main.rs"].map(|name| folder.join(name));
    let roots: Vec<_> = roots.iter().filter(|file| file.is_file()).map(|file| (file, read(file))).collect();
    let is_started = |text: &String| text.lines().count() > STUB_LINES;
    let mut problems: Vec<_> = roots
        .iter()
        .filter(|(_, text)| is_started(text) && doc_lines(text) == 0)
        .map(|(file, _)| format!("{}: has no documentation (//!)", file.display()))
        .collect();
    let explained = folder.join("README.md").is_file() || roots.iter().any(|(_, text)| doc_lines(text) >= PAGE_LINES);
    if !explained && roots.iter().any(|(_, text)| is_started(text)) {
        problems.push(format!("{}: no README.md", folder.display()));
    }
    problems
}

/// How many lines of documentation a crate's root file has about the crate itself.
fn doc_lines(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("//!")).count()
}

/// What has no place at the top level.
pub fn strangers_at_the_top(root: &Path) -> Vec<String> {
    let names = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    // The target folder is there unless `CARGO_TARGET_DIR` put it elsewhere.
    let strange =
        names.filter(|name| !name.starts_with('.') && name != "target" && !TOP_LEVEL.contains(&name.as_str()));
    strange.map(|name| format!("{name} has no place at the top level")).collect()
}

fn lines_with(file: &Path, text: &str, forbidden: &[&str]) -> Vec<String> {
    let code = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let hits = code.filter_map(|(number, line)| {
        let word = forbidden.iter().find(|word| contains_word(line, word))?;
        Some(format!("{}:{}: `{word}`", file.display(), number + 1))
    });
    hits.collect()
}

/// Whether `word` stands in `line` and is not the end of a longer name.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(position, _)| {
        let before = line[..position].chars().next_back();
        !before.is_some_and(|character| character.is_alphanumeric() || character == '_')
    })
}

/// The text up to the unit tests, which by custom come last.
fn without_tests(text: &str) -> String {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("reading {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(text: &str) -> usize {
        lines_with(Path::new("x.rs"), &without_tests(text), &IMPURE).len()
    }

    #[test]
    fn impure_lines_are_found_outside_comments_and_tests_only() {
        assert_eq!(hits("let now = Instant::now();\n"), 1);
        assert_eq!(hits("use std::fs;\nuse std::net::IpAddr;\n"), 1);
        assert_eq!(hits("    /// Not `SystemTime`.\n    // nor std::fs\n"), 0);
        assert_eq!(hits("struct OtherInstant;\n"), 0);
        assert_eq!(hits("fn a() {}\n\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n"), 0);
    }

    #[test]
    fn undone_lines_are_found() {
        let text = format!("fn a() {{ {}) }}\n{}]\n", UNDONE[0], UNDONE[3]);
        assert_eq!(lines_with(Path::new("x.rs"), &text, &UNDONE).len(), 2);
    }

    #[test]
    fn this_file_is_among_the_rust_files() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/structure");
        assert!(rust_files(&here).iter().any(|file| file.ends_with("sources.rs")));
    }
}
