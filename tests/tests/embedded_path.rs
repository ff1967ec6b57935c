//! One process on the embedded log, two edges: a real installation for one site.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::time::Duration;
use tidegate_tests::installation::{Edge, Log, Server, TIMEOUT};
use tidegate_tests::mail::{BURST_RULES, PASSWORD, People, THIEF, send_spam, users};
use xtask::postfix::{PostfixOptions, PostfixRig};
use xtask::sink::Sink;
use xtask::smtp::{SmtpClient, Stage};
use xtask::wait::wait_until;

#[test]
fn locks_survive_a_kill_of_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "server", "serve", &Log::Embedded, BURST_RULES).unwrap();
    let mut edges = ["mx1", "mx2"].map(|name| Edge::start(dir.path(), name, server.control, "").unwrap());
    let sink = Sink::start().unwrap();
    let postfixes = [0, 1].map(|index: usize| {
        let options = PostfixOptions {
            milters: vec![edges[index].milter()],
            users: users(4),
            ..PostfixOptions::relaying_to(sink.address())
        };
        PostfixRig::start(&dir.path().join(format!("postfix{index}")), &options).unwrap()
    });
    let addresses = postfixes.each_ref().map(PostfixRig::address);
    let people = People::start(&addresses, 0..4, Duration::from_millis(150));

    // The thief uses both sites, so neither alone sees enough.
    let mut sessions = addresses.map(|address| SmtpClient::login(address, THIEF, PASSWORD).unwrap());
    let mut refused = [false; 2];
    for number in 0..400 {
        let site = number % 2;
        let outcome = send_spam(&mut sessions[site], number).unwrap();
        refused[site] |= !outcome.is_accepted();
        if refused == [true; 2] {
            break;
        }
    }
    assert_eq!(refused, [true; 2], "both sites refuse");
    let (sent, lost) = people.finish();
    assert!(lost.is_empty(), "{lost:?}");
    wait_until("the others' mail at the sink", TIMEOUT, || sink.count_to("friend@elsewhere.test") == sent).unwrap();

    server.process.kill();
    for edge in &mut edges {
        edge.process.kill();
    }
    // The edges alone enforce what they knew.
    for (edge, address) in edges.iter_mut().zip(addresses) {
        edge.process.start_again().unwrap();
        edge.wait_until_it_listens().unwrap();
        let mut client = SmtpClient::login(address, THIEF, PASSWORD).unwrap();
        let outcome = send_spam(&mut client, 500).unwrap();
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
    for address in addresses {
        wait_until("mail to flow again", TIMEOUT, || {
            let mut client = SmtpClient::login(address, THIEF, PASSWORD).unwrap();
            send_spam(&mut client, 600).unwrap().is_accepted()
        })
        .unwrap();
    }
}
