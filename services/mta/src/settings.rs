//! Settings that all sessions of an edge share.

use crate::{Gate, Ignored, KeyedHash, Network, Networks, SpamHeader};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use tidegate_domain::{Account, AccountForm};

/// Longest login that is looked at.
pub(crate) const MAX_LOGIN_OCTETS: usize = 1024;
/// Most headers that can be named in a list of settings.
const MAX_LISTED_HEADERS: usize = 50;

/// Settings as they stand in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionConfig {
    /// Realm appended to logins without a domain. Empty: they stay without.
    pub default_realm: String,
    /// Whether `Jo@example.org` and `jo@example.org` are the same account.
    pub lower_case_local_part: bool,
    /// At which command a locked account is refused first.
    pub refuse_at: RefuseAt,
    /// Networks whose clients may send without a login; each client address is an account of its own. Mail from
    /// anywhere else without a login (also local submission) is neither checked nor counted.
    pub address_accounts: Vec<String>,
    /// Networks of webmail hosts and other relays that name the real client in a header. Their own address is
    /// never counted as the client's.
    pub trusted_relays: Vec<String>,
    /// Headers in which trusted relays name the client, best first.
    pub origin_headers: Vec<String>,
    /// Headers in which an earlier filter says whether the message is spam.
    pub spam_headers: Vec<SpamHeader>,
    /// Whether subjects are published, cut short, so that a lock can show some. Without, only a keyed hash is.
    pub publish_subjects: bool,
}

/// At which command a locked or throttled account is refused first. Later ones always refuse too, so that a session
/// that was open before the lock is stopped at its next command that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefuseAt {
    /// [`RefuseAt::Recipient`] when the gate has administrator addresses, else [`RefuseAt::Mail`].
    #[default]
    Auto,
    /// At `MAIL`. The account can then not write to the administrator either, for at `MAIL` the recipients are not
    /// known yet.
    Mail,
    /// At `RCPT`, so that mail to administrator addresses passes.
    Recipient,
}

/// One thing that is wrong in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the key, e.g. `sessions.trusted_relays[2]`.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub message: String,
}

/// [`SessionConfig`] in the form that sessions use. Shared by all of them behind an `Arc`.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    pub(crate) account_form: AccountForm,
    pub(crate) refuse_at: RefuseAt,
    pub(crate) address_accounts: Networks,
    pub(crate) trusted_relays: Networks,
    pub(crate) origin_headers: Vec<String>,
    pub(crate) spam_headers: Vec<SpamHeader>,
    pub(crate) publish_subjects: bool,
    pub(crate) hashes: KeyedHash,
    pub(crate) fingerprint_seed: u64,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            default_realm: String::new(),
            lower_case_local_part: true,
            refuse_at: RefuseAt::Auto,
            address_accounts: Vec::new(),
            trusted_relays: Vec::new(),
            origin_headers: vec!["X-Originating-IP".to_owned(), "Received".to_owned()],
            spam_headers: SpamHeader::defaults(),
            publish_subjects: false,
        }
    }
}

impl SessionConfig {
    /// Adds everything that is wrong to `problems`; `path` is where this configuration stands, e.g. `sessions`.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        let mut wrong = |key: String, message: String| problems.push(Problem { key: format!("{path}.{key}"), message });
        if self.default_realm.contains(|c: char| c == '@' || c.is_whitespace() || c.is_control()) {
            wrong("default_realm".into(), format!("{:?} is not a domain; write e.g. example.org", self.default_realm));
        }
        for (key, networks) in [("address_accounts", &self.address_accounts), ("trusted_relays", &self.trusted_relays)]
        {
            for (index, text) in networks.iter().enumerate() {
                if let Err(error) = text.parse::<Network>() {
                    wrong(format!("{key}[{index}]"), error.to_string());
                }
            }
        }
        let spam_names = self.spam_headers.iter().map(|header| &header.name);
        for (key, names) in
            [("origin_headers", self.origin_headers.iter().collect::<Vec<_>>()), ("spam_headers", spam_names.collect())]
        {
            if names.len() > MAX_LISTED_HEADERS {
                wrong(
                    key.into(),
                    format!("{} headers are listed; at most {MAX_LISTED_HEADERS} are allowed", names.len()),
                );
            }
            for (index, name) in names.iter().enumerate() {
                if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
                    wrong(format!("{key}[{index}]"), format!("{name:?} is not a header's name; write e.g. X-Spam"));
                }
            }
        }
    }
}

