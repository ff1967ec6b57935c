//! What the steps of a checkpoint cost: copying accounts out of the engine, compressing them, reading them back.
//! `cargo bench -p tidegate-stream`.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tidegate_detect::{DEFAULT_STATISTICS, Engine, EngineLimits, EventBatchBuilder, Rules, Statistics};
use tidegate_domain::{Account, Recipients, Submission};
use tidegate_stream::checkpoint::{SegmentReader, SegmentWriter};

const ACCOUNTS: u64 = 5_000;
const NOW_MS: i64 = 1_750_000_000_000;

fn engine(statistics: &Statistics) -> Engine {
    let rules = Rules::parse("rules.toml", "", statistics).unwrap();
    Engine::new(statistics.clone(), rules, EngineLimits::default()).unwrap()
}

/// Each account sent ten messages within the last day.
fn filled(statistics: &Statistics) -> Engine {
    let mut engine = engine(statistics);
    let mut builder = EventBatchBuilder::new();
    for hour in 0..10_u64 {
        for number in 0..ACCOUNTS {
            let account = Account::parse(&format!("user{number}@example.org")).unwrap();
            let hashes = vec![hour * number, hour];
            let recipients = Recipients { count: 2, internal: 0, domains: vec![format!("d{hour}.example")], hashes };
            let submission = Submission {
                size: 1_000 + 7 * hour * number,
                fingerprint: number + hour,
                recipients,
                ..Submission::default()
            };
            let at_ms = NOW_MS - (10 - hour.cast_signed()) * 3_600_000;
            builder.push(&account, hour * ACCOUNTS + number, at_ms, &submission, false);
        }
        engine.process(&builder.finish().unwrap()).unwrap();
    }
    engine
}

fn steps(criterion: &mut Criterion) {
    let statistics = Statistics::parse("statistics.sql", DEFAULT_STATISTICS).unwrap();
    let mut full = filled(&statistics);
    let mut octets = Vec::new();
    full.begin_changes(true);
    full.take_changes(usize::MAX, &mut octets);
    let mut writer = SegmentWriter::new(&statistics.layout());
    writer.add(&octets).unwrap();
    let segment = writer.finish().octets;

    let mut group = criterion.benchmark_group(format!("{ACCOUNTS} accounts, {} octets", octets.len()));
    group.throughput(Throughput::Bytes(octets.len() as u64));
    group.bench_function("copy out of the engine", |bencher| {
        let mut copied = Vec::with_capacity(octets.len());
        bencher.iter(|| {
            copied.clear();
            full.begin_changes(true);
            black_box(full.take_changes(usize::MAX, &mut copied));
        });
    });
    group.bench_function("compress", |bencher| {
        bencher.iter(|| {
            let mut writer = SegmentWriter::new(&statistics.layout());
            writer.add(black_box(&octets)).unwrap();
            writer.finish()
        });
    });
    group.bench_function("read into an engine", |bencher| {
        bencher.iter(|| {
            let mut engine = engine(&statistics);
            let mut reader = SegmentReader::open(black_box(&segment)).unwrap();
            while let Some(block) = reader.next_block().unwrap() {
                engine.load(&statistics.layout(), &block).unwrap();
            }
            engine
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = steps
}
criterion_main!(benches);
