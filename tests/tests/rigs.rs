//! The harness's own test: every real part starts, does its work, and leaves no process behind.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;
use xtask::dovecot::User;
use xtask::kafka::KafkaRig;
use xtask::postfix::{PolicyStage, PostfixOptions, PostfixRig};
use xtask::rspamd::{MARKED_SUBJECT, REJECTED_SUBJECT, RspamdRig};
use xtask::sink::Sink;
use xtask::smtp::{SmtpClient, Stage};
use xtask::wait::{wait_for, wait_until};

const TIMEOUT: Duration = Duration::from_secs(30);
const ACCOUNT: &str = "amy@example.test";

/// The ids of all processes whose command line names this folder, as every part's does.
fn processes_in(dir: &Path) -> Vec<String> {
    let needle = dir.canonicalize().unwrap().display().to_string();
    let running = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let id = entry.file_name().into_string().ok().filter(|name| name.parse::<u32>().is_ok())?;
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        let in_folder = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&needle));
        (in_folder || String::from_utf8_lossy(&command).contains(&needle)).then_some(id)
    });
    running.collect()
}

fn nothing_is_left(dir: &Path) {
    wait_until("all processes to be gone", TIMEOUT, || processes_in(dir).is_empty()).unwrap();
}

fn postfix_options(sink: &Sink) -> PostfixOptions {
    PostfixOptions { users: vec![User::new(ACCOUNT, "secret")], ..PostfixOptions::relaying_to(sink.address()) }
}

#[test]
fn postfix_takes_mail_after_a_login_and_relays_it_to_the_sink() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start().unwrap();
    let rig = PostfixRig::start(dir.path(), &postfix_options(&sink)).unwrap();

    let mut stranger = SmtpClient::connect(rig.address()).unwrap();
    assert_eq!(stranger.auth_plain(ACCOUNT, "guess").unwrap().code, 535);
    let refused = stranger.send(ACCOUNT, &["bob@elsewhere.test"], "Subject: no\n\n").unwrap();
    assert_eq!((refused.stage, refused.reply.code), (Stage::Rcpt, 554));

    let mut client = SmtpClient::connect(rig.address()).unwrap();
    client.pretend_address("192.0.2.7").unwrap();
    assert!(client.auth_plain(ACCOUNT, "secret").unwrap().is_ok());
    let recipients = ["bob@elsewhere.test", "eve@example.test"];
    assert!(client.send(ACCOUNT, &recipients, "Subject: hello\n\nHi.\n").unwrap().is_accepted());
    wait_until("both copies", TIMEOUT, || recipients.iter().all(|to| sink.count_to(to) == 1)).unwrap();
    let received = sink.messages()[0].header("Received").unwrap();
    assert!(received.contains("192.0.2.7"), "{received}");
    rig.wait_until_delivered(TIMEOUT).unwrap();

    assert!(!processes_in(dir.path()).is_empty());
    drop(client);
    drop(rig);
    nothing_is_left(dir.path());
}

#[test]
fn postfix_asks_the_policy_service_at_the_stages_that_were_named() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start().unwrap();
    let policy = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = format!("inet:{}", policy.local_addr().unwrap());
    thread::spawn(move || policy.incoming().flatten().for_each(|stream| drop(thread::spawn(|| answer_policy(stream)))));
    let policies = vec![(PolicyStage::Sender, service.clone()), (PolicyStage::EndOfData, service)];
    let options = PostfixOptions { policies, delay_reject: false, ..postfix_options(&sink) };
    let rig = PostfixRig::start(dir.path(), &options).unwrap();

    let mut client = SmtpClient::login(rig.address(), ACCOUNT, "secret").unwrap();
    let refused = client.send("locked@example.test", &["bob@elsewhere.test"], "Subject: x\n\n").unwrap();
    assert_eq!((refused.stage, refused.reply.code), (Stage::Mail, 550));
    let refused = client.send("late@example.test", &["bob@elsewhere.test"], "Subject: x\n\n").unwrap();
    assert_eq!((refused.stage, refused.reply.code), (Stage::EndOfMessage, 550));
    assert!(refused.reply.text.contains("not today"), "{}", refused.reply);
    let outcome = client.send(ACCOUNT, &["bob@elsewhere.test"], "Subject: x\n\n").unwrap();
    assert!(outcome.is_accepted(), "{outcome:?}");
}

