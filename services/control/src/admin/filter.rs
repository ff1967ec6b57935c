//! Which accounts a list or a watch is about.

use crate::accounts::Among;
use memchr::memmem::Finder;
use std::collections::BTreeSet;
use tidegate_access::Scope;
use tidegate_domain::{Account, AccountForm, AccountState, Cause, Status as AccountStatus};
use tidegate_proto::v1;
use tonic::Status;

/// Most entries in one list of a filter.
const MAX_ENTRIES: usize = 1_000;
/// Longest text in a filter, in octets.
const MAX_TEXT_OCTETS: usize = 320;

/// A checked filter. All that is set must hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    statuses: Vec<v1::AccountStatus>,
    /// Each named once; none: all, also accounts without a domain.
    domains: Option<Vec<String>>,
    /// Prepared once, as a million names may have to be looked at.
    contains: Option<Finder<'static>>,
    rule: String,
    exempted: bool,
}

impl Filter {
    /// Checks what was asked for, and narrows it to what `scope` allows: of accounts outside nothing is told.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` that names the field and what is allowed.
    pub fn new(filter: Option<v1::AccountFilter>, form: &AccountForm, scope: &Scope) -> Result<Self, Status> {
        let filter = filter.unwrap_or_default();
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
        let named: BTreeSet<String> =
            filter.domains.iter().map(|domain| domain.trim_end_matches('.').to_lowercase()).collect();
        let domains = match scope.limited_to() {
            None if named.is_empty() => None,
            None => Some(named.into_iter().collect()),
            Some(allowed) if named.is_empty() => Some(allowed.iter().cloned().collect()),
            Some(_) => Some(named.into_iter().filter(|domain| scope.has_domain(domain)).collect()),
        };
        let contains = (!contains.is_empty()).then(|| Finder::new(&contains).into_owned());
        Ok(Self { statuses, domains, contains, rule: filter.rule, exempted: filter.exempted })
    }

    /// Whether all accounts that it goes among match, so that they need not be looked at to be counted.
    pub fn is_plain(&self) -> bool {
        let Self { statuses, domains: _, contains, rule, exempted } = self;
        statuses.is_empty() && contains.is_none() && rule.is_empty() && !exempted
    }

    /// Among which accounts those that match are.
    pub fn among(&self) -> Among<'_> {
        let refused_only = !self.statuses.is_empty() && !self.statuses.contains(&v1::AccountStatus::Active);
        if refused_only || !self.rule.is_empty() {
            return Among::Refused;
        }
        match &self.domains {
            _ if self.exempted => Among::Exempted,
            Some(domains) => Among::Of(domains),
            None => Among::All,
        }
    }

    /// Whether `state` matches at `now_ms`.
    pub fn matches(&self, state: &AccountState, now_ms: i64) -> bool {
        self.matches_named(&state.account, state, now_ms)
    }

    /// The same for who has the account's name at hand: where that decides, the state, which is somewhere else in memory,
    /// is not looked at.
    pub fn matches_named(&self, account: &Account, state: &AccountState, now_ms: i64) -> bool {
        if self.contains.as_ref().is_some_and(|text| text.find(account.as_str().as_bytes()).is_none()) {
            return false;
        }
        let status = match state.status {
            AccountStatus::Active => v1::AccountStatus::Active,
            AccountStatus::Throttled(_) => v1::AccountStatus::Throttled,
            AccountStatus::Locked(_) => v1::AccountStatus::Locked,
        };
        (self.statuses.is_empty() || self.statuses.contains(&status))
            && (self.rule.is_empty() || rule_of(state) == Some(self.rule.as_str()))
            && (!self.exempted || state.exemptions.iter().any(|one| one.until_ms.is_none_or(|until| now_ms < until)))
            && (self.domains.is_none() || account.domain().is_some_and(|domain| self.names(domain)))
    }

    fn names(&self, domain: &str) -> bool {
        self.domains
            .as_ref()
            .is_some_and(|domains| domains.binary_search_by(|named| named.as_str().cmp(domain)).is_ok())
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
    use tidegate_domain::{Exemption, Lock, QueuedMail, RuleRef};

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
        within(filter, &Scope::all())
    }

    fn within(filter: v1::AccountFilter, scope: &Scope) -> Filter {
        Filter::new(Some(filter), &AccountForm::default(), scope).unwrap()
    }

    #[test]
    fn who_is_limited_to_domains_is_shown_their_accounts_whatever_is_asked() {
        let scope = Scope::domains(["example.org", "example.net"]);
        let all = within(v1::AccountFilter::default(), &scope);
        assert!(all.is_plain() && all.among() == Among::Of(&["example.net".to_owned(), "example.org".to_owned()]));
        assert!(all.matches(&locked("jo@example.org"), 0) && !all.matches(&locked("jo@example.com"), 0));
        assert!(!all.matches(&locked("local:www-data"), 0));
        let named =
            v1::AccountFilter { domains: vec!["example.com".into(), "Example.NET".into()], ..Default::default() };
        assert_eq!(within(named.clone(), &scope).among(), Among::Of(&["example.net".to_owned()]));
        let none = within(named, &Scope::domains(["example.org"]));
        assert!(none.among() == Among::Of(&[]) && !none.matches(&locked("jo@example.com"), 0));
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
        assert!(filter(v1::AccountFilter::default()).is_plain());
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
        let error = Filter::new(
            Some(v1::AccountFilter { statuses: vec![0], ..Default::default() }),
            &AccountForm::default(),
            &Scope::all(),
        )
        .unwrap_err();
        assert_eq!(error.message(), "filter.statuses has 0; allowed: active (1), throttled (2), locked (3)");
    }
}
