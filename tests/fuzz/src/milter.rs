//! Milter sessions: octets of a mail server, as they are and as packets.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use tidegate_domain::{Account, Submission};
use tidegate_mta::milter::client::{decode_reply, encode_body, encode_option_negotiation};
use tidegate_mta::milter::{Flow, MilterError, MilterSession};
use tidegate_mta::{Gate, SessionConfig, SessionEvent, SessionSettings, Verdict};

use crate::input::{Input, outcome, pieces, seed};
use crate::{Outcome, Target};

const CAPTURES: [&str; 3] = [
    include_str!("../../../services/mta/tests/data/postfix_milter.jsonl"),
    include_str!("../../../services/mta/tests/data/postfix_behind_rspamd.jsonl"),
    include_str!("../../../services/mta/tests/data/sendmail_milter.jsonl"),
];
/// Most octets that a session holds back: the beginning of one packet, and its head.
const MAX_BUFFERED_OCTETS: usize = 66 * 1024 + 5;
const COMMANDS: &[u8] = b"ODCHMRTLNBEAQKU";
const WORDS: &[&str] = &[
    "{auth_authen}",
    "{auth_type}",
    "{tls_version}",
    "i",
    "Subject",
    "Content-Type",
    "X-Spam",
    "jo@example.org",
    "\0",
];

/// Octets of a connection.
pub const STREAM: Target = Target {
    name: "milter-stream",
    run: stream,
    seeds: stream_seeds,
    words: WORDS,
    max_octets: 8 * 1024,
    test_inputs: 20_000,
};

/// The same, put into packets: the input says commands and data, so that nothing is lost to a wrong length.
pub const PACKETS: Target = Target {
    name: "milter-packets",
    run: packets,
    seeds: packet_seeds,
    words: WORDS,
    max_octets: 4 * 1024,
    test_inputs: 20_000,
};

/// A gate that decides by its choices.
pub struct Choices {
    choices: u8,
}

impl Choices {
    /// From an octet of the input.
    pub fn new(choices: u8) -> Self {
        Self { choices }
    }
}

impl Gate for Choices {
    fn verdict(&self, account: &Account) -> Verdict {
        match (self.choices & 3, account.as_str().len() % 2) {
            (0 | 1, _) | (2, 0) => Verdict::Pass,
            (2, _) => Verdict::Throttle { text: "slow down 100%".to_owned() },
            _ => Verdict::Refuse { text: "locked (L-7K2M9QXB)\r\n250 ok".to_owned() },
        }
    }
    fn is_admin_address(&self, address: &str) -> bool {
        self.has_admin_addresses() && address == "postmaster@rig.test"
    }
    fn has_admin_addresses(&self) -> bool {
        self.choices & 4 != 0
    }
    fn is_internal_domain(&self, domain: &str) -> bool {
        domain == "rig.test"
    }
}

/// Settings that make as much as possible matter.
pub fn settings() -> Arc<SessionSettings> {
    static SETTINGS: LazyLock<Arc<SessionSettings>> = LazyLock::new(|| {
        let config = SessionConfig {
            default_realm: "rig.test".to_owned(),
            address_accounts: vec!["10.0.0.0/8".to_owned(), "2001:db8::/32".to_owned()],
            trusted_relays: vec!["127.0.0.0/8".to_owned()],
            publish_subjects: true,
            ..SessionConfig::default()
        };
        Arc::new(SessionSettings::new(&config, b"a key for fuzzing"))
    });
    Arc::clone(&SETTINGS)
}

/// What was seen of a message is bounded.
pub fn check_submission(submission: &Submission) {
    let texts = [&submission.helo, &submission.sender, &submission.queue_id, &submission.login_method, &submission.tls];
    for text in texts {
        assert!(text.len() <= 1024, "a text of {} octets", text.len());
    }
    assert!(submission.subject.len() <= 480, "a subject of {} octets", submission.subject.len());
    let recipients = &submission.recipients;
    assert!(recipients.domains.len() <= 100 && recipients.hashes.len() <= 1000);
    assert!(recipients.internal <= recipients.count);
    assert!(submission.spam_score.is_none_or(f64::is_finite));
}

/// A command and its data.
type Packet = (u8, Vec<u8>);

type Seen = (Vec<u8>, Vec<SessionEvent>, Result<Flow, MilterError>);

fn session<'a>(parts: impl Iterator<Item = &'a [u8]>, gate: &Choices) -> Seen {
    let mut session = MilterSession::new(settings());
    let (mut out, mut events, mut flow) = (Vec::new(), Vec::new(), Ok(Flow::Open));
    for part in parts {
        flow = session.input(part, gate, &mut out, &mut events);
        assert!(session.buffered_octets() <= MAX_BUFFERED_OCTETS, "{} octets held", session.buffered_octets());
    }
    session.closed(&mut events);
    (out, events, flow)
}

