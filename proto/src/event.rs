//! Events between the wire and the domain.

use crate::bounds::{MAX_SUBJECT_OCTETS, MAX_TEXT_OCTETS};
use crate::error::{DecodeError, missing};
use crate::v1;
use prost::Message as _;
use std::net::IpAddr;
use tidegate_domain as domain;
use tidegate_domain::{Account, EventKind};

/// Most recipient domains or hashes taken; the rest is left off (the counts stay).
const MAX_RECIPIENT_ITEMS: usize = 1000;
/// Most recipients that one message can have had.
const MAX_RECIPIENTS: u32 = 1_000_000;
/// Largest message size taken, 1 TiB; larger is cut down to it.
const MAX_SIZE_BYTES: u64 = 1 << 40;

/// The event on the wire.
pub fn event_to_proto(event: &domain::Event) -> v1::Event {
    let kind = match &event.kind {
        EventKind::Submission(submission) => v1::event::Kind::Submission(submission_to_proto(submission)),
        EventKind::Login(login) => v1::event::Kind::Login(v1::Login {
            client_address: address_to_proto(login.client_address),
            protocol: login.protocol.clone(),
            success: login.success,
        }),
        EventKind::Delivery(delivery) => v1::event::Kind::Delivery(v1::Delivery {
            queue_id: delivery.queue_id.clone(),
            recipient_domain: delivery.recipient_domain.clone(),
            outcome: outcome_to_proto(delivery.outcome).into(),
            status: delivery.status.clone(),
        }),
    };
    let lane = match event.id.lane {
        domain::Lane::Live => v1::Lane::Live,
        domain::Lane::Spooled => v1::Lane::Spooled,
    };
    v1::Event {
        id: Some(v1::EventId { node: event.id.node.clone(), lane: lane.into(), sequence: event.id.sequence }),
        site: event.site.clone(),
        account: event.account.as_str().to_owned(),
        time_ms: event.time_ms,
        trace_parent: String::new(),
        kind: Some(kind),
    }
}

/// Reads an event from the bytes of a record.
///
/// # Errors
/// When the bytes are not an event, or it lacks an id, an account or a kind.
pub fn event_from_proto(bytes: &[u8]) -> Result<domain::Event, DecodeError> {
    let event = v1::Event::decode(bytes)
        .map_err(|error| DecodeError::Protobuf { message: "Event", reason: error.to_string() })?;
    domain::Event::try_from(event)
}

impl TryFrom<v1::Event> for domain::Event {
    type Error = DecodeError;

    fn try_from(event: v1::Event) -> Result<Self, DecodeError> {
        let id = event.id.ok_or_else(|| missing("Event", "id"))?;
        let lane = match id.lane() {
            v1::Lane::Live => domain::Lane::Live,
            v1::Lane::Spooled => domain::Lane::Spooled,
            v1::Lane::Unspecified => return Err(missing("EventId", "lane")),
        };
        if id.node.is_empty() {
            return Err(missing("EventId", "node"));
        }
        let kind = match event.kind.ok_or_else(|| missing("Event", "kind"))? {
            v1::event::Kind::Submission(submission) => {
                EventKind::Submission(Box::new(submission_from_proto(submission)?))
            }
            v1::event::Kind::Login(login) => EventKind::Login(domain::Login {
                client_address: address_from_proto("Login", &login.client_address)?,
                protocol: bounded(login.protocol),
                success: login.success,
            }),
            v1::event::Kind::Delivery(delivery) => EventKind::Delivery(domain::Delivery {
                outcome: outcome_from_proto(delivery.outcome())?,
                queue_id: bounded(delivery.queue_id),
                recipient_domain: bounded(delivery.recipient_domain),
                status: bounded(delivery.status),
            }),
        };
        Ok(Self {
            id: domain::EventId { node: bounded(id.node), lane, sequence: id.sequence },
            site: bounded(event.site),
            account: Account::parse(&event.account)
                .map_err(|source| DecodeError::Account { message: "Event", source })?,
            time_ms: event.time_ms,
            kind,
        })
    }
}

