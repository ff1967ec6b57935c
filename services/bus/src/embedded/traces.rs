//! Which records come from a traced step. The journal has no headers, and reader and writer are one process: so it is
//! remembered, and a restart forgets it.

use crate::{Message, Record, Topic};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use tidegate_runtime::traces::Remembered;

/// Remembers by what the records are: before they are written, when their places are not known yet.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// Whether there ever was one, so that it costs nothing where nothing is traced.
    any: AtomicBool,
    remembered: Mutex<Remembered<u64>>,
}

impl Traces {
    /// Notes a message that will be written.
    pub fn note(&self, topic: Topic, message: &Message) {
        let Some(trace) = message.trace else { return };
        let id = id(topic, &message.key, message.value.as_deref());
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).put(id, trace);
        self.any.store(true, Ordering::Release);
    }

    /// Puts on records what was noted of them.
    pub fn recall(&self, records: &mut [Record]) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let ids: Vec<u64> =
            records.iter().map(|record| id(record.topic, &record.key, record.value.as_deref())).collect();
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        for (record, id) in records.iter_mut().zip(ids) {
            record.trace = remembered.get(&id);
        }
    }
}

/// Events have numbers and states have versions, so no two records are the same but repeats.
fn id(topic: Topic, key: &[u8], value: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (topic, key, value).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tidegate_runtime::traces::{MAX_REMEMBERED, TraceContext};

    fn record(number: usize) -> Record {
        let (key, value) = (Bytes::from_static(b"jo@example.org"), Some(Bytes::from(number.to_string())));
        Record { topic: Topic::Events, partition: 0, offset: number as u64, time_ms: 0, key, value, trace: None }
    }

    #[test]
    fn the_oldest_are_forgotten_and_nothing_else() {
        let (traces, trace) = (Traces::default(), TraceContext::new_trace());
        let count = MAX_REMEMBERED + 10;
        for number in (0..count).chain(count - 5..count) {
            let Record { topic, key, value, .. } = record(number);
            traces.note(topic, &Message::new(key, value).with_trace(Some(trace)));
        }
        let mut records: Vec<Record> = (0..=count).map(record).collect();
        traces.recall(&mut records);
        let traced: Vec<u64> =
            records.iter().filter(|record| record.trace == Some(trace)).map(|record| record.offset).collect();
        assert_eq!(traced, (10..count as u64).collect::<Vec<_>>());
    }
}
