//! The table `account_changes`.

use super::{day_of, place};
use crate::columns::ColumnKind::{Date, Int, Long, Text, Texts, Time};
use crate::columns::{Column, Rows};
use tidegate_bus::Record;
use tidegate_domain::{Cause, Change, ClientSeen, Evidence, QueuedMail};
use tidegate_proto::state_from_proto;

pub(super) const COLUMNS: [Column; 26] = [
    Column::new("date", Date, "UTC day of `time`. Partition column."),
    Column::new("time", Time, "When it was decided."),
    Column::new("account", Text, "The account in canonical form."),
    Column::new(
        "status",
        Text,
        "What the edges do from then on: active, throttled or locked; forgotten: nothing is known any more.",
    ),
    Column::new(
        "change",
        Text,
        "What was decided: locked, throttled, noticed, unlocked, expired, amended or command_refused.",
    ),
    Column::new("version", Long, "Version of the state, rising for each account."),
    Column::new("rule", Text, "The rule that held; NULL when an administrator decided."),
    Column::new("rule_set", Text, "Version of the rule set that it came from."),
    Column::new("actor", Text, "The administrator who asked; NULL when a rule held."),
    Column::new("reason", Text, "Why."),
    Column::new("lock_id", Text, "The lock that began or ended."),
    Column::new("lock_since", Time, "Since when the lock in force holds."),
    Column::new("lock_until", Time, "Until when it holds; NULL: until somebody unlocks it."),
    Column::new("reply", Text, "What the SMTP client is told."),
    Column::new("queued_mail", Text, "What becomes of mail that is queued: keep, hold or delete."),
    Column::new("evidence", Text, "The statistics that made the rule hold, as a JSON object of column and value."),
    Column::new("client_addresses", Texts, "Addresses from which the account sent before the rule held."),
    Column::new("subjects", Texts, "Subjects of messages that led to it, as a sample; only where edges tell subjects."),
    Column::new("probation_until", Time, "Tighter limits apply until then."),
    Column::new("exemptions", Int, "How many exemptions it has."),
    Column::new("auto_unlocks", Int, "How often a lock has ended by itself since somebody last unlocked it."),
    Column::new("password_changed", Time, "When the password was changed, as told with an unlock."),
    Column::new("unlock_evidence", Text, "Why it is believed that the thief no longer knows the password."),
    Column::new("command_id", Text, "The administrative command that it came from."),
    Column::new("domain", Text, "Domain of the account; NULL for one without."),
    Column::new("logged", Time, "When the log took it."),
];

/// Adds the state in `record`; one without a value says that an account was forgotten.
pub(super) fn add(record: &Record, rows: &mut Rows) -> Result<(), String> {
    let Some(value) = record.value.as_deref() else {
        let account = std::str::from_utf8(&record.key).map_err(|_| "its key is no UTF-8".to_owned())?;
        rows.date(day_of(record.time_ms, record.time_ms)).time_ms(record.time_ms).text(account).text("forgotten");
        let domain = account.rsplit_once('@').map_or("", |(_, domain)| domain);
        rows.nothing(20).text(domain).time_ms(record.time_ms);
        place(record, rows);
        rows.end();
        return Ok(());
    };
    let state = state_from_proto(value).map_err(|error| error.to_line())?;
    // A state's newest milestone is what led to it, where it bears its version.
    let milestone = state.timeline.last().filter(|milestone| milestone.version == state.version);
    let command = state.last_command.as_ref();
    let by_command = command.filter(|command| milestone.is_none_or(|milestone| milestone.at_ms == command.at_ms));
    let notice = state.notice.as_ref().filter(|notice| {
        milestone.is_some_and(|milestone| milestone.change == Change::Noticed && milestone.at_ms == notice.at_ms)
    });
    let time_ms = milestone.map_or(record.time_ms, |milestone| milestone.at_ms);
    let lock = state.status.lock();
    let rule = lock.and_then(|lock| match &lock.cause {
        Cause::Rule(rule) => Some(rule),
        Cause::Admin { .. } => None,
    });
    let rule = notice.map(|notice| &notice.rule).or(rule);
    rows.date(day_of(time_ms, record.time_ms)).time_ms(time_ms).text(state.account.as_str());
    rows.text(state.status.as_str()).text(milestone.map_or("", |milestone| milestone.change.as_str()));
    rows.long(Some(state.version));
    rows.text(
        milestone.and_then(|one| one.rule.as_deref()).or(rule.map(|rule| rule.name.as_str())).unwrap_or_default(),
    );
    rows.text(rule.map_or("", |rule| &rule.rule_set));
    rows.text(milestone.and_then(|one| one.actor.as_deref()).unwrap_or_default());
    rows.text(milestone.map_or("", |milestone| &milestone.reason));
    let ended = milestone.and_then(|one| one.lock_id.as_deref());
    rows.text(ended.or(lock.map(|lock| lock.id.as_str())).unwrap_or_default());
    rows.time_ms(lock.map(|lock| lock.since_ms)).time_ms(lock.and_then(|lock| lock.until_ms));
    rows.text(lock.map_or("", |lock| &lock.reply)).text(lock.map_or("", |lock| queued(lock.queued_mail)));
    let evidence = notice.map(|notice| &notice.evidence).or(lock.map(|lock| &lock.evidence));
    rows.text(&evidence.map(|evidence| json(evidence)).unwrap_or_default());
    rows.texts(lock.map(|lock| lock.clients.iter().map(|ClientSeen { address, .. }| address.to_string())));
    rows.texts(lock.map(|lock| lock.subjects.iter()));
    rows.time_ms(state.probation_until_ms);
    rows.int(Some(state.exemptions.len() as u64)).int(Some(state.auto_unlocks.into()));
    let given = by_command.and_then(|command| command.evidence.as_ref());
    rows.time_ms(given.and_then(|given| given.password_changed_ms)).text(given.map_or("", |given| &given.note));
    rows.text(by_command.map_or("", |command| &command.id));
    rows.text(state.account.domain().unwrap_or_default()).time_ms(record.time_ms);
    place(record, rows);
    rows.end();
    Ok(())
}

/// `{"recipients_1h":120}`; a value that was NULL is null.
fn json(evidence: &[Evidence]) -> String {
    if evidence.is_empty() {
        return String::new();
    }
    let values = evidence.iter().map(|one| (one.column.clone(), serde_json::Value::from(one.value)));
    serde_json::Value::Object(values.collect()).to_string()
}

fn queued(queued_mail: QueuedMail) -> &'static str {
    match queued_mail {
        QueuedMail::Keep => "keep",
        QueuedMail::Hold => "hold",
        QueuedMail::Delete => "delete",
    }
}
