//! Joins messages and filter verdicts, so that each message counts once, and as spam once.
//!
//! A message that the filter marked comes twice: as a message (perhaps with the filter's headers), and as a posted
//! verdict, in either order. One that it refused comes as an aborted message and as a verdict; an abort alone is a
//! client that left. The two are joined by queue id and account. Queue ids are used again within seconds under load,
//! so what is remembered ends soon.

use crate::expiring::Expiring;
use crate::rspamd::FilterVerdict;
use crate::{Problem, Submitted};
use serde::{Deserialize, Serialize};
use tidegate_domain::{Account, Disposition, Submission};

/// How the joiner works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerdictJoinerConfig {
    /// How long a verdict waits for its message before it counts alone.
    pub grace_ms: u32,
    /// How long a message is remembered.
    pub remember_ms: u32,
    /// Most messages and verdicts that are remembered.
    pub max_entries: usize,
}

/// Counters of a joiner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerdictJoinerStats {
    /// Entries held now.
    pub entries: usize,
    /// Messages and verdicts that found each other.
    pub joined: u64,
    /// Verdicts that counted alone.
    pub alone: u64,
    /// Aborted messages without a verdict: clients that left.
    pub abandoned: u64,
    /// Entries forgotten early because there were too many.
    pub evicted: u64,
}

/// Joins messages and filter verdicts.
///
/// Messages pass through at once, never held back: what a verdict adds later becomes a submission of its own
/// ([`Disposition::LateVerdict`]) that counts as spam and not as a message.
#[derive(Debug)]
pub struct VerdictJoiner {
    config: VerdictJoinerConfig,
    entries: Expiring<(String, Account), Entry>,
    stats: VerdictJoinerStats,
}

#[derive(Debug)]
enum Entry {
    /// The message has gone out.
    Message { spam: bool },
    /// The message was given up; whether it was refused as spam is not known yet.
    Aborted(Box<Submitted>),
    /// The verdict came first.
    Verdict(Box<FilterVerdict>),
    /// The verdict has counted, alone (`late`: as spam only) or with an aborted message.
    Settled { late: bool },
}

impl Default for VerdictJoinerConfig {
    fn default() -> Self {
        Self { grace_ms: 5_000, remember_ms: 60_000, max_entries: 20_000 }
    }
}

impl VerdictJoinerConfig {
    /// Adds everything that is wrong to `problems`; `path` is where this configuration stands.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        let mut wrong = |key: &str, message: &str| {
            problems.push(Problem { key: format!("{path}.{key}"), message: message.to_owned() });
        };
        if !(100..=600_000).contains(&self.grace_ms) {
            wrong("grace_ms", "must be from 100 to 600000");
        }
        if self.remember_ms < self.grace_ms || self.remember_ms > 3_600_000 {
            wrong("remember_ms", "must be from grace_ms to 3600000 (an hour)");
        }
        if !(1..=1_000_000).contains(&self.max_entries) {
            wrong("max_entries", "must be from 1 to 1000000");
        }
    }
}

impl VerdictJoiner {
    /// An empty joiner.
    pub fn new(config: VerdictJoinerConfig) -> Self {
        let entries = Expiring::new(config.max_entries);
        Self { config, entries, stats: VerdictJoinerStats::default() }
    }

    /// A message reached its end. Appends it to `out`, with the verdict if that is there already.
    pub fn message(&mut self, mut message: Submitted, now_ms: i64, out: &mut Vec<Submitted>) {
        if message.submission.queue_id.is_empty() {
            return out.push(message);
        }
        let key = key_of(&message);
        let submission = &mut message.submission;
        let mut spam = submission.spam;
        match self.entries.remove(&key) {
            Some(Entry::Verdict(verdict)) => {
                self.stats.joined += 1;
                submission.spam |= verdict.is_spam();
                submission.spam_score = verdict.score.or(submission.spam_score);
                spam = submission.spam;
            }
            Some(Entry::Settled { late: true }) => {
                // Its verdict has counted as spam already.
                submission.spam = false;
                spam = true;
            }
            // An id that is used again.
            Some(Entry::Aborted(_)) => self.stats.abandoned += 1,
            Some(Entry::Message { .. } | Entry::Settled { late: false }) | None => {}
        }
        out.push(message);
        self.keep(key, Entry::Message { spam }, self.config.remember_ms, now_ms, out);
    }

    /// A message was given up after `DATA`. Appends it to `out` if the filter's verdict says that it refused it.
    pub fn aborted(&mut self, message: Submitted, now_ms: i64, out: &mut Vec<Submitted>) {
        if message.submission.queue_id.is_empty() {
            return;
        }
        let key = key_of(&message);
        match self.entries.remove(&key) {
            Some(Entry::Verdict(verdict)) => self.settle(key, message, &verdict, now_ms, out),
            Some(settled @ Entry::Settled { .. }) => self.keep(key, settled, self.config.remember_ms, now_ms, out),
            Some(Entry::Aborted(_)) => {
                self.stats.abandoned += 1;
                self.keep(key, Entry::Aborted(Box::new(message)), self.config.remember_ms, now_ms, out);
            }
            Some(Entry::Message { .. }) | None => {
                self.keep(key, Entry::Aborted(Box::new(message)), self.config.remember_ms, now_ms, out);
            }
        }
    }

