//! Traces of the edge: a message on its way to the log, states that come into force, and refusals.

use crate::clock::Clock;
use parking_lot::Mutex;
use tidegate_bus::{Published, Topic};
use tidegate_domain::Account;
use tidegate_proto::v1;
use tidegate_runtime::traces::{Remembered, Role, Span, TraceContext, Tracer, now_ms};

/// Begins and ends the edge's steps.
#[derive(Debug)]
pub(crate) struct Steps {
    tracer: Tracer,
    node: String,
    site: String,
    clock: Clock,
    /// The steps that brought accounts' states into force, until something is refused by them.
    in_force: Mutex<Remembered<Account>>,
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
            let mut span = self
                .here(Span::new("submission", Role::Producer, step, None, took))
                .text("tidegate.account", self.tracer.account(&event.account))
                .text("messaging.destination.name", Topic::Events.suffix());
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
                let span = self.here(Span::new("apply", Role::Consumer, step, pushed, (began_ms, now_ms()))).record(
                    Topic::Accounts.suffix(),
                    placed.partition,
                    placed.offset,
                );
                self.tracer.end(span);
                self.in_force.lock().put(account, step);
            } else {
                self.in_force.lock().take(&account);
            }
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
        let span = self
            .here(Span::new("refuse", Role::Server, step, Some(applied), (now_ms, now_ms)))
            .text("tidegate.account", self.tracer.account(account.as_str()))
            .text("tidegate.stage", stage)
            .text("tidegate.verdict", verdict);
        self.tracer.end(span);
    }

    /// A span of this node.
    fn here(&self, span: Span) -> Span {
        span.text("tidegate.node", &self.node).text("tidegate.site", &self.site)
    }
}
