//! Who is told: a real server on a real log tells a real mail server of real locks, also when it is killed meanwhile.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_tests::command::{self, Ended};
use tidegate_tests::hijack::{self, Sites};
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use tidegate_tests::mail::{BURST_RULES, THIEF};
use tidegate_tests::programs;
use xtask::kafka::KafkaRig;
use xtask::sink::{Sink, SinkMessage};
use xtask::wait::{wait_for, wait_until};

/// Where mail ends. While it is held it takes a mail and does not say so.
struct Mailbox {
    arrived: Arc<Mutex<Vec<SinkMessage>>>,
    held: Arc<AtomicBool>,
    sink: Sink,
}

impl Mailbox {
    fn start() -> Self {
        let (arrived, held) = (Arc::<Mutex<Vec<SinkMessage>>>::default(), Arc::new(AtomicBool::new(false)));
        let (noting, waiting) = (Arc::clone(&arrived), Arc::clone(&held));
        let sink = Sink::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), move |message| {
            noting.lock().unwrap().push(message.clone());
            // Until the test lets it go, or fails.
            let _ = wait_until("the mailbox to be let go", TIMEOUT, || !waiting.load(Ordering::Relaxed));
        });
        Self { arrived, held, sink: sink.unwrap() }
    }

    fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    fn sections(&self) -> String {
        format!(
            "[notify]\ngroup_window_ms = 500\nretry_first_ms = 50\nretry_longest_ms = 500\n\
             administrators = [\"abuse@example.net\"]\n\
             [notify.smtp]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nfrom = \"no-reply@example.net\"\n",
            self.sink.address().port()
        )
    }

    /// Mails to this address, in the order in which they came.
    fn to(&self, address: &str) -> Vec<SinkMessage> {
        let is_to = |message: &&SinkMessage| message.recipients == [address];
        self.arrived.lock().unwrap().iter().filter(is_to).cloned().collect()
    }

    fn wait_for(&self, address: &str, count: usize) -> Vec<SinkMessage> {
        wait_for(&format!("{count} mails to {address}"), TIMEOUT, || {
            let found = self.to(address);
            (found.len() >= count).then_some(found)
        })
        .unwrap()
    }
}

fn id(message: &SinkMessage) -> String {
    message.header("Message-ID").unwrap()
}

/// How often each Message-ID came.
fn by_id(messages: &[SinkMessage]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for message in messages {
        *counts.entry(id(message)).or_default() += 1;
    }
    counts
}

fn start(server: &mut Server) {
    server.process.start_again().unwrap();
    server.process.wait_until_ready(TIMEOUT).unwrap();
}

#[test]
fn a_server_that_is_killed_while_it_sends_repeats_the_same_mail() {
    let dir = tempfile::tempdir().unwrap();
    let mailbox = Mailbox::start();
    let mut server =
        Server::launch_with(dir.path(), "server", "serve", &Log::Embedded, BURST_RULES, &mailbox.sections()).unwrap();
    server.process.wait_until_ready(TIMEOUT).unwrap();

    mailbox.hold(true);
    server.admin(&["accounts", "lock", "jo@example.org", "--reason", "reported"]).unwrap().succeeded().unwrap();
    let first = mailbox.wait_for("jo@example.org", 1).remove(0);
    server.process.kill();
    mailbox.hold(false);
    start(&mut server);
    let both = mailbox.wait_for("jo@example.org", 2);
    assert_eq!((id(&both[1]), &both[1].body), (id(&first), &first.body), "the repeat is the same mail");
    assert_eq!(both[1].headers, first.headers);

    let unlock =
        ["accounts", "unlock", "jo@example.org", "--reason", "called back", "--evidence", "new password by phone"];
    server.admin(&unlock).unwrap().succeeded().unwrap();
    let unlocked = mailbox.wait_for("jo@example.org", 3).remove(2);
    assert_eq!(unlocked.header("In-Reply-To").unwrap(), id(&first));
    wait_until("the log to say that user and administrator were told of both", TIMEOUT, || {
        let sent = server.process.metric("tidegate_notify_notifications_total", &[("result", "sent")]);
        sent.is_ok_and(|sent| sent >= 4.0)
    })
    .unwrap();
    // In order: nothing comes again after that.
    server.process.stop(TIMEOUT).unwrap();
    let before = mailbox.arrived.lock().unwrap().len();
    start(&mut server);
    server.admin(&["accounts", "lock", "amy@example.org", "--reason", "reported"]).unwrap().succeeded().unwrap();
    mailbox.wait_for("amy@example.org", 1);
    wait_until("the administrators' mail about it", TIMEOUT, || {
        let all = mailbox.to("abuse@example.net");
        all.iter().any(|message| message.header("Subject").unwrap().contains("amy@example.org"))
    })
    .unwrap();
    assert_eq!(mailbox.arrived.lock().unwrap().len(), before + 2);
}

