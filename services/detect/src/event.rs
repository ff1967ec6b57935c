//! The row that one event is to the statistics, and the builder that turns submissions into Arrow columns.

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, RecordBatch, UInt64Builder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use hashbrown::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use tidegate_domain::{Account, AccountKind, Disposition, Submission};
use twox_hash::XxHash64;

/// Sizes are capped at this many octets (1 TiB), so that no sum of them overflows.
const MAX_SIZE: u64 = 1 << 40;
/// Most domains and recipients of one message that are looked at.
const MAX_LIST: usize = 1_000;
const HOUR_MS: i64 = 3_600_000;

/// One column of the event row.
#[derive(Debug, Clone, PartialEq)]
pub struct EventColumn {
    /// Name, as statistics use it.
    pub name: &'static str,
    /// Arrow type.
    pub data_type: DataType,
    /// What it holds, with its unit.
    pub description: &'static str,
}

/// The columns that statistics are made of, in the order of [`event_schema`].
///
/// A late verdict is no message of its own: then all but `message`, `spam` and `spam_score` are NULL (or false), so
/// that sums and distinct counts pass it by. What is unknown is NULL, never 0.
pub fn event_columns() -> Vec<EventColumn> {
    let hashes = || DataType::new_list(DataType::UInt64, true);
    let column = |name, data_type, description| EventColumn { name, data_type, description };
    vec![
        column("message", DataType::Boolean, "whether it is a message; false for a verdict that came later"),
        column("size", DataType::Int64, "size of the message in octets, at most 1 TiB; NULL when unknown"),
        column("recipient_count", DataType::Int64, "envelope recipients"),
        column("internal_recipients", DataType::Int64, "envelope recipients in the provider's own domains"),
        column("external_recipients", DataType::Int64, "envelope recipients elsewhere"),
        column("client_ip", DataType::UInt64, "number of the client's IPv4 address or IPv6 /64 network"),
        column("recipient_domains", hashes(), "hash of each recipient domain, at most 1,000"),
        column("recipient_hashes", hashes(), "keyed hash of each recipient, at most 1,000"),
        column("fingerprint", DataType::UInt64, "fingerprint of the content; NULL when it was not seen"),
        column("subject_hash", DataType::UInt64, "keyed hash of the subject; NULL without one"),
        column("mailer_hash", DataType::UInt64, "keyed hash of the mail program's name; NULL without one"),
        column("spam", DataType::Boolean, "whether a spam filter called it spam"),
        column("spam_score", DataType::Float64, "the spam filter's score; NULL without one"),
        column("refused_by_filter", DataType::Boolean, "whether a filter refused the message"),
        column("sender_mismatch", DataType::Boolean, "whether a login wrote under another envelope sender"),
        column("null_sender", DataType::Boolean, "whether the envelope sender is empty"),
        column("reply", DataType::Boolean, "whether it answers another message"),
        column("list", DataType::Boolean, "whether it belongs to a mailing list"),
        column("automatic", DataType::Boolean, "whether a program sent it on its own"),
        column("tls", DataType::Boolean, "whether the client used TLS"),
        column("hour", DataType::Int64, "hours since 1970 UTC"),
        column("hour_of_day", DataType::Int64, "hour of the day, UTC, 0 to 23"),
    ]
}

/// The schema of the event row: [`event_columns`] as Arrow.
pub fn event_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let field = |column: EventColumn| Field::new(column.name, column.data_type, true);
        Arc::new(Schema::new(event_columns().into_iter().map(field).collect::<Vec<_>>()))
    });
    Arc::clone(&SCHEMA)
}

/// Events of any number of accounts, in the order of their offsets, ready for [`crate::Engine::process`].
#[derive(Debug, Clone)]
pub struct EventBatch {
    pub(crate) accounts: Vec<Account>,
    /// For each event, its account: an index of `accounts`.
    pub(crate) account_of: Vec<u32>,
    pub(crate) offsets: Vec<u64>,
    pub(crate) times_ms: Vec<i64>,
    pub(crate) decides: Vec<bool>,
    pub(crate) columns: RecordBatch,
}

