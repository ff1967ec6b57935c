//! The rules file: from TOML to rules whose predicates are still text.

use super::document::{Table, place};
use super::overrides::{self, Overrides, number};
use super::{ACTIONS, Mode, RuleInfo, allowed_names, queued_mail};
use crate::problem::{Finding, Position, Problems, suggestion};
use crate::sql::text::Origin;
use tidegate_domain::{Action, QueuedMail};
use toml::Spanned;
use toml::de::DeTable;

/// Largest file.
const MAX_OCTETS: usize = 1024 * 1024;
const MAX_RULES: usize = 500;
const MAX_NAME: usize = 64;
/// Longest reply: with its code it fits one line of SMTP (RFC 5321 section 4.5.3.1.5 allows 512 octets).
const MAX_REPLY: usize = 400;
const MAX_TEXT: usize = 2_000;
const MAX_DAYS: u64 = 366;
const MAX_AUTO_UNLOCKS: u32 = 1_000;

const KEYS: [&str; 11] = [
    "name",
    "when",
    "action",
    "for",
    "queued_mail",
    "max_auto_unlocks",
    "reason",
    "reply",
    "source",
    "enabled",
    "domains",
];

pub(super) struct File {
    pub mode: Mode,
    pub limits: Vec<Limit>,
    pub overrides: Overrides,
    pub rules: Vec<RawRule>,
}

/// A number of `[limits]`.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    pub name: String,
    pub value: f64,
    pub position: Position,
}

pub(super) struct RawRule {
    pub subject: String,
    pub when: Option<When>,
    /// All but `when`; none when something was wrong with it.
    pub info: Option<RuleInfo>,
}

/// A predicate as it stands in the file.
#[derive(Debug, Clone)]
pub(super) struct When {
    pub text: String,
    pub origin: Origin,
}

/// Reads a file. What is wrong goes to `problems`; the rest is read all the same.
pub(super) fn read(text: &str, problems: &mut Problems) -> File {
    let mut file =
        File { mode: Mode::default(), limits: Vec::new(), overrides: Overrides::default(), rules: Vec::new() };
    if text.len() > MAX_OCTETS {
        let message = format!("the file has {} octets", text.len());
        problems.add(None, Finding::at(None, message).allowing(format!("{MAX_OCTETS}")));
        return file;
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let position = error.span().map(|span| place(text, span.start));
        problems.add(None, Finding::at(position, error.message()));
    }
    if !errors.is_empty() {
        // What a broken document seems to hold would only mislead.
        return file;
    }
    let top = Table { text, entries: document.get_ref(), span: 0..0, subject: None };
    top.only(&["mode", "limits", "rule", "limits_for", "probation"], problems);
    match top.text("mode", problems) {
        None | Some("observe") => {}
        Some("enforce") => file.mode = Mode::Enforce,
        Some(other) => {
            let finding = Finding::at(Some(top.place_of("mode")), format!("unknown mode `{other}`"));
            top.report(problems, finding.allowing("observe, enforce"));
        }
    }
    file.limits = read_limits(&top, problems);
    file.overrides = overrides::read(&top, &file.limits, problems);
    let Some(rules) = top.value("rule") else { return file };
    let Some(rules) = rules.get_ref().as_array() else {
        let finding = Finding::at(Some(top.place_of("rule")), "`rule` is not a list of tables");
        top.report(problems, finding.allowing("[[rule]]"));
        return file;
    };
    if rules.len() > MAX_RULES {
        let message = format!("there are {} rules", rules.len());
        problems.add(None, Finding::at(None, message).allowing(format!("{MAX_RULES}")));
        return file;
    }
    let mut names: Vec<&str> = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let Some(table) = rule.get_ref().as_table() else {
            let position = Some(place(text, rule.span().start));
            problems.add(None, Finding::at(position, "a rule is not a table").allowing("[[rule]]"));
            continue;
        };
        let name = table.get("name").and_then(|name| name.get_ref().as_str());
        let subject = name.map_or_else(|| format!("rule {}", index + 1), |name| format!("rule `{name}`"));
        let table = Table { text, entries: table, span: rule.span(), subject: Some(subject) };
        if name.is_some_and(|name| names.contains(&name)) {
            let finding = Finding::at(Some(table.place_of("name")), "there is a rule of this name already");
            table.report(problems, finding);
        }
        names.extend(name);
        file.rules.push(read_rule(&table, problems));
    }
    file
}

