//! What nobody should send: records for every topic, octets for every socket, and how a process bears it.

use crate::process::Process;
use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tidegate_proto::v1;
use xtask::wait::wait_until;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Much more than any message of ours.
pub const HUGE_OCTETS: usize = 10 << 20;

/// A record that a topic should not have.
#[derive(Debug, Clone)]
pub struct HostileRecord {
    /// What is wrong with it.
    pub what: &'static str,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// Octets without a pattern that anybody could wait for; the same for the same seed.
pub fn noise(seed: u64, octets: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(octets).collect()
}

/// An event as an edge sends it.
pub fn event(node: &str, sequence: u64, account: &str, time_ms: i64) -> v1::Event {
    let submission = v1::Submission {
        sender: account.to_owned(),
        recipient_count: 1,
        recipient_domains: vec!["elsewhere.test".to_owned()],
        size_bytes: 1_000,
        ..v1::Submission::default()
    };
    v1::Event {
        id: Some(v1::EventId { node: node.to_owned(), lane: v1::Lane::Live.into(), sequence }),
        site: "nowhere".to_owned(),
        account: account.to_owned(),
        time_ms,
        trace_parent: String::new(),
        kind: Some(v1::event::Kind::Submission(submission)),
    }
}

/// Records that no topic can use, and some that look as if it could.
pub fn records() -> Vec<HostileRecord> {
    let record = |what, key: &[u8], value: Vec<u8>| HostileRecord { what, key: key.to_vec(), value };
    let account = "hostile@example.test";
    let good = |sequence, time_ms| event("hostile", sequence, account, time_ms).encode_to_vec();
    // The tag of a field that does not exist, and its octets.
    let unknown = |mut value: Vec<u8>| {
        value.extend_from_slice(&[0xfa, 0xf0, 0x04, 0x05]);
        value.extend_from_slice(b"later");
        value
    };
    let named = |name: &[u8]| {
        // `account` is the third field of an event and the first of a state.
        [&[0x1a, name.len() as u8], name, &[0x0a, name.len() as u8], name].concat()
    };
    let lock = v1::Lock { id: "L-1".to_owned(), ..v1::Lock::default() };
    let state = |lock| v1::AccountState {
        account: account.to_owned(),
        status: v1::AccountStatus::Locked.into(),
        lock,
        version: u64::MAX,
        changed_ms: i64::MIN,
        as_of_event_offset: Some(u64::MAX),
        ..v1::AccountState::default()
    };
    let mut crowded = event("hostile", 3, account, 0);
    if let Some(v1::event::Kind::Submission(submission)) = &mut crowded.kind {
        submission.recipient_hashes = vec![u64::MAX; HUGE_OCTETS / 10];
        submission.recipient_count = u32::MAX;
        submission.size_bytes = u64::MAX;
    }
    vec![
        record("random octets", b"hostile@example.test", noise(1, 300)),
        record("text", b"hostile@example.test", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        record("one octet", b"k", vec![0xff]),
        record("an endless number", b"k", vec![0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        record("a length past the end", b"k", vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1]),
        record("groups inside each other", b"k", vec![0x0b; 5_000]),
        record("unknown fields", account.as_bytes(), unknown(good(1, 0))),
        record("the beginning of time", account.as_bytes(), good(2, i64::MIN)),
        record("the end of time", account.as_bytes(), good(4, i64::MAX)),
        record("the last number", account.as_bytes(), good(u64::MAX, 1)),
        record("a number again", account.as_bytes(), good(2, 1)),
        record("an empty account", b"k", event("hostile", 5, "", 1).encode_to_vec()),
        record("white space for an account", b"k", event("hostile", 6, " \t ", 1).encode_to_vec()),
        record("NUL in an account", b"k\0k", named(b"jo\0@example.test")),
        record("no UTF-8 in an account", b"\xff\xfe", named(b"\xff\xfe@example.test")),
        record("a long account", &[b'k'; 2_000], event("hostile", 7, &"x".repeat(100_000), 1).encode_to_vec()),
        record("a locked state without a lock", account.as_bytes(), state(None).encode_to_vec()),
        record("a lock without a cause", account.as_bytes(), state(Some(lock)).encode_to_vec()),
        record("more recipients than there are people", account.as_bytes(), crowded.encode_to_vec()),
        record("10 MB of noise", b"k", noise(2, HUGE_OCTETS)),
        record("10 MB of one octet", b"k", vec![0x08; HUGE_OCTETS]),
    ]
}

/// Resident memory of a process now, in octets.
///
/// # Errors
/// When it does not run.
pub fn resident_octets(pid: u32) -> Result<u64> {
    let file = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// Nothing has panicked, it still runs, and it takes no more than `most_octets` of memory.
///
/// # Errors
/// What is not so.
pub fn check_health(process: &mut Process, most_octets: u64) -> Result<()> {
    let log = fs::read_to_string(process.log())?;
    ensure!(process.is_running(), "it ended:\n{log}");
    let panic = log.lines().find(|line| line.contains("panicked"));
    ensure!(panic.is_none(), "{panic:?}");
    let octets = resident_octets(process.pid())?;
    ensure!(octets <= most_octets, "{octets} octets are resident; at most {most_octets} are borne");
    ensure!(process.get("/healthz")?.status == 200, "it is not well");
    Ok(())
}

/// A mail server's side of policy delegation.
#[derive(Debug)]
pub struct PolicyClient {
    stream: TcpStream,
}

impl PolicyClient {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { stream })
    }

    /// Asks at one state of a message to `recipient`: the action.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&mut self, state: &str, account: &str, instance: &str, recipient: &str) -> Result<String> {
        let request = format!(
            "request=smtpd_access_policy\nprotocol_state={state}\nclient_address=192.0.2.1\nclient_port=4000\n\
             sender={account}\nsasl_method=PLAIN\nsasl_username={account}\ninstance={instance}\nsize=1000\n\
             recipient={recipient}\nrecipient_count=1\n\n"
        );
        self.stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut octet = [0];
        while !answer.ends_with(b"\n\n") {
            ensure!(self.stream.read(&mut octet)? == 1, "it was closed after {:?}", String::from_utf8_lossy(&answer));
            answer.push(octet[0]);
        }
        let answer = String::from_utf8(answer)?;
        Ok(answer.trim_end().strip_prefix("action=").context("no action")?.to_owned())
    }

    /// Sends a whole message: the action at its end.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn message(&mut self, account: &str, instance: &str, recipient: &str) -> Result<String> {
        let action = self.ask("RCPT", account, instance, recipient)?;
        if action != "DUNNO" {
            return Ok(action);
        }
        self.ask("END-OF-MESSAGE", account, instance, recipient)
    }
}

/// Sends as `account` like a thief until it is refused by [`crate::mail::BURST_RULES`]; nobody else is.
///
/// # Errors
/// When it is never refused, or an honest account is.
pub fn hijack(edge: SocketAddr, account: &str) -> Result<()> {
    let mut client = PolicyClient::connect(edge)?;
    for number in 0..60 {
        let recipient = format!("victim{number}@domain{number}.example");
        client.message(account, &format!("{account}.{number}"), &recipient)?;
    }
    let mut number = 1_000;
    wait_until(&format!("{account} to be refused"), Duration::from_mins(1), || {
        number += 1;
        let action = client.message(account, &format!("{account}.{number}"), "victim@elsewhere.example");
        action.is_ok_and(|action| action.starts_with("550 5.7.1 "))
    })?;
    let honest = client.message("honest@example.test", "honest.1", "friend@elsewhere.example")?;
    ensure!(honest == "DUNNO", "{honest}");
    Ok(())
}
