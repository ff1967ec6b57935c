//! Where everything that sessions and the filter tell comes together: messages are joined with verdicts, become events,
//! and go to the publisher. Nothing here waits.

use crate::clock::Clock;
use crate::gate::EdgeGate;
use crate::metrics::{Metrics, RefusalLabel, because};
use crate::publish::Spool;
use crate::steps::Steps;
use parking_lot::Mutex;
use std::sync::Arc;
use tidegate_mta::policy::PolicyJoiner;
use tidegate_mta::rspamd::FilterVerdict;
use tidegate_mta::{SessionEvent, Submitted, VerdictJoiner};
use tidegate_proto::{event_to_proto, v1};
use tokio::sync::mpsc;

/// Takes in what happened.
pub(crate) struct Intake {
    /// Shared by all policy sessions.
    pub policy_joiner: Mutex<PolicyJoiner>,
    verdict_joiner: Mutex<VerdictJoiner>,
    gate: Arc<EdgeGate>,
    site: String,
    queue: mpsc::Sender<v1::Event>,
    spool: Spool,
    clock: Clock,
    metrics: Metrics,
    steps: Arc<Steps>,
}

impl Intake {
    /// Sends events of `site` to `queue`, and to `spool` when that is full.
    pub fn new(
        joiners: (PolicyJoiner, VerdictJoiner),
        gate: Arc<EdgeGate>,
        site: &str,
        (queue, spool): (mpsc::Sender<v1::Event>, Spool),
        clock: Clock,
        metrics: Metrics,
        steps: Arc<Steps>,
    ) -> Self {
        let (policy_joiner, verdict_joiner) = joiners;
        Self {
            policy_joiner: Mutex::new(policy_joiner),
            verdict_joiner: Mutex::new(verdict_joiner),
            gate,
            site: site.to_owned(),
            queue,
            spool,
            clock,
            metrics,
            steps,
        }
    }

    /// Takes in what happened in a session.
    pub fn take(&self, events: &mut Vec<SessionEvent>) {
        if events.is_empty() {
            return;
        }
        let now_ms = self.clock.now_ms();
        let mut submitted = Vec::new();
        for event in events.drain(..) {
            match event {
                SessionEvent::Message(message) => {
                    self.gate.count(&message.account, message.submission.recipients.count, now_ms);
                    self.verdict_joiner.lock().message(*message, now_ms, &mut submitted);
                }
                SessionEvent::Aborted(message) => {
                    self.verdict_joiner.lock().aborted(*message, now_ms, &mut submitted);
                }
                SessionEvent::Refused { account, stage, throttled } => {
                    let verdict = if throttled { "throttle" } else { "refuse" };
                    let label = RefusalLabel { stage: stage.as_str(), verdict };
                    self.metrics.refusals.get_or_create(&label).inc();
                    self.steps.refused(&account, stage.as_str(), verdict);
                    tracing::debug!(account = account.as_str(), stage = stage.as_str(), verdict, "refused");
                }
                SessionEvent::Ignored(ignored) => {
                    self.metrics.ignored.get_or_create(&because(ignored.as_str())).inc();
                }
            }
        }
        self.publish(submitted, now_ms);
    }

    /// Takes in a verdict that the filter posted.
    pub fn verdict(&self, verdict: FilterVerdict) {
        let now_ms = self.clock.now_ms();
        let mut submitted = Vec::new();
        self.verdict_joiner.lock().verdict(verdict, now_ms, &mut submitted);
        self.publish(submitted, now_ms);
    }

    /// Lets time pass: to be called about every second.
    pub fn tick(&self) {
        let now_ms = self.clock.now_ms();
        let (mut messages, mut submitted) = (Vec::new(), Vec::new());
        let policy = {
            let mut joiner = self.policy_joiner.lock();
            joiner.tick(now_ms, &mut messages);
            joiner.stats()
        };
        let verdicts = {
            let mut joiner = self.verdict_joiner.lock();
            for message in messages {
                self.gate.count(&message.account, message.submission.recipients.count, now_ms);
                joiner.message(message, now_ms, &mut submitted);
            }
            joiner.tick(now_ms, &mut submitted);
            joiner.stats()
        };
        for (reason, evicted) in [("policy", policy.evicted), ("verdict", verdicts.evicted)] {
            let counter = self.metrics.joiner_evicted.get_or_create_owned(&because(reason));
            crate::metrics::set_counter(&counter, evicted);
        }
        self.publish(submitted, now_ms);
    }

    fn publish(&self, submitted: Vec<Submitted>, now_ms: i64) {
        for submitted in submitted {
            self.metrics.events.inc();
            let event = self.event(submitted, now_ms);
            if let Err(refused) = self.queue.try_send(event) {
                let reason = match &refused {
                    mpsc::error::TrySendError::Full(_) => "queue_full",
                    mpsc::error::TrySendError::Closed(_) => "shutdown",
                };
                self.spool.put(&[refused.into_inner()], reason);
            }
        }
    }

    /// The event; it gets its number on its way out.
    fn event(&self, submitted: Submitted, now_ms: i64) -> v1::Event {
        let event = tidegate_domain::Event {
            id: tidegate_domain::EventId { node: String::new(), lane: tidegate_domain::Lane::Live, sequence: 0 },
            site: self.site.clone(),
            account: submitted.account,
            time_ms: now_ms,
            kind: tidegate_domain::EventKind::Submission(Box::new(submitted.submission)),
        };
        v1::Event { id: None, trace_parent: self.steps.submitted(), ..event_to_proto(&event) }
    }
}
