//! Who calls.

use crate::{Need, Role, Scope};

/// Who calls, as the credential proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A person, or a program that acts for one.
    Person(Person),
    /// A mail host.
    Edge(Edge),
    /// A mail host that has no certificate yet.
    Enrolling(Enrolling),
}

/// A person, or a program that acts for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The name that stands in the audit.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// About whose accounts.
    pub scope: Scope,
    /// How they proved it.
    pub credential: Credential,
    /// Until when it counts: milliseconds since 1970 UTC; none: it has no end.
    pub expires_ms: Option<i64>,
}

/// A mail host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Its name; none: it may say any, since nothing is asked for on this loopback address.
    pub node: Option<String>,
    /// Its site; none likewise.
    pub site: Option<String>,
    /// Until when its certificate counts: milliseconds since 1970 UTC; none: it has no end.
    pub expires_ms: Option<i64>,
}

/// A mail host that has no certificate yet, but a token to get one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolling {
    /// The site that the certificate will name.
    pub site: String,
    /// The node likewise.
    pub node: String,
    /// The id of the token, which counts once.
    pub token: String,
    /// Until when the token counts: milliseconds since 1970 UTC; none: it has no end.
    pub expires_ms: Option<i64>,
}

/// How somebody proved who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Not at all: on a loopback address where nothing is asked for.
    Loopback,
    /// By a certificate with this name.
    Certificate(String),
    /// By the token with this id.
    Token(String),
    /// By a JWT for this subject.
    Jwt(String),
}

impl Principal {
    /// Whether it meets `need`.
    pub fn meets(&self, need: Need) -> bool {
        match self {
            Self::Person(person) => {
                person.role.meets(need) || (matches!(need, Need::Edge | Need::Enrol) && person.is_unproven())
            }
            Self::Edge(_) => matches!(need, Need::Edge | Need::Enrol | Need::Nothing),
            Self::Enrolling(_) => matches!(need, Need::Enrol | Need::Nothing),
        }
    }

    /// The name that stands in the audit.
    pub fn name(&self) -> &str {
        match self {
            Self::Person(person) => &person.name,
            Self::Edge(edge) => edge.node.as_deref().unwrap_or("edge"),
            Self::Enrolling(enrolling) => &enrolling.node,
        }
    }

    /// The role that stands in the audit.
    pub fn role(&self) -> &'static str {
        match self {
            Self::Person(person) => person.role.as_str(),
            Self::Edge(_) => "edge",
            Self::Enrolling(_) => "enrolment",
        }
    }
}

impl Person {
    /// Who calls on a loopback address where nothing is asked for: may do everything, and says who they are.
    pub fn on_loopback() -> Self {
        Self {
            name: String::new(),
            role: Role::Admin,
            scope: Scope::all(),
            credential: Credential::Loopback,
            expires_ms: None,
        }
    }

    /// Whether nothing was proven, so that a request says itself who asks.
    pub fn is_unproven(&self) -> bool {
        self.credential == Credential::Loopback
    }
}

impl Credential {
    /// `loopback`, `certificate`, `token` or `jwt`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Certificate(_) => "certificate",
            Self::Token(_) => "token",
            Self::Jwt(_) => "jwt",
        }
    }
}
