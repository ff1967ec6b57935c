//! A limit for each account while cut off from control: nobody else would stop a thief then.

use crate::config::LocalCapConfig;
use parking_lot::Mutex;
use std::collections::HashMap;
use tidegate_domain::Account;

/// Most accounts that are counted in one minute; mail of further ones is not limited.
const MAX_ACCOUNTS: usize = 100_000;
const MINUTE_MS: i64 = 60_000;

/// Counts messages and recipients of each account in the running minute.
#[derive(Debug)]
pub(crate) struct LocalCap {
    config: LocalCapConfig,
    minute: Mutex<Minute>,
}

#[derive(Debug, Default)]
struct Minute {
    number: i64,
    sent: HashMap<Account, Sent>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sent {
    messages: u32,
    recipients: u32,
}

impl LocalCap {
    /// Nothing sent yet.
    pub fn new(config: LocalCapConfig) -> Self {
        Self { config, minute: Mutex::default() }
    }

    /// What to tell the client, when the account has sent too much in this minute and control is away.
    pub fn exceeded(&self, account: &Account, cut_off_ms: i64, now_ms: i64) -> Option<&str> {
        if cut_off_ms < i64::from(self.config.after_s) * 1_000 {
            return None;
        }
        let minute = self.minute.lock();
        let sent = minute.sent.get(account).filter(|_| minute.number == now_ms.div_euclid(MINUTE_MS))?;
        let over = |sent: u32, most: u32| most > 0 && sent >= most;
        let exceeded = over(sent.messages, self.config.messages_per_minute)
            || over(sent.recipients, self.config.recipients_per_minute);
        exceeded.then_some(&self.config.reply)
    }

    /// Counts a message. Gives false when there are too many accounts to count it.
    pub fn count(&self, account: &Account, recipients: u32, now_ms: i64) -> bool {
        let number = now_ms.div_euclid(MINUTE_MS);
        let mut minute = self.minute.lock();
        if minute.number != number {
            minute.number = number;
            minute.sent.clear();
        }
        if minute.sent.len() >= MAX_ACCOUNTS && !minute.sent.contains_key(account) {
            return false;
        }
        let sent = minute.sent.entry(account.clone()).or_default();
        sent.messages = sent.messages.saturating_add(1);
        sent.recipients = sent.recipients.saturating_add(recipients);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_sends_too_much_while_cut_off_is_slowed() {
        let config = LocalCapConfig { messages_per_minute: 2, recipients_per_minute: 5, ..LocalCapConfig::default() };
        let after_ms = i64::from(config.after_s) * 1_000;
        let cap = LocalCap::new(config);
        let account = |name: &str| Account::parse(name).unwrap();
        let (jo, ann) = (account("jo@example.org"), account("ann@example.org"));
        cap.count(&jo, 1, 60_000);
        assert_eq!(cap.exceeded(&jo, after_ms, 60_001), None);
        cap.count(&jo, 1, 60_002);
        cap.count(&ann, 5, 60_003);
        assert!(cap.exceeded(&jo, after_ms, 60_004).is_some(), "messages");
        assert!(cap.exceeded(&ann, after_ms, 60_004).is_some(), "recipients");
        assert_eq!(cap.exceeded(&jo, after_ms - 1, 60_004), None, "control is there");
        assert_eq!(cap.exceeded(&jo, after_ms, 120_000), None, "the next minute");
    }
}
