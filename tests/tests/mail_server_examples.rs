//! The settings for Postfix and Dovecot in `deploy/examples/mail-servers` as they stand there, on a real Postfix and Dovecot:
//! mail is seen, a locked account is refused, and with the edge gone mail flows.
// A test that is skipped says why.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

use std::fs;
use std::path::Path;
use std::process::Command;
use tidegate_tests::command;
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use tidegate_tests::mail::BURST_RULES;
use tidegate_tests::process::{Launch, Process};
use tidegate_tests::programs;
use xtask::dovecot::User;
use xtask::paths::{find_program, workspace_root};
use xtask::ports::free_port;
use xtask::postfix::{PostfixOptions, PostfixRig};
use xtask::sink::Sink;
use xtask::smtp::SmtpClient;
use xtask::wait::wait_until;

const ACCOUNT: &str = "Jo@example.org";

fn example(name: &str) -> String {
    let file = workspace_root().join("deploy/examples/mail-servers").join(name);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("reading {}: {error}", file.display()))
}

/// The settings of a `main.cf`, each on one line.
fn settings(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        match found.last_mut() {
            Some(last) if line.starts_with(' ') => *last += line,
            _ => found.push(line.to_owned()),
        }
    }
    found.iter().map(|setting| setting.replacen(" =", "=", 1)).collect()
}

/// An edge whose sockets are where the examples look for them: `tidegate/` in Postfix's queue folder.
fn start_edge(dir: &Path, queue: &Path, server: &Server) -> Process {
    let sockets = queue.join("tidegate");
    fs::create_dir_all(&sockets).unwrap();
    let ops = std::net::SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
    let text = format!(
        "node = \"mx1\"\nsite = \"ams\"\nstate_directory = {dir:?}\n\
         [milter]\nlisten = [\"unix:{0}/milter.sock\"]\nconnections = {{ socket_mode = \"0666\" }}\n\
         [policy]\nlisten = [\"unix:{0}/policy.sock\"]\nconnections = {{ socket_mode = \"0666\" }}\n\
         [control]\nendpoint = \"http://{1}\"\n[ops]\nlisten = \"{ops}\"\n",
        sockets.display(),
        server.control,
    );
    let config = dir.join("edge.toml");
    fs::write(&config, text).unwrap();
    let launch = Launch::new("edge", programs::tidegate_edge().unwrap()).arg("--config").arg(config);
    let mut edge = launch.ops(ops).start(dir).unwrap();
    edge.wait_until_ready(TIMEOUT).unwrap();
    edge
}

#[test]
fn postfix_speaks_to_the_edge_and_goes_on_without_it() {
    for name in ["postfix-milter.main.cf", "postfix-policy.main.cf"] {
        let dir = tempfile::tempdir().unwrap();
        let sink = Sink::start().unwrap();
        let users = vec![User::new(ACCOUNT.to_lowercase(), "secret")];
        let options = PostfixOptions { users, ..PostfixOptions::relaying_to(sink.address()) };
        let postfix = PostfixRig::start(&dir.path().join("postfix"), &options).unwrap();
        let server = Server::start(dir.path(), "server", "serve", &Log::Embedded, BURST_RULES).unwrap();
        let mut edge = start_edge(dir.path(), &postfix.queue_dir(), &server);
        postfix.reconfigure(&settings(&example(name))).unwrap();
        // As a person types it; Dovecot makes it lower case.
        let send = || {
            let mut client = SmtpClient::login(postfix.address(), ACCOUNT, "secret").unwrap();
            client.send("jo@example.org", &["somebody@example.com"], "Subject: hello\r\n\r\nhello\r\n").unwrap()
        };
        let events = |edge: &Process| edge.metric("tidegate_edge_events_total", &[]).unwrap_or(0.0);
        // Postfix takes new settings when its next process begins.
        wait_until(&format!("{name}: the edge sees a message"), TIMEOUT, || {
            assert!(send().is_accepted());
            events(&edge) > 0.5
        })
        .unwrap();
        let lock = ["accounts", "lock", "jo@example.org", "--reason", "test", "--reply", "Locked."];
        server.admin(&lock).unwrap().succeeded().unwrap();
        let refused = || Some(send().reply).filter(|reply| !reply.is_ok());
        let reply = xtask::wait::wait_for(&format!("{name}: the account is refused"), TIMEOUT, refused).unwrap();
        assert!(reply.code == 550 && reply.text.contains("Locked."), "{name}: {reply}");
        edge.kill();
        assert!(send().is_accepted(), "{name}: without the edge");
    }
}

#[test]
fn dovecot_takes_its_settings() {
    let Some(doveconf) = find_program("doveconf") else {
        eprintln!("skipped: no doveconf here; `cargo xtask setup --for test` installs it with Dovecot");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    for (name, expected) in [
        ("dovecot-login.conf", "auth_username_format = %Lu"),
        ("dovecot-submission.conf", "submission_relay_trusted = yes"),
    ] {
        let config = dir.path().join(name);
        fs::write(&config, format!("protocols =\nssl = no\n{}", example(name))).unwrap();
        let mut check = Command::new(&doveconf);
        check.arg("-c").arg(&config);
        let told = command::run(check, TIMEOUT).unwrap().succeeded().unwrap().stdout;
        assert!(told.lines().any(|line| line.trim() == expected), "{name}: {told}");
    }
}
