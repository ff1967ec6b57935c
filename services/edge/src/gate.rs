//! What sessions ask: answered from memory, at once.

use crate::clock::Clock;
use crate::config::EdgeConfig;
use crate::link::Link;
use crate::local_cap::LocalCap;
use crate::metrics::Metrics;
use crate::states::HeldStates;
use std::collections::HashSet;
use std::sync::Arc;
use tidegate_domain::{Account, AccountState, Decision, Lock};
use tidegate_mta::{Gate, Verdict};

/// Longest part of a state's reply that is told, so that the lock's id behind it always fits the reply line.
const MAX_REPLY_OCTETS: usize = 320;
/// What is told when a state has no text.
const REPLY: &str = "This account may not send mail at the moment; please contact your administrator";

/// The gate of one edge.
#[derive(Debug)]
pub(crate) struct EdgeGate {
    states: Arc<HeldStates>,
    internal_domains: HashSet<String>,
    admin_addresses: HashSet<String>,
    cap: Option<LocalCap>,
    link: Arc<Link>,
    clock: Clock,
    metrics: Metrics,
}

impl EdgeGate {
    /// The gate over `states`.
    pub fn new(config: &EdgeConfig, states: Arc<HeldStates>, link: Arc<Link>, clock: Clock, metrics: Metrics) -> Self {
        let lower = |texts: &[String]| texts.iter().map(|text| text.to_lowercase()).collect();
        Self {
            states,
            internal_domains: lower(&config.internal_domains),
            admin_addresses: lower(&config.admin_addresses),
            cap: config.local_cap.clone().map(LocalCap::new),
            link,
            clock,
            metrics,
        }
    }

    /// Counts a message for the local cap.
    pub fn count(&self, account: &Account, recipients: u32, now_ms: i64) {
        if let Some(cap) = &self.cap
            && !cap.count(account, recipients, now_ms)
        {
            self.metrics.cap_full.inc();
        }
    }

    fn capped(&self, account: &Account, now_ms: i64) -> Option<Verdict> {
        let cap = self.cap.as_ref()?;
        let text = cap.exceeded(account, self.link.cut_off_ms(now_ms), now_ms)?.to_owned();
        self.metrics.capped.inc();
        Some(Verdict::Throttle { text })
    }
}

impl Gate for EdgeGate {
    fn verdict(&self, account: &Account) -> Verdict {
        let now_ms = self.clock.now_ms();
        let mut verdict = self.states.read(account, |state| verdict_of(state, now_ms)).unwrap_or(Verdict::Pass);
        if verdict == Verdict::Pass
            && let Some(capped) = self.capped(account, now_ms)
        {
            verdict = capped;
        }
        match &verdict {
            Verdict::Pass => &self.metrics.passed,
            Verdict::Throttle { .. } => &self.metrics.throttled,
            Verdict::Refuse { .. } => &self.metrics.refused,
        }
        .inc();
        verdict
    }

    fn is_admin_address(&self, address: &str) -> bool {
        self.admin_addresses.contains(address)
    }

    fn has_admin_addresses(&self) -> bool {
        !self.admin_addresses.is_empty()
    }

    fn is_internal_domain(&self, domain: &str) -> bool {
        self.internal_domains.contains(domain)
    }
}

fn verdict_of(state: &AccountState, now_ms: i64) -> Verdict {
    match state.decide(now_ms) {
        Decision::Pass => Verdict::Pass,
        Decision::Throttle(lock) => Verdict::Throttle { text: reply(lock) },
        Decision::Refuse(lock) => Verdict::Refuse { text: reply(lock) },
    }
}

/// The state's text, and the id that the user can tell the help desk.
fn reply(lock: &Lock) -> String {
    let text = lock.reply.trim();
    let text = if text.is_empty() { REPLY } else { &text[..text.floor_char_boundary(MAX_REPLY_OCTETS)] };
    format!("{text} ({})", lock.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_domain::{Cause, QueuedMail, Status};
    use tidegate_mta::Refusal;

    fn lock(reply: &str) -> Lock {
        Lock {
            id: "L-7K3QX2M9".into(),
            cause: Cause::Admin { actor: "ann".into() },
            reason: String::new(),
            evidence: Vec::new(),
            since_ms: 0,
            until_ms: Some(1_000),
            reply: reply.into(),
            queued_mail: QueuedMail::Keep,
            clients: Vec::new(),
            subjects: Vec::new(),
        }
    }

    #[test]
    fn the_locks_id_is_always_told() {
        let account = Account::parse("jo@example.org").unwrap();
        for text in ["Account locked", "", &"long ".repeat(200), &"ä".repeat(400)] {
            let state = AccountState { status: Status::Locked(lock(text)), ..AccountState::new(account.clone()) };
            let refusal = Refusal::of(&verdict_of(&state, 999)).unwrap();
            assert!(refusal.as_str().starts_with("550 5.7.1 "), "{}", refusal.as_str());
            assert!(refusal.as_str().ends_with("(L-7K3QX2M9)"), "{}", refusal.as_str());
            assert_eq!(verdict_of(&state, 1_000), Verdict::Pass, "its time has passed");
        }
        let state = AccountState { status: Status::Throttled(lock("Slow")), ..AccountState::new(account) };
        assert_eq!(verdict_of(&state, 0), Verdict::Throttle { text: "Slow (L-7K3QX2M9)".into() });
    }
}
