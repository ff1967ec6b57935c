//! Settings between the wire and the domain.

use crate::bounds::{self, MAX_DOMAIN_OCTETS, MAX_LIMITS, MAX_NAME_OCTETS, MAX_RULE_OCTETS, MAX_TEXT_OCTETS, bounded};
use crate::error::{DecodeError, missing};
use crate::v1;
use prost::Message as _;
use tidegate_domain as domain;
use tidegate_domain::{Account, SettingKind};

/// The setting on the wire.
pub fn setting_to_proto(setting: &domain::Setting) -> v1::Setting {
    let kind = match &setting.kind {
        SettingKind::RuleSwitch { rule, off } => {
            v1::setting::Kind::RuleSwitch(v1::RuleSwitch { rule: rule.clone(), off: *off })
        }
        SettingKind::DomainExemption(exemption) => v1::setting::Kind::DomainExemption(v1::DomainExemption {
            domain: exemption.domain.clone(),
            rules: exemption.rules.clone(),
            until_ms: exemption.until_ms,
        }),
        SettingKind::LimitsFor { subject, limits } => v1::setting::Kind::Limits(v1::LimitsFor {
            subject: subject.clone(),
            limits: limits.iter().map(|(name, limit)| (name.clone(), *limit)).collect(),
        }),
    };
    v1::Setting {
        key: setting.key(),
        actor: setting.actor.clone(),
        reason: setting.reason.clone(),
        set_ms: setting.set_ms,
        kind: Some(kind),
    }
}

/// Reads a setting from the bytes of the record under `key`.
///
/// # Errors
/// When the bytes are not a setting, stand under another setting's key, or set what cannot be: half of a setting would
/// mislead, so nothing but the reason is cut.
pub fn setting_from_proto(key: &[u8], bytes: &[u8]) -> Result<domain::Setting, DecodeError> {
    let setting = v1::Setting::decode(bytes)
        .map_err(|error| DecodeError::Protobuf { message: "Setting", reason: error.to_string() })?;
    let kind = match setting.kind.ok_or_else(|| missing("Setting", "kind"))? {
        v1::setting::Kind::RuleSwitch(switch) => {
            SettingKind::RuleSwitch { rule: rule_from_proto("RuleSwitch", switch.rule)?, off: switch.off }
        }
        v1::setting::Kind::DomainExemption(exemption) => {
            let (count, allowed) = (exemption.rules.len(), "at most 100 rules");
            check(count <= bounds::MAX_RULES, "DomainExemption", "rules", &format!("{count} long"), allowed)?;
            let rules = exemption.rules.into_iter().map(|rule| rule_from_proto("DomainExemption", rule));
            SettingKind::DomainExemption(domain::DomainExemption {
                rules: rules.collect::<Result<_, _>>()?,
                until_ms: exemption.until_ms,
                domain: domain_from_proto(exemption.domain)?,
            })
        }
        v1::setting::Kind::Limits(limits) => limits_from_proto(limits)?,
    };
    let taken = domain::Setting {
        actor: bounded(setting.actor, MAX_NAME_OCTETS),
        reason: bounded(setting.reason, MAX_TEXT_OCTETS),
        set_ms: setting.set_ms,
        kind,
    };
    let own = taken.key();
    let is_own = setting.key == own && key == own.as_bytes();
    check(is_own, "Setting", "key", &setting.key, "the key of the record and of what is set, e.g. rule/burst")?;
    Ok(taken)
}

fn limits_from_proto(limits: v1::LimitsFor) -> Result<SettingKind, DecodeError> {
    let count = limits.limits.len();
    check((1..=MAX_LIMITS).contains(&count), "LimitsFor", "limits", &format!("{count} long"), "1 to 100 limits")?;
    for (name, limit) in &limits.limits {
        let is_name = !name.is_empty() && name.len() <= MAX_RULE_OCTETS;
        check(is_name, "LimitsFor", "limits", name, "names of 1 to 64 octets")?;
        let is_number = limit.is_finite() && *limit >= 0.0;
        check(is_number, "LimitsFor", "limits", &format!("{name} = {limit}"), "numbers that are finite, 0 or more")?;
    }
    // A domain is of the same form as an account without one.
    let subject = Account::parse(&limits.subject)
        .map_err(|source| DecodeError::Account { message: "LimitsFor", source })?
        .as_str()
        .to_owned();
    Ok(SettingKind::LimitsFor { subject, limits: limits.limits.into_iter().collect() })
}

