//! One trace leads from the message at an edge, over the log and the decision, to each edge that refuses. A collector of
//! the tests' own takes it.
#![allow(clippy::unwrap_used, missing_docs)]

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tidegate_tests::collector::{Collector, Seen};
use tidegate_tests::installation::{Edge, Log, Server, TIMEOUT};
use tidegate_tests::mail::{BURST_RULES, PASSWORD, THIEF, send_spam, users};
use xtask::kafka::KafkaRig;
use xtask::postfix::{PostfixOptions, PostfixRig};
use xtask::sink::Sink;
use xtask::smtp::SmtpClient;
use xtask::wait::wait_until;

const SITES: [&str; 2] = ["mx1", "mx2"];

/// Control and a stream worker on a Kafka of their own.
struct Services {
    control: Server,
    stream: Server,
    brokers: String,
    dir: tempfile::TempDir,
    _kafka: KafkaRig,
}

impl Services {
    /// `sections` stand at the end of their configuration.
    fn start(sections: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kafka = KafkaRig::start(&dir.path().join("kafka")).unwrap();
        let (brokers, log) = (kafka.bootstrap(), Log::kafka(&kafka));
        let start = |part: &str| Server::start_with(dir.path(), part, part, &log, BURST_RULES, sections).unwrap();
        let (control, stream) = (start("control"), start("stream"));
        Self { control, stream, brokers, dir, _kafka: kafka }
    }

    fn lab(&self, more: [&str; 2]) -> Lab {
        Lab::start(self.dir.path(), self.control.control, more)
    }
}

/// Two sites, each a Postfix with its edge.
struct Lab {
    control: SocketAddr,
    postfixes: Vec<PostfixRig>,
    // Held, so that they live as long.
    _edges: Vec<Edge>,
    _sink: Sink,
}

impl Lab {
    /// `more` are further lines of each edge's configuration.
    fn start(dir: &Path, control: SocketAddr, more: [&str; 2]) -> Self {
        let sink = Sink::start().unwrap();
        let (mut postfixes, mut edges) = (Vec::new(), Vec::new());
        for (name, more) in SITES.into_iter().zip(more) {
            let edge = Edge::start(dir, name, control, more).unwrap();
            let options = PostfixOptions {
                milters: vec![edge.milter()],
                users: users(0),
                ..PostfixOptions::relaying_to(sink.address())
            };
            postfixes.push(PostfixRig::start(&dir.join(format!("postfix-{name}")), &options).unwrap());
            edges.push(edge);
        }
        Self { control, postfixes, _edges: edges, _sink: sink }
    }

    /// A burst at the first site, until each site refuses the thief.
    fn hijack(&self) {
        for (site, postfix) in self.postfixes.iter().enumerate() {
            let mut client = SmtpClient::login(postfix.address(), THIEF, PASSWORD).unwrap();
            let mut number = 1_000 * site;
            wait_until("a refusal", TIMEOUT, || {
                number += 1;
                !send_spam(&mut client, number).unwrap().is_accepted()
            })
            .unwrap();
        }
    }

    fn unlock(&self) {
        let unlock = ["accounts", "unlock", THIEF, "--reason", "called back", "--password-changed", "now"];
        tidegate_tests::installation::admin(self.control, &unlock).unwrap().succeeded().unwrap();
    }
}

fn section(collector: &Collector, ratio: f64) -> String {
    format!("[traces]\nendpoint = \"http://{}\"\nsample_ratio = {ratio:?}\n", collector.address())
}

fn inline(collector: &Collector, ratio: f64) -> String {
    format!("traces = {{ endpoint = \"http://{}\", sample_ratio = {ratio:?} }}\n", collector.address())
}

/// Waits until something was seen `count` times, and gives it.
fn wait_for(what: &str, count: usize, seen: impl Fn() -> Vec<Seen>) -> Vec<Seen> {
    wait_until(what, TIMEOUT, || seen().len() >= count).unwrap();
    let seen = seen();
    assert_eq!(seen.len(), count, "{what}: {seen:?}");
    seen
}

