//! Where mail goes.

use lettre::Address;
use lettre::message::Mailbox;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tidegate_runtime::config::{Problems, Validate};

/// The server that takes the notifications' mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpConfig {
    /// Its name; its certificate must bear it.
    pub host: String,
    /// Its port; otherwise 587 for STARTTLS, 465 for TLS, 25 for none.
    #[serde(default)]
    pub port: Option<u16>,
    /// How the connection is kept secret.
    #[serde(default)]
    pub tls: SmtpTls,
    /// PEM file with an authority for the server's certificate, beside the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Login, if the server asks for one.
    #[serde(default)]
    pub username: Option<String>,
    /// File with its password; the end of the line is cut off. It is read for each connection.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// `From:`, with or without a name.
    pub from: String,
    /// `Reply-To:`, if answers go elsewhere.
    #[serde(default)]
    pub reply_to: Option<String>,
    /// The envelope's sender, to which bounces go; otherwise the address in `from`.
    #[serde(default)]
    pub bounces_to: Option<String>,
    /// Name for EHLO and in `Message-ID:`; otherwise the domain of `from`.
    #[serde(default)]
    pub hello_name: Option<String>,
    /// Mails on their way at a time, each over a connection of its own.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// Longest time for one mail, from connecting to the server's last answer, in milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

/// How the connection to the mail server is kept secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// STARTTLS, and nothing is sent without.
    #[default]
    Starttls,
    /// TLS from the first octet.
    Tls,
    /// Not at all; only on this machine.
    None,
}

fn default_concurrency() -> usize {
    4
}

fn default_timeout_ms() -> u64 {
    60_000
}

impl SmtpConfig {
    /// The port that is used.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.tls {
            SmtpTls::Starttls => 587,
            SmtpTls::Tls => 465,
            SmtpTls::None => 25,
        })
    }

    /// The name after the `@` of message ids.
    pub fn id_domain(&self) -> String {
        let of_from = || self.from.parse::<Mailbox>().ok().map(|from| from.email.domain().to_owned());
        self.hello_name.clone().or_else(of_from).unwrap_or_else(|| "localhost".to_owned())
    }

    fn is_on_this_machine(&self) -> bool {
        let name = self.host.trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl Validate for SmtpConfig {
    fn validate(&self, path: &str, problems: &mut Problems) {
        problems.check_set(path, "host", &self.host);
        if self.tls == SmtpTls::None && !self.is_on_this_machine() {
            problems.add(path, "tls", "is \"none\" to another host; allowed: starttls, tls, or none to this machine");
        }
        if self.from.parse::<Mailbox>().is_err() {
            let message =
                format!("is {:?}; allowed: an address, or e.g. Example Mail <no-reply@example.org>", self.from);
            problems.add(path, "from", message);
        }
        if let Some(reply_to) = &self.reply_to
            && reply_to.parse::<Mailbox>().is_err()
        {
            problems.add(path, "reply_to", format!("is {reply_to:?}, which is no mail address"));
        }
        if let Some(address) = &self.bounces_to
            && address.parse::<Address>().is_err()
        {
            problems.add(path, "bounces_to", format!("is {address:?}, which is no mail address"));
        }
        if let Some(name) = &self.hello_name
            && (name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte)))
        {
            problems.add(path, "hello_name", format!("is {name:?}; allowed: a host's name"));
        }
        match (&self.username, &self.password_file) {
            (Some(_), None) => problems.add(path, "password_file", "must be set, since username is"),
            (None, Some(_)) => problems.add(path, "username", "must be set, since password_file is"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        for (name, file) in [("ca", &self.ca), ("password_file", &self.password_file)] {
            if let Some(file) = file
                && let Err(error) = std::fs::metadata(file)
            {
                problems.add(path, name, format!("cannot read {}: {error}", file.display()));
            }
        }
        problems.check_range(path, "concurrency", self.concurrency, 1..=64);
        problems.check_range(path, "timeout_ms", self.timeout_ms, 100..=600_000);
    }
}
