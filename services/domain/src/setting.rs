//! Settings that administrators make at run time, beside the configuration files.

use crate::Account;
use std::collections::BTreeMap;

/// One setting; a later one with the same key replaces it.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Who set it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    pub set_ms: i64,
    /// What is set.
    pub kind: SettingKind,
}

/// What a [`Setting`] sets.
#[derive(Debug, Clone, PartialEq)]
pub enum SettingKind {
    /// A rule is switched off whatever its file says, or is as its file says again.
    RuleSwitch {
        /// Name of the rule.
        rule: String,
        /// Whether it is switched off.
        off: bool,
    },
    /// Rules pass all accounts of a domain by for a time.
    DomainExemption(DomainExemption),
    /// Other limits than the rules file's.
    LimitsFor {
        /// A domain, or an account in canonical form.
        subject: String,
        /// Numbers that predicates use as `$name`; finite, not negative.
        limits: BTreeMap<String, f64>,
    },
}

/// Rules pass all accounts of a domain by for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainExemption {
    /// The domain, lower case.
    pub domain: String,
    /// Names of the rules; empty means all.
    pub rules: Vec<String>,
    /// Until when; none: until it is taken back.
    pub until_ms: Option<i64>,
}

impl Setting {
    /// What it replaces, and is taken back by: `rule/NAME`, `exemption/DOMAIN`, `limits/DOMAIN` or `limits/ACCOUNT`.
    pub fn key(&self) -> String {
        match &self.kind {
            SettingKind::RuleSwitch { rule, .. } => format!("rule/{rule}"),
            SettingKind::DomainExemption(exemption) => format!("exemption/{}", exemption.domain),
            SettingKind::LimitsFor { subject, .. } => format!("limits/{subject}"),
        }
    }
}

impl DomainExemption {
    /// Whether `rule` passes `account` by at `at_ms`.
    pub fn covers(&self, account: &Account, rule: &str, at_ms: i64) -> bool {
        account.domain() == Some(&self.domain)
            && self.until_ms.is_none_or(|until| at_ms < until)
            && (self.rules.is_empty() || self.rules.iter().any(|name| name == rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domains_exemption_names_rules_and_ends() {
        let exemption = |rules: &[&str]| DomainExemption {
            domain: "example.org".into(),
            rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
            until_ms: Some(100),
        };
        let covers = |exemption: &DomainExemption, account: &str, rule: &str, at_ms| {
            exemption.covers(&Account::parse(account).unwrap(), rule, at_ms)
        };
        let all = exemption(&[]);
        assert!(covers(&all, "jo@example.org", "burst", 99) && !covers(&all, "jo@example.org", "burst", 100));
        for other in ["jo@sub.example.org", "example.org", "jo", "address:192.0.2.1"] {
            assert!(!covers(&all, other, "burst", 0), "{other}");
        }
        let one = exemption(&["burst"]);
        assert!(covers(&one, "jo@example.org", "burst", 0) && !covers(&one, "jo@example.org", "spam", 0));
    }
}
