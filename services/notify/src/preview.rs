//! Samples: what a notification will look like, before there is one.

use crate::Kind;
use crate::identity::notification_id;
use tidegate_proto::v1;

/// A notification of this kind as it could be, decided at `at_ms`.
pub fn sample(kind: Kind, account: &str, at_ms: i64) -> v1::Notification {
    let lock_id = "L-7K3QX2M9".to_owned();
    let change = match kind {
        Kind::Notice => v1::Change::Noticed,
        Kind::Throttle => v1::Change::Throttled,
        Kind::Lock => v1::Change::Locked,
        Kind::Unlock => v1::Change::Unlocked,
        Kind::Exemption => v1::Change::Amended,
    };
    let is_unlock = kind == Kind::Unlock;
    let milestone = v1::Milestone {
        version: 1,
        at_ms,
        change: change.into(),
        rule: if is_unlock { String::new() } else { "similar-size-burst".to_owned() },
        actor: if is_unlock { "amy".to_owned() } else { String::new() },
        reason: if is_unlock { "called back" } else { "many alike messages to recipients that are new to the account" }
            .to_owned(),
        lock_id: if kind == Kind::Notice { String::new() } else { lock_id.clone() },
    };
    let evidence = |column: &str, value| v1::Evidence { column: column.to_owned(), value };
    let lock = v1::Lock {
        id: lock_id,
        reason: milestone.reason.clone(),
        evidence: vec![evidence("messages_15m", 60.0), evidence("size_cv_15m", 0.005)],
        since_ms: at_ms,
        until_ms: (kind == Kind::Throttle).then_some(at_ms + 3_600_000),
        reply: "This account sends mail like a hijacked one and is locked".to_owned(),
        clients: vec![v1::ClientSeen { address: vec![203, 0, 113, 7], messages: 60, last_ms: at_ms }],
        ..v1::Lock::default()
    };
    let exemption = v1::Exemption {
        rules: vec!["similar-size-burst".to_owned()],
        until_ms: Some(at_ms + 7 * crate::values::DAY_MS),
        actor: "amy".to_owned(),
        reason: "newsletter".to_owned(),
    };
    v1::Notification {
        id: notification_id(account, 1, "preview", account),
        account: account.to_owned(),
        version: 1,
        change: change.into(),
        lock_id: milestone.lock_id.clone(),
        status: v1::NotificationStatus::Pending.into(),
        due_ms: at_ms,
        time_ms: at_ms,
        lock: matches!(kind, Kind::Lock | Kind::Throttle).then_some(lock),
        exemption: (kind == Kind::Exemption).then_some(exemption),
        milestone: (kind != Kind::Exemption).then_some(milestone),
        lock_version: is_unlock.then_some(0),
        audience: v1::Audience::User.into(),
        ..v1::Notification::default()
    }
}
