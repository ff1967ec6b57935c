//! Which accounts are meant.

use clap::ValueEnum;
use tidegate_proto::v1;

#[derive(Debug, Clone, clap::Args)]
pub struct FilterArgs {
    /// Only these statuses
    #[arg(long, value_enum, value_delimiter = ',')]
    status: Vec<Status>,
    /// Only accounts of this domain (may be repeated)
    #[arg(long)]
    domain: Vec<String>,
    /// Only accounts whose name contains this
    #[arg(long, default_value = "")]
    contains: String,
    /// Only accounts that this rule throttled or locked
    #[arg(long, default_value = "")]
    rule: String,
    /// Only accounts with an exemption
    #[arg(long)]
    exempted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Status {
    Active,
    Throttled,
    Locked,
    Any,
}

impl FilterArgs {
    /// The filter; `default` are the statuses when none are named.
    pub fn filter(&self, default: &[v1::AccountStatus]) -> v1::AccountFilter {
        let named = self.status.iter().filter_map(|status| match status {
            Status::Active => Some(v1::AccountStatus::Active),
            Status::Throttled => Some(v1::AccountStatus::Throttled),
            Status::Locked => Some(v1::AccountStatus::Locked),
            Status::Any => None,
        });
        let statuses: Vec<v1::AccountStatus> = if self.status.contains(&Status::Any) {
            Vec::new()
        } else if self.status.is_empty() && !self.exempted {
            default.to_vec()
        } else {
            named.collect()
        };
        v1::AccountFilter {
            statuses: statuses.into_iter().map(Into::into).collect(),
            domains: self.domain.clone(),
            contains: self.contains.clone(),
            rule: self.rule.clone(),
            exempted: self.exempted,
        }
    }
}
