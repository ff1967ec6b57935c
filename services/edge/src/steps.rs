//! Traces of the edge: a message on its way to the log, states that come into force, and refusals.

use crate::clock::Clock;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use tidegate_bus::Published;
use tidegate_domain::Account;
use tidegate_proto::v1;
use tidegate_runtime::traces::{Role, Span, TraceContext, Tracer, now_ms};

/// Most accounts whose newest state's step is remembered; the oldest are forgotten first, and refuse without.
const MAX_REMEMBERED: usize = 16_384;

/// Begins and ends the edge's steps.
#[derive(Debug)]
pub(crate) struct Steps {
    tracer: Tracer,
    node: String,
    site: String,
    clock: Clock,
    in_force: Mutex<InForce>,
}

/// The steps that brought states into force, until something is refused by them.
#[derive(Debug, Default)]
struct InForce {
    by_account: HashMap<Account, (u64, TraceContext)>,
    oldest_first: VecDeque<(Account, u64)>,
    count: u64,
}

impl Steps {
    /// Steps of `node` in `site`, for `tracer`.
    pub fn new(tracer: Tracer, node: &str, site: &str, clock: Clock) -> Self {
        let (node, site) = (node.to_owned(), site.to_owned());
        Self { tracer, node, site, clock, in_force: Mutex::default() }
    }

    /// Begins the trace of a message, if it is one of those that are traced: what its event carries to the log.
    pub fn submitted(&self) -> String {
        self.tracer.sample().map(|trace| trace.to_string()).unwrap_or_default()
    }

    /// Events are durable, or will never be taken.
    pub fn published(&self, events: &[v1::Event], published: &Published) {
        if !self.tracer.is_on() {
            return;
        }
        for (index, event) in events.iter().enumerate() {
            let Ok(step) = event.trace_parent.parse::<TraceContext>() else { continue };
            let took = (event.time_ms as f64, self.clock.now_ms() as f64);
            let mut span = Span::new("submission", Role::Producer, step, None, took)
                .text("tidegate.node", &self.node)
                .text("tidegate.site", &self.site)
                .text("tidegate.account", self.tracer.account(&event.account))
                .text("messaging.destination.name", "events");
            if let Some(id) = &event.id {
                span =
                    span.text("tidegate.lane", if id.lane == i32::from(v1::Lane::Live) { "live" } else { "spooled" });
                span = span.number("tidegate.sequence", id.sequence);
            }
            if let Some(rejected) = published.rejected.iter().find(|rejected| rejected.index == index) {
                span = span.failed(&rejected.reason);
            }
            self.tracer.end(span);
        }
    }

    /// A batch of states, which was there since `began_ms`, comes into force now.
    pub fn applied(&self, batch: &v1::StateBatch, began_ms: f64) {
        if !self.tracer.is_on() {
            return;
        }
        for placed in &batch.states {
            let Some(account) = placed.state.as_ref().and_then(|state| Account::parse(&state.account).ok()) else {
                continue;
            };
            let pushed = placed.trace_parent.parse::<TraceContext>().ok();
            let step = self.tracer.follow(pushed);
            if let Some(step) = step {
                let span = Span::new("apply", Role::Consumer, step, pushed, (began_ms, now_ms()))
                    .text("tidegate.node", &self.node)
                    .text("tidegate.site", &self.site)
                    .record("accounts", placed.partition, placed.offset);
                self.tracer.end(span);
            }
            self.in_force.lock().put(account, step);
        }
    }

    /// Mail of an account was refused. The first refusal by a state belongs to the trace of that state; those after it are
    /// of no news.
    pub fn refused(&self, account: &Account, stage: &str, verdict: &str) {
        if !self.tracer.is_on() {
            return;
        }
        let Some(applied) = self.in_force.lock().take(account) else { return };
        let Some(step) = self.tracer.follow(Some(applied)) else { return };
        let now_ms = now_ms();
        let span = Span::new("refuse", Role::Server, step, Some(applied), (now_ms, now_ms))
            .text("tidegate.node", &self.node)
            .text("tidegate.site", &self.site)
            .text("tidegate.account", self.tracer.account(account.as_str()))
            .text("tidegate.stage", stage)
            .text("tidegate.verdict", verdict);
        self.tracer.end(span);
    }
}

impl InForce {
    /// The account's newest state came with `step`; none: it is not traced.
    fn put(&mut self, account: Account, step: Option<TraceContext>) {
        let Some(step) = step else {
            self.by_account.remove(&account);
            return;
        };
        self.count += 1;
        self.oldest_first.push_back((account.clone(), self.count));
        self.by_account.insert(account, (self.count, step));
        if self.oldest_first.len() > MAX_REMEMBERED
            && let Some((account, count)) = self.oldest_first.pop_front()
            && self.by_account.get(&account).is_some_and(|(newest, _)| *newest == count)
        {
            self.by_account.remove(&account);
        }
    }

    fn take(&mut self, account: &Account) -> Option<TraceContext> {
        self.by_account.remove(account).map(|(_, step)| step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_taken_once_and_the_oldest_are_forgotten() {
        let mut in_force = InForce::default();
        let account = |number: usize| Account::parse(&format!("user{number}@example.org")).unwrap();
        let steps: Vec<TraceContext> = (0..MAX_REMEMBERED + 2).map(|_| TraceContext::new_trace()).collect();
        for (number, step) in steps.iter().enumerate() {
            in_force.put(account(number), Some(*step));
        }
        assert_eq!((in_force.by_account.len(), in_force.oldest_first.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
        assert_eq!((in_force.take(&account(1)), in_force.take(&account(2))), (None, Some(steps[2])));
        assert_eq!(in_force.take(&account(2)), None);
        // Its older entry goes; the newer step stays.
        in_force.put(account(3), Some(steps[0]));
        assert_eq!(in_force.take(&account(3)), Some(steps[0]));
        in_force.put(account(4), None);
        assert_eq!(in_force.take(&account(4)), None);
    }
}
