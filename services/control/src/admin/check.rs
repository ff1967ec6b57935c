//! Checks what an action asks for: the first thing that is wrong is named, with what is allowed.

use super::actions::{Asked, must_say};
use crate::config::{ControlConfig, reply_problem};
use crate::methods::Method;
use std::time::Duration;
use tidegate_domain::{Account, AccountForm};
use tidegate_proto::v1;
use tidegate_proto::v1::command::Kind;
use tonic::Status;

/// Longest reason or note, in octets.
const MAX_REASON_OCTETS: usize = 1_000;
/// Longest name of an actor or a rule, in octets.
const MAX_NAME_OCTETS: usize = 256;
/// Longest name of a rule that a rules file can have.
const MAX_RULE_OCTETS: usize = 64;
/// Most rules that one exemption names.
const MAX_RULES: usize = 100;
/// How far a caller's clock may be ahead when it tells when a password was changed.
const MAX_AHEAD_MS: i64 = 60_000;

/// An action that can be taken.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Action {
    /// The account in canonical form.
    pub account: Account,
    /// Who asks.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// For what.
    pub kind: Kind,
    /// How long to wait for the state.
    pub wait: Duration,
}

/// Checks what was asked at `now_ms`.
///
/// # Errors
/// `INVALID_ARGUMENT` that names the field and what is allowed.
pub(super) fn check(
    method: Method,
    asked: Asked,
    config: &ControlConfig,
    form: &AccountForm,
    now_ms: i64,
) -> Result<Action, Status> {
    let account = parse_account(&asked.account, form)?;
    let (actor, reason) = who_and_why(&asked.actor, &asked.reason)?;
    let wait = wait(asked.wait_ms, config)?;
    let kind = asked.kind.ok_or_else(|| {
        let (field, allowed) = must_say(method);
        invalid(field, "is not set", allowed)
    })?;
    check_kind(&kind, now_ms)?;
    Ok(Action { account, actor, reason, kind, wait })
}

/// How long to wait when a request asks for `wait_ms`; 0: as configured.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is longer than allowed.
pub(super) fn wait(wait_ms: u32, config: &ControlConfig) -> Result<Duration, Status> {
    let wait_ms = if wait_ms == 0 { config.command_wait_ms } else { wait_ms };
    if wait_ms > config.max_command_wait_ms {
        let allowed = format!("0 to {}", config.max_command_wait_ms);
        return Err(invalid("wait_ms", &format!("is {wait_ms}"), &allowed));
    }
    Ok(Duration::from_millis(wait_ms.into()))
}

/// Who asks, and why.
///
/// # Errors
/// `INVALID_ARGUMENT` when either is missing.
pub(super) fn who_and_why(actor: &str, reason: &str) -> Result<(String, String), Status> {
    let actor = text("actor", actor, "who asks", MAX_NAME_OCTETS)?;
    Ok((actor, text("reason", reason, "why", MAX_REASON_OCTETS)?))
}

/// The account that an administrator names.
///
/// # Errors
/// `INVALID_ARGUMENT` that says why it is none.
pub(super) fn parse_account(name: &str, form: &AccountForm) -> Result<Account, Status> {
    // The marked forms of senders without a login are named as they are.
    let marked = Account::parse(name).ok().filter(|account| account.kind() != tidegate_domain::AccountKind::Login);
    match marked {
        Some(account) => Ok(account),
        None => Account::login(name, form).map_err(|error| Status::invalid_argument(format!("account: {error}"))),
    }
}

/// Checks what is asked for.
///
/// # Errors
/// `INVALID_ARGUMENT` that names the field and what is allowed.
pub(super) fn check_kind(kind: &Kind, now_ms: i64) -> Result<(), Status> {
    match kind {
        Kind::Lock(lock) => {
            if let Some(for_ms) = lock.for_ms {
                check_span("lock.for_ms", for_ms, 1, "more than 0, or unset for a lock without an end")?;
            }
            if let Some(problem) = reply_problem(&lock.reply) {
                return Err(Status::invalid_argument(format!("lock.reply {problem}")));
            }
            if v1::QueuedMail::try_from(lock.queued_mail).is_err() {
                let has = format!("is {}", lock.queued_mail);
                return Err(invalid("lock.queued_mail", &has, "keep (1), hold (2), delete (3)"));
            }
            Ok(())
        }
        Kind::Unlock(unlock) => {
            check_span("unlock.probation_ms", unlock.probation_ms.unwrap_or_default(), 0, "0 for none, or more")?;
            let Some(evidence) = &unlock.evidence else { return Ok(()) };
            if !evidence.note.is_empty() {
                text("unlock.evidence.note", &evidence.note, "the evidence", MAX_REASON_OCTETS)?;
            }
            match evidence.password_changed_ms {
                Some(at_ms) if !(0..=now_ms.saturating_add(MAX_AHEAD_MS)).contains(&at_ms) => Err(invalid(
                    "unlock.evidence.password_changed_ms",
                    &format!("is {at_ms}"),
                    "a time that has passed, in milliseconds since 1970 UTC",
                )),
                _ => Ok(()),
            }
        }
        Kind::Exempt(exempt) => {
            if exempt.rules.len() > MAX_RULES {
                return Err(invalid("exempt.rules", &format!("has {} entries", exempt.rules.len()), "at most 100"));
            }
            for rule in &exempt.rules {
                text("exempt.rules", rule, "names of rules", MAX_RULE_OCTETS)?;
            }
            match exempt.until_ms {
                Some(until_ms) if until_ms <= now_ms => Err(invalid(
                    "exempt.until_ms",
                    &format!("is {until_ms}"),
                    "a time to come, in milliseconds since 1970 UTC, or unset for no end",
                )),
                _ => Ok(()),
            }
        }
        Kind::Clear(clear) if !clear.exemptions && !clear.windows => {
            Err(invalid("clear", "asks for nothing", "exemptions, windows or both"))
        }
        Kind::Clear(_) | Kind::Inspect(_) => Ok(()),
    }
}

