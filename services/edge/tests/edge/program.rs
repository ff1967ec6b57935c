//! The program itself: its arguments, its exit codes, its end.

use crate::control::{Control, Log, Publishing};
use crate::lab::{ANY_PORT, config, metric, until};
use crate::mta::MilterClient;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tidegate_edge::{ADDRESSES_FILE, Addresses, EdgeConfig};
use tidegate_mta::milter::client::Reply;

fn run(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_tidegate-edge");
    Command::new(program).args(arguments).env_remove("TIDEGATE_EDGE_CONFIG").output().unwrap()
}

#[test]
fn a_wrong_configuration_is_told_whole_and_ends_with_2() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("edge.toml");
    let text = "node = ''\nsite = 'ams'\n[milter]\nlisten = ['inet:0.0.0.0:1']\n[session]\ndefault_realm = 'a b'\n";
    std::fs::write(&file, text).unwrap();
    for arguments in
        [vec!["--config", file.to_str().unwrap()], vec!["--check-config", "--config", file.to_str().unwrap()]]
    {
        let output = run(&arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        for key in ["3 problems", "node: must be set", "milter.listen[0]: ", "session.default_realm: "] {
            assert!(said.contains(key), "{key} in\n{said}");
        }
    }
    assert_eq!(run(&["--config", "/nowhere"]).status.code(), Some(2));
    assert_eq!(run(&["--what"]).status.code(), Some(2));
    let version = String::from_utf8(run(&["--version"]).stdout).unwrap();
    assert_eq!(version.trim(), concat!("tidegate-edge ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_right_configuration_is_fine() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/tidegate-edge.toml");
    let output = run(&["--config", example, "--check-config"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("configuration is fine"));
}

#[test]
fn what_cannot_be_had_ends_with_1() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind(ANY_PORT).unwrap();
    let mut config = config(directory.path(), ANY_PORT.parse().unwrap());
    config.milter.listen = vec![format!("inet:{}", taken.local_addr().unwrap())];
    let file = write(directory.path(), &config);
    let output = run(&["--config", &file]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cannot listen on inet:127.0.0.1"), "{said}");
}

/// A process of the program.
struct Process {
    addresses: Addresses,
    child: tokio::process::Child,
}

impl Process {
    async fn start(directory: &Path, config: &EdgeConfig) -> Self {
        let addresses_file = config.state_directory.join(ADDRESSES_FILE);
        let _ = std::fs::remove_file(&addresses_file);
        let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate-edge"))
            .args(["--config", &write(directory, config)])
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let read = || serde_json::from_slice::<Addresses>(&std::fs::read(&addresses_file).ok()?).ok();
        until("it says where it listens", async || read().is_some()).await;
        Self { addresses: read().unwrap(), child }
    }

    async fn send(&self, sender: &str) {
        let mut milter = MilterClient::open(&self.addresses.milter[0]).await;
        assert_eq!(milter.message(sender, sender, "4Q", &["a@dest.test"]).await, Reply::Continue);
    }
}

#[tokio::test]
async fn it_serves_and_ends_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::new("log-a");
    let control = Control::start(&log, ANY_PORT.parse().unwrap());
    let mut edge = Process::start(directory.path(), &config(directory.path(), control.address)).await;
    edge.send("jo@example.org").await;
    until("the event has arrived", async || log.events.lock().len() == 1).await;
    let id = edge.child.id().unwrap().to_string();
    assert!(Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status().unwrap().success());
    assert!(edge.child.wait().await.unwrap().success());
    assert!(!directory.path().join("milter.sock").exists(), "its socket is gone");
}

#[tokio::test]
async fn what_is_on_disk_survives_a_kill_and_counts_once() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::new("log-a");
    let control = Control::start(&log, ANY_PORT.parse().unwrap());
    let config = config(directory.path(), control.address);
    log.lock("thief@example.org");
    log.publishing(Publishing::WritesAndHangs);
    let mut sent = Vec::new();
    for round in 0..3 {
        let mut edge = Process::start(directory.path(), &config).await;
        for n in 0..20 {
            let sender = format!("{round}-{n:02}@example.org");
            edge.send(&sender).await;
            sent.push(sender);
        }
        // All but the batch that is kept are in the spool, or still on their way there.
        let kept = u64::from(round == 0);
        let on_disk = async || {
            let spooled = metric(edge.addresses.ops, "tidegate_edge_events_spooled_total").await;
            let blocked = metric(edge.addresses.ops, "tidegate_edge_live_blocked").await == 1;
            let states = metric(edge.addresses.ops, "tidegate_edge_states_on_disk").await;
            blocked && spooled >= 20 - kept && states == 1
        };
        until("events are on disk", on_disk).await;
        edge.child.kill().await.unwrap();
    }
    let address = control.address;
    control.stop().await;
    // Killed, and control is away: the lock holds.
    let edge = Process::start(directory.path(), &config).await;
    let mut milter = MilterClient::open(&edge.addresses.milter[1]).await;
    let refused = milter.mail("thief@example.org", "thief@example.org", "4Q").await;
    assert!(matches!(&refused, Reply::ReplyCode(text) if text.starts_with("550 5.7.1 ")), "{refused:?}");
    log.publishing(Publishing::Works);
    let _control = Control::start(&log, address);
    until("every event has arrived", async || log.senders().len() >= sent.len()).await;
    assert_eq!(log.senders(), sent);
}

fn write(directory: &Path, config: &EdgeConfig) -> String {
    let file = directory.join("edge.toml");
    std::fs::write(&file, toml::to_string(config).unwrap()).unwrap();
    file.to_str().unwrap().to_owned()
}