impl SessionSettings {
    /// Settings from a configuration that [`SessionConfig::validate`] found right (what it would object to is left
    /// out), hashing under the installation's secret `hash_key`.
    pub fn new(config: &SessionConfig, hash_key: &[u8]) -> Self {
        let hashes = KeyedHash::new(hash_key);
        let networks = |texts: &[String]| texts.iter().filter_map(|text| text.parse().ok()).collect();
        Self {
            account_form: AccountForm {
                default_realm: Some(config.default_realm.clone()).filter(|realm| !realm.is_empty()),
                lower_case_local_part: config.lower_case_local_part,
            },
            refuse_at: config.refuse_at,
            address_accounts: networks(&config.address_accounts),
            trusted_relays: networks(&config.trusted_relays),
            origin_headers: config.origin_headers.clone(),
            spam_headers: config.spam_headers.clone(),
            publish_subjects: config.publish_subjects,
            fingerprint_seed: hashes.hash("fingerprint", b""),
            hashes,
        }
    }

    /// The account of a login, or of a client that may send without one.
    ///
    /// # Errors
    /// When the mail is nobody's: there is no login, or it cannot be an account.
    pub fn account_of(&self, login: &str, client: Option<IpAddr>) -> Result<Account, Ignored> {
        let login = login.trim();
        if login.is_empty() {
            let client = client.filter(|client| self.address_accounts.contains(*client)).ok_or(Ignored::NoLogin)?;
            return Ok(Account::client_address(client));
        }
        if login.len() > MAX_LOGIN_OCTETS {
            return Err(Ignored::InvalidLogin);
        }
        Account::login(login, &self.account_form).map_err(|_| Ignored::InvalidLogin)
    }

    /// Whether a client is a relay whose address is not the sender's own.
    pub(crate) fn is_trusted_relay(&self, client: Option<IpAddr>) -> bool {
        client.is_some_and(|client| self.trusted_relays.contains(client))
    }

    /// Whether a refused account is refused at `MAIL` already.
    pub(crate) fn refuses_at_mail(&self, gate: &dyn Gate) -> bool {
        match self.refuse_at {
            RefuseAt::Mail => true,
            RefuseAt::Recipient => false,
            RefuseAt::Auto => !gate.has_admin_addresses(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_told_at_once_with_their_keys() {
        let config: SessionConfig = serde_json::from_str(
            r#"{"default_realm": "a b", "address_accounts": ["10.0.0.0/8", "x"], "trusted_relays": ["10.0.0.0/99"],
                "origin_headers": ["X-Real:IP"], "spam_headers": [{"name": "X-Spam"}, {"name": ""}]}"#,
        )
        .unwrap();
        let mut problems = Vec::new();
        config.validate("sessions", &mut problems);
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "sessions.default_realm",
                "sessions.address_accounts[1]",
                "sessions.trusted_relays[0]",
                "sessions.origin_headers[0]",
                "sessions.spam_headers[1]"
            ]
        );
        SessionConfig::default().validate("sessions", &mut problems);
        assert_eq!(problems.len(), 5, "the defaults are right");
        assert!(serde_json::from_str::<SessionConfig>(r#"{"realm": "x"}"#).is_err());
    }

    #[test]
    fn accounts_come_from_logins_or_listed_addresses() {
        let config = SessionConfig {
            default_realm: "example.org".into(),
            address_accounts: vec!["10.0.0.0/8".into()],
            ..SessionConfig::default()
        };
        let settings = SessionSettings::new(&config, b"key");
        let account = |login: &str, client: &str| {
            settings.account_of(login, client.parse().ok()).map(|account| account.as_str().to_owned())
        };
        assert_eq!(account("Jo", "10.0.0.1"), Ok("jo@example.org".into()));
        assert_eq!(account("", "10.0.0.1"), Ok("address:10.0.0.1".into()));
        assert_eq!(account("", "192.0.2.1"), Err(Ignored::NoLogin));
        assert_eq!(account("", ""), Err(Ignored::NoLogin));
        assert_eq!(account("local:root", ""), Err(Ignored::InvalidLogin));
        assert_eq!(account(&"x".repeat(5000), ""), Err(Ignored::InvalidLogin));
    }
}
