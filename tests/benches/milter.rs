//! What the edge's milter adds to a message in a real Postfix, over a unix socket and over TCP: `cargo bench -p
//! tidegate-tests --bench milter`. Over TCP, Nagle's algorithm in Postfix against delayed acknowledgements costs a
//! milter that does nothing about it more than 40 ms a message.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::time::Instant;
use tidegate_tests::installation::{Edge, Log, Server};
use tidegate_tests::mail::{PASSWORD, person, users};
use xtask::postfix::{PostfixOptions, PostfixRig};
use xtask::sink::Sink;
use xtask::smtp::SmtpClient;

const MESSAGES: usize = 200;

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "server", "serve", &Log::Embedded, "mode = \"observe\"\n").unwrap();
    let edge = Edge::start(dir.path(), "mx1", server.control, "").unwrap();
    let sink = Sink::start().unwrap();
    let tcp = format!("inet:{}", edge.milter_address);
    println!("{MESSAGES} messages in one session, milliseconds a message");
    println!("{:<14} {:>8} {:>8} {:>8}", "milter", "median", "p99", "mean");
    for (name, milter) in [("none", None), ("unix socket", Some(edge.milter())), ("TCP", Some(tcp))] {
        let options = PostfixOptions {
            milters: milter.into_iter().collect(),
            users: users(1),
            ..PostfixOptions::relaying_to(sink.address())
        };
        let postfix = PostfixRig::start(&dir.path().join(name.replace(' ', "-")), &options).unwrap();
        let mut times_ms = send(&postfix);
        times_ms.sort_by(f64::total_cmp);
        let mean = times_ms.iter().sum::<f64>() / MESSAGES as f64;
        println!("{name:<14} {:>8.2} {:>8.2} {mean:>8.2}", times_ms[MESSAGES / 2], times_ms[MESSAGES * 99 / 100]);
    }
}

fn send(postfix: &PostfixRig) -> Vec<f64> {
    let account = person(0);
    let mut client = SmtpClient::login(postfix.address(), &account, PASSWORD).unwrap();
    let mut message = |number: usize| {
        let began = Instant::now();
        let text = format!("Subject: letter {number}\n\n{}\n", "All is well here. ".repeat(100));
        assert!(client.send(&account, &["friend@elsewhere.test"], &text).unwrap().is_accepted());
        began.elapsed().as_secs_f64() * 1_000.0
    };
    for number in 0..10 {
        message(number);
    }
    (0..MESSAGES).map(message).collect()
}
