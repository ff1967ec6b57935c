//! `tidegate accounts history`: what an account did, what was decided about it, and who asked for what.

use super::cells::{number, text, time_ms};
use super::client::{HistoryClient, literal};
use super::entries::{Asked, Did, Entry, GroupKey, What, decided, fold, in_order};
use super::line;
use crate::admin::connect::HistoryArgs;
use crate::admin::format;
use crate::serve::ConfigurationError;
use arrow::record_batch::RecordBatch;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;
use tidegate_domain::Account;

/// Most decisions and requests, and most groups, that are asked for: the newest.
const MAX_ENTRIES: usize = 10_000;
/// What was done is told apart by the decisions between, by at most so many.
const MAX_CUTS: usize = 100;

#[derive(Debug, clap::Args)]
pub struct HistoryOfArgs {
    /// The account, e.g. jo@example.org
    account: String,
    /// From then on: a day (2026-11-25), a time (2026-11-25T10:00:00Z), or so long ago (7d, 12h)
    #[arg(long, default_value = "30d")]
    since: String,
    /// Until then, in the same way
    #[arg(long, default_value = "now")]
    until: String,
    /// One JSON object instead of text for people
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: HistoryArgs,
}

/// The part of time that is asked about, in milliseconds since 1970 UTC, without its end.
#[derive(Debug, Clone, Copy)]
struct Span {
    since_ms: i64,
    until_ms: i64,
}