impl EventBatch {
    /// How many events it holds.
    pub fn len(&self) -> usize {
        self.account_of.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.account_of.is_empty()
    }

    /// The event rows, as statistics see them.
    pub fn columns(&self) -> &RecordBatch {
        &self.columns
    }
}

/// Builds an [`EventBatch`]. May be used again after [`finish`](Self::finish).
#[derive(Debug)]
pub struct EventBatchBuilder {
    accounts: Vec<Account>,
    index: HashMap<Account, u32>,
    account_of: Vec<u32>,
    offsets: Vec<u64>,
    times_ms: Vec<i64>,
    decides: Vec<bool>,
    columns: Columns,
}

#[derive(Debug)]
struct Columns {
    message: BooleanBuilder,
    size: Int64Builder,
    recipient_count: Int64Builder,
    internal_recipients: Int64Builder,
    external_recipients: Int64Builder,
    client_ip: UInt64Builder,
    recipient_domains: ListBuilder<UInt64Builder>,
    recipient_hashes: ListBuilder<UInt64Builder>,
    fingerprint: UInt64Builder,
    subject_hash: UInt64Builder,
    mailer_hash: UInt64Builder,
    spam: BooleanBuilder,
    spam_score: Float64Builder,
    refused_by_filter: BooleanBuilder,
    sender_mismatch: BooleanBuilder,
    null_sender: BooleanBuilder,
    reply: BooleanBuilder,
    list: BooleanBuilder,
    automatic: BooleanBuilder,
    tls: BooleanBuilder,
    hour: Int64Builder,
    hour_of_day: Int64Builder,
}

impl Default for EventBatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl EventBatchBuilder {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            accounts: Vec::new(),
            index: HashMap::new(),
            account_of: Vec::new(),
            offsets: Vec::new(),
            times_ms: Vec::new(),
            decides: Vec::new(),
            columns: Columns::new(),
        }
    }

    /// How many events were pushed since the last [`finish`](Self::finish).
    pub fn len(&self) -> usize {
        self.account_of.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.account_of.is_empty()
    }

    /// Adds one submission.
    ///
    /// `offset` is the event's in its partition. `at_ms` is when it happened; the caller has clamped it to not much
    /// later than the log's own time, because one event far in the future makes all others too old to count.
    /// With `decides` false it fills the windows only, and no rule is evaluated for it (a replay of what was decided
    /// before). Events that a clean slate makes void are not to be pushed at all.
    pub fn push(&mut self, account: &Account, offset: u64, at_ms: i64, submission: &Submission, decides: bool) {
        let index = if let Some(index) = self.index.get(account) {
            *index
        } else {
            let index = self.accounts.len() as u32;
            self.accounts.push(account.clone());
            self.index.insert(account.clone(), index);
            index
        };
        self.account_of.push(index);
        self.offsets.push(offset);
        self.times_ms.push(at_ms);
        self.decides.push(decides);
        self.columns.push(account, at_ms, submission);
    }

    /// The batch of all that was pushed; the builder is empty afterwards.
    ///
    /// # Errors
    /// Never with the columns of [`event_schema`]; an error here would be a defect of this crate.
    pub fn finish(&mut self) -> Result<EventBatch, ArrowError> {
        self.index.clear();
        Ok(EventBatch {
            accounts: std::mem::take(&mut self.accounts),
            account_of: std::mem::take(&mut self.account_of),
            offsets: std::mem::take(&mut self.offsets),
            times_ms: std::mem::take(&mut self.times_ms),
            decides: std::mem::take(&mut self.decides),
            columns: RecordBatch::try_new(event_schema(), self.columns.finish())?,
        })
    }
}

