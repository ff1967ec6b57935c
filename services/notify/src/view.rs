//! What templates see of a notification: every value on one line and bounded, whoever chose it.

use crate::Kind;
use crate::routing::domain_of;
use crate::values::{DAY_MS, moment, one_line, rfc3339};
use serde::Serialize;
use std::net::IpAddr;
use tidegate_proto::v1;

/// How long a receiver of alerts takes a lock without an end for firing, when it hears nothing more.
const ALERT_MS: i64 = 30 * DAY_MS;

/// What templates see of a notification.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct View {
    pub id: String,
    pub account: String,
    pub domain: Option<String>,
    pub version: u64,
    pub kind: &'static str,
    /// In the language's words.
    pub what: String,
    pub change: &'static str,
    pub at: String,
    pub until: Option<String>,
    /// For receivers of alerts: until when it is to be taken for firing.
    pub alert_until: String,
    pub by_time: bool,
    pub rule: Option<String>,
    pub actor: Option<String>,
    pub reason: Option<String>,
    /// What the mail server tells the user.
    pub reply: Option<String>,
    pub lock_id: Option<String>,
    pub evidence: Vec<EvidenceView>,
    pub clients: Vec<ClientView>,
    pub subjects: Vec<String>,
    pub rules: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct EvidenceView {
    column: String,
    value: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ClientView {
    address: String,
    messages: u32,
}

impl View {
    /// `what` is the language's word for it, `date` the language's form of a moment; none: RFC 3339.
    pub fn new(notification: &v1::Notification, what: &str, date: Option<&str>) -> Self {
        let time = |time_ms: i64| date.map_or_else(|| rfc3339(time_ms), |date| moment(time_ms, date));
        let milestone = notification.milestone.clone().unwrap_or_default();
        let lock = notification.lock.clone().unwrap_or_default();
        let exemption = notification.exemption.clone().unwrap_or_default();
        let kind = Kind::of(notification);
        let at_ms = if milestone.at_ms > 0 { milestone.at_ms } else { notification.due_ms };
        let until_ms = if kind == Kind::Exemption { exemption.until_ms } else { lock.until_ms };
        let rule = first([&milestone.rule, &lock.rule.map(|rule| rule.name).unwrap_or_default()], 64);
        Self {
            id: one_line(&notification.id, 64),
            account: one_line(&notification.account, 320),
            domain: domain_of(&notification.account).map(|domain| one_line(&domain, 255)),
            version: notification.version,
            kind: kind.as_str(),
            what: what.to_owned(),
            change: notification.change().as_str_name().trim_start_matches("CHANGE_"),
            at: time(at_ms),
            until: until_ms.map(time),
            alert_until: rfc3339(until_ms.unwrap_or_else(|| at_ms.saturating_add(ALERT_MS))),
            by_time: notification.change() == v1::Change::Expired,
            rule,
            actor: first([&milestone.actor, &exemption.actor], 256),
            reason: first(
                [&milestone.reason, if kind == Kind::Exemption { &exemption.reason } else { &lock.reason }],
                1000,
            ),
            reply: first([&lock.reply, ""], 400),
            lock_id: first([&notification.lock_id, ""], 64),
            evidence: lock.evidence.iter().map(evidence).collect(),
            clients: lock.clients.iter().filter_map(client).collect(),
            subjects: lock.subjects.iter().map(|subject| one_line(subject, 200)).collect(),
            rules: exemption.rules.iter().map(|rule| one_line(rule, 64)).collect(),
        }
    }
}

/// The first that is not empty.
fn first(texts: [&str; 2], characters: usize) -> Option<String> {
    texts.into_iter().map(|text| one_line(text, characters)).find(|text| !text.is_empty())
}

fn evidence(evidence: &v1::Evidence) -> EvidenceView {
    let value = if evidence.value.is_nan() { "-".to_owned() } else { format!("{:.3}", evidence.value) };
    let value = if value.contains('.') { value.trim_end_matches('0').trim_end_matches('.').to_owned() } else { value };
    EvidenceView { column: one_line(&evidence.column, 64), value }
}

fn client(client: &v1::ClientSeen) -> Option<ClientView> {
    let address = match client.address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(client.address.as_ref()).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(client.address.as_ref()).ok()?),
        _ => return None,
    };
    Some(ClientView { address: address.to_string(), messages: client.messages })
}
