//! What a session's answers cost without its socket: a whole message, and one that is refused at MAIL.
//! `cargo bench -p tidegate-mta`.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/rig/mod.rs"]
mod rig;

use criterion::{Criterion, criterion_group, criterion_main};
use rig::{Rig, settings};
use std::hint::black_box;
use tidegate_mta::milter::client::{self, MacroStage};
use tidegate_mta::milter::{Flow, MilterSession};

/// A message of `recipients` and a body of so many octets, as Postfix sends it.
fn message(login: &str, recipients: usize, body: usize) -> Vec<u8> {
    let mut octets = Vec::new();
    client::encode_connect("client.example", "192.0.2.1:50000".parse().unwrap(), &mut octets);
    client::encode_helo("client.example", &mut octets);
    let macros = [("{auth_type}", "PLAIN"), ("{auth_authen}", login)];
    client::encode_macros(MacroStage::Mail, &macros, &mut octets);
    client::encode_mail(login, &mut octets);
    for number in 0..recipients {
        client::encode_recipient(&format!("somebody{number}@elsewhere{number}.example"), &mut octets);
    }
    client::encode_macros(MacroStage::Data, &[("i", "4DABC")], &mut octets);
    client::encode_data(&mut octets);
    client::encode_header("Subject", " Minutes of the meeting", &mut octets);
    client::encode_header("X-Mailer", " Thunderbird 140", &mut octets);
    client::encode_body(&b"A line of ordinary text, of ordinary length.\r\n".repeat(body / 46), &mut octets);
    client::encode_macros(MacroStage::EndOfMessage, &[("i", "4DABC")], &mut octets);
    client::encode_end_of_message(&mut octets);
    octets
}

fn sessions(criterion: &mut Criterion) {
    let rig = Rig::default();
    rig.lock("thief@rig.test");
    let mut negotiation = Vec::new();
    client::encode_option_negotiation(&mut negotiation);
    let mut group = criterion.benchmark_group("milter session");
    for (name, login, recipients, body) in [
        ("one recipient, 2 KiB", "jo@rig.test", 1, 2 << 10),
        ("one recipient, 64 KiB", "jo@rig.test", 1, 64 << 10),
        ("100 recipients, 2 KiB", "jo@rig.test", 100, 2 << 10),
        ("refused at MAIL", "thief@rig.test", 0, 0),
    ] {
        let input = message(login, recipients, body);
        let mut session = MilterSession::new(settings());
        let (mut replies, mut events) = (Vec::new(), Vec::new());
        assert_eq!(session.input(&negotiation, &rig, &mut replies, &mut events).unwrap(), Flow::Open);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                replies.clear();
                events.clear();
                black_box(session.input(black_box(&input), &rig, &mut replies, &mut events).unwrap())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, sessions);
criterion_main!(benches);
