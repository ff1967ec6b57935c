//! The main job on real parts: Postfixes with their edges, Kafka, a stream worker and a control service of their own.
#![allow(clippy::unwrap_used, missing_docs)]

use std::cell::RefCell;
use tidegate_tests::hijack::{self, Sites};
use tidegate_tests::installation::{Log, Server};
use tidegate_tests::mail::BURST_RULES;
use xtask::kafka::KafkaRig;

#[test]
fn a_hijacked_account_is_locked_everywhere_and_unlocked_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = KafkaRig::start(&dir.path().join("kafka")).unwrap();
    let brokers = kafka.bootstrap();
    let log = Log::kafka(&kafka);
    let control = Server::start(dir.path(), "control", "control", &log, BURST_RULES).unwrap();
    let stream = RefCell::new(Server::start(dir.path(), "stream", "stream", &log, BURST_RULES).unwrap());
    // The first edge publishes straight to Kafka, the others through control.
    let straight =
        format!("publish = {{ kind = \"kafka\", kafka = {{ bootstrap_servers = \"{brokers}\", partitions = 4 }} }}");
    let sites = Sites::start(dir.path(), control.control, &straight, hijack::PEOPLE).unwrap();
    let mut kill_worker = || stream.borrow_mut().kill_and_rebuild();
    let counted = |result: &str| stream.borrow().counted(result);
    hijack::play(&sites, control.control, &mut kill_worker, &counted).unwrap();
}
