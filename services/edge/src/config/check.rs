//! What may be set.

use super::{ConnectionConfig, ControlConfig, EdgeConfig, PublishConfig, PublishKind};
use crate::listen::ListenAddress;
use tidegate_runtime::config::key;
use tidegate_runtime::tls::ClientTls;
use tidegate_runtime::{Problems, Validate};
use tonic::transport::Uri;

/// Longest name of a node or a site in octets; control takes no longer ones.
const MAX_NAME_OCTETS: usize = 255;
/// A socket's path must fit the system's 108 octets together with the ending that it has while it is made.
const MAX_SOCKET_PATH_OCTETS: usize = 100;
/// Most entries of `internal_domains` and of `admin_addresses`.
const MAX_LISTED: usize = 100_000;

impl Validate for EdgeConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        check_name(path, "node", &self.node, problems);
        check_name(path, "site", &self.site, problems);
        if !self.state_directory.is_absolute() {
            let given = self.state_directory.display();
            problems.add(path, "state_directory", format!("is {given}; allowed: an absolute path"));
        }
        check_domains(path, &self.internal_domains, problems);
        check_addresses(path, &self.admin_addresses, problems);
        if let Some(file) = &self.hash_key_file
            && let Err(error) = std::fs::metadata(file)
        {
            problems.add(path, "hash_key_file", format!("cannot read {}: {error}", file.display()));
        }
        if self.milter.listen.is_empty() && self.policy.listen.is_empty() {
            let allowed = "is empty, and so is policy.listen: nothing would be checked; allowed: e.g. \
                           [\"unix:/run/tidegate/milter.sock\"]";
            problems.add(&key(path, "milter"), "listen", allowed);
        }
        let (milter, policy) = (key(path, "milter"), key(path, "policy"));
        self.milter.connections.validate(&key(&milter, "connections"), &self.milter.listen, &milter, problems);
        self.policy.connections.validate(&key(&policy, "connections"), &self.policy.listen, &policy, problems);
        if let Some(address) = self.rspamd.listen.filter(|address| !address.ip().is_loopback()) {
            let wrong = format!("is {address}; allowed: a loopback address, for verdicts come without authentication");
            problems.add(&key(path, "rspamd"), "listen", wrong);
        }
        self.control.validate(&key(path, "control"), problems);
        self.publish.validate(&key(path, "publish"), problems);
        problems.check_range(&key(path, "spool"), "max_bytes", self.spool.max_bytes, 1 << 20..=1 << 44);
        problems.check_range(&key(path, "spool"), "max_age_hours", self.spool.max_age_hours, 1..=24 * 365);
        if let Some(cap) = &self.local_cap {
            let path = key(path, "local_cap");
            problems.check_range(&path, "after_s", cap.after_s, 1..=86_400);
            problems.check_set(&path, "reply", &cap.reply);
        }
        let mut of_sessions = Vec::new();
        self.session.validate(&key(path, "session"), &mut of_sessions);
        self.policy.joiner.validate(&key(&policy, "joiner"), &mut of_sessions);
        self.verdicts.validate(&key(path, "verdicts"), &mut of_sessions);
        for problem in of_sessions {
            problems.add("", &problem.key, problem.message);
        }
        self.telemetry.validate(&key(path, "telemetry"), problems);
        self.traces.validate(&key(path, "traces"), problems);
    }
}

impl Validate for ControlConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        check_endpoint(path, &self.endpoint, self.tls.as_ref(), problems);
        problems.check_range(path, "connect_timeout_ms", self.connect_timeout_ms, 100..=60_000);
        problems.check_range(path, "max_backoff_ms", self.max_backoff_ms, 100..=600_000);
    }
}

impl Validate for PublishConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        let grpc = key(path, "grpc");
        match &self.grpc.endpoint {
            Some(endpoint) => check_endpoint(&grpc, endpoint, self.grpc.tls.as_ref(), problems),
            None if self.grpc.tls.is_some() => {
                problems.add(&grpc, "tls", "is set without endpoint; allowed: both, or none (those of control)");
            }
            None => {}
        }
        if self.kind == PublishKind::Kafka {
            self.kafka.validate(&key(path, "kafka"), problems);
        }
        problems.check_range(path, "timeout_ms", self.timeout_ms, 100..=60_000);
        problems.check_range(path, "max_backoff_ms", self.max_backoff_ms, 100..=600_000);
        problems.check_range(path, "queue_max_events", self.queue_max_events, 100..=1_000_000);
    }
}

fn check_name(path: &str, name: &str, value: &str, problems: &mut Problems) {
    if value.trim().is_empty() {
        problems.add(path, name, "must be set");
    } else if value.len() > MAX_NAME_OCTETS || value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        problems.add(path, name, format!("is no name; allowed: up to {MAX_NAME_OCTETS} octets without white space"));
    }
}

fn check_domains(path: &str, domains: &[String], problems: &mut Problems) {
    for (index, domain) in domains.iter().take(MAX_LISTED).enumerate() {
        let wrong = |c: char| c == '@' || c == '*' || c.is_whitespace() || c.is_control();
        if domain.is_empty() || domain.contains(wrong) {
            let wrong = format!("is {domain:?}; allowed: a domain, e.g. example.org");
            problems.add(path, &format!("internal_domains[{index}]"), wrong);
        }
    }
    if domains.len() > MAX_LISTED {
        problems.add(path, "internal_domains", format!("has {} entries; allowed: {MAX_LISTED}", domains.len()));
    }
}