/// Follows a decision to each edge: it is pushed, applied, and, if it is a lock, something is refused by it.
fn follow(collector: &Collector, decision: &Seen, refused: bool) {
    let pushes = wait_for("pushes", 2, || collector.children(decision));
    let nodes: BTreeSet<String> = pushes.iter().map(|push| push.attribute("tidegate.node")).collect();
    assert_eq!(nodes, BTreeSet::from(SITES.map(str::to_owned)));
    for push in &pushes {
        assert_eq!((push.span.name.as_str(), push.service.as_str()), ("push", "tidegate-control"));
        let applied = wait_for("a state to be applied", 1, || collector.children(push)).remove(0);
        assert_eq!((applied.span.name.as_str(), applied.service.as_str()), ("apply", "tidegate-edge"));
        assert_eq!(applied.attribute("tidegate.node"), push.attribute("tidegate.node"));
        assert_eq!(applied.instance, applied.attribute("tidegate.node"));
        let refusals = wait_for("refusals", usize::from(refused), || collector.children(&applied));
        for refusal in refusals {
            assert_eq!((refusal.span.name.as_str(), refusal.service.as_str()), ("refuse", "tidegate-edge"));
            assert_eq!(refusal.attribute("tidegate.verdict"), "refuse");
            assert_eq!(refusal.attribute("tidegate.site"), format!("site-of-{}", applied.attribute("tidegate.node")));
            assert!(refusal.span.start_time_unix_nano >= applied.span.end_time_unix_nano);
        }
    }
}

/// The lock's decision, its message, and what lies between them.
fn lock_of(collector: &Collector) -> (Seen, Seen) {
    let locks = || {
        let mut decisions = collector.named("decide");
        decisions.retain(|decision| decision.attribute("tidegate.change") == "locked");
        decisions
    };
    let lock = wait_for("the lock", 1, locks).remove(0);
    assert_eq!((lock.service.as_str(), lock.attribute("tidegate.rule").as_str()), ("tidegate-stream", "burst"));
    assert!(lock.attribute("tidegate.lock").starts_with("L-"), "{lock:?}");
    let parent = |seen: &Seen| {
        let id = seen.span.parent_span_id.clone();
        wait_for("a parent", 1, || collector.seen().into_iter().filter(|other| other.span.span_id == id).collect())
            .remove(0)
    };
    let processed = parent(&lock);
    assert_eq!((processed.span.name.as_str(), processed.service.as_str()), ("process event", "tidegate-stream"));
    assert_eq!(processed.attribute("messaging.destination.name"), "events");
    let submission = parent(&processed);
    assert_eq!((submission.span.name.as_str(), submission.service.as_str()), ("submission", "tidegate-edge"));
    assert_eq!(submission.attribute("tidegate.node"), "mx1");
    assert!(submission.span.parent_span_id.is_empty(), "it is the first");
    let traces = BTreeSet::from([&lock, &processed, &submission].map(|seen| seen.span.trace_id.clone()));
    assert_eq!(traces.len(), 1, "one trace");
    (submission, lock)
}

fn unlocked(collector: &Collector) -> Seen {
    let command = wait_for("the command", 1, || collector.named("command")).remove(0);
    assert_eq!(command.service, "tidegate-control");
    let processed = wait_for("the command to be taken", 1, || collector.children(&command)).remove(0);
    assert_eq!(processed.span.name, "process command");
    let unlock = wait_for("the unlock", 1, || collector.children(&processed)).remove(0);
    assert_eq!(unlock.attribute("tidegate.change"), "unlocked");
    unlock
}

/// Nothing that was traced names the account.
fn names_nobody(collector: &Collector) {
    for seen in collector.seen() {
        assert!(!format!("{seen:?}").contains("thief"), "{seen:?}");
    }
}

/// The `traceparent` headers of a topic's records, as any client of Kafka reads them.
fn headers(brokers: &str, topic: &str) -> (usize, Vec<String>) {
    let mut config = ClientConfig::new();
    let config =
        config.set("bootstrap.servers", brokers).set("group.id", "headers").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut partitions = TopicPartitionList::new();
    (0..4).for_each(|partition| partitions.add_partition_offset(topic, partition, Offset::Beginning).unwrap());
    consumer.assign(&partitions).unwrap();
    let (mut ends, mut records, mut found) = (0, 0, Vec::new());
    while ends < 4 {
        match consumer.poll(Duration::from_secs(30)).expect("a record or an end") {
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ends += 1,
            Err(error) => panic!("{error}"),
            Ok(message) => {
                records += 1;
                let header = message.headers().and_then(|headers| headers.iter().find(|one| one.key == "traceparent"));
                found.extend(header.map(|header| String::from_utf8(header.value.unwrap().to_vec()).unwrap()));
            }
        }
    }
    (records, found)
}

