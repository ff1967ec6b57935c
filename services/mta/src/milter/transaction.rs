//! One message in a milter session, from MAIL to its end.

use super::frame::{Frame, strings};
use crate::headers::HeaderFacts;
use crate::recipients::{RecipientCollector, bare_address, truncate};
use crate::{Fingerprinter, Gate, SessionSettings, Submitted};
use std::net::IpAddr;
use tidegate_domain::{Account, Disposition, Submission};

/// Longest sender, HELO name or other short text that is kept.
pub(super) const MAX_TEXT_OCTETS: usize = 512;
/// `CR LF`.
const LINE_BREAK_OCTETS: u64 = 2;

/// What is known of the connection that a message comes through.
#[derive(Debug, Default, Clone)]
pub(super) struct Client {
    pub address: Option<IpAddr>,
    pub port: u16,
    pub helo: String,
    pub tls: String,
}

/// Macros that come before MAIL.
#[derive(Debug, Default, Clone)]
pub(super) struct MailMacros {
    pub queue_id: String,
    pub auth_type: String,
    pub auth_authen: String,
    pub tls_version: String,
}

/// A message in the making.
#[derive(Debug)]
pub(super) struct Transaction {
    pub account: Account,
    pub queue_id: String,
    pub data_seen: bool,
    pub recipients: RecipientCollector,
    sender: String,
    login_method: String,
    tls: String,
    headers: HeaderFacts,
    fingerprinter: Fingerprinter,
    header_octets: u64,
    body_octets: u64,
}

impl Transaction {
    pub fn new(account: Account, mail: &Frame<'_>, macros: MailMacros, settings: &SessionSettings) -> Self {
        let sender = strings(mail.data).next().map(text).unwrap_or_default();
        Self {
            account,
            queue_id: macros.queue_id,
            data_seen: false,
            recipients: RecipientCollector::default(),
            sender: bare_address(&sender).to_owned(),
            login_method: macros.auth_type,
            tls: macros.tls_version,
            headers: HeaderFacts::default(),
            fingerprinter: Fingerprinter::new(settings.fingerprint_seed),
            header_octets: 0,
            body_octets: 0,
        }
    }

    pub fn recipient(&mut self, address: &str, gate: &dyn Gate, settings: &SessionSettings) {
        self.recipients.add(address, gate, &settings.hashes);
    }

    /// A header: its name, a NUL, its value, a NUL.
    ///
    /// Counts what was on the wire: name, colon, value, and `CR LF` for each line. Without the leading-space
    /// extension the space behind the colon does not come along and is counted as one.
    pub fn header(&mut self, frame: &Frame<'_>, leading_space: bool, settings: &SessionSettings) {
        let mut parts = strings(frame.data);
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let bare_line_feeds = value
            .iter()
            .enumerate()
            .filter(|(at, byte)| **byte == b'\n' && (*at == 0 || value[at - 1] != b'\r'))
            .count() as u64;
        let terminators = 2;
        let colon = if leading_space { 1 } else { 2 };
        self.header_octets += frame.data_octets.saturating_sub(terminators) + colon + LINE_BREAK_OCTETS;
        self.header_octets += bare_line_feeds;
        self.headers.read(name, value, settings, &mut self.fingerprinter);
    }

    pub fn body(&mut self, frame: &Frame<'_>) {
        self.body_octets += frame.data_octets;
        self.fingerprinter.body(frame.data);
    }

    pub fn finish(self, client: &Client, settings: &SessionSettings) -> Submitted {
        let relayed = settings.is_trusted_relay(client.address);
        let content_seen = self.header_octets + self.body_octets > 0;
        let submission = Submission {
            client_address: if relayed { self.headers.origin() } else { client.address },
            client_port: if relayed { 0 } else { client.port },
            helo: client.helo.clone(),
            sender: self.sender,
            recipients: self.recipients.finish(),
            size: if content_seen { self.header_octets + LINE_BREAK_OCTETS + self.body_octets } else { 0 },
            queue_id: self.queue_id,
            subject_hash: self.headers.subject_hash,
            mailer_hash: self.headers.mailer_hash,
            reply: self.headers.reply,
            list: self.headers.list,
            automatic: self.headers.automatic,
            fingerprint: self.fingerprinter.finish(),
            spam: self.headers.spam.spam,
            spam_score: self.headers.spam.score,
            login_method: self.login_method,
            tls: if self.tls.is_empty() { client.tls.clone() } else { self.tls },
            disposition: Disposition::Accepted,
            subject: self.headers.subject,
        };
        Submitted { account: self.account, submission }
    }
}

/// A short text of the protocol, bounded, without control characters.
pub(super) fn text(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT_OCTETS)]).into_owned();
    text.retain(|c| !c.is_control());
    truncate(&mut text, MAX_TEXT_OCTETS);
    text
}
