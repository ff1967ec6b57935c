//! Entries of a timeline as lines for people.

use super::entries::{Asked, Decided, Did, Entry, What};
use crate::admin::format;
use crate::sql::print::plain;

/// Where what belongs to an entry begins.
const INDENT: &str = "                      ";

/// The lines of an entry.
pub fn lines(entry: &Entry) -> Vec<String> {
    match entry {
        Entry::Decided(decided) => of_decided(decided),
        Entry::Asked(asked) => vec![of_asked(asked)],
        Entry::Did(did) => vec![of_did(did)],
    }
}

fn of_decided(decided: &Decided) -> Vec<String> {
    let change = match decided.change.as_str() {
        "expired" => "ended by itself",
        "command_refused" => "a command was refused",
        change => change,
    };
    let who = decided.actor.as_deref().map(|actor| format!(" by {actor}")).unwrap_or_default();
    let why = if decided.why.is_empty() { String::new() } else { format!(": {}", decided.why) };
    let lock = decided.lock.as_deref().map(|lock| format!(" ({lock})")).unwrap_or_default();
    let head = format!("{}  {}{who}{why}{lock}", format::time(decided.at_ms), change.to_uppercase());
    let mut lines = vec![plain(&head)];
    if !decided.evidence.is_empty() {
        let values = decided
            .evidence
            .iter()
            .map(|(column, value)| format!("{column} = {}", value.map_or_else(|| "-".to_owned(), format::number)));
        lines.push(plain(&format!("{INDENT}{}", values.collect::<Vec<_>>().join(", "))));
    }
    if !decided.client_addresses.is_empty() {
        lines.push(plain(&format!("{INDENT}sent from {}", decided.client_addresses.join(", "))));
    }
    lines
}

fn of_asked(asked: &Asked) -> String {
    let who = asked.actor.as_deref().unwrap_or("somebody");
    let what = if asked.allowed { "asked for" } else { "was DENIED" };
    plain(&format!("{}  {who} {what} {}", format::time(asked.at_ms), asked.what))
}

fn of_did(did: &Did) -> String {
    let times = format::counted(did.count.unsigned_abs(), "time", "times");
    let what = match &did.what {
        What::Sent => {
            let messages = format::counted(did.count.unsigned_abs(), "message", "messages");
            let recipients = format::counted(did.recipients.unsigned_abs(), "recipient", "recipients");
            format!("sent {messages} to {recipients}")
        }
        What::LoggedIn => format!("logged in {times}"),
        What::FailedToLogIn => format!("failed to log in {times}"),
        What::Delivery(outcome) => format!("mail {outcome} {times}"),
    };
    let from = match (&did.client_address, did.more_addresses, &did.what) {
        (_, more, _) if more > 0 => format!(" from {more} further addresses"),
        (Some(address), ..) => format!(" from {address}"),
        (None, _, What::Sent) => " locally".to_owned(),
        (None, ..) => String::new(),
    };
    let mut more = Vec::new();
    if did.spam > 0 {
        more.push(format!("{} spam", did.spam));
    }
    if did.refused > 0 {
        more.push(format!("{} refused by the filter", did.refused));
    }
    if did.last_ms / 1_000 > did.first_ms / 1_000 {
        // Within an hour the date is the same.
        let last = format::time(did.last_ms);
        more.push(format!("until {}", last.split_once('T').map_or(last.as_str(), |(_, time)| time)));
    }
    let more = if more.is_empty() { String::new() } else { format!(" ({})", more.join(", ")) };
    plain(&format!("{}  {what}{from}{more}", format::time(did.first_ms)))
}

#[cfg(test)]
mod tests {
    use super::super::entries::decided;
    use super::super::entries::tests::sent;
    use super::*;

    #[test]
    fn an_entry_reads_as_people_write_it() {
        let mut did = sent(1_795_651_200_000, "203.0.113.7", 61);
        did.spam = 3;
        let expected =
            "2026-11-26T00:00:00Z  sent 61 messages to 122 recipients from 203.0.113.7 (3 spam, until 00:00:01Z)";
        assert_eq!(lines(&Entry::Did(did.clone())), [expected]);
        let (failed, more) = (What::FailedToLogIn, 7);
        let rest = Did { what: failed, more_addresses: more, client_address: None, spam: 0, count: 1, ..did };
        assert_eq!(
            lines(&Entry::Did(rest)),
            ["2026-11-26T00:00:00Z  failed to log in 1 time from 7 further addresses (until 00:00:01Z)"]
        );
        let mut lock = decided(0, "locked".into(), "burst: much {\"messages_1m\":61.0}", None, Some("L-1".into()));
        lock.client_addresses = vec!["203.0.113.7".into(), "203.0.113.8".into()];
        assert_eq!(
            lines(&Entry::Decided(lock)),
            [
                "1970-01-01T00:00:00Z  LOCKED: burst: much (L-1)",
                "                      messages_1m = 61",
                "                      sent from 203.0.113.7, 203.0.113.8"
            ]
        );
        let asked =
            Asked { at_ms: 0, actor: Some("amy".into()), what: "UnlockAccount: \u{1b}back".into(), allowed: true };
        assert_eq!(lines(&Entry::Asked(asked)), ["1970-01-01T00:00:00Z  amy asked for UnlockAccount: \\u{1b}back"]);
    }
}
