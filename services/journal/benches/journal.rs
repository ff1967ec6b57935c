//! What appending and draining cost, with and without waiting for the disk. `cargo bench -p tidegate-journal`.
#![allow(missing_docs, clippy::unwrap_used)]

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tidegate_journal::{Batch, Journal, NewRecord, Options, Retention, Synchronous};

const TOPIC: &str = "events";

fn journal(directory: &std::path::Path, synchronous: Synchronous) -> Journal {
    let options = Options { synchronous, ..Options::default() };
    let journal = Journal::open(directory.join("journal.db"), options).unwrap();
    // Bounded, as a spool is, so that a long measurement does not fill the disk.
    let retention = Retention::Delete { max_age_ms: None, max_bytes: Some(64 << 20) };
    journal.create_topic(TOPIC, 1, retention).unwrap();
    journal
}

fn records(count: usize) -> Vec<NewRecord> {
    vec![NewRecord { time_ms: 0, key: None, value: Bytes::from_static(&[7; 180]) }; count]
}

fn append(criterion: &mut Criterion) {
    for (name, synchronous) in [("full", Synchronous::Full), ("normal", Synchronous::Normal)] {
        let mut group = criterion.benchmark_group(format!("append, synchronous = {name}"));
        for count in [1, 100, 1_000] {
            let directory = tempfile::tempdir().unwrap();
            let journal = journal(directory.path(), synchronous);
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(format!("batches of {count}"), |bencher| {
                bencher.iter_batched(
                    || Batch::new().append(TOPIC, 0, records(count)),
                    |batch| journal.commit(batch).unwrap(),
                    BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
}

fn read(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let journal = journal(directory.path(), Synchronous::Normal);
    for _ in 0..100 {
        journal.commit(Batch::new().append(TOPIC, 0, records(1_000))).unwrap();
    }
    let mut group = criterion.benchmark_group("read");
    for count in [1, 100, 1_000] {
        group.throughput(Throughput::Elements(count as u64));
        let mut from = 0;
        group.bench_function(format!("batches of {count}"), |bencher| {
            bencher.iter(|| {
                let batch = journal.read(TOPIC, 0, from, count, 1 << 24).unwrap();
                from = if batch.next_offset >= 99_000 { 0 } else { batch.next_offset };
                batch
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = append, read
}
criterion_main!(benches);
