//! Settings that administrators make at run time: rules switched off, domains exempted, other limits.

use super::AdminApi;
use super::check::{invalid, parse_account, text, wait, who_and_why};
use crate::admission::Call;
use bytes::Bytes;
use prost::Message as _;
use tidegate_access::Scope;
use tidegate_bus::{Message, Topic};
use tidegate_domain::Account;
use tidegate_gate::append;
use tidegate_gate::now_ms;
use tidegate_proto::v1;
use tidegate_proto::v1::setting::Kind;
use tonic::Status;

/// Most settings: all of them are held by every worker.
const MAX_SETTINGS: usize = 10_000;
/// Longest name of a rule or a limit, in octets.
const MAX_NAME_OCTETS: usize = 64;
/// Longest domain, in octets (RFC 1035).
const MAX_DOMAIN_OCTETS: usize = 253;
/// Most rules or limits that one setting names.
const MAX_ENTRIES: usize = 100;

impl AdminApi {
    /// Switches a rule off or on, and waits until all partitions' owners have it in force.
    pub(super) async fn switch(
        &self,
        call: Call,
        request: v1::SwitchRuleRequest,
    ) -> Result<v1::SwitchRuleResponse, Status> {
        let checked = self.view.ensure_ready().and_then(|()| {
            let rule = text("rule", &request.rule, "name of a rule", MAX_NAME_OCTETS)?;
            let known = self.view.rule_sets().iter().any(|set| set.rules.iter().any(|one| one.name == rule));
            if !known {
                return Err(Status::not_found(format!("no rule is called {rule:?}; ListRules tells those in force")));
            }
            Ok((rule, wait(request.wait_ms, &self.config)?))
        });
        let (rule, wait) = match checked {
            Ok(checked) => checked,
            Err(status) => return Err(self.admission.deny(call, status).await),
        };
        let kind = Kind::RuleSwitch(v1::RuleSwitch { rule: rule.clone(), off: request.off });
        let set = Change { key: format!("rule/{rule}"), kind: request.off.then_some(kind) };
        self.set(call, &request.actor, &request.reason, set).await?;
        let spread = self.has_spread(&rule, request.off);
        let applied = tokio::time::timeout(wait, spread).await.is_ok();
        Ok(v1::SwitchRuleResponse { applied })
    }