/// Refuses one sender at MAIL and another after the content.
fn answer_policy(mut stream: TcpStream) {
    let mut request = String::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        request.push_str(&String::from_utf8_lossy(&buffer[..count]));
        if !request.ends_with("\n\n") {
            continue;
        }
        let has = |line: &str| request.lines().any(|found| found == line);
        let refuse = has("sender=locked@example.test")
            || has("sender=late@example.test") && has("protocol_state=END-OF-MESSAGE");
        let action = if refuse { "550 5.7.1 not today" } else { "DUNNO" };
        if stream.write_all(format!("action={action}\n\n").as_bytes()).is_err() {
            return;
        }
        request.clear();
    }
}

#[test]
fn rspamd_marks_one_subject_refuses_another_and_tells_of_both() {
    let dir = tempfile::tempdir().unwrap();
    let (told, posts) = metadata_receiver();
    let rspamd = RspamdRig::start(&dir.path().join("rspamd"), Some(&told)).unwrap();
    let sink = Sink::start().unwrap();
    let options = PostfixOptions { milters: vec![rspamd.milter()], ..postfix_options(&sink) };
    let rig = PostfixRig::start(&dir.path().join("postfix"), &options).unwrap();
    let mut client = SmtpClient::login(rig.address(), ACCOUNT, "secret").unwrap();
    let mut send = |subject: &str| {
        let content = format!(
            "From: {ACCOUNT}\nTo: bob@elsewhere.test\nSubject: {subject}\nMessage-ID: <1@example.test>\n\
             Date: Wed, 25 Nov 2026 01:52:30 +0000\n\nHello Bob.\n"
        );
        client.send(ACCOUNT, &["bob@elsewhere.test"], &content).unwrap()
    };

    assert!(send("lunch").is_accepted());
    assert!(send(MARKED_SUBJECT).is_accepted());
    let refused = send(REJECTED_SUBJECT);
    assert_eq!((refused.stage, refused.reply.code), (Stage::EndOfMessage, 554), "{}", refused.reply);

    wait_until("the two messages", TIMEOUT, || sink.total() == 2).unwrap();
    let marks: Vec<_> = sink.messages().iter().map(|message| message.header("X-Spam")).collect();
    assert_eq!(marks.iter().filter(|mark| mark.as_deref() == Some("Yes")).count(), 1, "{marks:?}");
    let mut actions: Vec<String> = (0..3)
        .map(|_| posts.recv_timeout(TIMEOUT).unwrap())
        .map(|post| {
            assert_eq!(post["user"], ACCOUNT);
            post["action"].as_str().unwrap().to_owned()
        })
        .collect();
    actions.sort();
    assert_eq!(actions, ["add header", "no action", "reject"]);

    drop((client, rig, rspamd));
    nothing_is_left(dir.path());
}

/// A small HTTP server that hands on the JSON bodies that are posted to it; gives its URL.
fn metadata_receiver() -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/rspamd", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            let body = loop {
                let count = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..count]);
                let text = String::from_utf8_lossy(&request);
                let whole = text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
                if let Some(body) = whole {
                    break body;
                }
                assert!(count > 0, "rspamd cut its post short: {text}");
            };
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            if sender.send(body).is_err() {
                return;
            }
        }
    });
    (url, receiver)
}

#[tokio::test]
async fn kafka_keeps_its_topics_over_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut kafka = KafkaRig::start(dir.path()).unwrap();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap());
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let topic = NewTopic::new("rigs", 3, TopicReplication::Fixed(1));
    let results = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    assert_eq!(results, [Ok("rigs".to_owned())]);

    kafka.kill();
    kafka.start_again().unwrap();
    let consumer: BaseConsumer = config.create().unwrap();
    // A broker that has just started answers before it knows its own topics.
    let partitions = wait_for("the topic", TIMEOUT, || {
        let metadata = consumer.fetch_metadata(Some("rigs"), TIMEOUT).ok()?;
        Some(metadata.topics()[0].partitions().len()).filter(|&count| count > 0)
    });
    assert_eq!(partitions.unwrap(), 3);

    kafka.stop().unwrap();
    drop(kafka);
    nothing_is_left(dir.path());
}
