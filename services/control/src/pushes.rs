//! Traces of the push: which decisions are traced, and a step for each edge that has one in force.

use crate::edge_session::SentBatch;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use tidegate_domain::Position;
use tidegate_runtime::traces::{Role, Span, TraceContext, Tracer, now_ms};

/// Most decisions whose steps are remembered; the oldest are forgotten first, and go to the edges without.
const MAX_REMEMBERED: usize = 16_384;

/// The steps of the newest decisions, by their records' places.
#[derive(Debug, Default)]
pub(crate) struct Decisions(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    steps: HashMap<Position, TraceContext>,
    oldest_first: VecDeque<Position>,
}

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
        let mut remembered = self.0.lock();
        if remembered.steps.insert(position, step).is_none() {
            remembered.oldest_first.push_back(position);
        }
        if remembered.oldest_first.len() > MAX_REMEMBERED
            && let Some(oldest) = remembered.oldest_first.pop_front()
        {
            remembered.steps.remove(&oldest);
        }
    }

    /// A step for each traced decision among `positions`.
    pub fn pushes(&self, tracer: &Tracer, positions: impl Iterator<Item = Position>) -> Vec<Push> {
        if !tracer.is_on() {
            return Vec::new();
        }
        let remembered = self.0.lock();
        let push = |position| {
            let decision = *remembered.steps.get(&position)?;
            let step = tracer.follow(Some(decision))?;
            Some(Push { step, decision, position })
        };
        positions.filter_map(push).collect()
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
                .record("accounts", position.partition, position.offset);
            tracer.end(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten() {
        let decisions = Decisions::default();
        let at = |offset| Position { partition: 0, offset };
        for offset in 0..MAX_REMEMBERED as u64 + 3 {
            decisions.note(at(offset), TraceContext::new_trace());
        }
        let remembered = decisions.0.lock();
        assert_eq!((remembered.steps.len(), remembered.oldest_first.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
        assert!(!remembered.steps.contains_key(&at(2)) && remembered.steps.contains_key(&at(3)));
    }
}
