//! Windows against recomputation from all events: equal, but for what stands within one pane of a window's beginning.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;
use tidegate_detect::{Engine, EngineLimits, EventBatchBuilder, Rules, Statistics, Taken, WINDOWS, Window};
use tidegate_domain::{Account, Disposition, Recipients, Submission};

const STATISTICS: &str = "
    messages = count(*) FILTER (WHERE message);
    spam = count(*) FILTER (WHERE spam);
    octets = sum(size);
    largest = max(size);
    mean = avg(size);
    cv = stddev(size) / avg(size);
    addresses = distinct(client_ip);
    people = distinct(recipient_hashes);
    same = top_share(fingerprint);
";

const ALWAYS: &str = r#"
[[rule]]
name = "always"
when = "messages_24h >= 0 AND people_24h >= 0"
action = "observe"
reason = "-"
reply = "-"
source = "this test"
"#;

static PARSED: LazyLock<Statistics> = LazyLock::new(|| Statistics::parse("statistics.sql", STATISTICS).unwrap());

/// One event, small enough to be compared by eye.
#[derive(Debug, Clone)]
pub struct Sample {
    pub account: u8,
    pub at_ms: i64,
    pub size: u64,
    pub address: u8,
    pub people: Vec<u64>,
    pub content: u64,
    pub spam: bool,
    pub verdict_only: bool,
}

#[derive(Debug, Clone)]
enum Step {
    /// Events as they came, in any order and however late.
    Batch(Vec<Sample>),
    /// What came so far comes again, from this share of it on: two edges saw the same, and it counts twice.
    Again(f64),
    Forget(u8),
    Expire,
    /// What changed is written down.
    Write,
    /// What changed is written down, and another engine made of all that was.
    Restart,
}

pub const MINUTE_MS: i64 = 60_000;

/// Times within two days: mostly close together, so that windows hold several and their edges are met.
fn at_ms() -> impl Strategy<Value = i64> {
    let base = 1_700_000_000_000_i64;
    prop_oneof![
        4 => (0..20 * MINUTE_MS).prop_map(move |ms| base + 30 * 60 * MINUTE_MS + ms),
        3 => (0..120 * MINUTE_MS).prop_map(move |ms| base + 29 * 60 * MINUTE_MS + ms),
        2 => (0..32 * 60 * MINUTE_MS).prop_map(move |ms| base + ms),
        1 => (0..200_i64).prop_map(move |step| base + 30 * 60 * MINUTE_MS + step * 3_000 - 1),
    ]
}

fn sample() -> impl Strategy<Value = Sample> {
    let people = proptest::collection::vec(1_u64..9, 0..4);
    (0_u8..3, at_ms(), 1_u64..5_000, 0_u8..5, people, 0_u64..4, any::<bool>(), prop::bool::weighted(0.1)).prop_map(
        |(account, at_ms, size, address, people, content, spam, verdict_only)| Sample {
            account,
            at_ms,
            size,
            address,
            people,
            content,
            spam,
            verdict_only,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        7 => proptest::collection::vec(sample(), 1..12).prop_map(Step::Batch),
        1 => proptest::collection::vec(sample(), 12..40).prop_map(Step::Batch),
        1 => (0.0..1.0_f64).prop_map(Step::Again),
        1 => (0_u8..3).prop_map(Step::Forget),
        1 => Just(Step::Expire),
        1 => Just(Step::Write),
        1 => Just(Step::Restart),
    ]
}

pub fn account(number: u8) -> Account {
    Account::parse(&format!("a{number}@example.org")).unwrap()
}

pub fn submission(sample: &Sample) -> Submission {
    let count = sample.people.len() as u32;
    Submission {
        client_address: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, sample.address))),
        recipients: Recipients { count, internal: 0, domains: Vec::new(), hashes: sample.people.clone() },
        size: sample.size,
        fingerprint: sample.content,
        spam: sample.spam,
        disposition: if sample.verdict_only { Disposition::LateVerdict } else { Disposition::Accepted },
        ..Submission::default()
    }
}

/// The statistics of some events, computed plainly, in the order of the file.
fn recompute(samples: &[&Sample]) -> Vec<Option<f64>> {
    let messages: Vec<&&Sample> = samples.iter().filter(|sample| !sample.verdict_only).collect();
    let n = messages.len() as f64;
    let some = |value: f64| (n > 0.0).then_some(value);
    let total = messages.iter().map(|sample| sample.size as f64).sum::<f64>();
    let mean = total / n;
    let squares = messages.iter().map(|sample| (sample.size as f64 - mean).powi(2)).sum::<f64>();
    let mut contents: BTreeMap<u64, u64> = BTreeMap::new();
    for sample in messages.iter().filter(|sample| sample.content != 0) {
        *contents.entry(sample.content).or_default() += 1;
    }
    let seen: u64 = contents.values().sum();
    vec![
        Some(n),
        Some(samples.iter().filter(|sample| sample.spam).count() as f64),
        some(total),
        messages.iter().map(|sample| sample.size as f64).reduce(f64::max),
        some(mean),
        (n > 1.0).then(|| (squares / (n - 1.0)).sqrt() / mean),
        Some(messages.iter().map(|sample| sample.address).collect::<BTreeSet<_>>().len() as f64),
        Some(messages.iter().flat_map(|sample| &sample.people).collect::<BTreeSet<_>>().len() as f64),
        contents.values().max().map(|top| *top as f64 / seen as f64),
    ]
}