fn check_span(field: &str, span_ms: i64, least: i64, allowed: &str) -> Result<(), Status> {
    const MAX_SPAN_MS: i64 = 100 * 365 * 24 * 60 * 60 * 1_000;
    if (least..=MAX_SPAN_MS).contains(&span_ms) {
        return Ok(());
    }
    Err(invalid(field, &format!("is {span_ms}"), &format!("{allowed}, at most a hundred years, in milliseconds")))
}

pub(super) fn text(field: &str, value: &str, what: &str, most: usize) -> Result<String, Status> {
    let value = value.trim();
    if value.is_empty() {
        return Err(invalid(field, "is empty", &format!("{what}, in at most {most} octets")));
    }
    if value.len() > most {
        return Err(invalid(field, &format!("has {} octets", value.len()), &format!("at most {most}")));
    }
    if value.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err(invalid(field, "has a control character", "plain text"));
    }
    Ok(value.to_owned())
}

pub(super) fn invalid(field: &str, has: &str, allowed: &str) -> Status {
    Status::invalid_argument(format!("{field} {has}; allowed: {allowed}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::{EXEMPT_ACCOUNT, LOCK_ACCOUNT};

    const NOW_MS: i64 = 1_000_000_000;

    fn asked(kind: Kind) -> Asked {
        Asked {
            account: " Jo@Example.ORG ".into(),
            actor: "amy".into(),
            reason: "reported".into(),
            kind: Some(kind),
            wait_ms: 0,
        }
    }

    fn lock() -> Kind {
        Kind::Lock(v1::LockCommand::default())
    }

    fn checked(asked: Asked) -> Result<Action, String> {
        let config = ControlConfig::default();
        let method = if asked.kind.is_none() { EXEMPT_ACCOUNT } else { LOCK_ACCOUNT };
        check(method, asked, &config, &config.account_form(), NOW_MS).map_err(|status| status.message().to_owned())
    }

    fn problem(asked: Asked) -> String {
        checked(asked).unwrap_err()
    }

    #[test]
    fn accounts_are_read_as_at_the_edges() {
        let action = checked(asked(lock())).unwrap();
        assert_eq!((action.account.as_str(), action.wait), ("jo@example.org", Duration::from_secs(5)));
        let form = AccountForm { default_realm: Some("example.org".into()), lower_case_local_part: true };
        assert_eq!(parse_account("Jo", &form).unwrap().as_str(), "jo@example.org");
        assert_eq!(parse_account("local:www-data", &form).unwrap().as_str(), "local:www-data");
        assert!(parse_account("a b", &form).unwrap_err().message().starts_with("account: "));
    }

    #[test]
    fn who_and_why_are_required() {
        assert!(problem(Asked { actor: " ".into(), ..asked(lock()) }).starts_with("actor is empty; allowed: who asks"));
        assert!(problem(Asked { reason: String::new(), ..asked(lock()) }).starts_with("reason is empty; allowed: why"));
        assert!(problem(Asked { reason: "x".repeat(1001), ..asked(lock()) }).starts_with("reason has 1001 octets"));
        assert_eq!(problem(Asked { wait_ms: 20_001, ..asked(lock()) }), "wait_ms is 20001; allowed: 0 to 20000");
        let nothing = Asked { kind: None, ..asked(lock()) };
        assert!(problem(nothing).starts_with("exempt is not set; allowed: "));
    }

    #[test]
    fn each_kind_is_checked() {
        for (kind, expected) in [
            (Kind::Lock(v1::LockCommand { for_ms: Some(0), ..Default::default() }), "lock.for_ms is 0"),
            (Kind::Lock(v1::LockCommand { reply: "a\r\nb".into(), ..Default::default() }), "lock.reply has a control"),
            (Kind::Lock(v1::LockCommand { queued_mail: 9, ..Default::default() }), "lock.queued_mail is 9"),
            (Kind::Unlock(v1::UnlockCommand { probation_ms: Some(-1), evidence: None }), "unlock.probation_ms is -1"),
            (
                Kind::Unlock(v1::UnlockCommand {
                    evidence: Some(v1::UnlockEvidence { password_changed_ms: Some(NOW_MS * 2), note: String::new() }),
                    probation_ms: Some(0),
                }),
                "unlock.evidence.password_changed_ms is 2000000000",
            ),
            (
                Kind::Exempt(v1::ExemptCommand { rules: Vec::new(), until_ms: Some(NOW_MS) }),
                "exempt.until_ms is 1000000000; allowed: a time to come",
            ),
            (Kind::Exempt(v1::ExemptCommand { rules: vec![String::new()], until_ms: None }), "exempt.rules is empty"),
            (Kind::Clear(v1::ClearCommand::default()), "clear asks for nothing"),
        ] {
            let problem = problem(asked(kind));
            assert!(problem.starts_with(expected), "{problem}");
        }
    }
}
