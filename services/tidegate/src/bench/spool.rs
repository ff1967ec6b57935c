//! The edge's spool: a journal on disk.

use super::Scale;
use super::report::Figure;
use super::stopwatch::Stopwatch;
use super::traffic::{Tail, Traffic};
use anyhow::Context as _;
use bytes::Bytes;
use prost::Message as _;
use tidegate_journal::{Batch, Journal, NewRecord, Options, Retention, Synchronous};
use tidegate_proto::event_to_proto;

const TOPIC: &str = "spool";
/// What an edge writes at once, at most.
const BATCH: usize = 500;

/// Writes events as an edge does that is cut off, and drains them.
pub fn measure(scale: Scale) -> anyhow::Result<Vec<Figure>> {
    let mut traffic = Traffic::new(1_000, Tail::Flat)?;
    let records: Vec<Bytes> = (0..scale.of(200_000))
        .map(|number| event_to_proto(&traffic.event("mx1", number.cast_signed())).encode_to_vec().into())
        .collect();
    let octets = records.iter().map(Bytes::len).sum::<usize>() / records.len();
    let mut figures = Vec::new();
    for (synchronous, name) in [(Synchronous::Full, "full"), (Synchronous::Normal, "normal")] {
        let directory = tempfile::tempdir().context("making a folder")?;
        let options = Options { synchronous, ..Options::default() };
        let journal = Journal::open(directory.path().join("spool.db"), options)?;
        journal.create_topic(TOPIC, 1, Retention::KEEP)?;
        let settings = format!("events of {octets} octets, batches of {BATCH}, synchronous = {name}");
        let watch = Stopwatch::start();
        for batch in records.chunks(BATCH) {
            let record = |value: &Bytes| NewRecord { time_ms: 0, key: None, value: value.clone() };
            journal.commit(Batch::new().append(TOPIC, 0, batch.iter().map(record).collect()))?;
        }
        let n = records.len() as u64;
        figures.push(Figure::rate("spool, write", settings.clone(), "events/s", n, watch.spent()));
        let (watch, mut drained, mut next) = (Stopwatch::start(), 0, 0);
        while drained < n {
            let batch = journal.read(TOPIC, 0, next, BATCH, 1 << 20)?;
            drained += batch.records.len() as u64;
            next = batch.next_offset;
            journal.trim(TOPIC, 0, next)?;
        }
        figures.push(Figure::rate("spool, drain", settings, "events/s", n, watch.spent()));
    }
    Ok(figures)
}