    /// Ends when every partition's owner tells that it has the switch in force.
    async fn has_spread(&self, rule: &str, off: bool) {
        let mut versions = self.view.rules_versions();
        loop {
            versions.mark_unchanged();
            let rule_sets = self.view.rule_sets();
            let lags = |set: &v1::RuleSet| set.rules.iter().any(|one| one.name == rule && one.switched_off != off);
            if !rule_sets.iter().any(lags) {
                return;
            }
            if versions.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Lets rules pass all accounts of a domain by, or takes that back.
    pub(super) async fn exempt_all_of(
        &self,
        call: Call,
        request: v1::ExemptDomainRequest,
    ) -> Result<v1::ExemptDomainResponse, Status> {
        let checked = self.view.ensure_ready().and_then(|()| check_exemption(request.exemption, request.remove));
        match checked {
            Ok(change) => {
                self.set(call, &request.actor, &request.reason, change).await?;
                Ok(v1::ExemptDomainResponse {})
            }
            Err(status) => Err(self.admission.deny(call, status).await),
        }
    }

    /// Sets other limits for a domain or an account, or takes them back.
    pub(super) async fn limit(
        &self,
        call: Call,
        request: v1::SetLimitsRequest,
    ) -> Result<v1::SetLimitsResponse, Status> {
        let checked = self.view.ensure_ready().and_then(|()| self.check_limits(request.limits));
        match checked {
            Ok(change) => {
                self.set(call, &request.actor, &request.reason, change).await?;
                Ok(v1::SetLimitsResponse {})
            }
            Err(status) => Err(self.admission.deny(call, status).await),
        }
    }

    fn check_limits(&self, limits: Option<v1::LimitsFor>) -> Result<Change, Status> {
        let limits = limits.ok_or_else(|| invalid("limits", "is not set", "for whom, and which"))?;
        let subject = if limits.subject.contains('@') || limits.subject.contains(':') {
            parse_account(&limits.subject, &self.form)?.as_str().to_owned()
        } else {
            domain("limits.subject", &limits.subject)?
        };
        if limits.limits.len() > MAX_ENTRIES {
            return Err(invalid("limits.limits", &format!("has {} entries", limits.limits.len()), "at most 100"));
        }
        let rule_sets = self.view.rule_sets();
        for (name, value) in &limits.limits {
            text("limits.limits", name, "names of limits", MAX_NAME_OCTETS)?;
            if !value.is_finite() {
                return Err(invalid("limits.limits", &format!("has {name} = {value}"), "numbers"));
            }
            if !rule_sets.is_empty() && !rule_sets.iter().any(|set| set.limits.contains_key(name)) {
                return Err(Status::invalid_argument(format!(
                    "limits.limits has {name:?}, which the rules file does not have; ListRules tells its limits"
                )));
            }
        }
        let is_kept = !limits.limits.is_empty();
        let kind = Kind::Limits(v1::LimitsFor { subject: subject.clone(), limits: limits.limits });
        Ok(Change { key: format!("limits/{subject}"), kind: is_kept.then_some(kind) })
    }

    /// Audits, writes the setting or takes it back, and audits what came of it.
    async fn set(&self, mut call: Call, said: &str, reason: &str, change: Change) -> Result<(), Status> {
        let actor = call.actor(said);
        call.record.actor.clone_from(&actor);
        reason.clone_into(&mut call.record.reason);
        let full = change.kind.is_some() && self.view.settings_count() >= MAX_SETTINGS;
        let checked = who_and_why(&actor, reason).and_then(|checked| {
            let why = format!("{MAX_SETTINGS} settings are made, which is the most allowed");
            if full { Err(Status::resource_exhausted(why)) } else { Ok(checked) }
        });
        let (actor, reason) = match checked {
            Ok(checked) => checked,
            Err(status) => return Err(self.admission.deny(call, status).await),
        };
        let audit = self.admission.audit();
        let asked = v1::AuditRecord { result: super::actions::ASKED.to_owned(), ..call.record.clone() };
        audit.write(asked).await?;
        let value = change.kind.map(|kind| {
            let (key, kind) = (change.key.clone(), Some(kind));
            v1::Setting { key, actor, reason, set_ms: now_ms(), kind }.encode_to_vec().into()
        });
        let message = Message::new(Bytes::from(change.key), value);
        let written = append(&*self.bus, Topic::Settings, vec![message]).await;
        let written =
            written.map_err(|why| Status::unavailable(format!("the setting is not known to be written: {why}")));
        if let Err(status) = &written {
            status.message().clone_into(&mut call.record.result);
        }
        // It is done; that its second record is lacking is logged and counted.
        let _ = audit.write(call.record).await;
        written.map(drop)
    }
}

/// A setting, or none in its place.
struct Change {
    key: String,
    kind: Option<Kind>,
}

fn check_exemption(exemption: Option<v1::DomainExemption>, remove: bool) -> Result<Change, Status> {
    let exemption = exemption.ok_or_else(|| invalid("exemption", "is not set", "which domain, and until when"))?;
    let domain = domain("exemption.domain", &exemption.domain)?;
    let key = format!("exemption/{domain}");
    if remove {
        return Ok(Change { key, kind: None });
    }
    if exemption.rules.len() > MAX_ENTRIES {
        return Err(invalid("exemption.rules", &format!("has {} entries", exemption.rules.len()), "at most 100"));
    }
    for rule in &exemption.rules {
        text("exemption.rules", rule, "names of rules", MAX_NAME_OCTETS)?;
    }
    if let Some(until_ms) = exemption.until_ms.filter(|until_ms| *until_ms <= now_ms()) {
        let allowed = "a time to come, in milliseconds since 1970 UTC, or unset for no end";
        return Err(invalid("exemption.until_ms", &format!("is {until_ms}"), allowed));
    }
    Ok(Change { key, kind: Some(Kind::DomainExemption(v1::DomainExemption { domain, ..exemption })) })
}

fn domain(field: &str, name: &str) -> Result<String, Status> {
    let name = text(field, name, "a domain, e.g. example.org", MAX_DOMAIN_OCTETS)?;
    let name = name.trim_end_matches('.').to_lowercase();
    match Account::parse(&format!("a@{name}")) {
        Ok(account) if account.domain() == Some(name.as_str()) => Ok(name),
        _ => Err(invalid(field, &format!("is {name:?}"), "a domain, e.g. example.org")),
    }
}

/// Those of `settings` that who is limited to `scope` may see.
pub(super) fn visible(settings: Vec<v1::Setting>, scope: &Scope) -> v1::ListSettingsResponse {
    let is_within = |setting: &v1::Setting| match &setting.kind {
        Some(Kind::RuleSwitch(_)) | None => scope.is_all(),
        Some(Kind::DomainExemption(exemption)) => scope.has_domain(&exemption.domain),
        Some(Kind::Limits(limits)) => {
            scope.has_domain(&limits.subject)
                || Account::parse(&limits.subject).is_ok_and(|account| scope.has(&account))
        }
    };
    v1::ListSettingsResponse { settings: settings.into_iter().filter(is_within).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_checked_and_written_one_way() {
        assert_eq!(domain("d", " Example.ORG. ").unwrap(), "example.org");
        for wrong in ["", "a b", "a@b", "x\ny"] {
            assert!(domain("d", wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn settings_of_other_domains_are_not_shown() {
        let limits = |subject: &str| v1::Setting {
            key: format!("limits/{subject}"),
            kind: Some(Kind::Limits(v1::LimitsFor { subject: subject.into(), ..Default::default() })),
            ..Default::default()
        };
        let exempt = |domain: &str| v1::Setting {
            key: format!("exemption/{domain}"),
            kind: Some(Kind::DomainExemption(v1::DomainExemption { domain: domain.into(), ..Default::default() })),
            ..Default::default()
        };
        let all = vec![
            limits("example.org"),
            limits("jo@example.org"),
            limits("example.com"),
            limits("jo@example.com"),
            exempt("example.com"),
            exempt("example.org"),
        ];
        let seen = visible(all.clone(), &Scope::domains(["example.org"])).settings;
        let keys: Vec<&str> = seen.iter().map(|setting| setting.key.as_str()).collect();
        assert_eq!(keys, ["limits/example.org", "limits/jo@example.org", "exemption/example.org"]);
        assert_eq!(visible(all, &Scope::all()).settings.len(), 6);
    }
}
