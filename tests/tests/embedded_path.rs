//! One process on the embedded log, three edges: a real installation for one site.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::cell::RefCell;
use tidegate_tests::hijack::{self, Sites};
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use tidegate_tests::mail::{BURST_RULES, THIEF, send_spam};
use xtask::smtp::Stage;

#[test]
fn the_same_in_one_process_and_locks_survive_a_kill_of_everything() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "server", "serve", &Log::Embedded, BURST_RULES).unwrap();
    let control = server.control;
    let mut sites = Sites::start(dir.path(), control, "", hijack::PEOPLE).unwrap();
    let server = RefCell::new(server);
    let mut kill_worker = || server.borrow_mut().kill_and_rebuild();
    let counted = |result: &str| server.borrow().counted(result);
    hijack::play(&sites, control, &mut kill_worker, &counted).unwrap();

    // New spam locks it again; then everything is killed.
    hijack::burst(&sites, 20_000).unwrap();
    sites.wait_for_refusal(1, 30_000).unwrap();
    let mut server = server.into_inner();
    server.process.kill();
    for edge in &mut sites.edges {
        edge.process.kill();
    }
    // The edges alone enforce what they knew.
    for edge in &mut sites.edges {
        edge.process.start_again().unwrap();
        edge.wait_until_it_listens().unwrap();
    }
    for site in [0, 1] {
        let outcome = send_spam(&mut sites.thief_at(site).unwrap(), 31_000).unwrap();
        assert_eq!((outcome.stage, outcome.reply.code), (Stage::Mail, 550), "{outcome:?}");
    }
    server.process.start_again().unwrap();
    server.process.wait_until_ready(TIMEOUT).unwrap();
    let listed = server.admin(&["accounts", "list", "--status", "locked", "--json"]).unwrap().succeeded().unwrap();
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["account"]), (1, &Value::from(THIEF)), "{listed}");
    // And they find control again, and obey the unlock.
    let unlock = ["accounts", "unlock", THIEF, "--reason", "called back", "--evidence", "new password by phone"];
    server.admin(&unlock).unwrap().succeeded().unwrap();
    sites.wait_until_it_flows(40_000).unwrap();
}