fn read_limits(top: &Table, problems: &mut Problems) -> Vec<Limit> {
    let Some(limits) = top.value("limits") else { return Vec::new() };
    let Some(limits) = limits.get_ref().as_table() else {
        let finding = Finding::at(Some(top.place_of("limits")), "`limits` is not a table");
        top.report(problems, finding.allowing("[limits]"));
        return Vec::new();
    };
    let mut read = Vec::new();
    for (name, value) in limits {
        let position = place(top.text, name.span().start);
        let name = name.get_ref().as_ref();
        if !is_word(name, '_', MAX_NAME) {
            let message = format!("`{name}` is not a name for a limit");
            problems.add(None, Finding::at(Some(position), message).allowing("a letter, then letters, digits and _"));
        }
        if let Some(value) = number(value.get_ref()) {
            read.push(Limit { name: name.to_owned(), value, position });
        } else {
            let message = format!("limit `{name}` is not a number that a predicate can use");
            problems.add(None, Finding::at(Some(position), message).allowing("0 or more, e.g. 60 or 0.1"));
        }
    }
    read
}

fn read_rule(table: &Table, problems: &mut Problems) -> RawRule {
    table.only(&KEYS, problems);
    let when = table.required("when", problems).map(|when| locate(table, when));
    let known = problems.len();
    let name = table.required("name", problems);
    if let Some(name) = name.filter(|name| !is_word(name, '-', MAX_NAME)) {
        let finding = Finding::at(Some(table.place_of("name")), format!("`{name}` is not a name for a rule"));
        let allowed = format!("a lower-case letter, then letters, digits and -, at most {MAX_NAME}");
        table.report(problems, finding.allowing(allowed));
    }
    let action = read_action(table, problems);
    let reason = table.required("reason", problems);
    let source = table.required("source", problems);
    for key in ["reason", "source"] {
        check_length(table, key, MAX_TEXT, problems);
    }
    // Asked of the name: the action may have failed for another reason.
    let asked = table.value("action").and_then(|action| action.get_ref().as_str());
    let refuses = matches!(asked, Some("throttle" | "lock"));
    let reply = if refuses { table.required("reply", problems) } else { table.text("reply", problems) };
    if let Some(reply) = reply.filter(|reply| !reply.chars().all(|c| c == ' ' || c.is_ascii_graphic())) {
        let message = format!("`reply` has a character that an SMTP reply cannot carry: {reply:?}");
        table.report(problems, Finding::at(Some(table.place_of("reply")), message).allowing("one line of ASCII"));
    }
    check_length(table, "reply", MAX_REPLY, problems);
    let enabled = table.bool("enabled", problems).unwrap_or(true);
    let domains = table.texts("domains", problems).unwrap_or_default();
    for domain in domains.iter().filter(|domain| domain.is_empty() || domain.contains(['@', '*', ' '])) {
        let message = format!("`{domain}` in `domains` is not a domain");
        table.report(problems, Finding::at(Some(table.place_of("domains")), message).allowing("e.g. example.org"));
    }
    let info = || {
        Some(RuleInfo {
            name: name?.to_owned(),
            when: String::new(),
            action: action?,
            reason: reason?.trim().to_owned(),
            reply: reply.unwrap_or_default().to_owned(),
            source: source?.trim().to_owned(),
            enabled,
            switched_off: false,
            domains: domains.iter().map(|domain| domain.trim_end_matches('.').to_lowercase()).collect(),
        })
    };
    let subject = table.subject.clone().unwrap_or_default();
    RawRule { subject, when, info: if problems.len() == known { info() } else { None } }
}

