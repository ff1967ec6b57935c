//! Programs that are told.

use crate::Kind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;
use tidegate_runtime::config::{Problems, Validate};
use url::Url;

/// One receiver of webhooks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Its name, in records, metrics and commands.
    pub name: String,
    /// Where the bodies are posted to.
    #[serde(default)]
    pub url: Option<String>,
    /// File with the URL, when it is a secret itself, as Slack's are.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// File with the secret that signs the bodies; the end of the line is cut off. It is read for each delivery.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// Form of the body: `generic`, `slack`, `alertmanager`, or a template file (its name ends in `.json`).
    #[serde(default)]
    pub template: WebhookTemplate,
    /// What it is told of.
    #[serde(default = "all_kinds")]
    pub changes: BTreeSet<Kind>,
    /// Only accounts of these domains; empty: all.
    #[serde(default)]
    pub domains: BTreeSet<String>,
    /// After the first decision a body waits so long for others, in milliseconds.
    #[serde(default = "default_group_window_ms")]
    pub group_window_ms: u64,
    /// Most bodies within an hour; beyond it they wait and are told in one.
    #[serde(default = "default_max_per_hour")]
    pub max_per_hour: u32,
    /// Bodies on their way at a time.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// Longest time for one delivery, in milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

/// Form of a webhook's body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum WebhookTemplate {
    /// Everything that is known, as JSON.
    #[default]
    Generic,
    /// What Slack and its like take at incoming webhooks.
    Slack,
    /// What Alertmanager takes at `/api/v2/alerts`.
    Alertmanager,
    /// A template file.
    File(PathBuf),
}

impl From<String> for WebhookTemplate {
    fn from(text: String) -> Self {
        match text.as_str() {
            "generic" => Self::Generic,
            "slack" => Self::Slack,
            "alertmanager" => Self::Alertmanager,
            _ => Self::File(text.into()),
        }
    }
}

impl From<WebhookTemplate> for String {
    fn from(template: WebhookTemplate) -> Self {
        match template {
            WebhookTemplate::Generic => "generic".to_owned(),
            WebhookTemplate::Slack => "slack".to_owned(),
            WebhookTemplate::Alertmanager => "alertmanager".to_owned(),
            WebhookTemplate::File(path) => path.to_string_lossy().into_owned(),
        }
    }
}

fn all_kinds() -> BTreeSet<Kind> {
    Kind::ALL.into()
}

fn default_group_window_ms() -> u64 {
    2_000
}

fn default_max_per_hour() -> u32 {
    600
}

fn default_concurrency() -> usize {
    1
}

fn default_timeout_ms() -> u64 {
    10_000
}

/// Why a URL is not one that bodies are posted to.
pub(crate) fn check_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|error| format!("is no URL: {error}"))?;
    let on_this_machine = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => return Err("has no host".to_owned()),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if on_this_machine => Ok(url),
        "http" => Err("is http to another host; allowed: https, or http to this machine".to_owned()),
        other => Err(format!("is {other}; allowed: https, or http to this machine")),
    }
}

impl Validate for WebhookConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(is_name) {
            problems.add(path, "name", format!("is {:?}; allowed: 1 to 64 letters, digits, - _ .", self.name));
        }
        match (&self.url, &self.url_file) {
            (Some(url), None) => {
                if let Err(error) = check_url(url) {
                    problems.add(path, "url", error);
                }
            }
            (None, Some(_)) => {}
            (None, None) | (Some(_), Some(_)) => {
                problems.add(path, "url", "exactly one of url and url_file must be set");
            }
        }
        for (name, file) in [("url_file", &self.url_file), ("secret_file", &self.secret_file)] {
            if let Some(file) = file
                && let Err(error) = std::fs::metadata(file)
            {
                problems.add(path, name, format!("cannot read {}: {error}", file.display()));
            }
        }
        if let WebhookTemplate::File(file) = &self.template
            && (file.extension().is_none_or(|extension| extension != "json") || !file.is_file())
        {
            let message =
                format!("is {file:?}; allowed: generic, slack, alertmanager, or a file whose name ends in .json");
            problems.add(path, "template", message);
        }
        if let Some(domain) = self.domains.iter().find(|domain| **domain != domain.to_lowercase()) {
            problems.add(path, "domains", format!("has {domain:?}, which is not in lower case"));
        }
        problems.check_range(path, "group_window_ms", self.group_window_ms, 0..=3_600_000);
        problems.check_range(path, "max_per_hour", self.max_per_hour, 1..=1_000_000);
        problems.check_range(path, "concurrency", self.concurrency, 1..=64);
        problems.check_range(path, "timeout_ms", self.timeout_ms, 100..=120_000);
    }
}
