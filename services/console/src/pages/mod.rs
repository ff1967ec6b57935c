//! The pages. Each is asked of the API, rendered in parts, and told of again when a part changes.

pub(crate) mod account;
pub(crate) mod account_actions;
mod account_forms;
mod account_parts;
pub(crate) mod accounts;
pub(crate) mod audit;
pub(crate) mod bulk;
pub(crate) mod edges;
mod evidence;
pub(crate) mod overview;
mod rule_fold;
pub(crate) mod rules;
pub(crate) mod sessions;
pub(crate) mod settings;

use crate::failure::Failure;
use crate::fields::Fields;
use crate::visitor::Visitor;
use crate::watch::Watched;
use crate::words::{Part, hint};
use axum::response::Response;
use maud::Markup;
use std::time::Duration;
use tonic::{Code, Status};

/// A page that is told of changes.
pub(crate) enum View {
    Overview,
    Accounts(accounts::Query),
    Account(String),
    Bulk(String),
    Rules,
    Edges,
    Audit(audit::Query),
}

impl View {
    /// The page at `of`, a path with its query.
    pub fn parse(of: &str) -> Option<Self> {
        let (path, query) = of.split_once('?').unwrap_or((of, ""));
        let fields = Fields::parse(query.as_bytes());
        Some(match path {
            "/" => Self::Overview,
            "/accounts" => Self::Accounts(accounts::Query::parse(&fields).ok()?),
            "/account" => Self::Account(fields.get("name").to_owned()),
            "/bulk/action" => Self::Bulk(fields.get("id").to_owned()),
            "/rules" => Self::Rules,
            "/edges" => Self::Edges,
            "/audit" => Self::Audit(audit::Query::parse(&fields).ok()?),
            _ => return None,
        })
    }

    /// What of it can change, as it is now.
    ///
    /// # Errors
    /// What the API says, when there is nothing to show without it.
    pub async fn parts(&self, visitor: &Visitor) -> Result<Vec<Part>, Status> {
        match self {
            Self::Overview => overview::parts(visitor).await,
            Self::Accounts(query) => accounts::parts(visitor, query).await,
            Self::Account(name) => account_parts::parts(visitor, name).await,
            Self::Bulk(id) => Ok(bulk::parts(visitor, id)),
            Self::Rules => rules::parts(visitor).await,
            Self::Edges => edges::parts(visitor).await,
            Self::Audit(query) => audit::parts(visitor, query).await,
        }
    }

    /// What tells that it has changed.
    pub fn watches(&self) -> Watched {
        match self {
            Self::Overview => Watched::Accounts(tidegate_proto::v1::AccountFilter::default()),
            Self::Accounts(query) => Watched::Accounts(query.filter()),
            Self::Account(name) => Watched::Account(name.clone()),
            Self::Audit(query) => Watched::Audit(query.filter()),
            Self::Bulk(_) | Self::Rules | Self::Edges => Watched::Nothing,
        }
    }

    /// How often it is asked for again when nothing tells; none: as is set for all.
    pub fn poll(&self) -> Option<Duration> {
        match self {
            // What cannot be watched is shown here.
            Self::Overview | Self::Edges | Self::Rules => None,
            Self::Bulk(_) => Some(Duration::from_millis(500)),
            // Each asks the owner of the account's partition for its statistics.
            Self::Account(_) => Some(Duration::from_secs(15)),
            Self::Accounts(_) | Self::Audit(_) => Some(Duration::from_secs(30)),
        }
    }

    /// Whether it changes no more.
    pub fn is_over(&self, visitor: &Visitor) -> bool {
        match self {
            Self::Bulk(id) => bulk::is_over(visitor, id),
            _ => false,
        }
    }
}

/// Nothing is at this path.
pub(crate) async fn not_found(visitor: Visitor) -> Response {
    visitor.failed(&Failure::not_found("There is no such page."))
}

/// `answer` as `render` shows it, or a hint why it cannot be shown: what one part lacks must not take the page down.
///
/// # Errors
/// When the credential counts no longer.
fn shown<T>(what: &str, answer: Result<T, Status>, render: impl FnOnce(T) -> Markup) -> Result<Markup, Status> {
    match answer {
        Ok(answer) => Ok(render(answer)),
        Err(status) if status.code() == Code::Unauthenticated => Err(status),
        Err(status) => Ok(hint(what, &status)),
    }
}
