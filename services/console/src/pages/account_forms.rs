//! The forms that act on an account or on many, and what they become.

use crate::clock;
use crate::fields::Fields;
use maud::{Markup, html};
use tidegate_proto::v1;
use tidegate_proto::v1::QueuedMail;

const HOUR_MS: i64 = 60 * 60 * 1_000;
const LOCK_HOURS: [(i64, &str); 6] =
    [(0, "until somebody unlocks it"), (1, "1 hour"), (4, "4 hours"), (24, "1 day"), (72, "3 days"), (168, "7 days")];
const PROBATION_HOURS: [(i64, &str); 6] =
    [(1, "1 hour"), (24, "1 day"), (72, "3 days"), (168, "7 days"), (720, "30 days"), (0, "none")];
const QUEUED: [(&str, &str, QueuedMail); 3] = [
    ("keep", "deliver it", QueuedMail::Keep),
    ("hold", "hold it until it is released", QueuedMail::Hold),
    ("delete", "delete it", QueuedMail::Delete),
];

/// The field for why. `form` makes its id unique on the page.
pub(super) fn reason(form: &str, typed: &Fields) -> Markup {
    let id = format!("{form}-reason");
    html! {
        label for=(id) { "Reason" }
        textarea id=(id) name="reason" rows="2" required maxlength="1000" { (typed.get("reason")) }
    }
}

/// How to lock.
pub(super) fn lock_fields(form: &str, typed: &Fields) -> Markup {
    let id = |name: &str| format!("{form}-{name}");
    html! {
        label for=(id("hours")) { "For" }
        select id=(id("hours")) name="hours" { (options(&LOCK_HOURS, typed.get("hours"))) }
        label for=(id("queued")) { "Mail that is queued already" }
        select id=(id("queued")) name="queued" {
            @for (value, words, _) in QUEUED { option value=(value) selected[value == typed.get("queued")] { (words) } }
        }
        label for=(id("reply")) { "What the sender is told" }
        input id=(id("reply")) name="reply" maxlength="400" value=(typed.get("reply")) aria-describedby=(id("reply-hint"));
        p.hint id=(id("reply-hint")) { "Left empty: the service's own text." }
    }
}

/// Why it is safe to unlock, and how careful to be afterwards.
pub(super) fn unlock_fields(form: &str, typed: &Fields) -> Markup {
    let id = |name: &str| format!("{form}-{name}");
    html! {
        fieldset {
            legend { "Evidence that the thief no longer knows the password" }
            label for=(id("changed")) { "Password changed at (UTC)" }
            input id=(id("changed")) type="datetime-local" name="changed" value=(typed.get("changed"))
                max=(now_field());
            label for=(id("note")) { "In your words" }
            input id=(id("note")) name="note" maxlength="1000" value=(typed.get("note"))
                placeholder="The user called back, identity checked, …";
        }
        label for=(id("probation")) { "Tighter limits afterwards (probation)" }
        select id=(id("probation")) name="probation" {
            option value="" { "as long as is usual here" }
            (options(&PROBATION_HOURS, typed.get("probation")))
        }
    }
}

fn options(all: &[(i64, &str)], typed: &str) -> Markup {
    html! {
        @for (hours, words) in all { option value=(hours) selected[typed == hours.to_string()] { (words) } }
    }
}

/// Now, as a field of the kind `datetime-local` has it.
pub(super) fn now_field() -> String {
    // A minute ahead, or what is typed now would be too late by the field's own rounding.
    clock::machine(clock::now_ms() + 60_000).map_or_else(String::new, |text| text[..16].to_owned())
}

/// The command that the form's fields ask for.
///
/// # Errors
/// A sentence for who typed it.
pub(super) fn lock_command(fields: &Fields) -> Result<v1::LockCommand, String> {
    let hours = fields.number::<i64>("hours")?.unwrap_or_default();
    let queued = QUEUED.iter().find(|(value, ..)| *value == fields.get("queued")).map_or(QueuedMail::Keep, |q| q.2);
    Ok(v1::LockCommand {
        for_ms: (hours != 0).then(|| hours.saturating_mul(HOUR_MS)),
        reply: fields.get("reply").to_owned(),
        queued_mail: queued.into(),
    })
}

