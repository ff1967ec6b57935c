//! The topics.

/// A topic, by what stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// What edges saw (`Event`).
    Events,
    /// What administrators ask (`Command`).
    Commands,
    /// Account states (`AccountState`).
    Accounts,
    /// Who asked what (`AuditRecord`).
    Audit,
    /// Rule sets in force (`RuleSet`), keyed by partition number.
    Rules,
    /// What administrators set at run time (`Setting`), keyed by the setting's key.
    Settings,
    /// Accounts' statistics that were asked for (`Inspection`).
    Inspections,
    /// Who was told of decisions (`Notification`).
    Notifications,
}

/// How long a topic keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Until they are so old, in milliseconds.
    Delete {
        /// The age.
        max_age_ms: i64,
    },
    /// The newest of each key, for ever.
    Compact,
}

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

impl Topic {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Events,
        Self::Commands,
        Self::Accounts,
        Self::Audit,
        Self::Rules,
        Self::Settings,
        Self::Inspections,
        Self::Notifications,
    ];

    /// The name after the prefix, e.g. `events` in `tidegate.events`.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Commands => "commands",
            Self::Accounts => "accounts",
            Self::Audit => "audit",
            Self::Rules => "rules",
            Self::Settings => "settings",
            Self::Inspections => "inspections",
            Self::Notifications => "notifications",
        }
    }

    /// How long it keeps its records by default.
    pub const fn kept(self) -> Kept {
        match self {
            Self::Events | Self::Commands => Kept::Delete { max_age_ms: 7 * DAY_MS },
            Self::Audit => Kept::Delete { max_age_ms: 365 * DAY_MS },
            Self::Notifications => Kept::Delete { max_age_ms: 30 * DAY_MS },
            Self::Inspections => Kept::Delete { max_age_ms: HOUR_MS },
            Self::Accounts | Self::Rules | Self::Settings => Kept::Compact,
        }
    }
}