fn check(octets: &[u8], gate: &Choices, cut: u8) -> Outcome {
    let whole = session(std::iter::once(octets), gate);
    let cut = session(pieces(octets, cut), gate);
    assert_eq!(whole.0, cut.0, "other replies when it is cut");
    assert_eq!(whole.1, cut.1, "other events when it is cut");
    assert!(octets.is_empty() || whole.2 == cut.2, "{:?} {:?}", whole.2, cut.2);
    let (mut replies, mut kinds) = (whole.0.as_slice(), Vec::new());
    while !replies.is_empty() {
        let Some((reply, taken)) = decode_reply(replies) else { panic!("half a reply") };
        kinds.push(replies[4]);
        drop(reply);
        replies = &replies[taken..];
    }
    kinds.dedup();
    for event in &whole.1 {
        if let SessionEvent::Message(message) | SessionEvent::Aborted(message) = event {
            check_submission(&message.submission);
        }
    }
    let events: Vec<_> = whole.1.iter().map(std::mem::discriminant).collect();
    outcome((kinds, events, whole.2.map_err(|error| std::mem::discriminant(&error)).is_ok()))
}

fn stream(octets: &[u8]) -> Outcome {
    let mut input = Input::new(octets);
    let (gate, cut) = (Choices::new(input.byte()), input.byte());
    check(input.rest(), &gate, cut)
}

fn packets(octets: &[u8]) -> Outcome {
    let mut input = Input::new(octets);
    let (gate, cut) = (Choices::new(input.byte()), input.byte());
    let mut stream = Vec::new();
    encode_option_negotiation(&mut stream);
    while !input.is_empty() {
        let choice = input.byte();
        let command = COMMANDS[usize::from(choice) % COMMANDS.len()];
        let length = usize::from(input.byte());
        let mut data = input.take(length).to_vec();
        // A long packet is made, so that an input need not carry it; one, or each input would take long.
        if choice == 0xff && stream.len() < 4_096 {
            data.resize(length * 300, b'x');
        }
        stream.extend_from_slice(&(data.len() as u32 + 1).to_be_bytes());
        stream.push(command);
        stream.extend_from_slice(&data);
    }
    check(&stream, &gate, cut)
}

/// The packets of each captured connection: command and data.
fn captured() -> Vec<Vec<Packet>> {
    let mut connections: Vec<((usize, u64), Vec<Packet>)> = Vec::new();
    for (file, capture) in CAPTURES.iter().enumerate() {
        for line in capture.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let connection = (file, line["conn"].as_u64().unwrap());
            if connections.last().is_none_or(|(last, _)| *last != connection) {
                connections.push((connection, Vec::new()));
            }
            connections.last_mut().unwrap().1.push(packet(&line));
        }
    }
    connections.into_iter().map(|(_, packets)| packets).collect()
}

fn packet(line: &Value) -> Packet {
    let command = line["cmd"].as_str().unwrap();
    let number = |key: &str| line[key].as_u64().unwrap();
    let mut data = Vec::new();
    let string = |text: &str, data: &mut Vec<u8>| {
        data.extend_from_slice(text.as_bytes());
        data.push(0);
    };
    match command {
        "O" => {
            for key in ["version", "actions", "protocol"] {
                data.extend_from_slice(&(number(key) as u32).to_be_bytes());
            }
        }
        "D" => {
            data.extend_from_slice(line["for_"].as_str().unwrap().as_bytes());
            for (name, value) in line["macros"].as_object().unwrap() {
                string(name, &mut data);
                string(value.as_str().unwrap(), &mut data);
            }
        }
        "C" => {
            string(line["host"].as_str().unwrap(), &mut data);
            data.extend_from_slice(line["family"].as_str().unwrap().as_bytes());
            data.extend_from_slice(&(number("port") as u16).to_be_bytes());
            string(line["address"].as_str().unwrap(), &mut data);
        }
        "B" => data.resize(number("bytes").min(300) as usize, b'x'),
        "L" | "H" | "M" | "R" => {
            for part in line["data"].as_array().unwrap() {
                string(part.as_str().unwrap(), &mut data);
            }
        }
        _ => {}
    }
    (command.as_bytes()[0], data)
}

fn stream_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = captured()
        .into_iter()
        .enumerate()
        .map(|(number, packets)| {
            let mut octets = vec![number as u8, number as u8];
            for (command, data) in packets {
                octets.extend_from_slice(&(data.len() as u32 + 1).to_be_bytes());
                octets.push(command);
                octets.extend_from_slice(&data);
            }
            octets
        })
        .collect();
    let mut body = Vec::new();
    encode_option_negotiation(&mut body);
    encode_body(b"hi\r\n", &mut body);
    seeds.push(seed(&[3, 3], &body));
    seeds.push(seed(&[0, 0], &[0xff, 0xff, 0xff, 0xff, b'B', b'x']));
    seeds
}

fn packet_seeds() -> Vec<Vec<u8>> {
    let position = |command: u8| COMMANDS.iter().position(|known| *known == command).unwrap_or_default() as u8;
    let encode = |(command, data): Packet| {
        let data = &data[..data.len().min(255)];
        [&[position(command), data.len() as u8], data].concat()
    };
    let connections = captured().into_iter().enumerate();
    connections
        .map(|(number, packets)| {
            seed(&[number as u8, number as u8], &packets.into_iter().flat_map(encode).collect::<Vec<_>>())
        })
        .collect()
}