fn check_addresses(path: &str, addresses: &[String], problems: &mut Problems) {
    for (index, address) in addresses.iter().take(MAX_LISTED).enumerate() {
        let parts = address.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
        if !parts || address.contains(|c: char| c.is_whitespace() || c.is_control() || c == '<' || c == '>') {
            let wrong = format!("is {address:?}; allowed: an address, e.g. postmaster@example.org");
            problems.add(path, &format!("admin_addresses[{index}]"), wrong);
        }
    }
    if addresses.len() > MAX_LISTED {
        problems.add(path, "admin_addresses", format!("has {} entries; allowed: {MAX_LISTED}", addresses.len()));
    }
}

fn check_endpoint(path: &str, endpoint: &str, tls: Option<&ClientTls>, problems: &mut Problems) {
    let uri = endpoint.parse::<Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    let scheme = uri.as_ref().and_then(Uri::scheme_str).unwrap_or_default();
    match (scheme, tls) {
        ("http", None) | ("https", Some(_)) => {}
        ("http", Some(_)) => problems.add(path, "endpoint", "is http:// though tls is set; allowed: https://"),
        ("https", None) => problems.add(path, "endpoint", "is https://, which needs tls to be set"),
        _ => problems.add(path, "endpoint", format!("is {endpoint:?}; allowed: e.g. http://127.0.0.1:7710")),
    }
    if let Some(tls) = tls {
        tls.validate(&key(path, "tls"), problems);
    }
}

impl ConnectionConfig {
    fn validate(&self, path: &str, listen: &[String], parent: &str, problems: &mut Problems) {
        problems.check_range(path, "max", self.max, 1..=100_000);
        problems.check_range(path, "idle_ms", self.idle_ms, 1_000..=86_400_000);
        if self.mode().is_none() {
            let mode = &self.socket_mode;
            problems.add(path, "socket_mode", format!("is {mode:?}; allowed: octal permissions, e.g. \"0660\""));
        }
        for (index, text) in listen.iter().enumerate() {
            let name = format!("listen[{index}]");
            match text.parse() {
                Ok(ListenAddress::Unix(socket)) if socket.as_os_str().len() > MAX_SOCKET_PATH_OCTETS => {
                    let octets = socket.as_os_str().len();
                    let allowed = MAX_SOCKET_PATH_OCTETS;
                    problems.add(parent, &name, format!("has a path of {octets} octets; allowed: at most {allowed}"));
                }
                Ok(ListenAddress::Inet(address)) if !address.ip().is_loopback() && !self.allow_remote => {
                    let allow = key(path, "allow_remote");
                    let wrong = format!("is {address}, which others can reach; allowed: loopback, or any with {allow}");
                    problems.add(parent, &name, wrong);
                }
                Ok(_) => {}
                Err(wrong) => problems.add(parent, &name, wrong),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MilterConfig;

    fn problems(config: &EdgeConfig) -> String {
        let mut problems = Problems::default();
        config.validate("", &mut problems);
        problems.to_string()
    }

    fn named() -> EdgeConfig {
        let milter = MilterConfig { listen: vec!["unix:/run/tidegate/milter.sock".into()], ..MilterConfig::default() };
        EdgeConfig { node: "mx1".into(), site: "ams".into(), milter, ..EdgeConfig::default() }
    }

    #[test]
    fn names_and_a_socket_are_all_that_must_be_given() {
        assert_eq!(problems(&named()), "");
        let text = problems(&EdgeConfig::default());
        for key in ["node: must be set", "site: must be set", "milter.listen: is empty"] {
            assert!(text.contains(key), "{key} in\n{text}");
        }
    }

    #[test]
    fn the_example_says_every_key_and_is_allowed() {
        let text = include_str!("../../tidegate-edge.toml");
        let path = std::path::Path::new("tidegate-edge.toml");
        let example: EdgeConfig = tidegate_runtime::config::parse(path, text).unwrap();
        assert_eq!(example.milter.listen.len(), 2);
        // What is commented out is right too, but for files that are not there.
        let whole: Vec<_> = text.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).collect();
        let whole = whole.join(
            "
",
        );
        let error = match tidegate_runtime::config::parse::<EdgeConfig>(path, &whole) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        let others = error.lines().skip(1).filter(|line| !line.contains("cannot read"));
        assert_eq!(others.collect::<Vec<_>>(), Vec::<&str>::new(), "{error}");
    }

    #[test]
    fn every_problem_is_told_with_its_key() {
        let mut config = named();
        config.node = "two words".into();
        config.state_directory = "state".into();
        config.internal_domains = vec!["example.org".into(), "a@b".into()];
        config.admin_addresses = vec!["postmaster".into()];
        config.milter.listen = vec!["inet:0.0.0.0:7722".into(), "7722".into(), format!("unix:/{}", "x".repeat(120))];
        config.policy.connections.socket_mode = "rw".into();
        config.rspamd.listen = Some("0.0.0.0:1".parse().unwrap());
        config.control.endpoint = "https://control:7710".into();
        config.publish.grpc.endpoint = Some("control:7710".into());
        config.publish.timeout_ms = 1;
        config.session.default_realm = "a b".into();
        config.policy.joiner.max_open = 0;
        config.spool.max_bytes = 1;
        let text = problems(&config);
        let keys = [
            "node",
            "state_directory",
            "internal_domains[1]",
            "admin_addresses[0]",
            "milter.listen[0]",
            "milter.listen[1]",
            "milter.listen[2]",
            "policy.connections.socket_mode",
            "rspamd.listen",
            "control.endpoint",
            "publish.grpc.endpoint",
            "publish.timeout_ms",
            "session.default_realm",
            "policy.joiner.max_open",
            "spool.max_bytes",
        ];
        for key in keys {
            assert!(text.contains(&format!("  {key}: ")), "{key} in\n{text}");
        }
        assert_eq!(text.lines().count(), keys.len(), "{text}");
    }
}
