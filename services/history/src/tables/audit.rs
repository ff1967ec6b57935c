//! The table `audit`.

use super::{NO_VALUE, day_of, place};
use crate::columns::ColumnKind::{Bool, Date, Text, Time};
use crate::columns::{Column, Rows};
use prost::Message as _;
use tidegate_bus::Record;
use tidegate_proto::v1;

pub(super) const COLUMNS: [Column; 18] = [
    Column::new("date", Date, "UTC day of `time`. Partition column."),
    Column::new("time", Time, "When it was asked."),
    Column::new("account", Text, "The account it was about; NULL when it was about none."),
    Column::new("id", Text, "Unique."),
    Column::new("actor", Text, "Who asked."),
    Column::new("role", Text, "In which role."),
    Column::new("peer", Text, "From which network address."),
    Column::new("method", Text, "Which method, e.g. tidegate.v1.AdminService/UnlockAccount."),
    Column::new("reason", Text, "Why, in the actor's words."),
    Column::new("allowed", Bool, "Whether it was allowed."),
    Column::new("result", Text, "What came of it; NULL when it was done."),
    Column::new("request", Text, "What was asked, as far as the other columns do not tell it."),
    Column::new("command_id", Text, "The command that it became; NULL when it became none."),
    Column::new("status_before", Text, "The account's status when it was asked."),
    Column::new("status_after", Text, "The account's status that came of it."),
    Column::new("lock_id", Text, "The lock that it began or ended."),
    Column::new("domain", Text, "Domain of the account; NULL for one without."),
    Column::new("logged", Time, "When the log took it."),
];

/// Adds the audit record in `record`.
pub(super) fn add(record: &Record, rows: &mut Rows) -> Result<(), String> {
    let value = record.value.as_deref().ok_or(NO_VALUE)?;
    let asked = v1::AuditRecord::decode(value).map_err(|error| format!("it is no AuditRecord: {error}"))?;
    if asked.id.is_empty() || asked.method.is_empty() {
        return Err("it is no AuditRecord: its id or its method is missing".to_owned());
    }
    let (before, after) = (asked.before.as_ref(), asked.after.as_ref());
    let lock =
        |state: Option<&v1::AccountState>| state.and_then(|state| state.lock.as_ref()).map(|lock| lock.id.clone());
    rows.date(day_of(asked.time_ms, record.time_ms)).time_ms(asked.time_ms).text(&asked.account).text(&asked.id);
    rows.text(&asked.actor).text(&asked.role).text(&asked.peer).text(&asked.method).text(&asked.reason);
    rows.bool(Some(asked.allowed)).text(&asked.result).text(&asked.request).text(&asked.command_id);
    rows.text(status(before)).text(status(after)).text(&lock(after).or_else(|| lock(before)).unwrap_or_default());
    rows.text(asked.account.rsplit_once('@').map_or("", |(_, domain)| domain)).time_ms(record.time_ms);
    place(record, rows);
    rows.end();
    Ok(())
}

fn status(state: Option<&v1::AccountState>) -> &'static str {
    match state.map(v1::AccountState::status) {
        None | Some(v1::AccountStatus::Unspecified) => "",
        Some(v1::AccountStatus::Active) => "active",
        Some(v1::AccountStatus::Throttled) => "throttled",
        Some(v1::AccountStatus::Locked) => "locked",
    }
}
