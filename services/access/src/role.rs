//! Roles, and what methods need.

use serde::{Deserialize, Serialize};

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees accounts, edges and rules.
    Viewer,
    /// What a viewer may, and queries the history.
    Analyst,
    /// What a viewer may, and locks, unlocks and exempts accounts.
    Operator,
    /// Everything: also rules, limits, the audit and the history.
    Admin,
}

/// What a method needs of who calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// Nothing: health, and asking who one is.
    Nothing,
    /// An edge.
    Edge,
    /// An edge, or a token to become one.
    Enrol,
    /// To see.
    See,
    /// To act on accounts.
    Act,
    /// To query the history.
    Analyse,
    /// To change what holds for many, and to see what others did.
    Administer,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Analyst, Self::Operator, Self::Admin];

    /// `viewer`, `analyst`, `operator` or `admin`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Analyst => "analyst",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Whether it meets `need`.
    pub fn meets(self, need: Need) -> bool {
        match need {
            Need::Nothing | Need::See => true,
            Need::Edge | Need::Enrol => false,
            Need::Act => matches!(self, Self::Operator | Self::Admin),
            Need::Analyse => matches!(self, Self::Analyst | Self::Admin),
            Need::Administer => self == Self::Admin,
        }
    }
}

impl Need {
    /// What is needed, for an error: `the role operator or admin`.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Edge => "an edge's certificate",
            Self::Enrol => "a token for enrolment or an edge's certificate",
            Self::See => "any role",
            Self::Act => "the role operator or admin",
            Self::Analyse => "the role analyst or admin",
            Self::Administer => "the role admin",
        }
    }
}