    /// A verdict was posted. Appends to `out` what it adds to what was published before.
    pub fn verdict(&mut self, verdict: FilterVerdict, now_ms: i64, out: &mut Vec<Submitted>) {
        let key = (verdict.queue_id.clone(), verdict.account.clone());
        match self.entries.remove(&key) {
            Some(Entry::Message { spam }) => {
                self.stats.joined += 1;
                if verdict.is_spam() && !spam {
                    out.push(late_verdict(&verdict));
                }
                let spam = spam || verdict.is_spam();
                self.keep(key, Entry::Message { spam }, self.config.remember_ms, now_ms, out);
            }
            Some(Entry::Aborted(message)) => self.settle(key, *message, &verdict, now_ms, out),
            Some(settled @ Entry::Settled { .. }) => self.keep(key, settled, self.config.remember_ms, now_ms, out),
            Some(Entry::Verdict(_)) | None => {
                self.keep(key, Entry::Verdict(Box::new(verdict)), self.config.grace_ms, now_ms, out);
            }
        }
    }

    /// Lets time pass: call it about every second. Appends to `out` what verdicts say whose messages never came.
    pub fn tick(&mut self, now_ms: i64, out: &mut Vec<Submitted>) {
        while let Some((key, entry)) = self.entries.pop_expired(now_ms) {
            self.ended(key, entry, now_ms, out);
        }
    }

    /// Counters.
    pub fn stats(&self) -> VerdictJoinerStats {
        VerdictJoinerStats { entries: self.entries.len(), ..self.stats }
    }

    /// An aborted message and its verdict are both there.
    fn settle(
        &mut self,
        key: (String, Account),
        mut message: Submitted,
        verdict: &FilterVerdict,
        now_ms: i64,
        out: &mut Vec<Submitted>,
    ) {
        self.stats.joined += 1;
        if verdict.is_refused() {
            let submission = &mut message.submission;
            submission.disposition = Disposition::RefusedByFilter;
            submission.spam = true;
            submission.spam_score = verdict.score;
            if submission.subject_hash == 0 {
                submission.subject_hash = verdict.subject_hash;
            }
            out.push(message);
        }
        self.keep(key, Entry::Settled { late: false }, self.config.remember_ms, now_ms, out);
    }

    fn ended(&mut self, key: (String, Account), entry: Entry, now_ms: i64, out: &mut Vec<Submitted>) {
        match entry {
            Entry::Verdict(verdict) if verdict.is_spam() => {
                self.stats.alone += 1;
                let late = !verdict.is_refused();
                out.push(if late { late_verdict(&verdict) } else { refused_message(&verdict) });
                self.keep(key, Entry::Settled { late }, self.config.remember_ms, now_ms, out);
            }
            Entry::Aborted(_) => self.stats.abandoned += 1,
            Entry::Verdict(_) | Entry::Message { .. } | Entry::Settled { .. } => {}
        }
    }

    fn keep(&mut self, key: (String, Account), entry: Entry, span_ms: u32, now_ms: i64, out: &mut Vec<Submitted>) {
        let ends_ms = now_ms.saturating_add(i64::from(span_ms));
        let Some((_, evicted)) = self.entries.insert(key, entry, ends_ms) else { return };
        self.stats.evicted += 1;
        if let Entry::Verdict(verdict) = evicted
            && verdict.is_spam()
        {
            self.stats.alone += 1;
            out.push(if verdict.is_refused() { refused_message(&verdict) } else { late_verdict(&verdict) });
        }
    }
}

fn key_of(message: &Submitted) -> (String, Account) {
    (message.submission.queue_id.clone(), message.account.clone())
}

/// A refused message of which only the verdict is known.
fn refused_message(verdict: &FilterVerdict) -> Submitted {
    let mut submitted = late_verdict(verdict);
    submitted.submission.recipients = verdict.recipients.clone();
    submitted.submission.disposition = Disposition::RefusedByFilter;
    submitted
}

/// A verdict on a message that has counted: no recipients, no size, or they would count twice.
fn late_verdict(verdict: &FilterVerdict) -> Submitted {
    let submission = Submission {
        client_address: verdict.client_address,
        sender: verdict.sender.clone(),
        queue_id: verdict.queue_id.clone(),
        subject_hash: verdict.subject_hash,
        spam: true,
        spam_score: verdict.score,
        disposition: Disposition::LateVerdict,
        ..Submission::default()
    };
    Submitted { account: verdict.account.clone(), submission }
}
