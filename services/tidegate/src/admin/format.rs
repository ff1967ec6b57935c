//! What messages of the API look like to people and to programs.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_proto::v1;

/// A table without lines, as wide as the terminal allows.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    table
}

/// `2026-11-25T04:37:56Z`.
pub fn time(ms: i64) -> String {
    u64::try_from(ms).map_or_else(
        |_| "-".to_owned(),
        |ms| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string(),
    )
}

/// Milliseconds since 1970 UTC.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What happened, as people say it.
pub fn change(change: v1::Change) -> &'static str {
    match change {
        v1::Change::Unspecified => "changed",
        v1::Change::Locked => "locked",
        v1::Change::Throttled => "throttled",
        v1::Change::Noticed => "noticed",
        v1::Change::Unlocked => "unlocked",
        v1::Change::Expired => "ended by itself",
        v1::Change::Amended => "amended",
        v1::Change::CommandRefused => "a command was refused",
    }
}

/// An address of 4 or 16 octets.
pub fn address(octets: &[u8]) -> String {
    match (<[u8; 4]>::try_from(octets), <[u8; 16]>::try_from(octets)) {
        (Ok(four), _) => std::net::Ipv4Addr::from(four).to_string(),
        (_, Ok(sixteen)) => std::net::Ipv6Addr::from(sixteen).to_string(),
        _ => "?".to_owned(),
    }
}

/// `3m 20s ago`, or `in 2h`.
pub fn ago(ms: i64) -> String {
    let now_ms = now_ms();
    let span = Duration::from_secs(ms.abs_diff(now_ms) / 1000);
    let text = humantime::format_duration(span).to_string();
    let short: Vec<&str> = text.split(' ').take(2).collect();
    if ms > now_ms { format!("in {}", short.join(" ")) } else { format!("{} ago", short.join(" ")) }
}

/// `active`, `throttled` or `locked`.
pub fn status(state: &v1::AccountState) -> &'static str {
    status_name(state.status())
}

/// `active`, `throttled` or `locked`.
pub fn status_name(status: v1::AccountStatus) -> &'static str {
    match status {
        v1::AccountStatus::Unspecified => "unknown",
        v1::AccountStatus::Active => "active",
        v1::AccountStatus::Throttled => "throttled",
        v1::AccountStatus::Locked => "locked",
    }
}

/// The rule or the administrator behind a lock.
pub fn cause(lock: &v1::Lock) -> String {
    match &lock.rule {
        Some(rule) => format!("rule {}", rule.name),
        None => format!("by {}", lock.actor),
    }
}

/// A statistic's value as people write it.
pub fn number(value: f64) -> String {
    if value.is_nan() {
        "-".to_owned()
    } else if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

/// `1 row`, `2 rows`.
pub fn counted(count: u64, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// A state for programs.
pub fn state_json(state: &v1::AccountState) -> Value {
    json!({
        "account": state.account,
        "status": status(state),
        "version": state.version,
        "changed": time(state.changed_ms),
        "lock": state.lock.as_ref().map(lock_json),
        "exemptions": state.exemptions.iter().map(|exemption| json!({
            "rules": exemption.rules,
            "until": exemption.until_ms.map(time),
            "actor": exemption.actor,
            "reason": exemption.reason,
        })).collect::<Vec<_>>(),
        "auto_unlocks": state.auto_unlocks,
        "timeline": state.timeline.iter().map(|milestone| json!({
            "version": milestone.version,
            "at": time(milestone.at_ms),
            "change": change(milestone.change()),
            "rule": (!milestone.rule.is_empty()).then_some(&milestone.rule),
            "actor": (!milestone.actor.is_empty()).then_some(&milestone.actor),
            "reason": milestone.reason,
            "lock": (!milestone.lock_id.is_empty()).then_some(&milestone.lock_id),
        })).collect::<Vec<_>>(),
        "clean_since": state.clean_slate.as_ref().map(|slate| time(slate.time_ms)),
        "probation_until": state.probation_until_ms.map(time),
        "notice": state.notice.as_ref().map(|notice| json!({
            "rule": notice.rule.as_ref().map(|rule| &rule.name),
            "at": time(notice.at_ms),
            "evidence": evidence_json(&notice.evidence),
        })),
        "last_command": state.last_command.as_ref().map(|outcome| json!({
            "id": outcome.id,
            "actor": outcome.actor,
            "reason": outcome.reason,
            "at": time(outcome.at_ms),
            "evidence": outcome.evidence.as_ref().map(|evidence| json!({
                "password_changed": evidence.password_changed_ms.map(time),
                "note": evidence.note,
            })),
            "refused": (!outcome.refused.is_empty()).then_some(&outcome.refused),
        })),
    })
}

fn lock_json(lock: &v1::Lock) -> Value {
    json!({
        "id": lock.id,
        "rule": lock.rule.as_ref().map(|rule| &rule.name),
        "rule_set": lock.rule.as_ref().map(|rule| &rule.rule_set),
        "actor": (!lock.actor.is_empty()).then_some(&lock.actor),
        "reason": lock.reason,
        "evidence": evidence_json(&lock.evidence),
        "clients": lock.clients.iter().map(|client| json!({
            "address": address(&client.address),
            "messages": client.messages,
            "last": time(client.last_ms),
        })).collect::<Vec<_>>(),
        "subjects": lock.subjects,
        "since": time(lock.since_ms),
        "until": lock.until_ms.map(time),
        "reply": lock.reply,
        "queued_mail": lock.queued_mail().as_str_name().trim_start_matches("QUEUED_MAIL_").to_lowercase(),
    })
}

/// Evidence for programs: column to value.
pub fn evidence_json(evidence: &[v1::Evidence]) -> Value {
    evidence.iter().map(|one| (one.column.clone(), json!(one.value))).collect::<serde_json::Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_as_people_write_them() {
        assert_eq!(time(1_764_045_476_000), "2025-11-25T04:37:56Z");
        assert_eq!((number(61.0), number(0.0423), number(f64::NAN)), ("61".into(), "0.042".into(), "-".into()));
        assert!(ago(0).ends_with(" ago") && ago(i64::MAX / 2).starts_with("in "));
    }
}
