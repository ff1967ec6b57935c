//! About whose accounts somebody may know.

use std::collections::BTreeSet;
use std::sync::Arc;
use tidegate_domain::Account;

/// About whose accounts somebody may know: all, or those of some domains. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope(Option<Arc<BTreeSet<String>>>);

impl Scope {
    /// All accounts, also those without a domain.
    pub fn all() -> Self {
        Self(None)
    }

    /// Only the accounts of these domains, in whatever case they are written.
    pub fn domains<I: IntoIterator<Item: AsRef<str>>>(domains: I) -> Self {
        let canonical = |domain: I::Item| domain.as_ref().trim().trim_end_matches('.').to_lowercase();
        Self(Some(Arc::new(domains.into_iter().map(canonical).collect())))
    }

    /// Whether it is not limited.
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// The domains that it is limited to, in order; none: it is not limited.
    pub fn limited_to(&self) -> Option<&BTreeSet<String>> {
        self.0.as_deref()
    }

    /// Whether `account` is within. One without a domain is within no limited scope.
    pub fn has(&self, account: &Account) -> bool {
        self.0.as_ref().is_none_or(|domains| account.domain().is_some_and(|domain| domains.contains(domain)))
    }

    /// Whether `domain`, in lower case, is within.
    pub fn has_domain(&self, domain: &str) -> bool {
        self.0.as_ref().is_none_or(|domains| domains.contains(domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_scope_has_its_domains_accounts_only() {
        let scope = Scope::domains([" Example.ORG. "]);
        let has = |name: &str| scope.has(&Account::parse(name).unwrap());
        assert!(has("jo@example.org"));
        assert!(!has("jo@example.com"));
        assert!(!has("jo@sub.example.org"));
        assert!(!has("local:www-data"));
        assert!(scope.has_domain("example.org") && !scope.has_domain("org") && !scope.is_all());
        assert!(Scope::all().has(&Account::parse("local:www-data").unwrap()));
        assert!(!Scope::domains(Vec::<&str>::new()).has(&Account::parse("jo@example.org").unwrap()));
    }
}
