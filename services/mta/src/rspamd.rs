//! What rspamd's `metadata_exporter` posts (`backend = "http"; formatter = "json"`): the verdict on each message that
//! it scanned, also on those that it refused, of which no later milter sees more than an abort.
//!
//! This reads the body of the request; the HTTP server is the shell's.

use crate::headers::subject_hash;
use crate::origin::address;
use crate::recipients::{RecipientCollector, bare_address, truncate};
use crate::{Gate, Ignored, SessionSettings};
use serde::Deserialize;
use std::net::IpAddr;
use tidegate_domain::{Account, Recipients};

/// Longest body that is read, in octets. Refuse longer ones before reading them whole.
pub const MAX_BODY_OCTETS: usize = 1024 * 1024;
/// Longest sender or queue id that is kept.
const MAX_TEXT_OCTETS: usize = 512;

/// A filter's verdict on one message.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterVerdict {
    /// The MTA's queue id.
    pub queue_id: String,
    /// Whose message it is.
    pub account: Account,
    /// The client's address; none for a trusted relay.
    pub client_address: Option<IpAddr>,
    /// Envelope sender.
    pub sender: String,
    /// Envelope recipients.
    pub recipients: Recipients,
    /// The filter's score.
    pub score: Option<f64>,
    /// What the filter did.
    pub action: FilterAction,
    /// Keyed hash of the subject, 0 when there is none.
    pub subject_hash: u64,
}

/// What rspamd does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FilterAction {
    /// Nothing.
    NoAction,
    /// `greylist`: the client is to try again.
    Greylist,
    /// `soft reject`: refused for now, for a rate or another passing reason.
    SoftReject,
    /// `add header`: marked as spam.
    AddHeader,
    /// `rewrite subject`: marked as spam.
    RewriteSubject,
    /// `quarantine`: kept back as spam.
    Quarantine,
    /// `reject`: refused as spam.
    Reject,
    /// `discard`: taken and thrown away as spam.
    Discard,
    /// One that is not known here.
    Other,
}

/// Why a body gives no verdict.
#[derive(Debug, thiserror::Error)]
pub enum VerdictError {
    /// Too long to be read.
    #[error("the posted verdict has {octets} octets; at most {MAX_BODY_OCTETS} are read")]
    TooLong {
        /// Octets that came.
        octets: usize,
    },
    /// Not the JSON object that is expected.
    #[error("the posted body is no rspamd verdict; set formatter = \"json\" in metadata_exporter.conf")]
    Json(#[from] serde_json::Error),
    /// No queue id, as for messages scanned by hand.
    #[error("the posted verdict names no queue id (qid); it cannot be joined to a message")]
    NoQueueId,
    /// The message is nobody's.
    #[error("the posted verdict is on a message that counts for no account ({})", .0.as_str())]
    Nobody(Ignored),
}

/// The fields that are used. rspamd writes `unknown` where it knows nothing, also in place of a list.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Body {
    qid: Loose,
    user: Loose,
    ip: Loose,
    from: Loose,
    rcpt: Loose,
    score: Option<f64>,
    action: Loose,
    subject: Loose,
}

/// Text, a list of texts, or something else.
#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Loose {
    Text(String),
    List(Vec<String>),
    Else(serde::de::IgnoredAny),
    #[default]
    #[serde(skip)]
    Missing,
}

impl FilterVerdict {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// When it is no verdict, or one that nothing here can use.
    pub fn parse(body: &[u8], settings: &SessionSettings, gate: &dyn Gate) -> Result<Self, VerdictError> {
        if body.len() > MAX_BODY_OCTETS {
            return Err(VerdictError::TooLong { octets: body.len() });
        }
        let body: Body = serde_json::from_slice(body)?;
        let queue_id = body.qid.text().ok_or(VerdictError::NoQueueId)?;
        let client_address = body.ip.text().and_then(|ip| address(&ip));
        let account = settings
            .account_of(body.user.text().as_deref().unwrap_or_default(), client_address)
            .map_err(VerdictError::Nobody)?;
        let mut recipients = RecipientCollector::default();
        for recipient in body.rcpt.list() {
            recipients.add(&recipient, gate, &settings.hashes);
        }
        Ok(Self {
            queue_id,
            account,
            client_address: client_address.filter(|_| !settings.is_trusted_relay(client_address)),
            sender: body.from.text().map(|from| bare_address(&from).to_owned()).unwrap_or_default(),
            recipients: recipients.finish(),
            score: body.score.filter(|score| score.is_finite()),
            action: body.action.text().map_or(FilterAction::Other, |action| FilterAction::named(&action)),
            subject_hash: body.subject.text().map_or(0, |subject| subject_hash(subject.as_bytes(), settings)),
        })
    }

    /// Whether the filter called it spam.
    pub fn is_spam(&self) -> bool {
        match self.action {
            FilterAction::AddHeader
            | FilterAction::RewriteSubject
            | FilterAction::Quarantine
            | FilterAction::Reject
            | FilterAction::Discard => true,
            FilterAction::NoAction | FilterAction::Greylist | FilterAction::SoftReject | FilterAction::Other => false,
        }
    }

    /// Whether the message ended at the filter, so that no later milter saw its end.
    pub fn is_refused(&self) -> bool {
        matches!(self.action, FilterAction::Reject | FilterAction::Discard)
    }
}

impl FilterAction {
    fn named(name: &str) -> Self {
        match name {
            "no action" => Self::NoAction,
            "greylist" => Self::Greylist,
            "soft reject" => Self::SoftReject,
            "add header" => Self::AddHeader,
            "rewrite subject" => Self::RewriteSubject,
            "quarantine" => Self::Quarantine,
            "reject" => Self::Reject,
            "discard" => Self::Discard,
            _ => Self::Other,
        }
    }
}

impl Loose {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(mut text) if text != "unknown" && !text.is_empty() => {
                text.retain(|c| !c.is_control());
                truncate(&mut text, MAX_TEXT_OCTETS);
                Some(text)
            }
            _ => None,
        }
    }

    fn list(self) -> Vec<String> {
        match self {
            Self::List(list) => list,
            text => text.text().into_iter().collect(),
        }
    }
}
