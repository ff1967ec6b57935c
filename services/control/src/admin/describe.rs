//! What was asked, in words, for the audit.

use std::fmt::Write as _;
use tidegate_proto::v1;

/// Most names that are told; of more their number.
const MAX_NAMED: usize = 10;

pub(super) fn filter(filter: Option<&v1::AccountFilter>) -> String {
    let Some(filter) = filter else { return String::new() };
    let mut parts = Vec::new();
    if !filter.statuses.is_empty() {
        let statuses: Vec<&str> = filter.statuses().map(status).collect();
        parts.push(format!("status {}", some(&statuses)));
    }
    if !filter.domains.is_empty() {
        parts.push(format!("domain {}", some(&filter.domains)));
    }
    for (name, value) in [("containing", &filter.contains), ("rule", &filter.rule)] {
        if !value.is_empty() {
            parts.push(format!("{name} {value:?}"));
        }
    }
    if filter.exempted {
        parts.push("exempted".to_owned());
    }
    parts.join(", ")
}

pub(super) fn lock(lock: &v1::LockCommand) -> String {
    let mut text = lock.for_ms.map_or_else(|| "until unlocked".to_owned(), |for_ms| format!("for {for_ms} ms"));
    match lock.queued_mail() {
        v1::QueuedMail::Unspecified | v1::QueuedMail::Keep => {}
        v1::QueuedMail::Hold => text.push_str(", hold queued mail"),
        v1::QueuedMail::Delete => text.push_str(", delete queued mail"),
    }
    text
}

pub(super) fn unlock(unlock: &v1::UnlockCommand) -> String {
    let mut text = String::new();
    if let Some(evidence) = &unlock.evidence {
        match evidence.password_changed_ms {
            Some(at_ms) => {
                let _ = write!(text, "password changed at {at_ms}; ");
            }
            None => text.push_str("password change not told; "),
        }
        let _ = write!(text, "{}; ", evidence.note);
    }
    if let Some(probation_ms) = unlock.probation_ms {
        let _ = write!(text, "probation {probation_ms} ms");
    }
    text.trim_end_matches("; ").to_owned()
}

pub(super) fn exemption(rules: &[String], until_ms: Option<i64>) -> String {
    let rules = if rules.is_empty() { "all rules".to_owned() } else { format!("rules {}", some(rules)) };
    until_ms.map_or_else(|| format!("{rules}, without end"), |until_ms| format!("{rules}, until {until_ms}"))
}

pub(super) fn clear(clear: v1::ClearCommand) -> String {
    match (clear.exemptions, clear.windows) {
        (true, true) => "exemptions and windows",
        (true, false) => "exemptions",
        (false, true) => "windows",
        (false, false) => "nothing",
    }
    .to_owned()
}

pub(super) fn many(request: &v1::ActOnManyRequest) -> String {
    let what = match &request.kind {
        Some(v1::act_on_many_request::Kind::Lock(command)) => format!("lock, {}", lock(command)),
        Some(v1::act_on_many_request::Kind::Unlock(command)) => format!("unlock, {}", unlock(command)),
        None => "nothing".to_owned(),
    };
    let which = if request.accounts.is_empty() {
        let since = request.locked_since_ms.map_or_else(String::new, |ms| format!(", locked since {ms}"));
        format!("all of ({}){since}", filter(request.filter.as_ref()))
    } else {
        some(&request.accounts)
    };
    format!("{}{what}: {which}", if request.dry_run { "dry run of " } else { "" })
}

pub(super) fn switch(request: &v1::SwitchRuleRequest) -> String {
    format!("rule {} {}", request.rule, if request.off { "off" } else { "on" })
}

pub(super) fn exempt_domain(request: &v1::ExemptDomainRequest) -> String {
    let Some(asked) = &request.exemption else { return String::new() };
    if request.remove {
        format!("no longer exempt {}", asked.domain)
    } else {
        format!("exempt {} from {}", asked.domain, exemption(&asked.rules, asked.until_ms))
    }
}

pub(super) fn limits(request: &v1::SetLimitsRequest) -> String {
    let Some(asked) = &request.limits else { return String::new() };
    let mut limits: Vec<String> = asked.limits.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    limits.sort();
    let limits = if limits.is_empty() { "as in the rules file".to_owned() } else { some(&limits) };
    format!("limits of {}: {limits}", asked.subject)
}

fn status(status: v1::AccountStatus) -> &'static str {
    match status {
        v1::AccountStatus::Unspecified => "unspecified",
        v1::AccountStatus::Active => "active",
        v1::AccountStatus::Throttled => "throttled",
        v1::AccountStatus::Locked => "locked",
    }
}

fn some<T: AsRef<str>>(names: &[T]) -> String {
    let told: Vec<&str> = names.iter().take(MAX_NAMED).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(MAX_NAMED) {
        0 => told.join(", "),
        more => format!("{} and {more} more", told.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_told_in_words() {
        let filter = v1::AccountFilter {
            statuses: vec![v1::AccountStatus::Locked.into()],
            domains: vec!["example.org".into()],
            rule: "burst".into(),
            ..Default::default()
        };
        let unlock = v1::UnlockCommand {
            evidence: Some(v1::UnlockEvidence { password_changed_ms: None, note: "wrong rule".into() }),
            probation_ms: Some(0),
        };
        let request = v1::ActOnManyRequest {
            filter: Some(filter),
            dry_run: true,
            kind: Some(v1::act_on_many_request::Kind::Unlock(unlock)),
            ..Default::default()
        };
        assert_eq!(
            many(&request),
            "dry run of unlock, password change not told; wrong rule; probation 0 ms: all of (status locked, domain \
             example.org, rule \"burst\")"
        );
        let names: Vec<String> = (0..12).map(|n| format!("u{n}")).collect();
        assert!(some(&names).ends_with("u9 and 2 more"));
    }
}