fn read_action(table: &Table, problems: &mut Problems) -> Option<Action> {
    let action = table.required("action", problems)?;
    let for_ms = table.text("for", problems).and_then(|span| {
        let read = duration_ms(span);
        if read.is_none() {
            let finding = Finding::at(Some(table.place_of("for")), format!("`{span}` is not a duration"));
            table.report(problems, finding.allowing(format!("90s, 30m, 2h, 7d; at most {MAX_DAYS}d")));
        }
        read
    });
    let queued = table.text("queued_mail", problems).map(|name| {
        let read = queued_mail(name);
        if read.is_none() {
            let finding = Finding::at(Some(table.place_of("queued_mail")), format!("unknown `{name}`"));
            table.report(problems, finding.allowing("keep, hold, delete"));
        }
        read
    });
    let mut no = |key: &str| {
        if table.value(key).is_some() {
            let message = format!("`{key}` means nothing with action {action}");
            table.report(problems, Finding::at(Some(table.place_of(key)), message));
        }
    };
    match action {
        "observe" | "notify" => {
            no("for");
            no("queued_mail");
            no("max_auto_unlocks");
            Some(if action == "observe" { Action::Observe } else { Action::Notify })
        }
        "throttle" => {
            no("queued_mail");
            no("max_auto_unlocks");
            table.required("for", problems);
            for_ms.map(|for_ms| Action::Throttle { for_ms })
        }
        "lock" => {
            let queued_mail = queued.unwrap_or(Some(QueuedMail::Keep))?;
            let max_auto_unlocks = read_max_auto_unlocks(table, problems);
            let is_read = for_ms.is_some() || table.value("for").is_none();
            is_read.then_some(Action::Lock { for_ms, queued_mail, max_auto_unlocks })
        }
        other => {
            let message = format!("unknown action `{other}`{}", suggestion(other, ACTIONS));
            let finding = Finding::at(Some(table.place_of("action")), message);
            table.report(problems, finding.allowing(allowed_names(ACTIONS)));
            None
        }
    }
}

/// After how many locks that ended by themselves the next has no end.
fn read_max_auto_unlocks(table: &Table, problems: &mut Problems) -> Option<u32> {
    let most = table.whole("max_auto_unlocks", 0..=MAX_AUTO_UNLOCKS, problems)?;
    if table.value("for").is_none() {
        let message = "`max_auto_unlocks` means nothing without `for`";
        let finding = Finding::at(Some(table.place_of("max_auto_unlocks")), message);
        table.report(problems, finding.allowing("`for = \"2h\"` beside it: only a lock with a span ends by itself"));
    }
    Some(most)
}

fn check_length(table: &Table, key: &str, most: usize, problems: &mut Problems) {
    let Some(text) = table.value(key).and_then(|value| value.get_ref().as_str()) else { return };
    if text.len() > most {
        let message = format!("`{key}` has {} octets", text.len());
        table.report(problems, Finding::at(Some(table.place_of(key)), message).allowing(format!("at most {most}")));
    }
}

/// Finds the predicate's first character in the file, so that places within it are places in the file. A string with
/// escapes is not there word for word: then every place is its beginning.
fn locate(table: &Table, when: &str) -> When {
    let start = table.value("when").map_or(0, Spanned::span_start);
    let raw = &table.text[start..];
    let opening = ["\"\"\"\n", "'''\n", "\"\"\"\r\n", "'''\r\n", "\"\"\"", "'''", "\"", "'"];
    let skipped = opening.iter().find(|quotes| raw.starts_with(**quotes)).map_or(0, |quotes| quotes.len());
    let verbatim = raw[skipped..].starts_with(when);
    let begin = if verbatim { start + skipped } else { start };
    When { text: when.to_owned(), origin: Origin { start: place(table.text, begin), verbatim } }
}

trait SpanStart {
    fn span_start(&self) -> usize;
}

impl<T> SpanStart for Spanned<T> {
    fn span_start(&self) -> usize {
        self.span().start
    }
}

fn is_word(name: &str, joint: char, most: usize) -> bool {
    name.len() <= most
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == joint)
}

/// `90s`, `30m`, `2h`, `7d`.
fn duration_ms(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    (1..=MAX_DAYS * 86_400).contains(&seconds).then_some(seconds.cast_signed() * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration_ms("90s"), Some(90_000));
        assert_eq!(duration_ms("7d"), Some(7 * 86_400_000));
        for wrong in ["", "m", "30", "30 m", "-1m", "0s", "1w", "367d", "99999999999999999999d", "1é"] {
            assert_eq!(duration_ms(wrong), None, "{wrong}");
        }
    }
}
