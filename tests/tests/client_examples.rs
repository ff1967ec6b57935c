//! The examples in Python and Go, built with code generated from the protos, list, watch and unlock on a live server,
//! over TLS and with tokens.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;
use tidegate_tests::command::{self, Ended};
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use tidegate_tests::secured::Credentials;
use xtask::tools;

struct Installation {
    server: Server,
    credentials: Credentials,
    desk: PathBuf,
    viewer: PathBuf,
    _dir: tempfile::TempDir,
}

/// A locked account of `example.test`, one of `other.test`, and two people who may know of the first.
fn installation() -> Installation {
    let dir = tempfile::tempdir().unwrap();
    let credentials = Credentials::make(&dir.path().join("credentials")).unwrap();
    let desk = credentials.token("desk", "operator", &["--domain", "example.test"]).unwrap();
    let viewer = credentials.token("viewer", "viewer", &["--domain", "example.test"]).unwrap();
    let admin = credentials.token("admin", "admin", &[]).unwrap();
    let sections = credentials.sections();
    let rules = "mode = \"observe\"\n";
    let server = Server::start_with(dir.path(), "server", "serve", &Log::Embedded, rules, &sections).unwrap();
    for account in ["jo@example.test", "al@other.test"] {
        let lock = ["accounts", "lock", account, "--reason", "reported"];
        credentials.admin(server.control, &admin, &lock).unwrap().succeeded().unwrap();
    }
    Installation { server, credentials, desk, viewer, _dir: dir }
}

/// What each example is to do; `run` runs it with these flags, the command and its arguments after them.
fn lists_watches_and_unlocks(run: impl Fn(&Path, &Installation, &[&str]) -> Ended) {
    let installation = installation();
    let Installation { desk, viewer, .. } = &installation;
    let listed = run(desk, &installation, &["list"]).succeeded().unwrap().stdout;
    assert!(listed.contains("jo@example.test  locked  admin  L-") && !listed.contains("other.test"), "{listed}");
    let watched = run(desk, &installation, &["watch"]).succeeded().unwrap().stdout;
    assert_eq!(watched, listed);
    let refused = run(viewer, &installation, &["unlock", "jo@example.test"]);
    assert_ne!(refused.code(), 0);
    assert!(refused.stderr.contains("you are viewer"), "{}", refused.report());
    let refused = run(desk, &installation, &["unlock", "al@other.test"]);
    assert!(refused.stderr.contains("accounts of example.test only"), "{}", refused.report());
    let unlocked = run(desk, &installation, &["unlock", "jo@example.test"]).succeeded().unwrap().stdout;
    assert!(unlocked.contains("jo@example.test  active  -  -"), "{unlocked}");
    assert_eq!(run(desk, &installation, &["list"]).succeeded().unwrap().stdout, "");
}

#[test]
fn python_lists_watches_and_unlocks() {
    let python = tools::python_with_grpc().unwrap();
    let example = example("python");
    let out = tempfile::tempdir().unwrap();
    let mut generate = Command::new(example.join("generate.sh"));
    generate.arg(out.path()).env("PYTHON", &python);
    command::run(generate, TIMEOUT).unwrap().succeeded().unwrap();
    lists_watches_and_unlocks(|token, installation, arguments| {
        let mut command = Command::new(&python);
        command.env("PYTHONPATH", out.path()).env("PYTHONDONTWRITEBYTECODE", "1");
        command.arg(example.join("tidegate_admin.py")).args(["--server", &installation.server.control.to_string()]);
        command.arg("--ca").arg(installation.credentials.file("ca.pem")).arg("--token-file").arg(token);
        command.args(arguments);
        match arguments[0] {
            "watch" => command.args(["--count", "1"]),
            "unlock" => command.args(["--reason", "called back", "--evidence", "new password"]),
            _ => &mut command,
        };
        command::run(command, TIMEOUT).unwrap()
    });
}

#[test]
fn go_lists_watches_and_unlocks() {
    let out = tempfile::tempdir().unwrap();
    for file in ["go.mod", "go.sum", "main.go"] {
        std::fs::copy(example("go").join(file), out.path().join(file)).unwrap();
    }
    let plugins = tools::go_plugins().unwrap();
    let path = std::env::join_paths(
        std::iter::once(plugins).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let mut generate = Command::new(example("go").join("generate.sh"));
    let protoc = format!("{} -m grpc_tools.protoc", tools::python_with_grpc().unwrap().display());
    generate.arg(out.path()).env("PATH", path.unwrap()).env("PROTOC", protoc);
    command::run(generate, TIMEOUT).unwrap().succeeded().unwrap();
    let mut build = Command::new("go");
    build
        .args(["build", "-o", "client", "."])
        .current_dir(out.path())
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=mod");
    command::run(build, TIMEOUT * 5).unwrap().succeeded().unwrap();
    lists_watches_and_unlocks(|token, installation, arguments| {
        let mut command = Command::new(out.path().join("client"));
        command.args(["--server", &installation.server.control.to_string()]);
        command.arg("--ca").arg(installation.credentials.file("ca.pem")).arg("--token-file").arg(token);
        match arguments[0] {
            "watch" => command.args(["--count", "1"]),
            "unlock" => command.args(["--reason", "called back", "--evidence", "new password"]),
            _ => &mut command,
        };
        command.args(arguments);
        command::run(command, TIMEOUT).unwrap()
    });
}

fn example(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples").join(language).canonicalize().unwrap()
}