fn traceparent(seen: &Seen) -> String {
    let hex = |octets: &[u8]| {
        octets.iter().fold(String::new(), |mut text, octet| {
            let _ = write!(text, "{octet:02x}");
            text
        })
    };
    format!("00-{}-{}-01", hex(&seen.span.trace_id), hex(&seen.span.span_id))
}

#[test]
fn from_a_message_over_kafka_to_each_edge() {
    let collector = Collector::start().unwrap();
    let services = Services::start(&section(&collector, 1.0));
    // The first edge publishes straight to Kafka, the second through control.
    let straight = format!(
        "{}publish = {{ kind = \"kafka\", kafka = {{ bootstrap_servers = \"{}\", partitions = 4 }} }}",
        inline(&collector, 1.0),
        services.brokers
    );
    let lab = services.lab([&straight, &inline(&collector, 1.0)]);
    lab.hijack();
    let (submission, lock) = lock_of(&collector);
    follow(&collector, &lock, true);
    // Kafka's records say so in their headers.
    let (events, traced) = headers(&services.brokers, "tidegate.events");
    assert!(events > 40 && events == traced.len() && traced.contains(&traceparent(&submission)), "{traced:?}");
    assert!(headers(&services.brokers, "tidegate.accounts").1.contains(&traceparent(&lock)));
    lab.unlock();
    let unlock = unlocked(&collector);
    follow(&collector, &unlock, false);
    names_nobody(&collector);
    for process in [&services.control.process, &services.stream.process] {
        let exported = process.metric("tidegate_traces_spans_total", &[("result", "exported")]).unwrap();
        let lost = process.metric("tidegate_traces_spans_total", &[]).unwrap() - exported;
        assert!(exported >= 1.0 && lost == 0.0, "{exported} exported, {lost} lost");
    }
}

#[test]
fn from_a_message_through_one_process_to_each_edge() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start().unwrap();
    let server =
        Server::start_with(dir.path(), "all", "serve", &Log::Embedded, BURST_RULES, &section(&collector, 1.0)).unwrap();
    let traces = inline(&collector, 1.0);
    let lab = Lab::start(dir.path(), server.control, [&traces, &traces]);
    lab.hijack();
    let (_, lock) = lock_of(&collector);
    follow(&collector, &lock, true);
    lab.unlock();
    follow(&collector, &unlocked(&collector), false);
    names_nobody(&collector);
}

/// Messages that are not among the traced ones leave nothing; the decision that they lead to is traced all the same.
#[test]
fn a_decision_is_traced_when_its_messages_are_not() {
    let collector = Collector::start().unwrap();
    let services = Services::start(&section(&collector, 0.0));
    // One edge has no traces at all.
    let lab = services.lab([&inline(&collector, 0.0), ""]);
    lab.hijack();
    let decision = wait_for("the lock", 1, || collector.named("decide")).remove(0);
    assert!(decision.span.parent_span_id.is_empty(), "it is the first of its trace");
    let pushes = wait_for("pushes", 2, || collector.children(&decision));
    let is_first = |push: &&Seen| push.attribute("tidegate.node") == "mx1";
    let push = pushes.iter().find(is_first).unwrap();
    let applied = wait_for("a state to be applied", 1, || collector.children(push)).remove(0);
    wait_for("a refusal", 1, || collector.children(&applied));
    let names: BTreeSet<String> = collector.seen().into_iter().map(|seen| seen.span.name).collect();
    assert_eq!(names, BTreeSet::from(["decide", "push", "apply", "refuse"].map(str::to_owned)));
    assert_eq!(headers(&services.brokers, "tidegate.events").1, [""; 0]);
}

/// Without an endpoint there is nothing: no header, no metric.
#[test]
fn they_are_off_by_default() {
    let services = Services::start("");
    let lab = services.lab(["", ""]);
    lab.hijack();
    for topic in ["tidegate.events", "tidegate.accounts"] {
        let (records, traced) = headers(&services.brokers, topic);
        assert!(records > 0 && traced.is_empty(), "{topic}: {records} records, {traced:?}");
    }
    assert!(!services.stream.process.get("/metrics").unwrap().body.contains("tidegate_traces"));
}