fn submission_to_proto(submission: &domain::Submission) -> v1::Submission {
    let disposition = match submission.disposition {
        domain::Disposition::Accepted => v1::Disposition::Accepted,
        domain::Disposition::RefusedByFilter => v1::Disposition::RefusedByFilter,
        domain::Disposition::LateVerdict => v1::Disposition::LateVerdict,
    };
    v1::Submission {
        client_address: address_to_proto(submission.client_address),
        client_port: submission.client_port.into(),
        helo: submission.helo.clone(),
        sender: submission.sender.clone(),
        recipient_count: submission.recipients.count,
        internal_recipient_count: submission.recipients.internal,
        recipient_domains: submission.recipients.domains.clone(),
        recipient_hashes: submission.recipients.hashes.clone(),
        size_bytes: submission.size,
        queue_id: submission.queue_id.clone(),
        subject_hash: submission.subject_hash,
        mailer_hash: submission.mailer_hash,
        reply: submission.reply,
        list: submission.list,
        automatic: submission.automatic,
        fingerprint: submission.fingerprint,
        spam: submission.spam,
        spam_score: submission.spam_score,
        login_method: submission.login_method.clone(),
        tls: submission.tls.clone(),
        disposition: disposition.into(),
        subject: submission.subject.clone(),
    }
}

fn submission_from_proto(submission: v1::Submission) -> Result<domain::Submission, DecodeError> {
    let disposition = match submission.disposition() {
        v1::Disposition::Unspecified | v1::Disposition::Accepted => domain::Disposition::Accepted,
        v1::Disposition::RefusedByFilter => domain::Disposition::RefusedByFilter,
        v1::Disposition::LateVerdict => domain::Disposition::LateVerdict,
    };
    let count = submission.recipient_count.min(MAX_RECIPIENTS);
    let mut domains = submission.recipient_domains;
    domains.truncate(MAX_RECIPIENT_ITEMS);
    let mut hashes = submission.recipient_hashes;
    hashes.truncate(MAX_RECIPIENT_ITEMS);
    Ok(domain::Submission {
        client_address: address_from_proto("Submission", &submission.client_address)?,
        client_port: u16::try_from(submission.client_port).unwrap_or(0),
        helo: bounded(submission.helo),
        sender: bounded(submission.sender),
        recipients: domain::Recipients {
            count,
            internal: submission.internal_recipient_count.min(count),
            domains: domains.into_iter().map(bounded).collect(),
            hashes,
        },
        size: submission.size_bytes.min(MAX_SIZE_BYTES),
        queue_id: bounded(submission.queue_id),
        subject_hash: submission.subject_hash,
        mailer_hash: submission.mailer_hash,
        reply: submission.reply,
        list: submission.list,
        automatic: submission.automatic,
        fingerprint: submission.fingerprint,
        spam: submission.spam,
        spam_score: submission.spam_score.filter(|score| score.is_finite()),
        login_method: bounded(submission.login_method),
        tls: bounded(submission.tls),
        disposition,
        subject: crate::bounds::bounded(submission.subject, MAX_SUBJECT_OCTETS),
    })
}

fn outcome_to_proto(outcome: domain::DeliveryOutcome) -> v1::DeliveryOutcome {
    match outcome {
        domain::DeliveryOutcome::Sent => v1::DeliveryOutcome::Sent,
        domain::DeliveryOutcome::Bounced => v1::DeliveryOutcome::Bounced,
        domain::DeliveryOutcome::Deferred => v1::DeliveryOutcome::Deferred,
        domain::DeliveryOutcome::Expired => v1::DeliveryOutcome::Expired,
    }
}

