//! One of two history services is killed at random moments under load, while files are put together and accounts are erased:
//! each event of the topic stands in the table once, whatever was killed when. `TIDEGATE_HISTORY_KILLS` sets how often.
// A long run tells what it does.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use prost::Message as _;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_bus::{BusConfig, KafkaConfig, Message, Topic};
use tidegate_proto::v1;
use tidegate_tests::analyst::Analyst;
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use tidegate_tests::random::{Random, number_of};
use tidegate_tests::topics::read_events;
use xtask::kafka::KafkaRig;
use xtask::wait::wait_until;

/// Kills in a normal run.
const KILLS: u64 = 5;
/// Who is erased again and again, and goes on sending.
const ERASED: &str = "gone@example.test";

/// Writes events to the topic until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Load {
    fn start(log: BusConfig) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (until, count) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async {
                let bus = log.connect().await.unwrap();
                let mut sequence = 0;
                while !until.load(Ordering::SeqCst) {
                    let events: Vec<Message> = (0..20).map(|_| next(&mut sequence)).collect();
                    bus.append(Topic::Events, events).await.unwrap();
                    count.store(sequence, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        });
        Self { stop, written, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
        self.written.load(Ordering::SeqCst)
    }
}

fn next(sequence: &mut u64) -> Message {
    *sequence += 1;
    let account = match *sequence % 10 {
        0 => ERASED.to_owned(),
        other => format!("person{}@example.test", other + 10 * (*sequence % 7)),
    };
    let time_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let submission = v1::Submission { recipient_count: 1, size_bytes: *sequence, ..v1::Submission::default() };
    let event = v1::Event {
        id: Some(v1::EventId { node: "mx1".to_owned(), lane: v1::Lane::Live.into(), sequence: *sequence }),
        site: "ams".to_owned(),
        account: account.clone(),
        time_ms,
        trace_parent: String::new(),
        kind: Some(v1::event::Kind::Submission(submission)),
    };
    Message::new(account.into_bytes().into(), Some(event.encode_to_vec().into()))
}

#[test]
fn each_event_stands_in_the_table_once() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = KafkaRig::start(&dir.path().join("kafka")).unwrap();
    // Fenced soon: a killed member's partitions are not waited for.
    let properties = "\"session.timeout.ms\" = \"3000\"\n\"heartbeat.interval.ms\" = \"500\"".to_owned();
    let log = Log::Kafka { bootstrap_servers: kafka.bootstrap(), properties, replicas: 1 };
    let bootstrap_servers = kafka.bootstrap();
    let topics = BusConfig::Kafka(KafkaConfig { bootstrap_servers, partitions: 4, ..KafkaConfig::default() });
    // Two share the partitions and the tables.
    let mut two = ["one", "two"].map(|name| Server::start(dir.path(), name, "history", &log, "").unwrap());
    let load = Load::start(topics.clone());
    let mut random = Random::from_environment("TIDEGATE_CHAOS_SEED");
    let (began, kills) = (Instant::now(), number_of("TIDEGATE_HISTORY_KILLS").unwrap_or(KILLS));
    let mut erased = 0;
    for round in 0..kills {
        let killed = random.within(0..2);
        let history = &mut two[killed];
        let analyst = Analyst::new(history.history).unwrap();
        let until = Instant::now() + Duration::from_millis(random.within(200..3_000) as u64);
        // Erased again and again, and killed in the middle of it.
        let erasing = thread::spawn(move || {
            let mut times = 0;
            while Instant::now() < until + Duration::from_millis(200) && analyst.erase(ERASED).is_ok() {
                times += 1;
            }
            times
        });
        thread::sleep(until.saturating_duration_since(Instant::now()));
        history.kill_and_start_again().unwrap();
        erased += erasing.join().unwrap();
        println!(
            "kill {round}: {} after {} s, {} written",
            history.process.log().display(),
            began.elapsed().as_secs(),
            load.written.load(Ordering::SeqCst)
        );
    }
    let written = load.end();
    let analyst = Analyst::new(two[0].history).unwrap();
    let in_topic = read_events(&topics, usize::try_from(written).unwrap()).unwrap();
    let counted = "SELECT count(*), count(DISTINCT sequence) FROM events WHERE account <> 'gone@example.test'";
    let expected = (written - written / 10).to_string();
    wait_until("the table to have all", TIMEOUT, || {
        analyst.ask(counted).is_ok_and(|rows| rows[0][0].parse::<u64>().unwrap() >= written - written / 10)
    })
    .unwrap();
    assert_eq!(analyst.ask(counted).unwrap(), [[expected.clone(), expected]]);
    let rows = analyst.ask("SELECT sequence, log_partition, log_offset, account FROM events").unwrap();
    let in_table: BTreeSet<u64> =
        rows.iter().filter(|row| row[3] != ERASED).map(|row| row[0].parse().unwrap()).collect();
    let sent: BTreeSet<u64> = in_topic
        .by_number
        .iter()
        .filter(|(_, event)| event.account != ERASED)
        .map(|((_, _, sequence), _)| *sequence)
        .collect();
    assert_eq!(in_table, sent);
    let places: BTreeSet<(&str, &str)> = rows.iter().map(|row| (row[1].as_str(), row[2].as_str())).collect();
    assert_eq!(places.len(), rows.len(), "a record stands in the table twice");
    analyst.erase(ERASED).unwrap();
    assert_eq!(analyst.ask("SELECT count(*) FROM events WHERE account = 'gone@example.test'").unwrap(), [["0"]]);
    println!("{kills} kills, {written} events, erased {erased} times between them");
}
