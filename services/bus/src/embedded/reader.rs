//! Reads several partitions, and is woken when one of them grows.

use super::Log;
use crate::limits::{BATCH_MAX_BYTES, BATCH_MAX_RECORDS};
use crate::{Batch, BusError, ReadFrom, Reader, Record};
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tidegate_journal::{Journal, JournalError, Subscription};
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) struct EmbeddedReader {
    log: Arc<Log>,
    /// Where each partition is read on. It moves only together with a batch that is given out, so a call that is
    /// dropped loses nothing.
    at: Vec<ReadFrom>,
    /// The partition that is read first, another each time, so that a busy one does not hold up the others.
    turn: usize,
    grown: Arc<Notify>,
    _subscription: Subscription,
}

impl EmbeddedReader {
    pub(crate) fn new(log: Arc<Log>, from: &[ReadFrom]) -> Self {
        let grown = Arc::new(Notify::new());
        let wanted: Vec<(&'static str, u32)> = from.iter().map(|at| (at.topic.suffix(), at.partition)).collect();
        let wake = grown.clone();
        let subscription = log.journal.on_append(move |topic, partition, _| {
            if wanted.contains(&(topic, partition)) {
                wake.notify_one();
            }
        });
        log.counters.readers.fetch_add(1, Ordering::Relaxed);
        Self { log, at: from.to_vec(), turn: 0, grown, _subscription: subscription }
    }

    /// Where there is something to read: places in `at`, beginning with the one whose turn it is.
    fn ready(&self) -> Result<Vec<usize>, BusError> {
        let mut ready = Vec::new();
        for step in 0..self.at.len() {
            let index = (self.turn + step) % self.at.len();
            let at = self.at[index];
            if self.log.bounds(at.topic, at.partition)?.next != at.offset {
                ready.push(index);
            }
        }
        Ok(ready)
    }

    async fn take(&mut self, ready: Vec<usize>) -> Result<Batch, BusError> {
        let from: Vec<ReadFrom> = ready.iter().map(|index| self.at[*index]).collect();
        let mut read = self.log.blocking(|| "reading".to_owned(), move |journal| read_all(journal, &from)).await?;
        let counters = &self.log.counters;
        counters.read_records.fetch_add(read.batch.records.len() as u64, Ordering::Relaxed);
        counters.positions_past_end.fetch_add(read.past_end, Ordering::Relaxed);
        for (index, next) in ready.into_iter().zip(&read.reached) {
            self.at[index] = *next;
        }
        self.turn = self.turn.wrapping_add(1);
        self.log.traces.recall(&mut read.batch.records);
        Ok(read.batch)
    }
}

#[async_trait]
impl Reader for EmbeddedReader {
    async fn next(&mut self, wait: Duration) -> Result<Batch, BusError> {
        let deadline = Instant::now() + wait;
        loop {
            if self.log.closed.is_cancelled() {
                return Err(BusError::Closed { doing: "reading".to_owned() });
            }
            let ready = self.ready()?;
            if !ready.is_empty() {
                let batch = self.take(ready).await?;
                if batch != Batch::default() {
                    return Ok(batch);
                }
            }
            // A growth since the look above has left its permit behind.
            tokio::select! {
                () = self.grown.notified() => {}
                () = self.log.closed.cancelled() => {}
                () = tokio::time::sleep_until(deadline) => return Ok(Batch::default()),
            }
        }
    }
}

impl Drop for EmbeddedReader {
    fn drop(&mut self) {
        self.log.counters.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

struct ReadAll {
    batch: Batch,
    /// Where each partition is read on, in the order in which they were asked for.
    reached: Vec<ReadFrom>,
    past_end: u64,
}

/// Reads from each partition its share of what one batch can hold; what one does not need goes to those after it.
fn read_all(journal: &Journal, from: &[ReadFrom]) -> Result<ReadAll, JournalError> {
    let mut all = ReadAll { batch: Batch::default(), reached: Vec::with_capacity(from.len()), past_end: 0 };
    let (mut records_left, mut bytes_left) = (BATCH_MAX_RECORDS, BATCH_MAX_BYTES);
    for (index, at) in from.iter().enumerate() {
        let sharers = from.len() - index;
        let (max_records, max_bytes) = (records_left / sharers, bytes_left / sharers);
        if max_records == 0 || (max_bytes == 0 && index > 0) {
            all.reached.push(*at);
            continue;
        }
        let topic = at.topic.suffix();
        let mut offset = at.offset;
        let end = journal.bounds(topic, at.partition)?;
        if offset > end.next_offset {
            tracing::warn!(
                topic,
                partition = at.partition,
                offset,
                end = end.next_offset,
                "a position is past the end of the log; reading from the first record again"
            );
            offset = end.first_offset;
            all.past_end += 1;
        }
        let read = journal.read(topic, at.partition, offset, max_records, max_bytes)?;
        all.batch.damaged += read.skipped_damaged;
        for record in read.records {
            records_left -= 1;
            let bytes = record.key.as_ref().map_or(0, bytes::Bytes::len) + record.value.len();
            bytes_left = bytes_left.saturating_sub(bytes);
            all.batch.records.push(Record {
                topic: at.topic,
                partition: at.partition,
                offset: record.offset,
                time_ms: record.time_ms,
                key: record.key.unwrap_or_default(),
                value: Some(record.value).filter(|value| !value.is_empty()),
                trace: None,
            });
        }
        let next = ReadFrom { offset: read.next_offset, ..*at };
        if next != *at {
            all.batch.next.push(next);
        }
        all.reached.push(next);
    }
    Ok(all)
}
