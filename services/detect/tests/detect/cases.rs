//! Scripted traffic against the shipped rules, in enforce mode. The cases are the files of `tests/data/cases`.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use tidegate_detect::{
    DEFAULT_RULES, DEFAULT_STATISTICS, Engine, EngineLimits, EventBatchBuilder, Mode, Rules, Statistics,
};
use tidegate_domain::{Account, Action, Disposition, Recipients, Submission};

/// One case: what some accounts send, and what rules are to find in it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// Who does this, for people.
    about: String,
    send: Vec<Send>,
    expect: Vec<Expect>,
}

/// A run of messages of one account. Of each "pool" value, 0 means never the same again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Send {
    account: String,
    count: u64,
    start_s: i64,
    every_ms: i64,
    /// Least and largest size in octets.
    size: (u64, u64),
    /// Recipients of each message.
    recipients: u32,
    recipient_pool: u64,
    domain_pool: u64,
    address_pool: u64,
    content_pool: u64,
    /// Every so many messages, one is called spam; 0 for none.
    spam_every: u64,
    disposition: String,
    list: bool,
    automatic: bool,
    sender: Option<String>,
}

impl Default for Send {
    fn default() -> Self {
        Self {
            account: String::new(),
            count: 1,
            start_s: 0,
            every_ms: 1_000,
            size: (1_000, 60_000),
            recipients: 1,
            recipient_pool: 20,
            domain_pool: 6,
            address_pool: 1,
            content_pool: 0,
            spam_every: 0,
            disposition: "accepted".to_owned(),
            list: false,
            automatic: false,
            sender: None,
        }
    }
}

/// What is to be found for an account.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    account: String,
    /// All rules that hold at any time, each as `rule: action`.
    rules: BTreeSet<String>,
    /// The account is locked after at most this many of its messages.
    #[serde(default)]
    locked_within: Option<usize>,
}

/// One message: when, and by whom.
struct Message {
    at_ms: i64,
    account: Account,
    submission: Submission,
}

const START_MS: i64 = 1_750_000_000_000;

/// Of a value's pool, which one the n-th message has: like drawn by chance, but the same in every run.
fn pick(n: u64, pool: u64, salt: u64) -> u64 {
    if pool == 0 {
        return 1_000_000 + n;
    }
    let mixed = (n ^ salt << 32).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    1 + (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) % (1 << 40) % pool
}

fn messages(send: &Send) -> Vec<Message> {
    let account = Account::parse(&send.account).unwrap();
    let message = |n: u64| {
        let recipient = |index: u64| n * u64::from(send.recipients) + index;
        let recipients = Recipients {
            count: send.recipients,
            internal: 0,
            domains: (0..u64::from(send.recipients))
                .map(|index| format!("d{}.example", pick(recipient(index), send.domain_pool, 1)))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            hashes: (0..u64::from(send.recipients))
                .map(|index| pick(recipient(index), send.recipient_pool, 2))
                .collect(),
        };
        let address = pick(n, send.address_pool, 3) as u32;
        let (least, largest) = send.size;
        Message {
            at_ms: START_MS + send.start_s * 1_000 + n.cast_signed() * send.every_ms,
            account: account.clone(),
            submission: Submission {
                client_address: Some(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + address))),
                sender: send.sender.clone().unwrap_or_else(|| send.account.clone()),
                recipients,
                size: least + pick(n, largest - least + 1, 4) - 1,
                list: send.list,
                automatic: send.automatic,
                fingerprint: pick(n, send.content_pool, 5),
                spam: send.spam_every != 0 && n.is_multiple_of(send.spam_every),
                disposition: match send.disposition.as_str() {
                    "accepted" => Disposition::Accepted,
                    "refused_by_filter" => Disposition::RefusedByFilter,
                    "late_verdict" => Disposition::LateVerdict,
                    other => panic!("unknown disposition {other}"),
                },
                ..Submission::default()
            },
        }
    };
    (0..send.count).map(message).collect()
}

fn action_name(action: Action) -> &'static str {
    match action {
        Action::Observe => "observe",
        Action::Notify => "notify",
        Action::Throttle { .. } => "throttle",
        Action::Lock { .. } => "lock",
    }
}

/// What one account was found to do.
#[derive(Debug, Default, PartialEq)]
struct Found {
    rules: BTreeSet<String>,
    /// How many messages it had sent when it was locked.
    locked_after: Option<usize>,
}

/// Sends a case's messages in batches of what comes within `batch_ms`.
fn run(case: &Case, batch_ms: i64) -> BTreeMap<String, Found> {
    let statistics = Statistics::parse("statistics.sql", DEFAULT_STATISTICS).unwrap();
    let rules = Rules::parse("rules.toml", DEFAULT_RULES, &statistics).unwrap().in_mode(Mode::Enforce);
    let mut engine = Engine::new(statistics, rules, EngineLimits::default()).unwrap();
    let mut all: Vec<Message> = case.send.iter().flat_map(messages).collect();
    all.sort_by_key(|message| message.at_ms);
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    let mut offset = 0;
    for batch in all.chunk_by(|a, b| a.at_ms.div_euclid(batch_ms) == b.at_ms.div_euclid(batch_ms)) {
        let mut builder = EventBatchBuilder::new();
        for message in batch {
            builder.push(&message.account, offset, message.at_ms, &message.submission, true);
            *sent.entry(message.account.to_string()).or_default() += 1;
            offset += 1;
        }
        for matches in engine.process(&builder.finish().unwrap()).unwrap() {
            let name = matches.account.to_string();
            let found = found.entry(name.clone()).or_default();
            for rule in matches.matches {
                if matches!(rule.action, Action::Lock { .. }) {
                    found.locked_after.get_or_insert(sent[&name]);
                }
                found.rules.insert(format!("{}: {}", rule.rule.name, action_name(rule.action)));
            }
        }
    }
    found
}

#[test]
fn scripted_traffic_is_judged_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cases");
    let mut failures = Vec::new();
    let mut cases = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let case: Case = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        cases += 1;
        for batch_ms in [1, 200] {
            let found = run(&case, batch_ms);
            for expect in &case.expect {
                let none = Found::default();
                let found = found.get(&expect.account).unwrap_or(&none);
                let in_time = match expect.locked_within {
                    Some(most) => found.locked_after.is_some_and(|after| after <= most),
                    None => found.locked_after.is_none(),
                };
                if found.rules != expect.rules || !in_time {
                    let name = path.file_name().unwrap().display();
                    failures.push(format!("{name} ({}), {}: {found:?}", case.about, expect.account));
                }
            }
        }
    }
    assert!(cases > 10 && failures.is_empty(), "{cases} cases\n{}", failures.join("\n"));
}
