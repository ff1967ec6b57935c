//! Traces of the push: which decisions are traced, and a step for each edge that has one in force.

use crate::edge_session::SentBatch;
use parking_lot::Mutex;
use tidegate_bus::Topic;
use tidegate_domain::Position;
use tidegate_runtime::traces::{Remembered, Role, Span, TraceContext, Tracer, now_ms};

/// The steps of the newest decisions, by their records' places. What is forgotten goes to the edges without.
#[derive(Debug, Default)]
pub(crate) struct Decisions(Mutex<Remembered<Position>>);

/// A traced decision on its way to one edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Push {
    /// The step.
    pub step: TraceContext,
    /// The decision's.
    pub decision: TraceContext,
    /// Where its record stands.
    pub position: Position,
}

impl Decisions {
    /// Notes the step of the decision at `position`.
    pub fn note(&self, position: Position, step: TraceContext) {
        self.0.lock().put(position, step);
    }

    /// The next step of the decision at `position`, if it is traced.
    pub fn push(&self, tracer: &Tracer, position: Position) -> Option<Push> {
        if !tracer.is_on() {
            return None;
        }
        let decision = self.0.lock().get(&position)?;
        let step = tracer.follow(Some(decision))?;
        Some(Push { step, decision, position })
    }
}

/// An edge has what was sent in force.
pub(crate) fn end(tracer: &Tracer, batches: &[SentBatch], node: &str, site: &str) {
    let end_ms = now_ms();
    for batch in batches {
        for Push { step, decision, position } in &batch.pushes {
            let took = (batch.sent_ms as f64, end_ms);
            let span = Span::new("push", Role::Producer, *step, Some(*decision), took)
                .text("tidegate.node", node)
                .text("tidegate.site", site)
                .record(Topic::Accounts.suffix(), position.partition, position.offset);
            tracer.end(span);
        }
    }
}