#[test]
fn a_hijacked_accounts_user_and_administrators_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let mailbox = Mailbox::start();
    let mut server =
        Server::launch_with(dir.path(), "server", "serve", &Log::Embedded, BURST_RULES, &mailbox.sections()).unwrap();
    server.process.wait_until_ready(TIMEOUT).unwrap();
    let sites = Sites::start(dir.path(), server.control, "", hijack::PEOPLE).unwrap();
    hijack::burst(&sites, 0).unwrap();
    sites.wait_for_refusal(1, 10_000).unwrap();
    let user = mailbox.wait_for(THIEF, 1).remove(0);
    let administrator = mailbox.wait_for("abuse@example.net", 1).remove(0);
    let lock_id = administrator.header("Subject").unwrap();
    let lock_id = lock_id.rsplit_once('(').unwrap().1.trim_end_matches(')');
    assert!(lock_id.starts_with("L-"), "{lock_id}");
    let text = String::from_utf8_lossy(&user.body).into_owned();
    assert!(text.contains(lock_id) && text.contains("Change your password now"), "{text}");
    assert!(user.header("Subject").unwrap().contains("has been locked"));
}

#[test]
fn another_notifier_goes_on_where_a_killed_one_was() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = KafkaRig::start(&dir.path().join("kafka")).unwrap();
    let log = Log::kafka(&kafka);
    let mailbox = Mailbox::start();
    let server = Server::start(dir.path(), "server", "serve", &log, BURST_RULES).unwrap();
    let notifier = |name: &str| {
        let server = Server::launch_with(dir.path(), name, "notifier", &log, BURST_RULES, &mailbox.sections());
        server.unwrap()
    };
    let mut one = notifier("one");
    one.process.wait_until_ready(TIMEOUT).unwrap();
    let mut two = notifier("two");
    two.process.wait_until_ready(TIMEOUT).unwrap();
    let owned =
        |server: &Server| server.process.metric("tidegate_notify_partitions_owned", &[]).unwrap_or_default() as u32;
    wait_until("both to have a share", TIMEOUT, || owned(&one) == 2 && owned(&two) == 2).unwrap();

    mailbox.hold(true);
    let accounts: Vec<String> = (0..12).map(|number| format!("jo{number}@example.org")).collect();
    for account in &accounts {
        server.admin(&["accounts", "lock", account, "--reason", "reported"]).unwrap().succeeded().unwrap();
    }
    wait_until("mails to be on their way", TIMEOUT, || !mailbox.arrived.lock().unwrap().is_empty()).unwrap();
    one.process.kill();
    mailbox.hold(false);
    wait_until("the other one to have all", TIMEOUT, || owned(&two) == 4).unwrap();
    for account in &accounts {
        let mails = mailbox.wait_for(account, 1);
        assert_eq!(by_id(&mails).len(), 1, "{account} is told of one lock under one id");
    }
    drop(two);
}

fn tidegate(arguments: &[&str]) -> Ended {
    let mut command = std::process::Command::new(programs::tidegate().unwrap());
    command.args(arguments);
    command::run(command, Duration::from_mins(1)).unwrap()
}

