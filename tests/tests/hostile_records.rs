//! Records that nobody should have written, in every topic: they are left out and counted, memory stays bounded, and an
//! account that is hijacked afterwards is locked all the same.
#![allow(clippy::unwrap_used, missing_docs)]

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_bus::Topic;
use tidegate_journal::{Batch, Journal, NewRecord, Options};
use tidegate_proto::v1;
use tidegate_proto::v1::event_service_client::EventServiceClient;
use tidegate_tests::hostile::{HUGE_OCTETS, check_health, event, hijack, records, resident_octets};
use tidegate_tests::installation::{Edge, Log, Server, TIMEOUT};
use tidegate_tests::mail::BURST_RULES;
use xtask::kafka::KafkaRig;
use xtask::wait::wait_until;

const PARTITIONS: u32 = 4;
/// What a process may take beyond what it took at its start: some of the largest records at a time, never all.
const MAX_GROWTH_OCTETS: u64 = 400 << 20;
const THIEF: &str = "thief@example.test";
/// Longest request that control takes.
const MAX_REQUEST_OCTETS: usize = 8 << 20;

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Writes all hostile records into every partition of every topic, past what the bus would let through.
fn write_into_the_log(directory: &Path) {
    let journal = Journal::open(directory, Options::default()).unwrap();
    for topic in Topic::ALL {
        for partition in 0..PARTITIONS {
            for hostile in records() {
                let (key, value) = (Some(hostile.key.into()), hostile.value.into());
                let record = NewRecord { time_ms: now_ms(), key, value };
                journal.commit(Batch::new().append(topic.suffix(), partition, vec![record])).unwrap();
            }
        }
    }
}

/// The stream worker has left out so many, and control has skipped some.
fn wait_until_counted(stream: &Server, control: &Server, rejected: f64) {
    wait_until("hostile events and commands to be counted", TIMEOUT, || {
        stream.counted("rejected").is_ok_and(|count| count >= rejected)
    })
    .unwrap();
    wait_until("hostile states to be counted", TIMEOUT, || {
        control.process.metric("tidegate_control_records_skipped_total", &[]).is_ok_and(|count| count >= 10.0)
    })
    .unwrap();
}

#[test]
fn in_the_embedded_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "server", "serve", &Log::Embedded, BURST_RULES).unwrap();
    let before = resident_octets(server.process.pid()).unwrap();
    assert!(server.process.stop(TIMEOUT).unwrap().success());
    write_into_the_log(&dir.path().join("server/log"));
    server.process.start_again().unwrap();
    server.process.wait_until_ready(TIMEOUT).unwrap();
    // At least those that are no protobuf at all, of events in each partition; commands are read as well.
    wait_until_counted(&server, &server, f64::from(PARTITIONS) * 8.0);
    check_health(&mut server.process, before + MAX_GROWTH_OCTETS).unwrap();

    // What comes over gRPC is checked before it is written, one by one.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (accepted, refused) = runtime.block_on(publish(&server));
    assert_eq!((accepted, refused), (2, 3));

    let edge = Edge::start(dir.path(), "mx1", server.control, "").unwrap();
    hijack(edge.policy_address, THIEF).unwrap();
    check_health(&mut server.process, before + MAX_GROWTH_OCTETS).unwrap();
}

/// Publishes good and hostile events: how many were taken, and how many were not.
async fn publish(server: &Server) -> (usize, usize) {
    let mut client = EventServiceClient::connect(format!("http://{}", server.control)).await.unwrap();
    let nameless = event("hostile", 10, "\0", 1);
    let mut idless = event("hostile", 11, "jo@example.test", 1);
    idless.id = None;
    let mut kindless = event("hostile", 12, "jo@example.test", 1);
    kindless.kind = None;
    let absurd = [event("mx8", 13, "jo@example.test", i64::MIN), event("mx8", 14, "jo@example.test", i64::MAX)];
    let events = [nameless, idless, kindless].into_iter().chain(absurd).collect::<Vec<_>>();
    let count = events.len();
    let request = v1::PublishRequest { events };
    let answer = client.publish(request).await.unwrap().into_inner();
    let refused = answer.rejected.len();
    // Longer than any request may be.
    let huge = event("mx8", 15, &"x".repeat(MAX_REQUEST_OCTETS + 1), 1);
    let error = client.publish(v1::PublishRequest { events: vec![huge] }).await.unwrap_err();
    assert!(error.message().contains("too large"), "{error}");
    (count - refused, refused)
}

#[test]
fn on_kafka() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = KafkaRig::start(&dir.path().join("kafka")).unwrap();
    let log = Log::kafka(&kafka);
    let mut control = Server::start(dir.path(), "control", "control", &log, BURST_RULES).unwrap();
    let mut stream = Server::start(dir.path(), "stream", "stream", &log, BURST_RULES).unwrap();
    let edge = Edge::start(dir.path(), "mx1", control.control, "").unwrap();
    let before = [&control, &stream].map(|server| resident_octets(server.process.pid()).unwrap());

    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap()).set("message.max.bytes", (2 * HUGE_OCTETS).to_string());
    raise_limits(&config);
    let producer: BaseProducer = config.create().unwrap();
    for topic in Topic::ALL {
        let topic = format!("tidegate.{}", topic.suffix());
        for partition in 0..PARTITIONS.cast_signed() {
            for hostile in records() {
                let record = BaseRecord::to(&topic).partition(partition).key(&hostile.key).payload(&hostile.value);
                producer.send(record).map_err(|(error, _)| (error, hostile.what)).unwrap();
                // One at a time, or they would all be in this process's memory.
                producer.flush(TIMEOUT).unwrap();
            }
        }
    }
    wait_until_counted(&stream, &control, f64::from(PARTITIONS) * 8.0);
    hijack(edge.policy_address, THIEF).unwrap();
    for (server, before) in [&mut control, &mut stream].into_iter().zip(before) {
        check_health(&mut server.process, before + MAX_GROWTH_OCTETS).unwrap();
    }
    // Both can read it all again from the beginning.
    for server in [&mut control, &mut stream] {
        server.kill_and_rebuild().unwrap();
        check_health(&mut server.process, before[0].max(before[1]) + MAX_GROWTH_OCTETS).unwrap();
    }
}

/// Lets the topics take what a careless administrator might have let them take.
fn raise_limits(config: &ClientConfig) {
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let names: Vec<String> = Topic::ALL.iter().map(|topic| format!("tidegate.{}", topic.suffix())).collect();
    let most = (2 * HUGE_OCTETS).to_string();
    let changes: Vec<AlterConfig<'_>> = names
        .iter()
        .zip(Topic::ALL)
        .map(|(name, topic)| {
            let alter = AlterConfig::new(ResourceSpecifier::Topic(name)).set("max.message.bytes", &most);
            // Altering replaces all that was set.
            let compact = topic.kept() == tidegate_bus::Kept::Compact;
            alter.set("cleanup.policy", if compact { "compact" } else { "delete" })
        })
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let results = runtime.block_on(admin.alter_configs(&changes, &options)).unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}