/// The command that the form's fields ask for.
///
/// # Errors
/// A sentence for who typed it.
pub(super) fn unlock_command(fields: &Fields) -> Result<v1::UnlockCommand, String> {
    let hours = fields.number::<i64>("probation")?;
    let password_changed_ms = fields.time("changed")?;
    let note = fields.get("note").to_owned();
    let is_given = password_changed_ms.is_some() || !note.is_empty();
    Ok(v1::UnlockCommand {
        // Whether there must be some is the service's to say.
        evidence: is_given.then_some(v1::UnlockEvidence { password_changed_ms, note }),
        probation_ms: hours.map(|hours| hours.saturating_mul(HOUR_MS)),
    })
}

/// The command that the form's fields ask for.
///
/// # Errors
/// A sentence for who typed it.
pub(super) fn exempt_command(fields: &Fields) -> Result<v1::ExemptCommand, String> {
    Ok(v1::ExemptCommand { rules: fields.all("rule"), until_ms: fields.time("until")? })
}

/// A command in words, for who confirms it.
pub(super) fn lock_words(command: &v1::LockCommand) -> String {
    let span =
        command.for_ms.map_or_else(|| "until somebody unlocks it".to_owned(), |ms| format!("for {}", clock::span(ms)));
    let queued = QUEUED.iter().find(|(.., mail)| i32::from(*mail) == command.queued_mail).map_or("", |q| q.1);
    format!("{span}; queued mail: {queued}")
}

/// A command in words, for who confirms it.
pub(super) fn unlock_words(command: &v1::UnlockCommand) -> String {
    let evidence = command.evidence.clone().unwrap_or_default();
    let changed = evidence.password_changed_ms.map(|at_ms| format!("password changed at {} UTC", clock::human(at_ms)));
    let note = (!evidence.note.is_empty()).then_some(evidence.note);
    let probation = match command.probation_ms {
        None => "the usual probation".to_owned(),
        Some(0) => "no probation".to_owned(),
        Some(ms) => format!("probation for {}", clock::span(ms)),
    };
    changed.into_iter().chain(note).chain([probation]).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_becomes_its_command() {
        let fields = Fields::parse(b"hours=24&queued=hold&reply=Call+us");
        let lock = lock_command(&fields).unwrap();
        assert_eq!((lock.for_ms, lock.queued_mail, lock.reply.as_str()), (Some(86_400_000), 2, "Call us"));
        assert_eq!(lock_words(&lock), "for 24 h; queued mail: hold it until it is released");
        assert_eq!(lock_command(&Fields::default()).unwrap().for_ms, None);

        let fields = Fields::parse(b"changed=2026-11-25T13%3A45&note=called&probation=72");
        let unlock = unlock_command(&fields).unwrap();
        assert_eq!(unlock.probation_ms, Some(72 * HOUR_MS));
        assert_eq!(unlock_words(&unlock), "password changed at 2026-11-25 13:45:00 UTC; called; probation for 3 d");
        let unlock = unlock_command(&Fields::default()).unwrap();
        assert_eq!((unlock_words(&unlock).as_str(), unlock.evidence), ("the usual probation", None));
        assert!(unlock_command(&Fields::parse(b"changed=soon")).unwrap_err().starts_with("changed: "));
    }

    #[test]
    fn a_hostile_draft_stays_text() {
        let fields =
            Fields::parse(b"reason=%3C%2Ftextarea%3E%3Cscript%3E&reply=%22%3E%3Cscript%3E&note=%22%3E%3Cscript%3E");
        for markup in [reason("x", &fields), lock_fields("x", &fields), unlock_fields("x", &fields)] {
            assert!(!markup.into_string().contains("<script"));
        }
    }
}
