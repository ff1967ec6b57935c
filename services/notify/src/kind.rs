//! What people can be told of.

use serde::{Deserialize, Serialize};
use tidegate_proto::v1;

/// What people can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A rule asked for a notice; mail flows.
    Notice,
    /// Mail is refused for a time.
    Throttle,
    /// Mail is refused.
    Lock,
    /// Mail flows again: somebody unlocked the account, or the lock's time has passed.
    Unlock,
    /// An exemption ends soon.
    Exemption,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Notice, Self::Throttle, Self::Lock, Self::Unlock, Self::Exemption];

    /// As configuration, templates and metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Throttle => "throttle",
            Self::Lock => "lock",
            Self::Unlock => "unlock",
            Self::Exemption => "exemption",
        }
    }

    /// What a change of an account's state is to people; none: nobody is told.
    pub fn of_change(change: v1::Change) -> Option<Self> {
        match change {
            v1::Change::Locked => Some(Self::Lock),
            v1::Change::Throttled => Some(Self::Throttle),
            v1::Change::Noticed => Some(Self::Notice),
            v1::Change::Unlocked | v1::Change::Expired => Some(Self::Unlock),
            v1::Change::Amended | v1::Change::CommandRefused | v1::Change::Unspecified => None,
        }
    }

    /// What a notification tells of.
    pub fn of(notification: &v1::Notification) -> Self {
        if notification.exemption.is_some() {
            return Self::Exemption;
        }
        Self::of_change(notification.change()).unwrap_or(Self::Notice)
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is none of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}
