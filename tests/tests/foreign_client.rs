//! A client that nobody here wrote calls the admin API: grpcurl, through reflection.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::process::Command;
use tidegate_tests::command;
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use xtask::tools;

#[test]
fn grpcurl_finds_and_calls_the_admin_api() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "server", "serve", &Log::Embedded, "mode = \"observe\"\n").unwrap();
    let grpcurl = |arguments: &[&str]| {
        let mut command = Command::new(tools::grpcurl().unwrap());
        command.arg("-plaintext");
        if let Some((data, rest)) = arguments.split_first().filter(|(first, _)| first.starts_with('{')) {
            command.args(["-d", data]).arg(server.control.to_string()).args(rest);
        } else {
            command.arg(server.control.to_string()).args(arguments);
        }
        command::run(command, TIMEOUT).unwrap()
    };
    let services = grpcurl(&["list"]).succeeded().unwrap().stdout;
    for service in ["tidegate.v1.AdminService", "tidegate.v1.EdgeService", "grpc.health.v1.Health"] {
        assert!(services.contains(service), "{services}");
    }
    let described = grpcurl(&["describe", "tidegate.v1.AdminService"]).succeeded().unwrap().stdout;
    assert!(described.contains("rpc UnlockAccount"), "{described}");

    let lock = r#"{"account":"jo@example.test","actor":"amy","reason":"reported","lock":{"reply":"Call 42"}}"#;
    let locked = grpcurl(&[lock, "tidegate.v1.AdminService/LockAccount"]).succeeded().unwrap();
    let locked: Value = serde_json::from_str(&locked.stdout).unwrap();
    assert_eq!(
        (&locked["applied"], locked["state"]["status"].as_str()),
        (&Value::Bool(true), Some("ACCOUNT_STATUS_LOCKED"))
    );
    let listed =
        grpcurl(&[r#"{"filter":{"statuses":["ACCOUNT_STATUS_LOCKED"]}}"#, "tidegate.v1.AdminService/ListAccounts"]);
    let listed: Value = serde_json::from_str(&listed.succeeded().unwrap().stdout).unwrap();
    assert_eq!(listed["accounts"][0]["account"], "jo@example.test", "{listed}");

    let wrong = grpcurl(&[r#"{"account":"jo@example.test","actor":"amy"}"#, "tidegate.v1.AdminService/UnlockAccount"]);
    assert_ne!(wrong.code(), 0);
    assert!(wrong.stderr.contains("InvalidArgument") && wrong.stderr.contains("reason"), "{}", wrong.report());
}
