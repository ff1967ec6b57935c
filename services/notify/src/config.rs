//! What can be set.

mod mail;
mod webhook;

pub use mail::{SmtpConfig, SmtpTls};
pub(crate) use webhook::check_url;
pub use webhook::{WebhookConfig, WebhookTemplate};

use crate::Kind;
use lettre::Address;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use tidegate_runtime::config::{Problems, Validate, key};

/// The name of the mail channel; no webhook may have it.
pub const MAIL_CHANNEL: &str = "mail";

/// Days that the topic `notifications` is kept by default: a reminder earlier than that would not be known as told.
const MAX_REMINDER_DAYS: u32 = 28;

/// The notification service's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NotifyConfig {
    /// Name of the group that shares the partitions.
    pub group: String,
    /// Language where neither the contact nor the domain says one: `en`, `de`, `fr`, `es`, `zh-Hans`, or one that the
    /// templates' directory adds.
    pub language: String,
    /// The provider's name, as mails call it.
    pub provider: String,
    /// How a user reaches you: an address, a telephone number, or a page; any text.
    pub contact: String,
    /// The provider's administrators: mail addresses.
    pub administrators: Vec<String>,
    /// CSV file with `account,address[,language]` for users whose mail goes elsewhere than to the account itself.
    pub contacts: Option<PathBuf>,
    /// Directory with templates over the shipped ones.
    pub templates: Option<PathBuf>,
    /// What users are told of.
    pub user_changes: BTreeSet<Kind>,
    /// What administrators of a domain are told of.
    pub domain_changes: BTreeSet<Kind>,
    /// What the provider's administrators are told of.
    pub provider_changes: BTreeSet<Kind>,
    /// Administrators are reminded so many days before an exemption ends; 0: never.
    pub reminder_days: u32,
    /// After the first decision an administrator's mail waits so long for others, in milliseconds.
    pub group_window_ms: u64,
    /// Most mails to one recipient within an hour; beyond it they wait and are told in one.
    pub max_per_recipient_hour: u32,
    /// Most messages about one account to one recipient within an hour; beyond it only the newest is told, later.
    pub max_per_account_hour: u32,
    /// What is older is not told any more, in seconds.
    pub max_age_s: u64,
    /// After so many refusals that may pass a notification is given up.
    pub max_attempts: u32,
    /// Pause after the first failure, in milliseconds; it doubles with each.
    pub retry_first_ms: u64,
    /// Longest pause between attempts, in milliseconds.
    pub retry_longest_ms: u64,
    /// Most notifications that wait in memory; beyond it reading waits.
    pub max_pending: usize,
    /// Where mail goes; none: there is no mail.
    pub smtp: Option<SmtpConfig>,
    /// Programs that are told.
    pub webhook: Vec<WebhookConfig>,
    /// What is otherwise for single domains.
    pub domains: BTreeMap<String, DomainConfig>,
}

/// What is otherwise for one domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DomainConfig {
    /// Language of its users and administrators.
    pub language: Option<String>,
    /// Its administrators: mail addresses.
    pub administrators: Vec<String>,
    /// How its users reach help.
    pub contact: Option<String>,
}

impl Default for NotifyConfig {
    fn default() -> Self {
        Self {
            group: "notify".to_owned(),
            language: "en".to_owned(),
            provider: String::new(),
            contact: String::new(),
            administrators: Vec::new(),
            contacts: None,
            templates: None,
            user_changes: [Kind::Notice, Kind::Throttle, Kind::Lock, Kind::Unlock].into(),
            domain_changes: [Kind::Lock, Kind::Unlock, Kind::Exemption].into(),
            provider_changes: [Kind::Lock, Kind::Unlock, Kind::Exemption].into(),
            reminder_days: 7,
            group_window_ms: 60_000,
            max_per_recipient_hour: 30,
            max_per_account_hour: 6,
            max_age_s: 86_400,
            max_attempts: 30,
            retry_first_ms: 5_000,
            retry_longest_ms: 900_000,
            max_pending: 10_000,
            smtp: None,
            webhook: Vec::new(),
            domains: BTreeMap::new(),
        }
    }
}

impl NotifyConfig {
    /// What is set for the domain of an account, if there is something.
    pub(crate) fn domain(&self, domain: Option<&str>) -> Option<&DomainConfig> {
        self.domains.get(domain?)
    }

    /// The greatest age of what is told, in milliseconds.
    pub(crate) fn max_age_ms(&self) -> i64 {
        i64::try_from(self.max_age_s.saturating_mul(1000)).unwrap_or(i64::MAX)
    }
}

