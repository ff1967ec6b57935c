//! What can be set.

use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use tidegate_domain::{Account, AccountForm};
use tidegate_runtime::config::{Problems, Validate, key};
use tidegate_runtime::tls::{ServerTls, check_listen};

/// Longest reply text in octets: with code and lock id it fits RFC 5321's line of 512.
pub(crate) const MAX_REPLY_OCTETS: usize = 400;
/// What an action may take besides waiting for the state, before the whole request is cut off.
const ACTION_RESERVE_MS: u64 = 5_000;

/// The control service's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Where gRPC is served. Anything but loopback needs `tls`, and `[access]` beside this section.
    pub listen: SocketAddr,
    /// The server's certificate, and the authority of the clients', without which no edge can prove who it is.
    pub tls: Option<ServerTls>,
    /// Realm of accounts that an administrator names without a domain; the same as at the edges.
    pub default_realm: Option<String>,
    /// Whether the part before the `@` is taken in lower case; the same as at the edges.
    pub lower_case_local_part: bool,
    /// A heartbeat goes to each edge this often, in milliseconds.
    pub heartbeat_ms: u32,
    /// Most states in one batch to an edge.
    pub max_batch_states: usize,
    /// Most batches on the way to an edge that it has not acknowledged; then control waits for it.
    pub max_unacked_batches: usize,
    /// An edge whose connection takes nothing for so long is cut off, in milliseconds. It comes back and is
    /// brought up to date.
    pub edge_stall_ms: u64,
    /// Most edges that are known at a time.
    pub max_edges: usize,
    /// Most watches of accounts at a time.
    pub max_watchers: usize,
    /// How many changes a watch may fall behind before it is ended.
    pub watch_buffer: usize,
    /// How long an action waits for the state that comes of it, when the request does not say, in milliseconds.
    pub command_wait_ms: u32,
    /// The longest wait that a request may ask for, in milliseconds.
    pub max_command_wait_ms: u32,
    /// A request that is not answered within this time is cut off, in milliseconds. Streams live on.
    pub request_timeout_ms: u64,
    /// Most connections at a time; more wait to be accepted.
    pub max_connections: usize,
    /// What the SMTP client is told when an administrator locks an account without a text.
    pub lock_reply: String,
    /// What an unlock has to bring, and what follows it.
    pub unlock: UnlockConfig,
    /// How many audit records are kept at hand for listing; older ones are in the history.
    pub audit_records: usize,
    /// Most accounts that one request may lock or unlock.
    pub max_accounts_at_once: usize,
}

/// What an unlock has to bring, and what follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnlockConfig {
    /// Where the evidence comes from that a locked account's password was changed.
    pub evidence: EvidenceSource,
    /// For `file`: lines of `account,time`, the time in RFC 3339 or in milliseconds since 1970 UTC. It is read anew
    /// when it changes.
    pub file: Option<PathBuf>,
    /// For `directory`: whom to ask.
    pub directory: Option<DirectoryConfig>,
    /// Tighter limits for this long after an unlock that does not say, in milliseconds; 0: none.
    pub probation_ms: i64,
}

/// Where the evidence comes from that a locked account's password was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvidenceSource {
    /// None is asked for.
    None,
    /// The operator's word: when it was changed, or why the account is safe.
    #[default]
    Word,
    /// A file. The word of an administrator who is not limited to domains counts too.
    File,
    /// The provider's directory, over HTTP. The word of such an administrator counts too.
    Directory,
}

/// The provider's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryConfig {
    /// What is asked for with GET; `{account}` stands for the account. The answer is JSON with `password_changed`: a
    /// time in RFC 3339 or in milliseconds since 1970 UTC, or `null`; status 404: the account is not known.
    pub url: String,
    /// File with a bearer token for it.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// How long it may take, in milliseconds.
    #[serde(default = "default_directory_timeout_ms")]
    pub timeout_ms: u64,
}

fn default_directory_timeout_ms() -> u64 {
    3_000
}

impl Default for UnlockConfig {
    fn default() -> Self {
        Self { evidence: EvidenceSource::Word, file: None, directory: None, probation_ms: 24 * 60 * 60 * 1_000 }
    }
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7710)),
            tls: None,
            default_realm: None,
            lower_case_local_part: true,
            heartbeat_ms: 2_000,
            max_batch_states: 1_000,
            max_unacked_batches: 8,
            edge_stall_ms: 30_000,
            max_edges: 4_096,
            max_watchers: 1_024,
            watch_buffer: 4_096,
            command_wait_ms: 5_000,
            max_command_wait_ms: 20_000,
            request_timeout_ms: 30_000,
            max_connections: 4_096,
            unlock: UnlockConfig::default(),
            audit_records: 20_000,
            max_accounts_at_once: 100_000,
            lock_reply: "This account may not send mail at the moment; please contact your administrator".to_owned(),
        }
    }
}

