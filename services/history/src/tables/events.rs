//! The table `events`.

use super::{NO_VALUE, day_of, place};
use crate::columns::ColumnKind::{Bool, Date, Double, Int, Long, Longs, Text, Texts, Time};
use crate::columns::{Column, Rows};
use std::net::IpAddr;
use tidegate_bus::Record;
use tidegate_domain::{Delivery, DeliveryOutcome, Disposition, Event, EventKind, Lane, Login, Submission};
use tidegate_proto::event_from_proto;

pub(super) const COLUMNS: [Column; 38] = [
    Column::new("date", Date, "UTC day of `time`; of `logged`, where the edge's clock is absurd. Partition column."),
    Column::new("time", Time, "When it happened, by the edge's clock."),
    Column::new("account", Text, "The account in canonical form, e.g. jo@example.org."),
    Column::new("kind", Text, "submission, login or delivery."),
    Column::new("site", Text, "Site (location) of the node."),
    Column::new("node", Text, "The MTA host that saw it."),
    Column::new("lane", Text, "live, or spooled: published later, after the edge had been cut off."),
    Column::new("sequence", Long, "Number of the event, rising within one node and lane."),
    Column::new("client_address", Text, "The client's IP address; NULL for local submission."),
    Column::new("client_port", Int, "The client's TCP port."),
    Column::new("helo", Text, "What the client said in HELO or EHLO."),
    Column::new("login_method", Text, "Login method (PLAIN, LOGIN, ...); NULL without a login."),
    Column::new("tls", Text, "TLS version; NULL without TLS."),
    Column::new("sender", Text, "Envelope sender; NULL for the null sender."),
    Column::new("recipients", Int, "Number of envelope recipients."),
    Column::new("internal_recipients", Int, "How many of them are in the provider's own domains."),
    Column::new("recipient_domains", Texts, "Their domains, each once; bounded by the edge."),
    Column::new("recipient_hashes", Longs, "Keyed hash of each recipient's address; bounded by the edge."),
    Column::new("size_bytes", Long, "Size of the message in octets."),
    Column::new("queue_id", Text, "The MTA's queue id."),
    Column::new("subject", Text, "The decoded subject, cut short; only where the edges are set to tell subjects."),
    Column::new("subject_hash", Long, "Keyed hash of the decoded subject."),
    Column::new("mailer_hash", Long, "Keyed hash of X-Mailer or User-Agent."),
    Column::new("fingerprint", Long, "Fingerprint of the content that survives small changes."),
    Column::new("is_reply", Bool, "Whether it answers another message."),
    Column::new("is_list", Bool, "Whether it belongs to a mailing list."),
    Column::new("is_automatic", Bool, "Whether a program sent it on its own."),
    Column::new("is_spam", Bool, "Whether a spam filter called it spam."),
    Column::new("spam_score", Double, "The spam filter's score."),
    Column::new(
        "disposition",
        Text,
        "accepted, refused_by_filter, or late_verdict (no message of its own: a verdict that came later).",
    ),
    Column::new("login_protocol", Text, "Of a login: submission, imap, ..."),
    Column::new("login_success", Bool, "Of a login: whether it succeeded."),
    Column::new("delivery_domain", Text, "Of a delivery: domain of the recipient."),
    Column::new("delivery_outcome", Text, "Of a delivery: sent, bounced, deferred or expired."),
    Column::new("delivery_status", Text, "Of a delivery: enhanced status code (RFC 3463), e.g. 5.1.1."),
    Column::new("is_message", Bool, "Whether it counts as a message: a submission that is no late verdict."),
    Column::new("domain", Text, "Domain of the account; NULL for one without."),
    Column::new("logged", Time, "When the log took it."),
];

/// Adds the event in `record`.
pub(super) fn add(record: &Record, rows: &mut Rows) -> Result<(), String> {
    let value = record.value.as_deref().ok_or(NO_VALUE)?;
    let event = event_from_proto(value).map_err(|error| error.to_line())?;
    let Event { id, site, account, time_ms, kind } = &event;
    let lane = match id.lane {
        Lane::Live => "live",
        Lane::Spooled => "spooled",
    };
    let name = match kind {
        EventKind::Submission(_) => "submission",
        EventKind::Login(_) => "login",
        EventKind::Delivery(_) => "delivery",
    };
    rows.date(day_of(*time_ms, record.time_ms)).time_ms(*time_ms).text(account.as_str()).text(name).text(site);
    rows.text(&id.node).text(lane).long(Some(id.sequence));
    let is_message = match kind {
        EventKind::Submission(submission) => {
            add_submission(submission, rows);
            Some(submission.is_message())
        }
        EventKind::Login(login) => {
            add_login(login, rows);
            Some(false)
        }
        EventKind::Delivery(delivery) => {
            add_delivery(delivery, rows);
            Some(false)
        }
    };
    rows.bool(is_message).text(account.domain().unwrap_or_default()).time_ms(record.time_ms);
    place(record, rows);
    rows.end();
    Ok(())
}

fn add_submission(submission: &Submission, rows: &mut Rows) {
    let disposition = match submission.disposition {
        Disposition::Accepted => "accepted",
        Disposition::RefusedByFilter => "refused_by_filter",
        Disposition::LateVerdict => "late_verdict",
    };
    let known = |hash: u64| (hash != 0).then_some(hash);
    let recipients = &submission.recipients;
    let is_message = submission.is_message();
    address(submission.client_address, rows);
    rows.int(Some(submission.client_port.into()).filter(|port| *port != 0)).text(&submission.helo);
    rows.text(&submission.login_method).text(&submission.tls).text(&submission.sender);
    // A late verdict tells nothing of these.
    let of_message = |number: u64| is_message.then_some(number);
    rows.int(of_message(recipients.count.into())).int(of_message(recipients.internal.into()));
    rows.texts(is_message.then_some(&recipients.domains)).longs(is_message.then_some(&recipients.hashes));
    rows.long(of_message(submission.size)).text(&submission.queue_id).text(&submission.subject);
    rows.long(known(submission.subject_hash)).long(known(submission.mailer_hash)).long(known(submission.fingerprint));
    rows.bool(Some(submission.reply)).bool(Some(submission.list)).bool(Some(submission.automatic));
    rows.bool(Some(submission.spam)).double(submission.spam_score).text(disposition);
    rows.nothing(5);
}

fn add_login(login: &Login, rows: &mut Rows) {
    address(login.client_address, rows);
    rows.nothing(21).text(&login.protocol).bool(Some(login.success)).nothing(3);
}

fn add_delivery(delivery: &Delivery, rows: &mut Rows) {
    let outcome = match delivery.outcome {
        DeliveryOutcome::Sent => "sent",
        DeliveryOutcome::Bounced => "bounced",
        DeliveryOutcome::Deferred => "deferred",
        DeliveryOutcome::Expired => "expired",
    };
    rows.nothing(11).text(&delivery.queue_id).nothing(12);
    rows.text(&delivery.recipient_domain).text(outcome).text(&delivery.status);
}

fn address(address: Option<IpAddr>, rows: &mut Rows) {
    match address {
        Some(address) => rows.text(&address.to_string()),
        None => rows.nothing(1),
    };
}
