//! What `Engine::process` costs with the shipped statistics and rules: 20,000 accounts with a day behind them, some
//! of them busy, most not. `cargo bench -p tidegate-detect`. Times are of the CPU where the system tells them (Linux),
//! so that other work on the machine changes little.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};
use tidegate_detect::{
    DEFAULT_RULES, DEFAULT_STATISTICS, Engine, EngineLimits, EventBatch, EventBatchBuilder, Mode, Rules, Statistics,
};
use tidegate_domain::{Account, Recipients, Submission};

const ACCOUNTS: u64 = 20_000;
const DAY_MS: i64 = 24 * 3_600_000;
/// Events that the day before the measurement has.
const DAY_EVENTS: i64 = 300_000;
/// Time between two events while it is measured: 50 a second.
const LIVE_STEP_MS: i64 = 20;

/// Makes events by SplitMix64, the same in every run.
struct Traffic {
    accounts: Vec<Account>,
    builder: EventBatchBuilder,
    random: u64,
    offset: u64,
    now_ms: i64,
}

impl Traffic {
    fn new() -> Self {
        let accounts = (0..ACCOUNTS).map(|number| Account::parse(&format!("user{number}@example.org")).unwrap());
        Self {
            accounts: accounts.collect(),
            builder: EventBatchBuilder::new(),
            random: 7,
            offset: 0,
            now_ms: 1_750_000_000_000,
        }
    }

    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// The next events; a few accounts send most of them.
    fn batch(&mut self, events: u64, step_ms: i64) -> EventBatch {
        for _ in 0..events {
            let share = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
            let number = (share.powi(3) * ACCOUNTS as f64) as u64;
            let count = 1 + self.next() % 2;
            let recipients = Recipients {
                count: count as u32,
                internal: 0,
                domains: vec![format!("d{}.example", self.next() % 50)],
                hashes: (0..count).map(|_| self.next() % 400).collect(),
            };
            let submission = Submission {
                client_address: Some(IpAddr::V4(Ipv4Addr::from(number as u32 * 4 + self.next() as u32 % 2))),
                sender: self.accounts[number as usize].to_string(),
                recipients,
                size: 1_000 + self.next() % 80_000,
                fingerprint: 1 + self.next() % 1_000_000,
                ..Submission::default()
            };
            self.builder.push(&self.accounts[number as usize], self.offset, self.now_ms, &submission, true);
            self.offset += 1;
            self.now_ms += step_ms;
        }
        self.builder.finish().unwrap()
    }
}

/// CPU time of this thread.
fn cpu_time() -> Option<Duration> {
    let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    schedule.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

fn process(criterion: &mut Criterion) {
    let statistics = Statistics::parse("statistics.sql", DEFAULT_STATISTICS).unwrap();
    let rules = Rules::parse("rules.toml", DEFAULT_RULES, &statistics).unwrap().in_mode(Mode::Enforce);
    let mut engine = Engine::new(statistics, rules, EngineLimits::default()).unwrap();
    let mut traffic = Traffic::new();
    for _ in 0..DAY_EVENTS / 1_000 {
        engine.process(&traffic.batch(1_000, DAY_MS / DAY_EVENTS)).unwrap();
    }
    let stats = engine.stats();
    let mut group = criterion.benchmark_group(format!(
        "process ({} accounts, {} panes, {} octets each)",
        stats.accounts,
        stats.panes,
        stats.octets / stats.accounts
    ));
    for events in [1, 100, 1_000, 5_000] {
        group.throughput(Throughput::Elements(events));
        group.bench_function(format!("batches of {events}"), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    let batch = traffic.batch(events, LIVE_STEP_MS);
                    let (start, start_cpu) = (Instant::now(), cpu_time());
                    black_box(engine.process(black_box(&batch)).unwrap());
                    let cpu = start_cpu.zip(cpu_time()).map(|(start, end)| end.saturating_sub(start));
                    spent += cpu.unwrap_or_else(|| start.elapsed());
                }
                spent
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = process
}
criterion_main!(benches);
