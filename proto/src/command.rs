//! Commands between the wire and the domain.

use crate::bounds::{self, MAX_NAME_OCTETS, MAX_TEXT_OCTETS, bounded};
use crate::error::{DecodeError, missing};
use crate::v1;
use prost::Message as _;
use tidegate_domain as domain;
use tidegate_domain::{Account, CommandKind, QueuedMail};

/// Longest span of time taken, in milliseconds: a hundred years.
const MAX_SPAN_MS: i64 = 100 * 366 * 24 * 60 * 60 * 1000;

/// What a record of `commands` asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// To change the account's state.
    Change(domain::Command),
    /// To tell its statistics; its state is not touched.
    Inspect(Inspect),
}

/// Asks for an account's statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspect {
    /// The command's id, which the answer names.
    pub id: String,
    /// How many points of each statistic's past are asked for.
    pub points: u32,
}

/// Reads a command that changes a state; see [`asked_from_proto`].
///
/// # Errors
/// As there, and when it only asks for statistics.
pub fn command_from_proto(
    bytes: &[u8],
    offset: u64,
    at_ms: i64,
    events_read_to: Option<u64>,
) -> Result<(Account, domain::Command), DecodeError> {
    match asked_from_proto(bytes, offset, at_ms, events_read_to)? {
        (account, Asked::Change(command)) => Ok((account, command)),
        (_, Asked::Inspect(_)) => Err(DecodeError::Value {
            message: "Command",
            field: "kind",
            value: "inspect".to_owned(),
            allowed: "one that changes a state",
        }),
    }
}

/// Reads a command from the bytes of the record at `offset`, which the log took at `at_ms`, when events of the
/// partition had been read up to and including `events_read_to`.
///
/// # Errors
/// When the bytes are not a command, or it lacks an id, an account, an actor or a kind.
pub fn asked_from_proto(
    bytes: &[u8],
    offset: u64,
    at_ms: i64,
    events_read_to: Option<u64>,
) -> Result<(Account, Asked), DecodeError> {
    let command = v1::Command::decode(bytes)
        .map_err(|error| DecodeError::Protobuf { message: "Command", reason: error.to_string() })?;
    let account =
        Account::parse(&command.account).map_err(|source| DecodeError::Account { message: "Command", source })?;
    for (field, value) in [("id", &command.id), ("actor", &command.actor)] {
        if value.is_empty() {
            return Err(missing("Command", field));
        }
    }
    let kind = match command.kind.ok_or_else(|| missing("Command", "kind"))? {
        v1::command::Kind::Lock(lock) => CommandKind::Lock {
            for_ms: lock.for_ms.map(|span| check_span("LockCommand", "for_ms", span)).transpose()?,
            queued_mail: queued_mail_from_proto(lock.queued_mail()),
            reply: bounded(lock.reply, MAX_TEXT_OCTETS),
        },
        v1::command::Kind::Unlock(unlock) => {
            let evidence = unlock.evidence.unwrap_or_default();
            CommandKind::Unlock {
                evidence: domain::UnlockEvidence {
                    password_changed_ms: evidence.password_changed_ms,
                    note: bounded(evidence.note, MAX_TEXT_OCTETS),
                },
                probation_ms: check_span("UnlockCommand", "probation_ms", unlock.probation_ms.unwrap_or_default())?,
            }
        }
        v1::command::Kind::Exempt(exempt) => {
            CommandKind::Exempt { rules: bounds::rules(exempt.rules), until_ms: exempt.until_ms }
        }
        v1::command::Kind::Clear(clear) => CommandKind::Clear { exemptions: clear.exemptions, windows: clear.windows },
        v1::command::Kind::Inspect(inspect) => {
            let id = bounded(command.id, MAX_NAME_OCTETS);
            return Ok((account, Asked::Inspect(Inspect { id, points: inspect.points })));
        }
    };
    let command = domain::Command {
        id: bounded(command.id, MAX_NAME_OCTETS),
        offset,
        at_ms,
        events_read_to,
        actor: bounded(command.actor, MAX_NAME_OCTETS),
        reason: bounded(command.reason, MAX_TEXT_OCTETS),
        kind,
    };
    Ok((account, Asked::Change(command)))
}

