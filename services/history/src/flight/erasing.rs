//! The action by which an administrator has an account forgotten.

use super::asked::Desk;
use crate::hex::hex;
use crate::tables::Table;
use crate::upkeep::Eraser;
use arrow_flight::{Action, ActionType};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidegate_access::Need;
use tidegate_domain::Account;
use tidegate_runtime::error_line;
use tonic::{Request, Status};

/// Name of the action.
pub(super) const ERASE: &str = "tidegate.erase";
const METHOD: &str = "tidegate.history/EraseAccount";

/// What the action is told, as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EraseRequest {
    account: String,
    reason: String,
}

pub(super) fn action_type() -> ActionType {
    ActionType {
        r#type: ERASE.to_owned(),
        description: "Forgets an account. Body: JSON with account and reason; answers: JSON, one for each table."
            .to_owned(),
    }
}

/// As accounts stand in the tables; whether the local part is in lower case is the provider's affair.
fn with_lower_domain(account: &str) -> String {
    match account.rsplit_once('@') {
        Some((local, domain)) => format!("{local}@{}", domain.to_lowercase()),
        None => account.to_owned(),
    }
}

/// Forgets the account that the action names, one table after the other; each tells what became of it.
pub(super) async fn erase(
    eraser: &Eraser,
    desk: &Desk,
    request: Request<Action>,
) -> Result<BoxStream<'static, Result<arrow_flight::Result, Status>>, Status> {
    let wrong = |why: String| Status::invalid_argument(format!("the body of the action {ERASE} is wrong: {why}"));
    let parsed: Result<EraseRequest, _> = serde_json::from_slice(&request.get_ref().body);
    let asked = desk.admit_to(&request, METHOD, Need::Administer, "").await?;
    if !asked.asker.scope.is_all() {
        return Err(desk.deny(asked, "this concerns all tables; you are limited to domains".to_owned()).await);
    }
    let EraseRequest { account, reason } = parsed.map_err(|error| wrong(error.to_string()))?;
    let account = Account::parse(&with_lower_domain(&account)).map_err(|error| wrong(error.to_string()))?;
    if reason.trim().is_empty() {
        return Err(wrong("reason must be set".to_owned()));
    }
    // The audit must not name again who is to be forgotten: who knows the name can prove that it was this one.
    let digest = hex(&Sha256::digest(account.as_str()));
    let asked = asked.about(&format!("forgot the account whose name has the SHA-256 {digest}"));
    desk.write(&asked, "", reason.trim()).await?;
    let eraser = eraser.clone();
    let each = futures::stream::iter(Table::ALL).then(move |table| {
        let (eraser, account) = (eraser.clone(), account.clone());
        async move {
            let erased = eraser.erase(table, &account).await;
            let erased = erased.map_err(|error| Status::unavailable(error_line(&error)))?;
            let body = serde_json::to_vec(&erased).map_err(|error| Status::internal(error.to_string()))?;
            Ok(arrow_flight::Result { body: body.into() })
        }
    });
    Ok(each.boxed())
}