fn is_same(found: &[Option<f64>], expected: &[Option<f64>]) -> bool {
    found.iter().zip(expected).all(|(found, expected)| match (found, expected) {
        (None, None) => true,
        (Some(found), Some(expected)) => (found - expected).abs() <= 1e-7 * expected.abs().max(1.0),
        _ => false,
    })
}

/// Most events at a window's edge for which all combinations are tried.
const MAX_EDGE: usize = 8;

/// What the engine says of an account's window has to follow from its events: all that are younger than the window's
/// length, none that is older by a pane, and any of those between.
fn check(engine: &Engine, number: u8, samples: &[Sample], now_ms: i64) -> Result<(), TestCaseError> {
    let columns = engine.columns(&account(number), now_ms).unwrap();
    let names = PARSED.list().len();
    let value = |statistic: usize, window: usize| match columns.get(statistic * WINDOWS.len() + window) {
        Some((name, value)) => {
            assert_eq!(*name, format!("{}_{}", PARSED.list()[statistic].name, WINDOWS[window].name()));
            *value
        }
        // Nothing is known of the account.
        None => recompute(&[])[statistic],
    };
    for (index, window) in WINDOWS.into_iter().enumerate() {
        let found: Vec<Option<f64>> = (0..names).map(|statistic| value(statistic, index)).collect();
        let (inside, edge) = split(samples, number, window, now_ms);
        let all: Vec<&Sample> = inside.iter().chain(&edge).copied().collect();
        let (least, most) = (recompute(&inside), recompute(&all));
        let bounded = found[..2]
            .iter()
            .zip(least.iter().zip(&most))
            .all(|(found, (least, most))| found.is_some() && least <= found && found <= most);
        prop_assert!(bounded, "{} {}: {found:?} not in {least:?} to {most:?}", number, window.name());
        if edge.len() <= MAX_EDGE {
            let explained = (0..1_u32 << edge.len()).any(|chosen| {
                let chosen =
                    edge.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1).map(|(_, sample)| *sample);
                is_same(&found, &recompute(&inside.iter().copied().chain(chosen).collect::<Vec<_>>()))
            });
            prop_assert!(explained, "{} {}: {found:?}, inside {inside:?}, edge {edge:?}", number, window.name());
        }
    }
    Ok(())
}

fn split(samples: &[Sample], number: u8, window: Window, now_ms: i64) -> (Vec<&Sample>, Vec<&Sample>) {
    let own = samples.iter().filter(|sample| sample.account == number);
    let reached = own.filter(|sample| now_ms - sample.at_ms < window.span_ms() + window.pane_ms());
    reached.partition(|sample| now_ms - sample.at_ms < window.span_ms())
}

/// Writes down what changed since the last time, a few accounts at a time.
fn write(engine: &mut Engine, written: &mut Vec<Vec<u8>>) {
    if engine.begin_changes(false) {
        written.clear();
    }
    loop {
        let mut octets = Vec::new();
        let taken = engine.take_changes(64, &mut octets);
        written.push(octets);
        if taken == Taken::Last {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn windows_are_what_their_events_add_up_to(steps in proptest::collection::vec(step(), 1..10)) {
        // Everybody is always judged, and is busy.
        let rules = Rules::parse("rules.toml", ALWAYS, &PARSED).unwrap();
        let limits = EngineLimits { expire_step: 2, busy_panes: 4, ..EngineLimits::default() };
        let new_engine = || Engine::new(PARSED.clone(), rules.clone(), limits.clone()).unwrap();
        let mut engine = new_engine();
        let mut written: Vec<Vec<u8>> = Vec::new();
        let mut builder = EventBatchBuilder::new();
        let mut samples: Vec<Sample> = Vec::new();
        let (mut offset, mut now_ms) = (0, 0);
        for step in steps {
            let again = |from: f64| samples[(from * samples.len() as f64) as usize..].iter().take(40).cloned().collect();
            let step = if let Step::Again(from) = step { Step::Batch(again(from)) } else { step };
            match step {
                Step::Batch(batch) => {
                    for sample in &batch {
                        builder.push(&account(sample.account), offset, sample.at_ms, &submission(sample), true);
                        offset += 1;
                        now_ms = now_ms.max(sample.at_ms);
                    }
                    engine.process(&builder.finish().unwrap()).unwrap();
                    samples.extend(batch);
                }
                Step::Forget(number) => {
                    engine.forget(&account(number));
                    samples.retain(|sample| sample.account != number);
                }
                Step::Expire => engine.expire(now_ms),
                Step::Write => write(&mut engine, &mut written),
                Step::Restart => {
                    write(&mut engine, &mut written);
                    engine = new_engine();
                    for octets in &written {
                        engine.load(&PARSED.layout(), octets).unwrap();
                    }
                }
                Step::Again(_) => unreachable!("it is a batch now"),
            }
            for number in 0..3 {
                check(&engine, number, &samples, now_ms)?;
            }
        }
    }
}
