//! Joins policy requests about one message to one submission.

use super::request::{PolicyRequest, PolicyState};
use crate::expiring::Expiring;
use crate::recipients::{RecipientCollector, bare_address};
use crate::{Gate, Problem, SessionSettings, Submitted};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use tidegate_domain::{Account, Submission};

/// How the joiner works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyJoinerConfig {
    /// When a message counts as submitted.
    pub submission_at: SubmissionAt,
    /// With [`SubmissionAt::Auto`] and no end-of-message request ever seen: this long after the last request.
    pub quiet_ms: u32,
    /// A message that has not ended this long after its last request is forgotten.
    pub open_ms: u32,
    /// Most messages that are open at the same time; beyond it the oldest are forgotten.
    pub max_open: usize,
}

/// When a message counts as submitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubmissionAt {
    /// At its `END-OF-MESSAGE` request (`smtpd_end_of_data_restrictions`). While none was ever seen, perhaps because
    /// the mail server asks only at `RCPT`: when no request has come for `quiet_ms`.
    #[default]
    Auto,
    /// At its `DATA` request (`smtpd_data_restrictions`): at once, but the size is what the client declared, and
    /// a message that is broken off later counts too.
    Data,
}

/// Counters of a joiner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PolicyJoinerStats {
    /// Messages open now.
    pub open: usize,
    /// Messages forgotten because too many were open.
    pub evicted: u64,
    /// Messages that never ended.
    pub abandoned: u64,
    /// Messages that counted after `quiet_ms`, because no end-of-message request was ever seen.
    pub quiet: u64,
}

/// Joins policy requests by `instance`, which Postfix keeps the same for one message over several connections.
///
/// Exim has no such attribute (a configuration can only put one together from what changes in between), so requests
/// with `policy_context=exim`, or without an instance, are joined by client address, port and account, and the first
/// `MAIL`, or the first request after an end of message, begins the next message.
#[derive(Debug)]
pub struct PolicyJoiner {
    settings: Arc<SessionSettings>,
    config: PolicyJoinerConfig,
    messages: Expiring<Key, Open>,
    end_of_message_seen: bool,
    stats: PolicyJoinerStats,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Instance(String, Account),
    Client(Option<IpAddr>, u16, Account),
}

#[derive(Debug, Default)]
struct Open {
    recipients: RecipientCollector,
    last_request: PolicyRequest,
    touched_ms: i64,
    /// It has counted; kept so that a late request does not make it count again.
    counted: bool,
}

impl Default for PolicyJoinerConfig {
    fn default() -> Self {
        Self { submission_at: SubmissionAt::Auto, quiet_ms: 3_000, open_ms: 15 * 60 * 1000, max_open: 5_000 }
    }
}

impl PolicyJoinerConfig {
    /// Adds everything that is wrong to `problems`; `path` is where this configuration stands.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        let mut wrong = |key: &str, message: &str| {
            problems.push(Problem { key: format!("{path}.{key}"), message: message.to_owned() });
        };
        if !(100..=600_000).contains(&self.quiet_ms) {
            wrong("quiet_ms", "must be from 100 to 600000");
        }
        if self.open_ms < self.quiet_ms || self.open_ms > 86_400_000 {
            wrong("open_ms", "must be from quiet_ms to 86400000 (a day)");
        }
        if !(1..=100_000).contains(&self.max_open) {
            wrong("max_open", "must be from 1 to 100000");
        }
    }
}

impl PolicyJoiner {
    /// An empty joiner.
    pub fn new(settings: Arc<SessionSettings>, config: PolicyJoinerConfig) -> Self {
        let messages = Expiring::new(config.max_open);
        Self { settings, config, messages, end_of_message_seen: false, stats: PolicyJoinerStats::default() }
    }

    /// Lets time pass: call it about every second. Appends messages that count by now to `out`.
    pub fn tick(&mut self, now_ms: i64, out: &mut Vec<Submitted>) {
        while let Some((key, mut open)) = self.messages.pop_expired(now_ms) {
            let ends_ms = open.touched_ms.saturating_add(i64::from(self.config.open_ms));
            if open.counted {
                continue;
            }
            if self.end_of_message_seen || self.config.submission_at == SubmissionAt::Data {
                if now_ms < ends_ms {
                    self.messages.insert(key, open, ends_ms);
                } else {
                    self.stats.abandoned += 1;
                }
                continue;
            }
            let recipients = std::mem::take(&mut open.recipients);
            if recipients.len() > 0 || open.last_request.recipient_count > 0 {
                self.stats.quiet += 1;
                out.push(self.submitted(&open.last_request, recipients, key.account().clone()));
                open.counted = true;
                if now_ms < ends_ms {
                    self.messages.insert(key, open, ends_ms);
                }
            }
        }
    }

