//! What the README tells to install is what the programs take.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tidegate_tests::installation::TIMEOUT;
use tidegate_tests::{command, programs};
use xtask::paths::workspace_root;

/// The lines that the README has written into `/etc/tidegate/NAME`.
fn configuration(name: &str) -> String {
    let readme = fs::read_to_string(workspace_root().join("README.md")).unwrap();
    let begin = format!("sudo tee /etc/tidegate/{name} <<'END'\n");
    let (_, rest) = readme.split_once(&begin).unwrap_or_else(|| panic!("the README does not write {name}"));
    rest.split_once("\nEND\n").unwrap().0.to_owned()
}

fn accepts(program: PathBuf, arguments: &[&str], text: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("configuration.toml");
    // The README copies the shipped rules there.
    let rules = workspace_root().join("services/detect/defaults/rules.toml");
    fs::write(&file, text.replace("/etc/tidegate/rules.toml", rules.to_str().unwrap())).unwrap();
    let mut check = Command::new(program);
    check.args(arguments).arg(&file).arg("--check-config");
    command::run(check, TIMEOUT).unwrap().succeeded().unwrap();
}

#[test]
fn its_configuration_is_accepted() {
    accepts(programs::tidegate().unwrap(), &["serve", "--config"], &configuration("tidegate.toml"));
    accepts(programs::tidegate_edge().unwrap(), &["--config"], &configuration("edge.toml"));
}

#[test]
fn the_units_start_what_it_installs() {
    for (unit, program) in [("tidegate.service", "tidegate"), ("tidegate-edge.service", "tidegate-edge")] {
        let text = fs::read_to_string(workspace_root().join("deploy/systemd").join(unit)).unwrap();
        let starts: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("ExecStart")?.split_once('='))
            .map(|(_, command)| command)
            .collect();
        // A check before the start would be tried again and again: what ends with 2 is the program itself.
        assert_eq!(starts.len(), 1, "{unit} only starts");
        for line in ["Type=notify", "RestartPreventExitStatus=2"] {
            assert!(text.lines().any(|other| other == line), "{unit}: {line}");
        }
        for start in starts {
            let mut words = start.split(' ');
            assert_eq!(words.next(), Some(format!("/usr/local/bin/{program}").as_str()));
            let config = words.clone().find(|word| word.starts_with("/etc/")).unwrap();
            let text = configuration(Path::new(config).file_name().unwrap().to_str().unwrap());
            let before: Vec<&str> = words.take_while(|word| !word.starts_with("/etc/")).collect();
            let program = if program == "tidegate" { programs::tidegate() } else { programs::tidegate_edge() };
            accepts(program.unwrap(), &before, &text);
        }
    }
}

#[test]
fn the_files_it_names_are_there() {
    let readme = fs::read_to_string(workspace_root().join("README.md")).unwrap();
    let links = readme.split("](").skip(1).map(|rest| rest.split_once(')').unwrap().0);
    let missing: Vec<&str> = links.filter(|link| !workspace_root().join(link).exists()).collect();
    assert_eq!(missing, [""; 0]);
}
