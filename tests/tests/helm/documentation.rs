//! Each value is explained, and stands in the chart's README. `TIDEGATE_WRITE_VALUES=1 cargo test --test helm` writes the
//! table there anew.

use std::fmt::Write as _;
use std::fs;
use tidegate_tests::chart;

const BEGIN: &str = "<!-- values: made of values.yaml by a test -->\n";
const END: &str = "<!-- end of values -->\n";

/// A value: its path, its default on one line, what it is for.
struct Described {
    path: String,
    default: String,
    text: String,
}

#[test]
fn the_readme_lists_every_value() {
    let file = chart::folder().join("README.md");
    let readme = fs::read_to_string(&file).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("the README has a table of values");
    let (table, after) = rest.split_once(END).expect("the table of values ends");
    let mut made = String::from("| value | default | what it is |\n|---|---|---|\n");
    for Described { path, default, text } in described() {
        writeln!(made, "| `{path}` | `{default}` | {} |", text.replace('|', "\\|")).unwrap();
    }
    if std::env::var_os("TIDEGATE_WRITE_VALUES").is_some() {
        fs::write(&file, format!("{before}{BEGIN}{made}{END}{after}")).unwrap();
    } else {
        assert_eq!(table, made, "run with TIDEGATE_WRITE_VALUES=1 to write it anew");
    }
}

#[test]
fn every_value_is_explained() {
    let text = fs::read_to_string(chart::folder().join("values.yaml")).unwrap();
    let documents = chart::yaml_documents(&[chart::folder().join("values.yaml")]).unwrap();
    let described: Vec<String> = described().into_iter().map(|value| value.path).collect();
    assert!(described.len() > 120, "{} values in\n{text}", described.len());
    let mut missing = Vec::new();
    find_unexplained("", &documents[0][0], &described, &mut missing);
    assert!(missing.is_empty(), "without a line `# -- ...` before: {missing:?}");
}

/// Leaves of the values that neither they nor what they are part of is explained.
fn find_unexplained(path: &str, value: &serde_json::Value, described: &[String], missing: &mut Vec<String>) {
    if described.iter().any(|known| known == path) {
        return;
    }
    match value.as_object() {
        Some(keys) if !keys.is_empty() => {
            for (key, value) in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                find_unexplained(&path, value, described, missing);
            }
        }
        _ => missing.push(path.to_owned()),
    }
}

/// Reads `values.yaml` line by line: a comment that begins with `# -- ` explains the next key.
fn described() -> Vec<Described> {
    let text = fs::read_to_string(chart::folder().join("values.yaml")).unwrap();
    let mut found = Vec::new();
    let mut sections: Vec<(usize, String)> = Vec::new();
    let mut comment = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        if let Some(first) = trimmed.strip_prefix("# -- ") {
            first.clone_into(&mut comment);
        } else if let Some(more) = trimmed.strip_prefix("# ").filter(|_| !comment.is_empty()) {
            comment = format!("{comment} {more}");
        } else if let Some((key, default)) = trimmed.split_once(':').filter(|_| !trimmed.starts_with(['#', '-'])) {
            sections.retain(|(section, _)| *section < indent);
            sections.push((indent, key.to_owned()));
            if comment.is_empty() {
                continue;
            }
            let path: Vec<&str> = sections.iter().map(|(_, key)| key.as_str()).collect();
            let default = match default.trim() {
                "" => "...",
                default => default,
            };
            let default = default.replace('|', "\\|");
            found.push(Described { path: path.join("."), default, text: std::mem::take(&mut comment) });
            // What is below a value that is explained as a whole is part of its default.
            while lines.peek().is_some_and(|next| next.starts_with(&" ".repeat(indent + 1))) {
                lines.next();
            }
        } else {
            comment.clear();
        }
    }
    found
}