fn check_span(message: &'static str, field: &'static str, span_ms: i64) -> Result<i64, DecodeError> {
    if (0..=MAX_SPAN_MS).contains(&span_ms) {
        return Ok(span_ms);
    }
    Err(DecodeError::Value {
        message,
        field,
        value: span_ms.to_string(),
        allowed: "0 to a hundred years, in milliseconds",
    })
}

/// What happens to queued mail, from the wire.
pub fn queued_mail_from_proto(queued_mail: v1::QueuedMail) -> QueuedMail {
    match queued_mail {
        v1::QueuedMail::Unspecified | v1::QueuedMail::Keep => QueuedMail::Keep,
        v1::QueuedMail::Hold => QueuedMail::Hold,
        v1::QueuedMail::Delete => QueuedMail::Delete,
    }
}

/// What happens to queued mail, on the wire.
pub fn queued_mail_to_proto(queued_mail: QueuedMail) -> v1::QueuedMail {
    match queued_mail {
        QueuedMail::Keep => v1::QueuedMail::Keep,
        QueuedMail::Hold => v1::QueuedMail::Hold,
        QueuedMail::Delete => v1::QueuedMail::Delete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(for_ms: Option<i64>) -> Vec<u8> {
        v1::Command {
            id: "c1".into(),
            account: "jo@example.org".into(),
            actor: "amy".into(),
            reason: "reported".into(),
            kind: Some(v1::command::Kind::Lock(v1::LockCommand {
                for_ms,
                reply: "Locked".into(),
                queued_mail: v1::QueuedMail::Hold.into(),
            })),
        }
        .encode_to_vec()
    }

    #[test]
    fn a_command_says_what_was_asked_and_where_it_stands() {
        let (account, command) = command_from_proto(&lock(Some(60_000)), 7, 99, Some(4)).unwrap();
        assert_eq!(account.as_str(), "jo@example.org");
        assert_eq!((command.offset, command.at_ms, command.events_read_to), (7, 99, Some(4)));
        assert_eq!(
            command.kind,
            CommandKind::Lock { for_ms: Some(60_000), reply: "Locked".into(), queued_mail: QueuedMail::Hold }
        );
    }

    #[test]
    fn a_command_that_only_inspects_changes_nothing() {
        let inspect = v1::Command {
            id: "c1".into(),
            account: "jo@example.org".into(),
            actor: "amy".into(),
            kind: Some(v1::command::Kind::Inspect(v1::InspectCommand { points: 60 })),
            ..v1::Command::default()
        };
        let octets = inspect.encode_to_vec();
        let (account, asked) = asked_from_proto(&octets, 7, 99, None).unwrap();
        assert_eq!(account.as_str(), "jo@example.org");
        assert_eq!(asked, Asked::Inspect(Inspect { id: "c1".into(), points: 60 }));
        let refused = command_from_proto(&octets, 7, 99, None).unwrap_err().to_string();
        assert_eq!(refused, "Command.kind is inspect; allowed: one that changes a state");
        assert!(matches!(asked_from_proto(&lock(None), 0, 0, None), Ok((_, Asked::Change(_)))));
    }

    #[test]
    fn absurd_spans_and_strange_bytes_are_errors() {
        let error = command_from_proto(&lock(Some(-5)), 0, 0, None).unwrap_err();
        assert_eq!(error.to_string(), "LockCommand.for_ms is -5; allowed: 0 to a hundred years, in milliseconds");
        assert!(matches!(command_from_proto(b"\xff\xff", 0, 0, None), Err(DecodeError::Protobuf { .. })));
        assert!(matches!(command_from_proto(b"", 0, 0, None), Err(DecodeError::Account { .. })));
    }
}
