//! Wrong configuration, statistics and rules: everything at once, exit code 2, and a running service keeps its rules.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::fs;
use std::process::Command;
use tidegate_tests::command::{self, Ended};
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use tidegate_tests::mail::BURST_RULES;
use tidegate_tests::programs;
use xtask::wait::wait_until;

fn check(program: std::path::PathBuf, arguments: &[&str]) -> Ended {
    let mut command = Command::new(program);
    command.args(arguments);
    command::run(command, TIMEOUT).unwrap()
}

#[test]
fn the_server_names_every_problem_of_its_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("tidegate.toml");
    let text = "[log]\nkind = \"embedded\"\ndirectory = \"\"\n\n[stream]\ngroup = \"\"\nreload_interval_ms = 1\n\n\
                [control]\nlisten = \"0.0.0.0:7710\"\n\n[telemetry]\nfilter = \"no=such=filter\"\n";
    fs::write(&config, text).unwrap();
    let ended =
        check(programs::tidegate().unwrap(), &["serve", "--check-config", "--config", config.to_str().unwrap()]);
    assert_eq!(ended.code(), 2, "{}", ended.report());
    for key in ["log.directory", "stream.group", "stream.reload_interval_ms", "control.listen", "telemetry.filter"] {
        assert!(ended.stderr.contains(key), "{key} is missing in {}", ended.report());
    }
    assert!(ended.stderr.contains("allowed: 100 to 3600000"), "{}", ended.report());
}

#[test]
fn problems_of_the_rules_are_told_together_with_the_configurations() {
    let dir = tempfile::tempdir().unwrap();
    let (config, rules) = (dir.path().join("tidegate.toml"), dir.path().join("rules.toml"));
    fs::write(&rules, BURST_RULES.replace("messages_1m", "massages_1m")).unwrap();
    let text = format!(
        "[log]\nkind = \"embedded\"\ndirectory = {:?}\n\n[stream]\nrules = {rules:?}\ngroup = \"\"\n",
        dir.path()
    );
    fs::write(&config, text).unwrap();
    let ended = check(programs::tidegate().unwrap(), &["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(ended.code(), 2, "{}", ended.report());
    for part in ["stream.group", "rules.toml:10:", "massages_1m"] {
        assert!(ended.stderr.contains(part), "{part} is missing in {}", ended.report());
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("tidegate.toml");
    fs::write(&config, "[log]\nkind = \"embedded\"\ndirectory = \"/tmp/x\"\n\n[stream]\nrulez = \"x\"\n").unwrap();
    let ended = check(programs::tidegate().unwrap(), &["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(ended.code(), 2, "{}", ended.report());
    assert!(ended.stderr.contains("line 6") && ended.stderr.contains("rulez"), "{}", ended.report());
}

#[test]
fn the_edge_names_every_problem_of_its_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("edge.toml");
    let text = "node = \"\"\nsite = \"ams\"\nstate_directory = \"relative\"\n\n[milter]\nlisten = [\"pipe:/x\"]\n\n\
                [control]\nendpoint = \"not an address\"\n\n[spool]\nmax_bytes = 1\n";
    fs::write(&config, text).unwrap();
    let ended = check(programs::tidegate_edge().unwrap(), &["--check-config", "--config", config.to_str().unwrap()]);
    assert_eq!(ended.code(), 2, "{}", ended.report());
    for key in ["node", "state_directory", "milter.listen[0]", "control.endpoint", "spool.max_bytes"] {
        assert!(ended.stderr.contains(key), "{key} is missing in {}", ended.report());
    }
}

#[test]
fn rules_and_statistics_are_checked_whole_with_places() {
    let dir = tempfile::tempdir().unwrap();
    let (rules, statistics) = (dir.path().join("rules.toml"), dir.path().join("statistics.sql"));
    let text = "mode = \"enforce\"\n\n[[rule]]\nname = \"one\"\nwhen = \"mesages_1h > 5\"\naction = \"lock\"\nreason = \"r\"\nreply = \"x\"\nsource = \"s\"\n\n\
                [[rule]]\nname = \"two\"\nwhen = \"messages_1h + 5\"\naction = \"explode\"\nreason = \"r\"\nsource = \"s\"\n";
    fs::write(&rules, text).unwrap();
    let ended = check(programs::tidegate().unwrap(), &["rules", "check", rules.to_str().unwrap()]);
    assert_eq!(ended.code(), 2, "{}", ended.report());
    for part in ["rules.toml:5:", "mesages_1h", "messages_1h", "rule `two`", "explode", "lock"] {
        assert!(ended.stderr.contains(part), "{part} is missing in {}", ended.report());
    }
    fs::write(&statistics, "-- Good.\nmessages = count(*);\n\nbad = count(no_column);\nworse = nofunction(size);\n")
        .unwrap();
    let arguments = ["rules", "check", rules.to_str().unwrap(), "--statistics", statistics.to_str().unwrap()];
    let ended = check(programs::tidegate().unwrap(), &arguments);
    assert_eq!(ended.code(), 2, "{}", ended.report());
    for part in ["statistics.sql:4:", "no_column", "statistics.sql:5:", "nofunction", "rules.toml:5:", "explode"] {
        assert!(ended.stderr.contains(part), "{part} is missing in {}", ended.report());
    }
}

#[test]
fn a_running_service_keeps_its_rules_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "server", "serve", &Log::Embedded, BURST_RULES).unwrap();
    let rules = || -> Value {
        let listed = server.admin(&["rules", "list", "--json"]).unwrap().succeeded().unwrap();
        serde_json::from_str(&listed.stdout).unwrap()
    };
    wait_until("the rules to be told", TIMEOUT, || rules().as_array().is_some_and(|sets| !sets.is_empty())).unwrap();
    let version = rules()[0]["version"].clone();

    fs::write(&server.rules, BURST_RULES.replace("messages_1m", "massages_1m")).unwrap();
    wait_until("the problem to be told", TIMEOUT, || {
        rules()[0]["problems"]
            .as_array()
            .is_some_and(|problems| problems.iter().any(|one| one.as_str().unwrap().contains("massages_1m")))
    })
    .unwrap();
    assert_eq!(rules()[0]["version"], version, "the old rules stay");
    let log = fs::read_to_string(server.process.log()).unwrap();
    assert!(log.contains("massages_1m") && log.contains("the rules in force stay"), "{log}");

    fs::write(&server.rules, BURST_RULES.replace("minimum = 40", "minimum = 41")).unwrap();
    wait_until("the better rules to be in force", TIMEOUT, || {
        let now = rules();
        now[0]["version"] != version && now[0]["problems"].as_array().is_some_and(Vec::is_empty)
    })
    .unwrap();
}