fn rule_from_proto(message: &'static str, rule: String) -> Result<String, DecodeError> {
    let is_name = !rule.is_empty() && rule.len() <= MAX_RULE_OCTETS;
    check(is_name, message, "rule", &rule, "a name of 1 to 64 octets")?;
    Ok(rule)
}

fn domain_from_proto(domain: String) -> Result<String, DecodeError> {
    let is_domain = !domain.is_empty()
        && domain.len() <= MAX_DOMAIN_OCTETS
        && !domain.contains(|c: char| c == '@' || c == '/' || c.is_whitespace() || c.is_control())
        && domain == domain.to_lowercase();
    check(is_domain, "DomainExemption", "domain", &domain, "a domain in lower case")?;
    Ok(domain)
}

fn check(
    holds: bool,
    message: &'static str,
    field: &'static str,
    value: &str,
    allowed: &'static str,
) -> Result<(), DecodeError> {
    if holds {
        return Ok(());
    }
    Err(DecodeError::Value { message, field, value: bounded(format!("{value:?}"), MAX_NAME_OCTETS), allowed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kind() -> impl Strategy<Value = SettingKind> {
        let name = || "[a-z][a-z0-9-]{0,20}";
        let domain = || "[a-z]{1,8}\\.example";
        let subject = prop_oneof![domain(), "[a-z]{1,8}@[a-z]{1,8}\\.example"];
        prop_oneof![
            (name(), any::<bool>()).prop_map(|(rule, off)| SettingKind::RuleSwitch { rule, off }),
            (domain(), proptest::collection::vec(name(), 0..5), any::<Option<i64>>()).prop_map(
                |(domain, rules, until_ms)| {
                    SettingKind::DomainExemption(domain::DomainExemption { domain, rules, until_ms })
                }
            ),
            (subject, proptest::collection::btree_map(name(), 0.0..1e9_f64, 1..5))
                .prop_map(|(subject, limits)| SettingKind::LimitsFor { subject, limits }),
        ]
    }

    proptest! {
        #[test]
        fn a_setting_survives_the_wire(kind in kind(), reason in "\\PC{0,40}", set_ms in any::<i64>()) {
            let setting = domain::Setting { actor: "amy".into(), reason, set_ms, kind };
            let octets = setting_to_proto(&setting).encode_to_vec();
            prop_assert_eq!(setting_from_proto(setting.key().as_bytes(), &octets), Ok(setting));
        }

        #[test]
        fn any_bytes_are_a_setting_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = setting_from_proto(b"rule/burst", &bytes).map_err(|error| error.to_line());
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        let refused = |key: &str, kind| {
            let setting = v1::Setting { key: key.into(), kind: Some(kind), ..v1::Setting::default() };
            setting_from_proto(key.as_bytes(), &setting.encode_to_vec()).unwrap_err().to_line()
        };
        let switch = |rule: &str| v1::setting::Kind::RuleSwitch(v1::RuleSwitch { rule: rule.into(), off: true });
        let limits = |subject: &str, numbers: &[(&str, f64)]| {
            let limits = numbers.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect();
            v1::setting::Kind::Limits(v1::LimitsFor { subject: subject.into(), limits })
        };
        let exemption = |domain: &str| {
            v1::setting::Kind::DomainExemption(v1::DomainExemption { domain: domain.into(), ..Default::default() })
        };
        for (key, kind, why) in [
            ("rule/a", switch("b"), "Setting.key is \"rule/a\""),
            ("rule/", switch(""), "RuleSwitch.rule is \"\""),
            ("exemption/Example.org", exemption("Example.org"), "a domain in lower case"),
            ("exemption/jo@example.org", exemption("jo@example.org"), "a domain in lower case"),
            ("limits/example.org", limits("example.org", &[]), "0 long"),
            ("limits/example.org", limits("example.org", &[("a", f64::NAN)]), "a = NaN"),
            ("limits/example.org", limits("example.org", &[("a", -1.0)]), "a = -1"),
            ("limits/", limits("", &[("a", 1.0)]), "is empty"),
        ] {
            let told = refused(key, kind);
            assert!(told.contains(why), "{told}");
        }
        assert_eq!(setting_from_proto(b"x", b"").unwrap_err().to_string(), "Setting.kind is not set");
    }
}