impl ControlConfig {
    /// How administrators' spelling of accounts is read.
    pub(crate) fn account_form(&self) -> AccountForm {
        AccountForm { default_realm: self.default_realm.clone(), lower_case_local_part: self.lower_case_local_part }
    }
}

impl Validate for ControlConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        check_listen(path, "listen", self.listen, self.tls.as_ref(), problems);
        if let Some(tls) = &self.tls {
            tls.validate(&key(path, "tls"), problems);
        }
        if let Some(realm) = &self.default_realm
            && (realm.contains('@') || Account::parse(&format!("a@{realm}")).is_err() || realm.trim().is_empty())
        {
            problems.add(path, "default_realm", format!("is {realm:?}; allowed: a domain, e.g. example.org"));
        }
        problems.check_range(path, "heartbeat_ms", self.heartbeat_ms, 100..=60_000);
        problems.check_range(path, "max_batch_states", self.max_batch_states, 1..=10_000);
        problems.check_range(path, "max_unacked_batches", self.max_unacked_batches, 1..=64);
        problems.check_range(path, "edge_stall_ms", self.edge_stall_ms, 1_000..=600_000);
        problems.check_range(path, "max_edges", self.max_edges, 1..=10_000);
        problems.check_range(path, "max_watchers", self.max_watchers, 1..=100_000);
        problems.check_range(path, "watch_buffer", self.watch_buffer, 1..=1_000_000);
        problems.check_range(path, "max_connections", self.max_connections, 1..=100_000);
        problems.check_range(path, "request_timeout_ms", self.request_timeout_ms, 6_000..=600_000);
        problems.check_range(path, "command_wait_ms", self.command_wait_ms, 1..=self.max_command_wait_ms.max(1));
        let most = self.request_timeout_ms.saturating_sub(ACTION_RESERVE_MS).min(u64::from(u32::MAX)) as u32;
        if !(1..=most.max(1)).contains(&self.max_command_wait_ms) {
            problems.add(
                path,
                "max_command_wait_ms",
                format!(
                    "is {}; allowed: 1 to {most} (request_timeout_ms less {ACTION_RESERVE_MS})",
                    self.max_command_wait_ms
                ),
            );
        }
        problems.check_range(path, "audit_records", self.audit_records, 100..=1_000_000);
        problems.check_range(path, "max_accounts_at_once", self.max_accounts_at_once, 1..=1_000_000);
        self.unlock.validate(&key(path, "unlock"), problems);
        if let Some(problem) = reply_problem(&self.lock_reply) {
            problems.add(path, "lock_reply", problem);
        }
        if self.lock_reply.trim().is_empty() {
            problems.add(path, "lock_reply", "must be set");
        }
    }
}

impl Validate for UnlockConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        problems.check_range(path, "probation_ms", self.probation_ms, 0..=365 * 24 * 60 * 60 * 1_000);
        match self.evidence {
            EvidenceSource::File if self.file.is_none() => {
                problems.add(path, "file", "must be set for evidence = \"file\"");
            }
            EvidenceSource::Directory if self.directory.is_none() => {
                problems.add(path, "directory", "must be set for evidence = \"directory\"");
            }
            _ => {}
        }
        let Some(directory) = &self.directory else { return };
        let path = key(path, "directory");
        let is_web = directory.url.starts_with("https://") || directory.url.starts_with("http://");
        if !is_web || !directory.url.contains("{account}") {
            let url = &directory.url;
            problems.add(&path, "url", format!("is {url:?}; allowed: http:// or https:// with {{account}} in it"));
        }
        problems.check_range(&path, "timeout_ms", directory.timeout_ms, 100..=20_000);
    }
}

/// What keeps `reply` from being told to an SMTP client on one line, if anything.
pub(crate) fn reply_problem(reply: &str) -> Option<String> {
    if reply.len() > MAX_REPLY_OCTETS {
        return Some(format!("has {} octets; allowed: at most {MAX_REPLY_OCTETS}", reply.len()));
    }
    reply.chars().any(char::is_control).then(|| "has a control character; allowed: one line of plain text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &ControlConfig) -> String {
        let mut problems = Problems::default();
        config.validate("control", &mut problems);
        problems.to_string()
    }

    #[test]
    fn the_defaults_are_allowed() {
        assert_eq!(problems(&ControlConfig::default()), "");
    }

    #[test]
    fn every_problem_is_told_with_its_key() {
        let text = problems(&ControlConfig {
            listen: "0.0.0.0:7710".parse().unwrap(),
            heartbeat_ms: 1,
            max_batch_states: 0,
            default_realm: Some("a@b".into()),
            command_wait_ms: 30_000,
            max_command_wait_ms: 29_000,
            lock_reply: "two\nlines".into(),
            ..ControlConfig::default()
        });
        for key in
            ["listen", "heartbeat_ms", "max_batch_states", "default_realm", "command_wait_ms", "max_command_wait_ms"]
        {
            assert!(text.contains(&format!("control.{key}: ")), "{key} in\n{text}");
        }
        assert!(text.contains("control.lock_reply: has a control character"), "{text}");
    }
}
