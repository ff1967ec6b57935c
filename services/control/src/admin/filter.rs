//! Which accounts a list or a watch is about.

use crate::accounts::Among;
use tidegate_domain::{AccountForm, AccountState, Cause, Status as AccountStatus};
use tidegate_proto::v1;
use tonic::Status;

/// Most entries in one list of a filter.
const MAX_ENTRIES: usize = 1_000;
/// Longest text in a filter, in octets.
const MAX_TEXT_OCTETS: usize = 320;

/// A checked filter. All that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    statuses: Vec<v1::AccountStatus>,
    domains: Vec<String>,
    contains: String,
    rule: String,
    exempted: bool,
}

impl Filter {
    /// Checks what was asked for.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` that names the field and what is allowed.
    pub fn new(filter: Option<v1::AccountFilter>, form: &AccountForm) -> Result<Self, Status> {
        let Some(filter) = filter else { return Ok(Self::default()) };
        for (field, count) in [("statuses", filter.statuses.len()), ("domains", filter.domains.len())] {
            if count > MAX_ENTRIES {
                return Err(invalid(field, &format!("has {count} entries"), "at most 1,000"));
            }
        }
        for (field, text) in [("contains", &filter.contains), ("rule", &filter.rule)]
            .into_iter()
            .chain(filter.domains.iter().map(|domain| ("domains", domain)))
        {
            if text.len() > MAX_TEXT_OCTETS {
                return Err(invalid(field, &format!("has a text of {} octets", text.len()), "at most 320"));
            }
        }
        let mut statuses = Vec::with_capacity(filter.statuses.len());
        for number in filter.statuses {
            match v1::AccountStatus::try_from(number) {
                Ok(status) if status != v1::AccountStatus::Unspecified => statuses.push(status),
                _ => {
                    return Err(invalid("statuses", &format!("has {number}"), "active (1), throttled (2), locked (3)"));
                }
            }
        }
        let contains = if form.lower_case_local_part { filter.contains.to_lowercase() } else { filter.contains };
        let domains = filter.domains.iter().map(|domain| domain.trim_end_matches('.').to_lowercase()).collect();
        Ok(Self { statuses, domains, contains, rule: filter.rule, exempted: filter.exempted })
    }

    /// Whether every account matches.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Among which accounts those that match are.
    pub fn among(&self) -> Among {
        let refused_only = !self.statuses.is_empty() && !self.statuses.contains(&v1::AccountStatus::Active);
        if refused_only || !self.rule.is_empty() { Among::Refused } else { Among::All }
    }

    /// Whether `state` matches at `now_ms`.
    pub fn matches(&self, state: &AccountState, now_ms: i64) -> bool {
        let status = match state.status {
            AccountStatus::Active => v1::AccountStatus::Active,
            AccountStatus::Throttled(_) => v1::AccountStatus::Throttled,
            AccountStatus::Locked(_) => v1::AccountStatus::Locked,
        };
        (self.statuses.is_empty() || self.statuses.contains(&status))
            && (self.rule.is_empty() || rule_of(state) == Some(self.rule.as_str()))
            && (!self.exempted || state.exemptions.iter().any(|one| one.until_ms.is_none_or(|until| now_ms < until)))
            && (self.domains.is_empty() || state.account.domain().is_some_and(|domain| self.names(domain)))
            && (self.contains.is_empty() || state.account.as_str().contains(&self.contains))
    }

    fn names(&self, domain: &str) -> bool {
        self.domains.iter().any(|named| named == domain)
    }
}

fn rule_of(state: &AccountState) -> Option<&str> {
    match &state.status.lock()?.cause {
        Cause::Rule(rule) => Some(&rule.name),
        Cause::Admin { .. } => None,
    }
}

fn invalid(field: &str, has: &str, allowed: &str) -> Status {
    Status::invalid_argument(format!("filter.{field} {has}; allowed: {allowed}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_domain::{Account, Exemption, Lock, QueuedMail, RuleRef};

    fn locked(name: &str) -> AccountState {
        let lock = Lock {
            id: "L-1".into(),
            cause: Cause::Rule(RuleRef { name: "burst".into(), rule_set: "ab".into() }),
            reason: String::new(),
            evidence: Vec::new(),
            since_ms: 0,
            until_ms: None,
            reply: String::new(),
            queued_mail: QueuedMail::Keep,
            clients: Vec::new(),
            subjects: Vec::new(),
        };
        AccountState { status: AccountStatus::Locked(lock), ..AccountState::new(Account::parse(name).unwrap()) }
    }

    fn filter(filter: v1::AccountFilter) -> Filter {
        Filter::new(Some(filter), &AccountForm::default()).unwrap()
    }

    #[test]
    fn all_that_is_set_must_hold() {
        let state = locked("jo@example.org");
        let by_rule = filter(v1::AccountFilter { rule: "burst".into(), ..Default::default() });
        assert!(by_rule.matches(&state, 0) && by_rule.among() == Among::Refused);
        let both =
            v1::AccountFilter { rule: "burst".into(), domains: vec!["Example.NET".into()], ..Default::default() };
        assert!(!filter(both.clone()).matches(&state, 0));
        assert!(filter(both).matches(&locked("jo@example.net"), 0));
        let part = filter(v1::AccountFilter { contains: "JO@".into(), ..Default::default() });
        assert!(part.matches(&state, 0) && !part.matches(&locked("al@example.org"), 0));
        let active = filter(v1::AccountFilter { statuses: vec![1], ..Default::default() });
        assert!(!active.matches(&state, 0) && active.among() == Among::All);
        assert!(filter(v1::AccountFilter::default()).is_empty());
    }

    #[test]
    fn an_exemption_counts_until_its_end() {
        let mut state = locked("jo@example.org");
        let exempted = filter(v1::AccountFilter { exempted: true, ..Default::default() });
        assert!(!exempted.matches(&state, 5));
        state.exemptions =
            vec![Exemption { rules: Vec::new(), until_ms: Some(10), actor: "amy".into(), reason: "printer".into() }];
        assert!(exempted.matches(&state, 9) && !exempted.matches(&state, 10));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let error =
            Filter::new(Some(v1::AccountFilter { statuses: vec![0], ..Default::default() }), &AccountForm::default())
                .unwrap_err();
        assert_eq!(error.message(), "filter.statuses has 0; allowed: active (1), throttled (2), locked (3)");
    }
}
