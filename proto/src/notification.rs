//! Notifications: where they belong in their topic, and how one of the dead is sent once more.

use crate::v1;

/// Why a notification is not sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotRetried {
    /// Only what was given up is sent once more: the rest was sent, or will be.
    #[error("only a notification on the dead-letter list can be sent once more; this one is {0}")]
    NotDead(&'static str),
}

/// The key of a notification's record in the topic `notifications`: it decides the partition, so that who owns the
/// account, or the setting, owns the notification too.
pub fn notification_key(notification: &v1::Notification) -> String {
    match notification.account.strip_prefix('@') {
        Some(domain) => format!("exemption/{domain}"),
        None => notification.account.clone(),
    }
}

/// The record that lets a dead notification be sent once more, under its old id. Written to the topic `notifications`
/// with its [`notification_key`], it is taken up by whoever sends that partition's notifications.
///
/// # Errors
/// When it is not dead.
pub fn retried(dead: &v1::Notification, now_ms: i64) -> Result<v1::Notification, NotRetried> {
    use v1::NotificationStatus as Status;
    let status = match dead.status() {
        Status::Dead => {
            return Ok(v1::Notification {
                status: Status::Pending.into(),
                attempts: 0,
                error: String::new(),
                due_ms: now_ms,
                time_ms: now_ms,
                group_id: String::new(),
                ..dead.clone()
            });
        }
        Status::Pending => "still being sent",
        Status::Sent => "sent",
        Status::Suppressed => "left out",
        Status::Unspecified => "of no known status",
    };
    Err(NotRetried::NotDead(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_lies_with_its_account_or_its_setting() {
        let about = |account: &str| v1::Notification { account: account.to_owned(), ..v1::Notification::default() };
        assert_eq!(notification_key(&about("jo@example.org")), "jo@example.org");
        assert_eq!(notification_key(&about("@example.org")), "exemption/example.org");
    }

    #[test]
    fn only_the_dead_are_sent_once_more_and_keep_their_id() {
        let mut dead = v1::Notification { id: "n".into(), attempts: 7, error: "no".into(), ..Default::default() };
        dead.set_status(v1::NotificationStatus::Dead);
        dead.group_id = "g".into();
        let again = retried(&dead, 5).unwrap();
        assert_eq!((again.id.as_str(), again.attempts, again.due_ms, again.time_ms), ("n", 0, 5, 5));
        assert_eq!(
            (again.status(), again.error.as_str(), again.group_id.as_str()),
            (v1::NotificationStatus::Pending, "", "")
        );
        let error = retried(&again, 6).unwrap_err().to_string();
        assert!(error.ends_with("this one is still being sent"), "{error}");
    }
}
