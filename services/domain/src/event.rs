//! Events: what an edge saw.

use crate::Account;
use std::net::IpAddr;

/// One thing that an edge saw: a submission, a login or a delivery outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Who numbered it; drops duplicates.
    pub id: EventId,
    /// Site (location) of the node.
    pub site: String,
    /// The account it belongs to.
    pub account: Account,
    /// When it happened, by the edge's clock.
    pub time_ms: i64,
    /// What happened.
    pub kind: EventKind,
}

/// Number of an event: unique, and rising within one node and lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId {
    /// The MTA host that saw it.
    pub node: String,
    /// Which of the node's two ordered ways it took.
    pub lane: Lane,
    /// Rising number within the node's lane, with gaps allowed, never used again.
    pub sequence: u64,
}

/// The two ways from an edge to the log. Each keeps its own order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Published as it happened.
    Live,
    /// Published later, from the spool.
    Spooled,
}

/// What an [`Event`] tells.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// A message was submitted.
    Submission(Box<Submission>),
    /// Somebody tried to log in.
    Login(Login),
    /// What became of one recipient of a message.
    Delivery(Delivery),
}

/// One message that an account submitted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Submission {
    /// The client's address; none for local submission.
    pub client_address: Option<IpAddr>,
    /// The client's TCP port, 0 when unknown.
    pub client_port: u16,
    /// What the client said in HELO or EHLO.
    pub helo: String,
    /// Envelope sender, empty for the null sender.
    pub sender: String,
    /// The envelope recipients, without their addresses.
    pub recipients: Recipients,
    /// Size of the message in octets.
    pub size: u64,
    /// The MTA's queue id.
    pub queue_id: String,
    /// Keyed hash of the decoded subject, 0 when there is none.
    pub subject_hash: u64,
    /// Keyed hash of `X-Mailer` or `User-Agent`, 0 when there is none.
    pub mailer_hash: u64,
    /// Whether it answers another message (`In-Reply-To` or `References`).
    pub reply: bool,
    /// Whether it belongs to a mailing list (`List-Id`).
    pub list: bool,
    /// Whether a program sent it on its own (`Auto-Submitted` other than `no`).
    pub automatic: bool,
    /// Fingerprint of the content that survives small changes, 0 when the content was not seen.
    pub fingerprint: u64,
    /// Whether a spam filter called it spam.
    pub spam: bool,
    /// The spam filter's score, if it gave one.
    pub spam_score: Option<f64>,
    /// Login method (`PLAIN`, `LOGIN`, ...), empty without a login.
    pub login_method: String,
    /// TLS version (`TLSv1.3`), empty without TLS.
    pub tls: String,
    /// What became of it on the way in.
    pub disposition: Disposition,
    /// The decoded subject, cut short; empty unless the edge is set to tell subjects.
    pub subject: String,
}

/// What became of a message on the way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Disposition {
    /// It reached the end of the message, and the edge let it pass.
    #[default]
    Accepted,
    /// A filter in front of the edge refused it; only its verdict is known.
    RefusedByFilter,
    /// No message of its own: a verdict that came after the message had been published.
    LateVerdict,
}

/// The recipients of one message: counts, domains and keyed hashes, never addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recipients {
    /// How many there are.
    pub count: u32,
    /// How many are in the provider's own domains.
    pub internal: u32,
    /// Their domains, lower case, each once, bounded.
    pub domains: Vec<String>,
    /// Keyed hash of each address, in order, bounded.
    pub hashes: Vec<u64>,
}

/// A login attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The client's address.
    pub client_address: Option<IpAddr>,
    /// `submission`, `imap`, ...
    pub protocol: String,
    /// Whether it succeeded.
    pub success: bool,
}

/// What became of one recipient of a queued message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The MTA's queue id.
    pub queue_id: String,
    /// Domain of the recipient.
    pub recipient_domain: String,
    /// The outcome.
    pub outcome: DeliveryOutcome,
    /// Enhanced status code (RFC 3463), e.g. `5.1.1`, empty when unknown.
    pub status: String,
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryOutcome {
    /// Handed over to the next hop.
    Sent,
    /// Refused for good.
    Bounced,
    /// To be tried again.
    Deferred,
    /// Given up after too long.
    Expired,
}

impl Event {
    /// The submission in it, if it is one.
    pub fn submission(&self) -> Option<&Submission> {
        match &self.kind {
            EventKind::Submission(submission) => Some(submission),
            EventKind::Login(_) | EventKind::Delivery(_) => None,
        }
    }
}

impl Submission {
    /// Whether it counts as a message (a late verdict belongs to a message counted before).
    pub fn is_message(&self) -> bool {
        self.disposition != Disposition::LateVerdict
    }
}
