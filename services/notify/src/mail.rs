//! A mail as it goes out: headers, a text and an HTML alternative, the same octets on a repeat.

use crate::config::{NotifyConfig, SmtpConfig};
use crate::identity::notification_id;
use crate::outbox::Delivery;
use crate::templates::{Reader, RenderError, Templates, Written};
use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::{Address, Message};
use std::time::{Duration, UNIX_EPOCH};

/// A mail that is ready to go.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Who sends it, and to whom.
    pub envelope: Envelope,
    /// Headers and body.
    pub octets: Vec<u8>,
}

/// Why there is no mail.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The texts could not be made.
    #[error("the texts could not be made")]
    Render(#[from] RenderError),
    /// An address is none.
    #[error("{address:?} is no mail address: {problem}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong.
        problem: String,
    },
    /// The parts do not make a mail.
    #[error("putting the mail together")]
    Build(#[from] lettre::error::Error),
}

/// A mail about what `delivery` tells of, in this language.
///
/// # Errors
/// When the texts cannot be made, or an address is none.
pub fn compose(
    delivery: &Delivery,
    language: Option<&str>,
    contact: &str,
    smtp: &SmtpConfig,
    templates: &Templates,
) -> Result<Mail, MailError> {
    let reader = delivery.notifications.first().map_or(Reader::Administrator, |first| Reader::of(first.audience()));
    let written = templates.mail(&delivery.notifications, reader, language, contact)?;
    build(delivery, &written, smtp)
}

fn build(delivery: &Delivery, written: &Written, smtp: &SmtpConfig) -> Result<Mail, MailError> {
    let mailbox = |text: &str| {
        text.parse::<Mailbox>()
            .map_err(|error| MailError::Address { address: text.to_owned(), problem: error.to_string() })
    };
    let address = |text: &str| {
        text.parse::<Address>()
            .map_err(|error| MailError::Address { address: text.to_owned(), problem: error.to_string() })
    };
    let from = mailbox(&smtp.from)?;
    let to = address(&delivery.recipient)?;
    let bounces_to = smtp.bounces_to.as_deref().map_or_else(|| Ok(from.email.clone()), address)?;
    let domain = smtp.id_domain();
    let message_id = |id: &str| format!("<{id}@{domain}>");
    let newest_ms = delivery.notifications.iter().map(|one| one.due_ms).max().unwrap_or_default();
    let date = UNIX_EPOCH + Duration::from_millis(newest_ms.max(0).unsigned_abs());
    let mut builder = Message::builder()
        .from(from)
        .to(Mailbox::new(None, to.clone()))
        .subject(written.subject.clone())
        .date(date)
        .message_id(Some(message_id(&delivery.id)))
        .raw_header(header("Content-Language", &written.language))
        // So that no vacation program answers (RFC 3834; the second one is Exchange's).
        .raw_header(header("Auto-Submitted", "auto-generated"))
        .raw_header(header("X-Auto-Response-Suppress", "All"));
    if let Some(reply_to) = &smtp.reply_to {
        builder = builder.reply_to(mailbox(reply_to)?);
    }
    if let [one] = delivery.notifications.as_slice()
        && let Some(version) = one.lock_version
    {
        let lock = message_id(&notification_id(&one.account, version, &one.channel, &one.recipient));
        builder = builder.in_reply_to(lock.clone()).references(lock);
    }
    let part = |kind: ContentType, text: &str| SinglePart::builder().header(kind).body(text.to_owned());
    let alternatives = MultiPart::builder()
        .kind(lettre::message::MultiPartKind::Alternative)
        .boundary(format!("tidegate-{}", delivery.id))
        .singlepart(part(ContentType::TEXT_PLAIN, &written.text))
        .singlepart(part(ContentType::TEXT_HTML, &written.html));
    let envelope = Envelope::new(Some(bounces_to), vec![to])?;
    // Said, so that it is not read back from the headers: an address in quotation marks is not understood there.
    let message = builder.envelope(envelope.clone()).multipart(alternatives)?;
    Ok(Mail { envelope, octets: message.formatted() })
}

/// In which language whom this is for is written to, and how they reach help.
pub(crate) fn addressed(
    config: &NotifyConfig,
    delivery: &Delivery,
    of_contact: Option<&str>,
) -> (Option<String>, String) {
    use tidegate_proto::v1::Audience;
    let first = delivery.notifications.first();
    let domain = first.and_then(|first| crate::routing::domain_of(&first.account));
    let domain = config.domain(domain.as_deref());
    let of_domain = domain.and_then(|domain| domain.language.clone());
    let language = match first.map(tidegate_proto::v1::Notification::audience) {
        Some(Audience::User) => of_contact.map(ToOwned::to_owned).or(of_domain),
        Some(Audience::Domain) => of_domain,
        _ => None,
    };
    let contact = domain.and_then(|domain| domain.contact.clone()).unwrap_or_else(|| config.contact.clone());
    (language, contact)
}

/// A header of a known name; the value is encoded where it has to be.
fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}