impl Columns {
    fn new() -> Self {
        Self {
            message: BooleanBuilder::new(),
            size: Int64Builder::new(),
            recipient_count: Int64Builder::new(),
            internal_recipients: Int64Builder::new(),
            external_recipients: Int64Builder::new(),
            client_ip: UInt64Builder::new(),
            recipient_domains: ListBuilder::new(UInt64Builder::new()),
            recipient_hashes: ListBuilder::new(UInt64Builder::new()),
            fingerprint: UInt64Builder::new(),
            subject_hash: UInt64Builder::new(),
            mailer_hash: UInt64Builder::new(),
            spam: BooleanBuilder::new(),
            spam_score: Float64Builder::new(),
            refused_by_filter: BooleanBuilder::new(),
            sender_mismatch: BooleanBuilder::new(),
            null_sender: BooleanBuilder::new(),
            reply: BooleanBuilder::new(),
            list: BooleanBuilder::new(),
            automatic: BooleanBuilder::new(),
            tls: BooleanBuilder::new(),
            hour: Int64Builder::new(),
            hour_of_day: Int64Builder::new(),
        }
    }

    fn push(&mut self, account: &Account, at_ms: i64, submission: &Submission) {
        let message = submission.is_message();
        let known = |value: u64| (message && value != 0).then_some(value);
        let recipients = &submission.recipients;
        let external = recipients.count.saturating_sub(recipients.internal);
        let count = |value: u32| message.then_some(i64::from(value));
        let hour = at_ms.div_euclid(HOUR_MS);

        self.message.append_value(message);
        self.size.append_option(known(submission.size.min(MAX_SIZE)).map(u64::cast_signed));
        self.recipient_count.append_option(count(recipients.count));
        self.internal_recipients.append_option(count(recipients.internal));
        self.external_recipients.append_option(count(external));
        self.client_ip.append_option(submission.client_address.filter(|_| message).map(network_number));
        let domains = recipients.domains.iter().take(if message { MAX_LIST } else { 0 });
        for domain in domains {
            self.recipient_domains.values().append_value(XxHash64::oneshot(0, domain.as_bytes()));
        }
        self.recipient_domains.append(message);
        let hashes = &recipients.hashes[..if message { recipients.hashes.len().min(MAX_LIST) } else { 0 }];
        self.recipient_hashes.values().append_slice(hashes);
        self.recipient_hashes.append(message);
        self.fingerprint.append_option(known(submission.fingerprint));
        self.subject_hash.append_option(known(submission.subject_hash));
        self.mailer_hash.append_option(known(submission.mailer_hash));
        self.spam.append_value(submission.spam);
        self.spam_score.append_option(submission.spam_score.filter(|score| score.is_finite()));
        self.refused_by_filter.append_value(submission.disposition == Disposition::RefusedByFilter);
        self.sender_mismatch.append_value(message && is_sender_mismatch(account, &submission.sender));
        self.null_sender.append_value(message && submission.sender.is_empty());
        self.reply.append_value(message && submission.reply);
        self.list.append_value(message && submission.list);
        self.automatic.append_value(message && submission.automatic);
        self.tls.append_value(message && !submission.tls.is_empty());
        self.hour.append_option(message.then_some(hour));
        self.hour_of_day.append_option(message.then_some(hour.rem_euclid(24)));
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.message.finish()),
            Arc::new(self.size.finish()),
            Arc::new(self.recipient_count.finish()),
            Arc::new(self.internal_recipients.finish()),
            Arc::new(self.external_recipients.finish()),
            Arc::new(self.client_ip.finish()),
            Arc::new(self.recipient_domains.finish()),
            Arc::new(self.recipient_hashes.finish()),
            Arc::new(self.fingerprint.finish()),
            Arc::new(self.subject_hash.finish()),
            Arc::new(self.mailer_hash.finish()),
            Arc::new(self.spam.finish()),
            Arc::new(self.spam_score.finish()),
            Arc::new(self.refused_by_filter.finish()),
            Arc::new(self.sender_mismatch.finish()),
            Arc::new(self.null_sender.finish()),
            Arc::new(self.reply.finish()),
            Arc::new(self.list.finish()),
            Arc::new(self.automatic.finish()),
            Arc::new(self.tls.finish()),
            Arc::new(self.hour.finish()),
            Arc::new(self.hour_of_day.finish()),
        ]
    }
}