/// Tells an account's timeline.
pub async fn run(args: HistoryOfArgs) -> anyhow::Result<ExitCode> {
    let account = Account::parse(&args.account).map_err(ConfigurationError::new)?;
    let now_ms = format::now_ms();
    // What happens in this second is of it.
    let until_ms = if args.until == "now" { now_ms + 1_000 } else { point(&args.until, now_ms)? };
    let span = Span { since_ms: point(&args.since, now_ms)?, until_ms };
    if span.since_ms >= span.until_ms {
        return Err(ConfigurationError::text("--since must be before --until".to_owned()).into());
    }
    let client = HistoryClient::new(args.server.connection().await?);
    let entries = entries(&client, &account, span).await?;
    if args.json {
        let (since, until) = (format::time(span.since_ms), format::time(span.until_ms));
        let value = json!({ "account": account.as_str(), "since": since, "until": until, "entries": entries });
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else if entries.is_empty() {
        println!("the history has nothing of {account} since {}", format::time(span.since_ms));
    } else {
        println!("{}", summary(&account, span, &entries));
        for line in entries.iter().flat_map(line::lines) {
            println!("{line}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn entries(client: &HistoryClient, account: &Account, span: Span) -> anyhow::Result<Vec<Entry>> {
    let mut entries = decisions(&client.ask(&decisions_sql(account, span)).await?)?;
    let cuts: BTreeSet<i64> = entries.iter().filter(|entry| is_cut(entry)).map(Entry::at_ms).collect();
    let cuts: Vec<i64> = cuts.into_iter().rev().take(MAX_CUTS).collect();
    let addresses = addresses(&client.ask(&addresses_sql(account)).await?)?;
    for entry in &mut entries {
        if let Entry::Decided(one) = entry
            && !one.evidence.is_empty()
            && let Some(found) = one.lock.as_ref().and_then(|lock| addresses.get(lock))
        {
            one.client_addresses.clone_from(found);
        }
    }
    let groups = client.ask(&groups_sql(account, span, &cuts)).await?;
    entries.extend(fold(groups_of(&groups)?).into_iter().map(Entry::Did));
    Ok(in_order(entries))
}

/// Whether what was done before is told apart from what was done after.
fn is_cut(entry: &Entry) -> bool {
    let ends = ["locked", "throttled", "unlocked", "expired"];
    matches!(entry, Entry::Decided(one) if ends.contains(&one.change.as_str()))
}

fn decisions_sql(account: &Account, span: Span) -> String {
    format!(
        "SELECT time, what, detail, actor, lock_id FROM account_timeline \
         WHERE {} AND what NOT IN ('submission', 'login', 'delivery') ORDER BY time DESC LIMIT {MAX_ENTRIES}",
        within(account, span)
    )
}

fn addresses_sql(account: &Account) -> String {
    format!(
        "SELECT lock_id, array_to_string(client_addresses, ' ') FROM locks \
         WHERE account = {} AND lock_id IS NOT NULL ORDER BY since DESC LIMIT {MAX_ENTRIES}",
        literal(account.as_str())
    )
}

/// Each hour, part between two decisions, thing and address. Cuts are the times of decisions, the newest first.
fn groups_sql(account: &Account, span: Span, cuts: &[i64]) -> String {
    let parts = cuts.iter().enumerate().map(|(number, at_ms)| {
        let part = cuts.len() - number;
        format!("WHEN time > {} THEN {part} ", timestamp(*at_ms))
    });
    let part = if cuts.is_empty() { "0".to_owned() } else { format!("CASE {}ELSE 0 END", parts.collect::<String>()) };
    format!(
        "SELECT hour, part, what, client_address, count(*), sum(recipients), \
                sum(CASE WHEN is_spam THEN 1 ELSE 0 END), \
                sum(CASE WHEN disposition = 'refused_by_filter' THEN 1 ELSE 0 END), min(time) AS first, max(time) \
         FROM (SELECT time, date_trunc('hour', time) AS hour, {part} AS part, client_address, recipients, is_spam, \
                      disposition, CASE kind WHEN 'login' THEN CASE WHEN login_success THEN 'login' ELSE 'failed' END \
                                             WHEN 'delivery' THEN concat('delivery ', delivery_outcome) \
                                             ELSE 'sent' END AS what \
               FROM events WHERE {} AND (is_message OR kind <> 'submission')) AS did \
         GROUP BY hour, part, what, client_address ORDER BY first DESC LIMIT {MAX_ENTRIES}",
        within(account, span)
    )
}

/// The condition on rows: the account's, of that time, and of days that are read without the others.
fn within(account: &Account, Span { since_ms, until_ms }: Span) -> String {
    let day = |ms: i64| format::time(ms.max(0)).chars().take(10).collect::<String>();
    format!(
        "account = {} AND date BETWEEN DATE '{}' AND DATE '{}' AND time >= {} AND time < {}",
        literal(account.as_str()),
        day(since_ms),
        day(until_ms),
        timestamp(since_ms),
        timestamp(until_ms)
    )
}

fn timestamp(ms: i64) -> String {
    let whole = UNIX_EPOCH + std::time::Duration::from_millis(ms.max(0).unsigned_abs());
    format!("TIMESTAMP '{}'", humantime::format_rfc3339_millis(whole))
}

fn decisions(batches: &[RecordBatch]) -> anyhow::Result<Vec<Entry>> {
    each_row(batches, |rows, row| {
        let at_ms = time_ms(rows, 0, row)?.unwrap_or_default();
        let (what, detail) = (text(rows, 1, row)?.unwrap_or_default(), text(rows, 2, row)?.unwrap_or_default());
        let (actor, lock) = (text(rows, 3, row)?, text(rows, 4, row)?);
        Ok(match what.as_str() {
            "asked" | "denied" => {
                // tidegate.v1.AdminService/UnlockAccount: the last word tells enough.
                let what_for = detail.split_once('/').map_or(detail.as_str(), |(_, rest)| rest).to_owned();
                Entry::Asked(Asked { at_ms, actor, what: what_for, allowed: what == "asked" })
            }
            _ => Entry::Decided(decided(at_ms, what, &detail, actor, lock)),
        })
    })
}

fn addresses(batches: &[RecordBatch]) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let found = each_row(batches, |rows, row| {
        let addresses = text(rows, 1, row)?.unwrap_or_default();
        Ok((text(rows, 0, row)?.unwrap_or_default(), addresses.split_whitespace().map(str::to_owned).collect()))
    })?;
    Ok(found.into_iter().collect())
}

fn groups_of(batches: &[RecordBatch]) -> anyhow::Result<Vec<(GroupKey, Did)>> {
    each_row(batches, |rows, row| {
        let of = |column| number(rows, column, row).map(Option::unwrap_or_default);
        let what = match text(rows, 2, row)?.unwrap_or_default().as_str() {
            "login" => What::LoggedIn,
            "failed" => What::FailedToLogIn,
            "sent" => What::Sent,
            delivery => What::Delivery(delivery.trim_start_matches("delivery ").to_owned()),
        };
        let did = Did {
            first_ms: time_ms(rows, 8, row)?.unwrap_or_default(),
            last_ms: time_ms(rows, 9, row)?.unwrap_or_default(),
            what: what.clone(),
            client_address: text(rows, 3, row)?,
            more_addresses: 0,
            count: of(4)?,
            recipients: of(5)?,
            spam: of(6)?,
            refused: of(7)?,
        };
        Ok(((time_ms(rows, 0, row)?.unwrap_or_default(), of(1)?, what), did))
    })
}

fn each_row<T>(
    batches: &[RecordBatch],
    mut read: impl FnMut(&RecordBatch, usize) -> anyhow::Result<T>,
) -> anyhow::Result<Vec<T>> {
    let mut found = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            found.push(read(batch, row)?);
        }
    }
    Ok(found)
}

fn summary(account: &Account, span: Span, entries: &[Entry]) -> String {
    let (mut messages, mut recipients, mut locks) = (0, 0, 0);
    for entry in entries {
        match entry {
            Entry::Did(did) if did.what == What::Sent => {
                messages += did.count;
                recipients += did.recipients;
            }
            Entry::Decided(one) if one.change == "locked" => locks += 1,
            Entry::Did(_) | Entry::Decided(_) | Entry::Asked(_) => {}
        }
    }
    format!(
        "{account} since {}: {} to {}, {}",
        format::time(span.since_ms),
        format::counted(i64::unsigned_abs(messages), "message", "messages"),
        format::counted(i64::unsigned_abs(recipients), "recipient", "recipients"),
        format::counted(locks, "lock", "locks"),
    )
}

/// A day, a time, `now`, or so long ago; in milliseconds since 1970 UTC.
fn point(text: &str, now_ms: i64) -> Result<i64, ConfigurationError> {
    if text == "now" {
        return Ok(now_ms);
    }
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(now_ms.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)).max(0));
    }
    let is_day = text.len() == 10;
    let whole = if is_day { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time = humantime::parse_rfc3339_weak(&whole).ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let time = time.and_then(|since| i64::try_from(since.as_millis()).ok());
    time.ok_or_else(|| {
        ConfigurationError::text(format!("{text:?} is no time; write 2026-11-25, 2026-11-25T10:00:00Z, 7d or now"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_795_651_200_000;
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;

    #[test]
    fn times_are_days_times_or_so_long_ago() {
        let read = |text| point(text, NOW_MS).unwrap();
        assert_eq!((read("now"), read("2026-11-26"), read("2026-11-26T00:00:01Z")), (NOW_MS, NOW_MS, NOW_MS + 1_000));
        assert_eq!((read("1d"), read("12h"), read("100000d")), (NOW_MS - DAY_MS, NOW_MS - DAY_MS / 2, 0));
        for wrong in ["yesterday", "2026-11", "2026-13-01", "1969-01-01"] {
            assert!(point(wrong, NOW_MS).unwrap_err().to_string().contains("2026-11-25"), "{wrong}");
        }
    }

    #[test]
    fn what_was_done_is_told_apart_by_decisions() {
        let account = Account::parse("o'neill@example.org").unwrap();
        let span = Span { since_ms: NOW_MS - DAY_MS, until_ms: NOW_MS };
        let sql = groups_sql(&account, span, &[NOW_MS - 1, NOW_MS - 500]);
        let cases = "CASE WHEN time > TIMESTAMP '2026-11-25T23:59:59.999Z' THEN 2 \
                     WHEN time > TIMESTAMP '2026-11-25T23:59:59.500Z' THEN 1 ELSE 0 END AS part";
        assert!(sql.contains(cases), "{sql}");
        let rows = "account = 'o''neill@example.org' AND date BETWEEN DATE '2026-11-25' AND DATE '2026-11-26'";
        assert!(sql.contains(rows), "{sql}");
        assert!(groups_sql(&account, span, &[]).contains(", 0 AS part,"));
    }
}
