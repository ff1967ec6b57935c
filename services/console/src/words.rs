//! What the API says, in words and marks for people.

use crate::clock;
use crate::fields::link;
use maud::{Markup, html};
use std::net::IpAddr;
use tidegate_proto::v1;
use tidegate_proto::v1::{AccountStatus, Change};

/// A part of a page, which can be told of again when it changes.
pub(crate) struct Part {
    /// Its id on the page.
    pub id: &'static str,
    /// What is in it.
    pub markup: Markup,
}

impl Part {
    /// The part on its page.
    pub fn render(&self) -> Markup {
        html! { div id=(self.id) data-part { (self.markup) } }
    }
}

/// The part called `id`; nothing when there is none.
pub(crate) fn part(parts: &[Part], id: &str) -> Markup {
    html! { @for part in parts.iter().filter(|part| part.id == id) { (part.render()) } }
}

/// A point in time: in UTC, and how long ago.
pub(crate) fn time(at_ms: i64) -> Markup {
    html! {
        @match clock::machine(at_ms) {
            Some(machine) => time datetime=(machine) title=(format!("{} UTC", clock::human(at_ms))) {
                (clock::human(at_ms)) " " span.ago data-ago { (clock::relative(at_ms, clock::now_ms())) }
            },
            None => "unknown",
        }
    }
}

/// The same in little room: how long ago, and the time itself for who asks.
pub(crate) fn short_time(at_ms: i64) -> Markup {
    html! {
        @match clock::machine(at_ms) {
            Some(machine) => time datetime=(machine) title=(format!("{} UTC", clock::human(at_ms))) {
                span data-ago { (clock::relative(at_ms, clock::now_ms())) }
            },
            None => "unknown",
        }
    }
}

/// A status, told by word, mark and colour.
pub(crate) fn status(status: i32) -> Markup {
    let (class, mark, word) = match AccountStatus::try_from(status) {
        Ok(AccountStatus::Locked) => ("locked", "■", "Locked"),
        Ok(AccountStatus::Throttled) => ("throttled", "▲", "Throttled"),
        Ok(AccountStatus::Active) => ("active", "●", "Active"),
        Ok(AccountStatus::Unspecified) | Err(_) => ("unknown", "?", "Unknown"),
    };
    html! { span class={ "status " (class) } { span aria-hidden="true" { (mark) } " " (word) } }
}

/// A status as a word in a sentence.
pub(crate) fn status_word(status: i32) -> &'static str {
    match AccountStatus::try_from(status) {
        Ok(AccountStatus::Locked) => "locked",
        Ok(AccountStatus::Throttled) => "throttled",
        Ok(AccountStatus::Active) => "active",
        Ok(AccountStatus::Unspecified) | Err(_) => "unknown",
    }
}

/// How a state changed.
pub(crate) fn change(change: i32) -> &'static str {
    match Change::try_from(change) {
        Ok(Change::Locked) => "Locked",
        Ok(Change::Throttled) => "Throttled",
        Ok(Change::Noticed) => "Notice",
        Ok(Change::Unlocked) => "Unlocked",
        Ok(Change::Expired) => "Lock ended by itself",
        Ok(Change::Amended) => "Exemptions or clean slate changed",
        Ok(Change::CommandRefused) => "A command was refused",
        Ok(Change::Unspecified) | Err(_) => "Changed",
    }
}

/// A link to an account's page.
pub(crate) fn account(name: &str) -> Markup {
    html! {
        a.account href=(account_path(name)) {
            @match name.rsplit_once('@') {
                // The best place for a line to end.
                Some((local, domain)) => { (local) wbr; "@" (domain) }
                None => (name),
            }
        }
    }
}

/// Where an account's page is.
pub(crate) fn account_path(name: &str) -> String {
    link("/account", &[("name", name)])
}