impl Validate for NotifyConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        problems.check_set(path, "group", &self.group);
        check_language(path, "language", &self.language, problems);
        check_addresses(path, "administrators", &self.administrators, problems);
        problems.check_range(path, "reminder_days", self.reminder_days, 0..=MAX_REMINDER_DAYS);
        problems.check_range(path, "group_window_ms", self.group_window_ms, 0..=3_600_000);
        problems.check_range(path, "max_per_recipient_hour", self.max_per_recipient_hour, 1..=100_000);
        problems.check_range(path, "max_per_account_hour", self.max_per_account_hour, 1..=1_000);
        problems.check_range(path, "max_age_s", self.max_age_s, 60..=7 * 86_400);
        problems.check_range(path, "max_attempts", self.max_attempts, 1..=1_000);
        problems.check_range(path, "retry_first_ms", self.retry_first_ms, 10..=self.retry_longest_ms.max(10));
        problems.check_range(path, "retry_longest_ms", self.retry_longest_ms, 10..=86_400_000);
        problems.check_range(path, "max_pending", self.max_pending, 100..=1_000_000);
        if self.smtp.is_none() && self.webhook.is_empty() {
            problems.add(path, "smtp", "must be set, or a [[notify.webhook]]: otherwise nobody can be told");
        }
        for (name, file) in [("contacts", &self.contacts), ("templates", &self.templates)] {
            if let Some(file) = file
                && let Err(error) = std::fs::metadata(file)
            {
                problems.add(path, name, format!("cannot read {}: {error}", file.display()));
            }
        }
        if let Some(smtp) = &self.smtp {
            smtp.validate(&key(path, "smtp"), problems);
        }
        let mut names = BTreeSet::from([MAIL_CHANNEL]);
        for (index, webhook) in self.webhook.iter().enumerate() {
            let path = format!("{}[{index}]", key(path, "webhook"));
            webhook.validate(&path, problems);
            if !names.insert(&webhook.name) {
                problems.add(&path, "name", format!("is {:?}, which another channel is called", webhook.name));
            }
        }
        for (domain, config) in &self.domains {
            let path = format!("{}.{domain:?}", key(path, "domains"));
            if *domain != domain.to_lowercase() || domain.is_empty() || domain.contains(['@', ' ']) {
                problems.add(&path, "", "is no domain in lower case, e.g. example.org");
            }
            if let Some(language) = &config.language {
                check_language(&path, "language", language, problems);
            }
            check_addresses(&path, "administrators", &config.administrators, problems);
        }
    }
}

fn check_addresses(path: &str, name: &str, addresses: &[String], problems: &mut Problems) {
    for address in addresses {
        if let Err(error) = address.parse::<Address>() {
            problems.add(path, name, format!("has {address:?}, which is no mail address: {error}"));
        }
    }
}

/// A tag of letters, digits and hyphens (RFC 5646), since it is also a file's name and stands in a header.
pub(crate) fn is_language(tag: &str) -> bool {
    !tag.is_empty()
        && tag.len() <= 35
        && tag.split('-').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn check_language(path: &str, name: &str, tag: &str, problems: &mut Problems) {
    if !is_language(tag) {
        problems.add(path, name, format!("is {tag:?}; allowed: a language tag, e.g. de or zh-Hans"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use tidegate_runtime::config;

    fn problems(text: &str) -> Vec<String> {
        match config::parse::<NotifyConfig>(Path::new("notify.toml"), text) {
            Ok(_) => Vec::new(),
            Err(config::ConfigError::Invalid { problems, .. }) => {
                problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect()
            }
            Err(error) => vec![error.to_string()],
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let text = r#"
            language = "../de"
            administrators = ["abuse at example.org"]
            max_pending = 1
            templates = "/no/where"
            [smtp]
            host = "mail.example.org"
            tls = "none"
            from = "Tidegate"
            username = "tidegate"
            [[webhook]]
            name = "mail"
            url = "http://hooks.example.org/x"
            secret_file = "/no/secret"
            [domains."Example.DE"]
            administrators = ["x"]
        "#;
        let told = problems(text).join("\n");
        for part in [
            "language: is \"../de\"",
            "administrators: has \"abuse at example.org\"",
            "max_pending: is 1; allowed: 100 to 1000000",
            "templates: cannot read /no/where",
            "smtp.tls: is \"none\"",
            "smtp.from: is \"Tidegate\"",
            "smtp.password_file: must be set",
            "webhook[0].url: is http to another host",
            "webhook[0].secret_file: cannot read /no/secret",
            "webhook[0].name: is \"mail\", which another channel is called",
            "domains.\"Example.DE\".: is no domain in lower case",
            "domains.\"Example.DE\".administrators: has \"x\"",
        ] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
    }

    #[test]
    fn somebody_must_be_reachable_and_keys_must_be_known() {
        assert!(problems("").join("").contains("smtp: must be set"));
        assert!(problems("smpt = 1\n").join("").contains("unknown field `smpt`"));
        let good = "[smtp]\nhost = \"localhost\"\ntls = \"none\"\nfrom = \"Example Mail <no-reply@example.org>\"\n";
        assert_eq!(problems(good), [""; 0]);
    }
}
