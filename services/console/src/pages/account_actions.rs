//! What the forms on an account's page do.

use super::account::{Draft, page};
use super::account_forms as forms;
use crate::failure::Failure;
use crate::visitor::Form;
use crate::words::{account_path, status_word};
use axum::response::Response;
use tidegate_proto::v1;

/// The state that came of it, and whether it reflects the command.
type Done = (Option<v1::AccountState>, bool);

/// Refuses the account's mail.
pub(crate) async fn lock(form: Form) -> Response {
    let done = async {
        let request = v1::LockAccountRequest {
            account: form.fields.get("name").to_owned(),
            actor: form.visitor.actor(&form.fields),
            reason: form.fields.get("reason").to_owned(),
            lock: Some(forms::lock_command(&form.fields)?),
            wait_ms: 0,
        };
        let answer = form.visitor.calls.lock_account(request).await?;
        Ok((answer.state, answer.applied))
    };
    let done = done.await;
    answer(form, "lock", done).await
}

/// Lets its mail flow again.
pub(crate) async fn unlock(form: Form) -> Response {
    let done = async {
        let request = v1::UnlockAccountRequest {
            account: form.fields.get("name").to_owned(),
            actor: form.visitor.actor(&form.fields),
            reason: form.fields.get("reason").to_owned(),
            unlock: Some(forms::unlock_command(&form.fields)?),
            wait_ms: 0,
        };
        let answer = form.visitor.calls.unlock_account(request).await?;
        Ok((answer.state, answer.applied))
    };
    let done = done.await;
    answer(form, "unlock", done).await
}

/// Lets rules pass it by.
pub(crate) async fn exempt(form: Form) -> Response {
    let done = async {
        let request = v1::ExemptAccountRequest {
            account: form.fields.get("name").to_owned(),
            actor: form.visitor.actor(&form.fields),
            reason: form.fields.get("reason").to_owned(),
            exempt: Some(forms::exempt_command(&form.fields)?),
            wait_ms: 0,
        };
        let answer = form.visitor.calls.exempt_account(request).await?;
        Ok((answer.state, answer.applied))
    };
    let done = done.await;
    answer(form, "exempt", done).await
}

/// Forgets about it.
pub(crate) async fn clear(form: Form) -> Response {
    let done = async {
        let request = v1::ClearAccountRequest {
            account: form.fields.get("name").to_owned(),
            actor: form.visitor.actor(&form.fields),
            reason: form.fields.get("reason").to_owned(),
            clear: Some(v1::ClearCommand {
                exemptions: form.fields.has("exemptions"),
                windows: form.fields.has("windows"),
            }),
            wait_ms: 0,
        };
        let answer = form.visitor.calls.clear_account(request).await?;
        Ok((answer.state, answer.applied))
    };
    let done = done.await;
    answer(form, "clear", done).await
}

/// Back to the account, with what came of it; or with what was typed, when it could not be done.
async fn answer(form: Form, name: &'static str, done: Result<Done, Failure>) -> Response {
    let account = form.fields.get("name").to_owned();
    match done {
        Ok((state, true)) => {
            let now = state.map_or("unknown", |state| status_word(state.status));
            form.visitor.done(&account_path(&account), format!("Done. The account is {now}."))
        }
        Ok((_, false)) => {
            let note = "Accepted, but not seen to be applied yet. It is durable and will be applied.";
            form.visitor.done(&account_path(&account), note.to_owned())
        }
        Err(failure) if failure.status == http::StatusCode::UNAUTHORIZED => form.visitor.failed(&failure),
        Err(failure) => {
            let Form { visitor, fields } = form;
            page(&visitor, &account, Some(Draft { form: name, fields, failure })).await
        }
    }
}