/// Who or what decided a lock, and why.
pub(crate) fn why(lock: &v1::Lock) -> Markup {
    html! {
        @match &lock.rule {
            Some(rule) => { span.rule { (rule.name) } }
            None => { "by " span.actor { (lock.actor) } }
        }
        @if !lock.reason.is_empty() { " " span.reason { (lock.reason) } }
    }
}

/// A number without needless digits; "none" for NULL.
pub(crate) fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "none".to_owned(),
        value if value.fract() == 0.0 && value.abs() < 1e15 => grouped(value as i64),
        value if value.abs() >= 100.0 => format!("{value:.0}"),
        value => format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

/// A whole number with its thousands apart; one that no `i64` holds as the largest.
pub(crate) fn grouped(value: impl TryInto<i64>) -> String {
    let value = value.try_into().unwrap_or(i64::MAX);
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}

/// `1 account`, `2 accounts`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// A column's statistic and window, e.g. `recipients` in `1h`.
pub(crate) fn column(column: &str) -> Markup {
    html! {
        @match column.rsplit_once('_').filter(|(_, window)| window.starts_with(|c: char| c.is_ascii_digit())) {
            Some((statistic, window)) => { span.statistic { (statistic.replace('_', " ")) } " " span.window { (window) } }
            None => { span.statistic { (column.replace('_', " ")) } }
        }
    }
}

/// An address in network order; its octets when it is none.
pub(crate) fn address(octets: &[u8]) -> String {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    let sixteen = <[u8; 16]>::try_from(octets).map(IpAddr::from);
    match four.or(sixteen) {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => format!("{octets:02x?}"),
    }
}

/// A table that scrolls by itself where it is too wide, also with the keyboard.
pub(crate) fn table(label: &str, table: &Markup) -> Markup {
    html! { div.scroll role="region" aria-label=(label) tabindex="0" { table { (table) } } }
}

/// The same, and where there is little room each row is a card: its mark, name and state in the first line.
pub(crate) fn cards(label: &str, table: &Markup) -> Markup {
    html! { div.scroll role="region" aria-label=(label) tabindex="0" { table.cards { (table) } } }
}

/// Says that something cannot be shown, and why.
pub(crate) fn hint(what: &str, status: &tonic::Status) -> Markup {
    let words = crate::failure::words(status);
    html! { p.hint { (what) " cannot be shown: " (words) } }
}

/// Says that there is nothing.
pub(crate) fn nothing(text: &str) -> Markup {
    html! { p.nothing { (text) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let told = [f64::NAN, 0.0, 1_234_567.0, -1_000.0, 0.125, 3.0, 123.456, 0.5].map(number);
        assert_eq!(told, ["none", "0", "1,234,567", "-1,000", "0.125", "3", "123", "0.5"]);
        assert_eq!(count(1, "account", "accounts"), "1 account");
        assert_eq!(count(10_000, "account", "accounts"), "10,000 accounts");
    }

    #[test]
    fn hostile_text_stays_text() {
        let script = "<script>alert(1)</script>\"'&";
        let lock = v1::Lock { reason: script.into(), actor: script.into(), ..v1::Lock::default() };
        let ruled =
            v1::Lock { rule: Some(v1::RuleRef { name: script.into(), rule_set: String::new() }), ..lock.clone() };
        let status = tonic::Status::internal(script);
        for markup in [account(script), why(&lock), why(&ruled), column(script), hint(script, &status), nothing(script)]
        {
            let text = markup.into_string();
            assert!(!text.contains("<script") && text.contains("&lt;script&gt;"), "{text}");
            assert!(!text.contains("\"'&\""), "{text}");
        }
    }

    #[test]
    fn addresses_of_both_kinds_are_told() {
        assert_eq!(address(&[192, 0, 2, 1]), "192.0.2.1");
        assert_eq!(address(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), "2001:db8::1");
        assert_eq!(address(&[1]), "[01]");
    }

    #[test]
    fn a_column_is_told_by_statistic_and_window() {
        assert!(column("recipient_domains_15m").into_string().contains("recipient domains</span>"));
        assert!(column("size_cv").into_string().contains("size cv"));
    }
}
