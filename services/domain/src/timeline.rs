//! The timeline: what was decided about an account, the newest last.

use crate::AccountState;

/// One decision about an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Milestone {
    /// The state's version that it led to; unique for the account.
    pub version: u64,
    /// When.
    pub at_ms: i64,
    /// What.
    pub change: Change,
    /// The rule that held, if one did.
    pub rule: Option<String>,
    /// The administrator who asked, if one did.
    pub actor: Option<String>,
    /// Why; of a command that could not be done, why not.
    pub reason: String,
    /// The lock that began or ended with it, if one did.
    pub lock_id: Option<String>,
}

/// How a state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Its mail is refused from now on.
    Locked,
    /// Its mail is refused for a time.
    Throttled,
    /// A notice is due.
    Noticed,
    /// An administrator let its mail flow again.
    Unlocked,
    /// The lock's time has passed.
    Expired,
    /// Exemptions or the clean slate changed.
    Amended,
    /// A command could not be done; the state says why.
    CommandRefused,
}

impl Change {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Locked,
        Self::Throttled,
        Self::Noticed,
        Self::Unlocked,
        Self::Expired,
        Self::Amended,
        Self::CommandRefused,
    ];

    /// `locked`, `throttled`, and so on: as metrics and the history have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::Throttled => "throttled",
            Self::Noticed => "noticed",
            Self::Unlocked => "unlocked",
            Self::Expired => "expired",
            Self::Amended => "amended",
            Self::CommandRefused => "command_refused",
        }
    }
}

/// Who or what a change came from.
#[derive(Debug, Default)]
pub(crate) struct Because {
    pub rule: Option<String>,
    pub actor: Option<String>,
    pub reason: String,
    pub lock_id: Option<String>,
}

impl Milestone {
    /// Most of them that a state keeps; the oldest go first.
    pub const MAX: usize = 16;
    /// Longest reason, in octets; longer ones are cut.
    pub const MAX_REASON_OCTETS: usize = 256;
}

impl AccountState {
    /// Gives the state its next version, and the timeline the milestone that led to it.
    pub(crate) fn note(&mut self, change: Change, at_ms: i64, because: Because) {
        let Because { rule, actor, mut reason, lock_id } = because;
        reason.truncate(reason.floor_char_boundary(Milestone::MAX_REASON_OCTETS));
        self.version = self.version.saturating_add(1);
        let excess = (self.timeline.len() + 1).saturating_sub(Milestone::MAX);
        self.timeline.drain(..excess);
        self.timeline.push(Milestone { version: self.version, at_ms, change, rule, actor, reason, lock_id });
    }
}
