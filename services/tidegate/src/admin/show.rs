//! One account, whole, for people and for programs.

use super::format;
use serde_json::{Value, json};
use std::fmt::Write as _;
use tidegate_proto::v1;

/// One line: when, who, what, why.
pub fn line(state: &v1::AccountState) -> String {
    let mut text = format!("{}  {}  {}", format::time(state.changed_ms), state.account, format::status(state));
    if let Some(lock) = &state.lock {
        let _ = write!(text, "  {}  {}", format::cause(lock), lock.id);
    } else if let Some(command) = &state.last_command {
        let _ = write!(text, "  by {}: {}", command.actor, command.reason);
    }
    text
}

/// Everything that is known of an account.
pub fn account(
    answer: &v1::GetAccountResponse,
    notifications: &[v1::Notification],
    inspection: Option<&v1::Inspection>,
) -> String {
    let mut text = String::new();
    let Some(state) = &answer.state else { return text };
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<18} {value}");
    };
    row("account", &state.account);
    row("status", format::status(state));
    if state.version == 0 {
        row("", "nothing was ever decided about it");
    } else {
        row("changed", &format!("{} ({})", format::time(state.changed_ms), format::ago(state.changed_ms)));
    }
    if let Some(lock) = &state.lock {
        row("lock", &lock.id);
        row("why", &format!("{}: {}", format::cause(lock), lock.reason));
        for one in &lock.evidence {
            row("", &format!("{} = {}", one.column, format::number(one.value)));
        }
        for client in &lock.clients {
            let (address, last) = (format::address(&client.address), format::time(client.last_ms));
            row("sent from", &format!("{address}, {} messages, last {last}", client.messages));
        }
        for subject in &lock.subjects {
            row("subject", &subject.replace(char::is_control, " "));
        }
        row("until", &lock.until_ms.map_or_else(|| "somebody unlocks it".to_owned(), format::time));
        row("reply", &lock.reply);
    }
    for exemption in &state.exemptions {
        let rules = if exemption.rules.is_empty() { "all rules".to_owned() } else { exemption.rules.join(", ") };
        let until =
            exemption.until_ms.map_or_else(|| "for good".to_owned(), |ms| format!("until {}", format::time(ms)));
        row("exempt from", &format!("{rules}, {until}, by {}: {}", exemption.actor, exemption.reason));
    }
    if let Some(slate) = &state.clean_slate {
        row("counts since", &format::time(slate.time_ms));
    }
    if let Some(until_ms) = state.probation_until_ms {
        row("probation until", &format::time(until_ms));
    }
    if let Some(notice) = &state.notice {
        let rule = notice.rule.as_ref().map_or("", |rule| rule.name.as_str());
        row("noticed", &format!("{} by rule {rule}", format::time(notice.at_ms)));
    }
    if let Some(command) = &state.last_command {
        row("last command", &format!("{} by {}: {}", format::time(command.at_ms), command.actor, command.reason));
        if let Some(evidence) = &command.evidence {
            let changed = evidence.password_changed_ms.map_or_else(|| "not told".to_owned(), format::time);
            row("", &format!("password changed: {changed}; {}", evidence.note));
        }
        if !command.refused.is_empty() {
            row("", &format!("refused: {}", command.refused));
        }
    }
    for milestone in state.timeline.iter().rev() {
        let who = [&milestone.rule, &milestone.actor].into_iter().find(|name| !name.is_empty());
        let who = who.map_or_else(String::new, |name| format!(" by {name}"));
        let what = format::change(milestone.change());
        row("timeline", &format!("{}  {what}{who}: {}", format::time(milestone.at_ms), milestone.reason));
    }
    for told in notifications {
        let status = told.status().as_str_name().trim_start_matches("NOTIFICATION_STATUS_").to_lowercase();
        let what = format::change(told.change());
        row("told", &format!("{}  {} of {what}: {status} {}", format::time(told.time_ms), told.recipient, told.error));
    }
    if let Some(inspection) = inspection {
        for one in inspection.values.iter().filter(|one| one.value != 0.0 && !one.value.is_nan()) {
            let limits = inspection.limits.iter().filter(|limit| limit.column == one.column);
            let limits: Vec<String> = limits
                .map(|limit| format!("{} {} {}", limit.rule, limit.comparison, format::number(limit.limit)))
                .collect();
            let limits = if limits.is_empty() { String::new() } else { format!("   ({})", limits.join("; ")) };
            row("statistic", &format!("{} = {}{limits}", one.column, format::number(one.value)));
        }
    }
    for edge in &answer.edges {
        let state = if edge.in_force { "in force" } else { "not yet in force" };
        let since = edge.applied_ms.map_or_else(String::new, |ms| format!(" since {}", format::time(ms)));
        row("edge", &format!("{} ({}): {state}{since}", edge.node, edge.site));
    }
    text
}

/// The same for programs.
pub fn account_json(
    answer: &v1::GetAccountResponse,
    notifications: &[v1::Notification],
    inspection: Option<&v1::Inspection>,
) -> Value {
    let mut value = answer.state.as_ref().map_or_else(|| json!({}), format::state_json);
    value["edges"] = answer
        .edges
        .iter()
        .map(|edge| {
            json!({
                "node": edge.node,
                "site": edge.site,
                "in_force": edge.in_force,
                "applied": edge.applied_ms.map(format::time),
            })
        })
        .collect();
    value["notifications"] = notifications
        .iter()
        .map(|told| {
            json!({
                "id": told.id,
                "at": format::time(told.time_ms),
                "change": format::change(told.change()),
                "channel": told.channel,
                "recipient": told.recipient,
                "status": told.status().as_str_name().trim_start_matches("NOTIFICATION_STATUS_").to_lowercase(),
                "attempts": told.attempts,
                "error": told.error,
            })
        })
        .collect();
    if let Some(inspection) = inspection {
        let values = inspection.values.iter().map(|one| (one.column.clone(), json!(one.value)));
        value["statistics"] = values.collect::<serde_json::Map<_, _>>().into();
        value["limits"] = inspection
            .limits
            .iter()
            .map(|limit| {
                json!({
                    "rule": limit.rule,
                    "action": limit.action,
                    "column": limit.column,
                    "comparison": limit.comparison,
                    "limit": limit.limit,
                })
            })
            .collect();
    }
    value
}
