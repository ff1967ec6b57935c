//! The account's state: the one record that the edges obey.

use crate::{Account, Milestone};
use std::net::IpAddr;

/// Everything that is decided about one account; complete in itself.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountState {
    /// The account.
    pub account: Account,
    /// What the edges do with its mail.
    pub status: Status,
    /// Rises by one with each published change; 0 is an account of which nothing was ever decided.
    pub version: u64,
    /// When the status last changed.
    pub changed_ms: i64,
    /// Rules that do not apply to it for a time.
    pub exemptions: Vec<Exemption>,
    /// Events before this no longer count for rules.
    pub clean_slate: Option<CleanSlate>,
    /// Tighter limits apply until then.
    pub probation_until_ms: Option<i64>,
    /// The last notice sent about it, so that it is not repeated with every message.
    pub notice: Option<Notice>,
    /// How the last administrative command about it ended.
    pub last_command: Option<CommandOutcome>,
    /// Highest inputs that this state reflects: an input at or below changes nothing again.
    pub as_of: AsOf,
    /// What was decided about it, the newest last; at most [`Milestone::MAX`].
    pub timeline: Vec<Milestone>,
    /// How often a lock has ended by itself since somebody last unlocked it.
    pub auto_unlocks: u32,
}

/// What the edges do with an account's mail.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// It flows.
    Active,
    /// Refused for now (`450`).
    Throttled(Lock),
    /// Refused (`550`).
    Locked(Lock),
}

/// Why and until when an account's mail is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Lock {
    /// Short id that the refused user can tell the help desk, e.g. `L-7K3QX2M9`.
    pub id: String,
    /// Who decided.
    pub cause: Cause,
    /// Reason, for administrators.
    pub reason: String,
    /// The columns that made the rule hold.
    pub evidence: Vec<Evidence>,
    /// Since when.
    pub since_ms: i64,
    /// Until when; none: until somebody unlocks it.
    pub until_ms: Option<i64>,
    /// What the SMTP client is told.
    pub reply: String,
    /// What to do with mail that is queued already.
    pub queued_mail: QueuedMail,
    /// Addresses from which the account sent before the rule held, as far as they are known.
    pub clients: Vec<ClientSeen>,
    /// Subjects of messages that led to it, as a sample; empty unless the edges are set to tell subjects.
    pub subjects: Vec<String>,
}

/// An address from which an account sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientSeen {
    /// The address.
    pub address: IpAddr,
    /// Messages from there that were seen.
    pub messages: u32,
    /// When the last one came.
    pub last_ms: i64,
}

/// Who decided a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A rule held.
    Rule(RuleRef),
    /// An administrator asked for it.
    Admin {
        /// Who.
        actor: String,
    },
}

/// A rule, and the version of the rule set that it came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleRef {
    /// Name of the rule.
    pub name: String,
    /// Version (hash) of the rule set.
    pub rule_set: String,
}

/// One column's value at the time when a rule held.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// `<statistic>_<window>`, e.g. `recipients_1h`.
    pub column: String,
    /// Its value; NaN when it was NULL.
    pub value: f64,
}

/// What happens to mail of a locked account that is in a queue already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum QueuedMail {
    /// It is delivered.
    #[default]
    Keep,
    /// It waits until it is released.
    Hold,
    /// It is deleted.
    Delete,
}

/// Rules that do not apply to an account for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exemption {
    /// Names of the rules; empty means all.
    pub rules: Vec<String>,
    /// Until when; none: until it is taken back.
    pub until_ms: Option<i64>,
    /// Who granted it.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// The point from which an account's events count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanSlate {
    /// Events up to and including this offset do not count; none: no event had been read.
    pub event_offset: Option<u64>,
    /// Events that happened up to this time do not count, also when they arrive later.
    pub time_ms: i64,
}

/// A notice that a rule asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// The rule.
    pub rule: RuleRef,
    /// When.
    pub at_ms: i64,
    /// What made it hold.
    pub evidence: Vec<Evidence>,
}

/// How an administrative command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutcome {
    /// The command's id.
    pub id: String,
    /// Who asked.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When it was applied.
    pub at_ms: i64,
    /// Evidence given with an unlock.
    pub evidence: Option<UnlockEvidence>,
    /// Whether it changed what it asked for, and if not, why.
    pub refused: Option<String>,
}

/// Why it is believed that the thief no longer knows the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnlockEvidence {
    /// When the password was changed.
    pub password_changed_ms: Option<i64>,
    /// In the operator's words.
    pub note: String,
}

/// Highest offsets, in the account's partition, that a state reflects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AsOf {
    /// Of `events`; none: of no event.
    pub event_offset: Option<u64>,
    /// Of `commands`; none: of no command.
    pub command_offset: Option<u64>,
}

/// What to do with one SMTP command of an account.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decision<'a> {
    /// Let it pass.
    Pass,
    /// Refuse it for now.
    Throttle(&'a Lock),
    /// Refuse it.
    Refuse(&'a Lock),
}

impl AccountState {
    /// The state of an account of which nothing was ever decided.
    pub fn new(account: Account) -> Self {
        Self {
            account,
            status: Status::Active,
            version: 0,
            changed_ms: 0,
            exemptions: Vec::new(),
            clean_slate: None,
            probation_until_ms: None,
            notice: None,
            last_command: None,
            as_of: AsOf::default(),
            timeline: Vec::new(),
            auto_unlocks: 0,
        }
    }

    /// What an edge does with the account's mail at `now_ms`: a lock whose time has passed no longer refuses.
    pub fn decide(&self, now_ms: i64) -> Decision<'_> {
        match &self.status {
            Status::Locked(lock) if lock.in_force(now_ms) => Decision::Refuse(lock),
            Status::Throttled(lock) if lock.in_force(now_ms) => Decision::Throttle(lock),
            Status::Active | Status::Locked(_) | Status::Throttled(_) => Decision::Pass,
        }
    }

    /// Whether rule `rule` does not apply to it at `at_ms`.
    pub fn is_exempt(&self, rule: &str, at_ms: i64) -> bool {
        self.exemptions.iter().any(|exemption| exemption.covers(rule, at_ms))
    }

    /// Whether an event at `offset` that happened at `time_ms` counts for rules.
    pub fn counts(&self, offset: u64, time_ms: i64) -> bool {
        self.clean_slate
            .is_none_or(|slate| slate.event_offset.is_none_or(|clean| offset > clean) && time_ms > slate.time_ms)
    }
}

impl Status {
    /// The lock behind it, if its mail is refused.
    pub fn lock(&self) -> Option<&Lock> {
        match self {
            Self::Active => None,
            Self::Throttled(lock) | Self::Locked(lock) => Some(lock),
        }
    }

    /// `active`, `throttled` or `locked`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Throttled(_) => "throttled",
            Self::Locked(_) => "locked",
        }
    }
}

impl Lock {
    /// Whether its time has not passed at `now_ms`.
    pub fn in_force(&self, now_ms: i64) -> bool {
        self.until_ms.is_none_or(|until| now_ms < until)
    }
}

impl Exemption {
    fn covers(&self, rule: &str, at_ms: i64) -> bool {
        self.until_ms.is_none_or(|until| at_ms < until)
            && (self.rules.is_empty() || self.rules.iter().any(|name| name == rule))
    }
}