/// One number for each IPv4 address and each IPv6 /64: one customer's devices take new IPv6 addresses all day, but
/// from one /64 (RFC 6177 gives a site no less).
fn network_number(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
    }
}

/// Whether a login wrote under another name. The null sender (bounces, receipts) and subaddresses (`jo+shop@`) are
/// nobody else's; a login without a domain is compared by its local part.
fn is_sender_mismatch(account: &Account, sender: &str) -> bool {
    if account.kind() != AccountKind::Login || sender.is_empty() {
        return false;
    }
    let (login, login_domain) = split(account.as_str());
    let (local, domain) = split(sender);
    let base = local.split_once('+').map_or(local, |(base, _)| base);
    let same_local = local.eq_ignore_ascii_case(login) || base.eq_ignore_ascii_case(login);
    let same_domain = login_domain.is_empty() || domain.trim_end_matches('.').eq_ignore_ascii_case(login_domain);
    !(same_local && same_domain)
}

fn split(address: &str) -> (&str, &str) {
    address.rsplit_once('@').unwrap_or((address, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array;
    use tidegate_domain::Recipients;

    fn login(name: &str) -> Account {
        Account::parse(name).unwrap()
    }

    #[test]
    fn a_login_may_write_under_its_own_name_in_any_spelling() {
        for sender in ["", "jo@example.org", "Jo@EXAMPLE.org", "jo+shop@example.org"] {
            assert!(!is_sender_mismatch(&login("jo@example.org"), sender), "{sender}");
        }
        for sender in ["ann@example.org", "jo@example.com", "jo", "+@example.org"] {
            assert!(is_sender_mismatch(&login("jo@example.org"), sender), "{sender}");
        }
        assert!(!is_sender_mismatch(&login("jo"), "jo@example.org"));
        assert!(!is_sender_mismatch(&login("local:www-data"), "shop@example.org"));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one() {
        let number = |text: &str| network_number(text.parse().unwrap());
        assert_eq!(number("2001:db8::1"), number("2001:db8::ffff:2"));
        assert_ne!(number("2001:db8::1"), number("2001:db8:0:1::1"));
        assert_eq!(number("::ffff:192.0.2.1"), number("192.0.2.1"));
        assert_ne!(number("192.0.2.2"), number("192.0.2.1"));
    }

    #[test]
    fn what_is_unknown_is_null_and_a_late_verdict_is_only_a_verdict() {
        let mut builder = EventBatchBuilder::new();
        let recipients =
            Recipients { count: 3, internal: 5, domains: vec!["example.net".to_owned()], hashes: vec![7, 8] };
        let message = Submission { recipients, size: u64::MAX, spam_score: Some(f64::NAN), ..Submission::default() };
        let verdict = Submission { disposition: Disposition::LateVerdict, spam: true, size: 9, ..message.clone() };
        builder.push(&login("jo@example.org"), 0, 0, &message, true);
        builder.push(&login("jo@example.org"), 1, -1, &verdict, true);
        let batch = builder.finish().unwrap();
        assert!(builder.is_empty());
        assert_eq!(batch.accounts.len(), 1);
        let rows = batch.columns();
        let nulls = |row: usize| {
            let schema = rows.schema();
            let names = schema.fields().iter().map(|field| field.name().clone());
            names
                .zip(rows.columns())
                .filter(|(_, column)| column.is_null(row))
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(nulls(0), ["client_ip", "fingerprint", "subject_hash", "mailer_hash", "spam_score"]);
        assert_eq!(nulls(1).len(), 13, "{:?}", nulls(1));
        let sizes = rows.column_by_name("size").unwrap();
        assert_eq!(sizes.as_ref(), &arrow::array::Int64Array::from(vec![Some(1 << 40), None]) as &dyn Array);
        let external = rows.column_by_name("external_recipients").unwrap();
        assert_eq!(external.as_ref(), &arrow::array::Int64Array::from(vec![Some(0), None]) as &dyn Array);
    }
}