#[test]
fn what_will_be_told_can_be_seen_and_tried_before() {
    let dir = tempfile::tempdir().unwrap();
    let mailbox = Mailbox::start();
    let config = dir.path().join("tidegate.toml");
    let text = format!("[log]\nkind = \"embedded\"\ndirectory = {:?}\n{}", dir.path().join("log"), mailbox.sections());
    std::fs::write(&config, &text).unwrap();
    let path = config.to_str().unwrap();

    let shown = tidegate(&["notify", "preview", "--kind", "lock", "--language", "de"]).succeeded().unwrap().stdout;
    assert!(shown.contains("wurde gesperrt") && shown.contains("jo@example.org"), "{shown}");
    let shown = tidegate(&["notify", "preview", "--kind", "lock", "--count", "3", "--administrator", "--html"]);
    let shown = shown.succeeded().unwrap().stdout;
    assert!(shown.starts_with("<!DOCTYPE html>") && shown.contains("3 decisions"), "{shown}");
    let shown = tidegate(&["notify", "preview", "--webhook", "alertmanager"]).succeeded().unwrap().stdout;
    let alerts: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(alerts[0]["labels"]["account"], "jo@example.org");
    let refused = tidegate(&["notify", "preview", "--language", "tlh"]);
    assert!(refused.stderr.contains("there is no language \"tlh\"; there are de (Deutsch)"), "{}", refused.stderr);

    let sent = tidegate(&["notify", "test", "--config", path, "--channel", "mail", "--to", "amy@example.org"]);
    assert!(sent.succeeded().unwrap().stdout.starts_with("sent; its id is test-"));
    assert_eq!(mailbox.wait_for("amy@example.org", 1).len(), 1);
    let refused = tidegate(&["notify", "test", "--config", path, "--channel", "pager"]);
    assert!(refused.stderr.contains("has no webhook \"pager\""), "{}", refused.stderr);

    tidegate(&["serve", "--config", path, "--check-config"]).succeeded().unwrap();
    std::fs::write(&config, text.replace("[notify]\n", "[notify]\nlanguage = \"tlh\"\nmax_pending = 1\n")).unwrap();
    let refused = tidegate(&["serve", "--config", path, "--check-config"]);
    assert_eq!(refused.status.code(), Some(2));
    for problem in ["notify.max_pending: is 1", "there is no language \"tlh\""] {
        assert!(refused.stderr.contains(problem), "{}", refused.stderr);
    }
}

/// A receiver of webhooks that answers with one status after the other, and the last one for ever.
fn receiver(statuses: &'static [&'static str]) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = std::io::BufReader::new(stream.unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).unwrap() <= 2 {
                    break;
                }
                if let Some((_, value)) = line.to_ascii_lowercase().split_once("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            stream.read_exact(&mut vec![0; length]).unwrap();
            let status = statuses.get(number).or(statuses.last()).unwrap();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

#[test]
fn what_could_not_be_delivered_is_listed_and_sent_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let pager = receiver(&["410 Gone", "200 OK"]);
    let sections =
        format!("[notify]\n[[notify.webhook]]\nname = \"pager\"\nurl = \"http://{pager}/hook\"\ngroup_window_ms = 0\n");
    let mut server = Server::start_with(dir.path(), "server", "serve", &Log::Embedded, BURST_RULES, &sections).unwrap();
    server.admin(&["accounts", "lock", "jo@example.org", "--reason", "reported"]).unwrap().succeeded().unwrap();
    let listed = |server: &Server| -> serde_json::Value {
        let dead = server.admin(&["notify", "dead", "--json"]).unwrap().succeeded().unwrap();
        serde_json::from_str(&dead.stdout).unwrap()
    };
    wait_until("it to be given up", TIMEOUT, || listed(&server)[0]["account"] == "jo@example.org").unwrap();
    let dead = listed(&server)[0].clone();
    assert!(dead["channel"] == "pager" && dead["error"].as_str().unwrap().contains("410"), "{dead}");
    let shown = server.admin(&["notify", "dead"]).unwrap().succeeded().unwrap().stdout;
    assert!(shown.contains("GIVEN UP") && shown.contains("jo@example.org") && shown.contains("410"), "{shown}");

    let id = dead["id"].as_str().unwrap().to_owned();
    let config = server.config.to_str().unwrap().to_owned();
    let refused = tidegate(&["notify", "retry", "--config", &config, &id]);
    assert!(refused.status.code() == Some(1) && refused.stderr.contains("must be stopped"), "{}", refused.stderr);
    server.process.stop(TIMEOUT).unwrap();
    let unknown = tidegate(&["notify", "retry", "--config", &config, "0000"]);
    assert!(unknown.status.code() == Some(1) && unknown.stderr.contains("0000"), "{}", unknown.stderr);
    let again = tidegate(&["notify", "retry", "--config", &config, &id]).succeeded().unwrap().stdout;
    assert!(again.contains(&id) && again.contains("through pager"), "{again}");
    server.process.start_again().unwrap();
    server.process.wait_until_ready(TIMEOUT).unwrap();
    wait_until("it to be delivered", TIMEOUT, || {
        server
            .process
            .metric("tidegate_notify_notifications_total", &[("result", "sent")])
            .is_ok_and(|sent| sent >= 1.0)
    })
    .unwrap();
    wait_until("the list to be empty", TIMEOUT, || listed(&server) == serde_json::json!([])).unwrap();
}