fn outcome_from_proto(outcome: v1::DeliveryOutcome) -> Result<domain::DeliveryOutcome, DecodeError> {
    Ok(match outcome {
        v1::DeliveryOutcome::Unspecified => return Err(missing("Delivery", "outcome")),
        v1::DeliveryOutcome::Sent => domain::DeliveryOutcome::Sent,
        v1::DeliveryOutcome::Bounced => domain::DeliveryOutcome::Bounced,
        v1::DeliveryOutcome::Deferred => domain::DeliveryOutcome::Deferred,
        v1::DeliveryOutcome::Expired => domain::DeliveryOutcome::Expired,
    })
}

pub(crate) fn address_to_proto(address: Option<IpAddr>) -> Vec<u8> {
    match address {
        None => Vec::new(),
        Some(IpAddr::V4(address)) => address.octets().to_vec(),
        Some(IpAddr::V6(address)) => address.octets().to_vec(),
    }
}

pub(crate) fn address_from_proto(message: &'static str, octets: &[u8]) -> Result<Option<IpAddr>, DecodeError> {
    if octets.is_empty() {
        return Ok(None);
    }
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Ok(Some(v4.into()));
    }
    <[u8; 16]>::try_from(octets).map(|v6| Some(IpAddr::from(v6))).map_err(|_| DecodeError::Value {
        message,
        field: "client_address",
        value: format!("{} octets long", octets.len()),
        allowed: "0, 4 or 16 octets",
    })
}

/// Longer texts are cut at a character.
fn bounded(text: String) -> String {
    crate::bounds::bounded(text, MAX_TEXT_OCTETS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn submission() -> impl Strategy<Value = domain::Submission> {
        (any::<(Option<IpAddr>, u16, u32, u64)>(), any::<[u64; 3]>(), any::<[bool; 4]>(), 0u8..3).prop_map(
            |((client_address, client_port, count, size), [subject_hash, mailer_hash, fingerprint], flags, kind)| {
                domain::Submission {
                    client_address,
                    client_port,
                    helo: "client.example".into(),
                    sender: "jo@example.org".into(),
                    recipients: domain::Recipients {
                        count: count % MAX_RECIPIENTS,
                        internal: count % MAX_RECIPIENTS / 2,
                        domains: vec!["example.net".into()],
                        hashes: vec![subject_hash],
                    },
                    size: size % MAX_SIZE_BYTES,
                    queue_id: "4XyZ".into(),
                    subject_hash,
                    mailer_hash,
                    reply: flags[0],
                    list: flags[1],
                    automatic: flags[2],
                    fingerprint,
                    spam: flags[3],
                    spam_score: flags[3].then_some(8.5),
                    login_method: "PLAIN".into(),
                    tls: "TLSv1.3".into(),
                    disposition: [
                        domain::Disposition::Accepted,
                        domain::Disposition::RefusedByFilter,
                        domain::Disposition::LateVerdict,
                    ][usize::from(kind)],
                    subject: if flags[0] { "Your invoice \u{e9}".into() } else { String::new() },
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_submission_survives_the_wire(submission in submission(), time_ms in any::<i64>(), sequence in any::<u64>()) {
            let event = domain::Event {
                id: domain::EventId { node: "mx1".into(), lane: domain::Lane::Spooled, sequence },
                site: "ams".into(),
                account: Account::parse("jo@example.org").unwrap(),
                time_ms,
                kind: EventKind::Submission(Box::new(submission)),
            };
            let bytes = event_to_proto(&event).encode_to_vec();
            prop_assert_eq!(event_from_proto(&bytes), Ok(event));
        }

        #[test]
        fn any_bytes_are_an_event_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = event_from_proto(&bytes).map_err(|error| error.to_line());
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let event = v1::Event { account: "jo@example.org".into(), ..Default::default() };
        assert_eq!(domain::Event::try_from(event).unwrap_err().to_string(), "Event.id is not set");
        let long = "é".repeat(2000);
        assert_eq!(bounded(long).len(), MAX_TEXT_OCTETS);
    }
}
