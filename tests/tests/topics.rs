//! `tidegate topics`: makes what is missing, and tells everything that is wrong with what is there, before anything runs on it.
#![allow(clippy::unwrap_used, missing_docs)]

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tidegate_tests::command::{self, Ended};
use tidegate_tests::installation::TIMEOUT;
use tidegate_tests::programs;
use xtask::kafka::KafkaRig;
use xtask::ports::free_port;

fn write_config(dir: &Path, name: &str, log: &str) -> PathBuf {
    let file = dir.join(format!("{name}.toml"));
    std::fs::write(&file, format!("[log]\nkind = \"kafka\"\nreplication_factor = 1\ncreate_topics = false\n{log}\n"))
        .unwrap();
    file
}

fn topics(what: &str, config: &Path, more: &[&str]) -> Ended {
    let mut command = Command::new(programs::tidegate().unwrap());
    command.args(["topics", what, "--config"]).arg(config).args(more);
    command::run(command, TIMEOUT).unwrap()
}

async fn make(kafka: &KafkaRig, name: &str, partitions: i32, policy: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap());
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1)).set("cleanup.policy", policy);
    let made = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    assert_eq!(made, [Ok(name.to_owned())]);
}

#[tokio::test]
async fn missing_topics_are_made_and_wrong_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = KafkaRig::start(&dir.path().join("kafka")).unwrap();
    let log = |more: &str| format!("bootstrap_servers = \"{}\"\n{more}", kafka.bootstrap());
    let right = write_config(dir.path(), "right", &log("partitions = 3"));

    let missing = topics("check", &right, &[]);
    assert_eq!(missing.code(), 1, "{}", missing.report());
    assert!(missing.stderr.contains("8 problems with the topics"), "{}", missing.report());
    assert!(missing.stderr.contains("tidegate.settings: is missing; make it with"), "{}", missing.report());

    // Whatever create_topics says: who runs the command wants them made.
    let made = topics("create", &right, &[]).succeeded().unwrap();
    assert_eq!(made.stdout.matches("created").count(), 8, "{}", made.report());
    let checked = topics("check", &right, &["--json"]).succeeded().unwrap();
    let checked: Vec<Value> = serde_json::from_str(&checked.stdout).unwrap();
    let accounts = checked.iter().find(|topic| topic["topic"] == "tidegate.accounts").unwrap();
    assert_eq!((&accounts["partitions"], &accounts["cleanup_policy"]), (&3.into(), &"compact".into()), "{accounts}");

    let more = write_config(dir.path(), "more", &log("partitions = 4"));
    for what in ["check", "create"] {
        let refused = topics(what, &more, &[]);
        assert_eq!(refused.code(), 1, "{}", refused.report());
        let line = "tidegate.events: has 3 partitions, the configuration says 4";
        assert!(refused.stderr.contains("8 problems") && refused.stderr.contains(line), "{}", refused.report());
    }
}

#[tokio::test]
async fn nothing_is_made_beside_a_topic_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = KafkaRig::start(&dir.path().join("kafka")).unwrap();
    make(&kafka, "mail.accounts", 2, "delete").await;
    make(&kafka, "mail.events", 5, "delete").await;
    let log = format!("bootstrap_servers = \"{}\"\ntopic_prefix = \"mail\"\npartitions = 2", kafka.bootstrap());
    let config = write_config(dir.path(), "config", &log);
    let refused = topics("create", &config, &[]);
    assert_eq!(refused.code(), 1, "{}", refused.report());
    for line in [
        "mail.accounts: has cleanup.policy=delete; it must be compact",
        "mail.events: has 5 partitions, the configuration says 2",
        "mail.audit: is missing",
    ] {
        assert!(refused.stderr.contains(line), "{line} is missing in {}", refused.report());
    }
    let checked = topics("check", &config, &["--json"]);
    let checked: Vec<Value> = serde_json::from_str(&checked.stdout).unwrap();
    let there: Vec<&Value> = checked.iter().filter(|topic| topic["partitions"] != 0).collect();
    assert_eq!(there.len(), 2, "{there:?}");
}

#[test]
fn who_does_not_answer_is_told_from_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = format!("bootstrap_servers = \"127.0.0.1:{}\"\nrequest_timeout_ms = 1000", free_port().unwrap());
    let silent = topics("check", &write_config(dir.path(), "silent", &nobody), &[]);
    assert_eq!(silent.code(), 75, "{}", silent.report());

    let wrong = write_config(dir.path(), "wrong", "partitions = 0");
    let wrong = topics("create", &wrong, &[]);
    assert_eq!(wrong.code(), 2, "{}", wrong.report());
    assert!(wrong.stderr.contains("log.partitions: is 0"), "{}", wrong.report());

    let embedded = dir.path().join("embedded.toml");
    std::fs::write(&embedded, format!("[log]\nkind = \"embedded\"\ndirectory = {:?}\n", dir.path())).unwrap();
    let embedded = topics("check", &embedded, &[]);
    assert_eq!(embedded.code(), 2, "{}", embedded.report());
    assert!(embedded.stderr.contains("only Kafka has topics"), "{}", embedded.report());
}
