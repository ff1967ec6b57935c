//! Traces of the stream: a step for each traced record that was taken, and one for each decision.

use crate::output::{Decided, Origin};
use bytes::Bytes;
use std::collections::HashMap;
use tidegate_bus::{Record, Topic};
use tidegate_domain::Cause;
use tidegate_runtime::traces::{Role, Span, TraceContext, Tracer, now_ms};

/// The traced records of one batch, and their steps.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// When the batch was there.
    began_ms: f64,
    taken: Vec<Taken>,
    /// Those of each account's partition and key.
    by_key: HashMap<(u32, Bytes), Vec<usize>>,
}

#[derive(Debug)]
struct Taken {
    topic: Topic,
    partition: u32,
    offset: u64,
    parent: TraceContext,
    step: TraceContext,
}

impl Steps {
    /// Begins a step for each traced record.
    pub fn begin(tracer: &Tracer, records: &[Record]) -> Self {
        let mut steps = Self::default();
        if !tracer.is_on() {
            return steps;
        }
        steps.began_ms = now_ms();
        for record in records {
            let (Some(parent), Some(step)) = (record.trace, tracer.follow(record.trace)) else { continue };
            let &Record { topic, partition, offset, .. } = record;
            steps.by_key.entry((partition, record.key.clone())).or_default().push(steps.taken.len());
            steps.taken.push(Taken { topic, partition, offset, parent, step });
        }
        steps
    }

    /// All records of the batch went through windows and rules.
    pub fn end(&self, tracer: &Tracer) {
        for Taken { topic, partition, offset, parent, step } in &self.taken {
            let name = if *topic == Topic::Events { "process event" } else { "process command" };
            let took = (self.began_ms, now_ms());
            let span = Span::new(name, Role::Consumer, *step, Some(*parent), took);
            tracer.end(span.record(topic.suffix(), *partition, *offset));
        }
    }

    /// The step that led to a decision. Rules are asked once for an account's events in a batch, so it is the last
    /// traced one up to the event that they were asked at.
    fn origin(&self, partition: u32, decided: &Decided<'_>) -> Option<TraceContext> {
        let key = Bytes::copy_from_slice(decided.state.account.as_str().as_bytes());
        let (topic, is_it): (_, &dyn Fn(u64) -> bool) = match &decided.origin {
            Origin::Event(at) => (Topic::Events, &|offset| offset <= *at),
            Origin::Command(at) => (Topic::Commands, &|offset| offset == *at),
            Origin::Time => return None,
        };
        let of_key = self.by_key.get(&(partition, key))?;
        let mut taken = of_key.iter().rev().filter_map(|index| self.taken.get(*index));
        taken.find(|taken| taken.topic == topic && is_it(taken.offset)).map(|taken| taken.step)
    }
}

/// Decisions that are about to be committed. What rules decide is traced whether the message that led to it was or not:
/// it is rare, and what people look for.
#[derive(Debug)]
pub(crate) struct Decisions {
    began_ms: f64,
    spans: Vec<Option<(TraceContext, Option<TraceContext>)>>,
}

impl Decisions {
    /// Begins a step for each of `decided`.
    pub fn begin(tracer: &Tracer, partition: u32, decided: &[Decided<'_>], steps: &Steps) -> Self {
        let step = |decided: &Decided<'_>| {
            let origin = if tracer.is_on() { steps.origin(partition, decided) } else { None };
            let step = match decided.origin {
                Origin::Event(_) => tracer.step(origin),
                Origin::Command(_) | Origin::Time => tracer.follow(origin),
            };
            step.map(|step| (step, origin))
        };
        Self { began_ms: now_ms(), spans: decided.iter().map(step).collect() }
    }

    /// What the decision at `index` is called.
    pub fn step(&self, index: usize) -> Option<TraceContext> {
        self.spans.get(index).copied().flatten().map(|(step, _)| step)
    }

    /// They are committed.
    pub fn end(self, tracer: &Tracer, partition: u32, decided: &[Decided<'_>]) {
        let end_ms = now_ms();
        for (span, decided) in self.spans.into_iter().zip(decided) {
            let Some((step, origin)) = span else { continue };
            let state = decided.state;
            let mut span = Span::new("decide", Role::Producer, step, origin, (self.began_ms, end_ms))
                .text("tidegate.change", decided.change.as_str())
                .text("tidegate.status", state.status.as_str())
                .text("tidegate.account", tracer.account(state.account.as_str()))
                .number("tidegate.version", state.version)
                .text("messaging.destination.name", Topic::Accounts.suffix())
                .text("messaging.destination.partition.id", &partition.to_string());
            if let Some(lock) = state.status.lock() {
                span = span.text("tidegate.lock", &lock.id);
                if let Cause::Rule(rule) = &lock.cause {
                    span = span.text("tidegate.rule", &rule.name);
                }
            }
            tracer.end(span);
        }
    }
}