    /// Counters.
    pub fn stats(&self) -> PolicyJoinerStats {
        PolicyJoinerStats { open: self.messages.len(), ..self.stats }
    }

    /// Takes in a request that was let pass. Gives the message, if it counts now.
    pub(super) fn observe(
        &mut self,
        request: &PolicyRequest,
        account: Account,
        gate: &dyn Gate,
        now_ms: i64,
    ) -> Option<Submitted> {
        let key = Key::of(request, &account);
        let mut open = self.messages.remove(&key).unwrap_or_default();
        if matches!(key, Key::Client(..)) && (open.counted || request.state == PolicyState::Mail) {
            open = Open::default();
        }
        if !request.recipient.is_empty() && !open.counted {
            open.recipients.add_once(&request.recipient, gate, &self.settings.hashes);
        }
        open.last_request = request.clone();
        open.touched_ms = now_ms;
        let counts_now = match request.state {
            PolicyState::EndOfMessage => {
                self.end_of_message_seen = true;
                true
            }
            PolicyState::Data => self.config.submission_at == SubmissionAt::Data,
            PolicyState::Mail | PolicyState::Recipient | PolicyState::Other => false,
        };
        let submitted = (counts_now && !open.counted)
            .then(|| self.submitted(request, std::mem::take(&mut open.recipients), account));
        open.counted |= counts_now;
        if request.state != PolicyState::EndOfMessage {
            self.keep(key, open, now_ms);
        }
        submitted
    }

    /// How many recipients of the message are no administrators; `None` when none are known.
    pub(super) fn ordinary_recipients(&self, request: &PolicyRequest, account: &Account) -> Option<u32> {
        let open = self.messages.get(&Key::of(request, account))?;
        let known = open.recipients.len() >= request.recipient_count.max(1) && !open.counted;
        known.then(|| open.recipients.ordinary())
    }

    /// The message was refused: it will not count.
    pub(super) fn forget(&mut self, request: &PolicyRequest, account: &Account, now_ms: i64) {
        let key = Key::of(request, account);
        self.messages.remove(&key);
        if request.state == PolicyState::EndOfMessage {
            self.end_of_message_seen = true;
        } else if matches!(key, Key::Instance(..)) {
            let refused = Open { counted: true, touched_ms: now_ms, ..Open::default() };
            self.keep(key, refused, now_ms);
        }
    }

    fn keep(&mut self, key: Key, open: Open, now_ms: i64) {
        let waits_quietly =
            !self.end_of_message_seen && !open.counted && self.config.submission_at == SubmissionAt::Auto;
        let span_ms = if waits_quietly { self.config.quiet_ms } else { self.config.open_ms };
        let evicted = self.messages.insert(key, open, now_ms.saturating_add(i64::from(span_ms)));
        if evicted.is_some_and(|(_, open)| !open.counted) {
            self.stats.evicted += 1;
        }
    }

    fn submitted(&self, request: &PolicyRequest, recipients: RecipientCollector, account: Account) -> Submitted {
        let relayed = self.settings.is_trusted_relay(request.client_address);
        let mut recipients = recipients.finish();
        if request.recipient_count > 0 && matches!(request.state, PolicyState::Data | PolicyState::EndOfMessage) {
            // What the server counted is right: of those seen here others may have been refused by it.
            recipients.count = request.recipient_count;
            recipients.internal = recipients.internal.min(recipients.count);
        }
        let submission = Submission {
            client_address: request.client_address.filter(|_| !relayed),
            client_port: if relayed { 0 } else { request.client_port },
            helo: request.helo.clone(),
            sender: bare_address(&request.sender).to_owned(),
            recipients,
            size: request.size,
            queue_id: request.queue_id.clone(),
            login_method: request.sasl_method.to_uppercase(),
            tls: request.tls.clone(),
            ..Submission::default()
        };
        Submitted { account, submission }
    }
}

impl Key {
    fn of(request: &PolicyRequest, account: &Account) -> Self {
        if request.instance.is_empty() || request.context == "exim" {
            Self::Client(request.client_address, request.client_port, account.clone())
        } else {
            Self::Instance(request.instance.clone(), account.clone())
        }
    }

    fn account(&self) -> &Account {
        match self {
            Self::Instance(_, account) | Self::Client(_, _, account) => account,
        }
    }
}
