//! Many accounts at once: choose, try, confirm, watch.

use super::account_forms as forms;
use super::accounts::Query;
use crate::bulk::{BulkAction, Progress, Tally};
use crate::failure::Failure;
use crate::fields::{Fields, link};
use crate::layout::{Page, Section, actor_field, form_token};
use crate::visitor::{Form, Visitor};
use crate::words::{self, Part, part};
use axum::extract::RawQuery;
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use std::sync::Arc;
use tidegate_proto::v1;
use tidegate_proto::v1::act_on_many_request::Kind;

/// The page to paste a list on.
pub(crate) async fn show(visitor: Visitor) -> Response {
    let body = html! {
        h1 { "Act on a list of accounts" }
        form.narrow method="post" action="/bulk" {
            (form_token(&visitor))
            input type="hidden" name="scope" value="pasted";
            label for="pasted" { "Accounts, one on each line" }
            textarea #pasted name="pasted" rows="10" required spellcheck="false" autocapitalize="none" {}
            div.row {
                button type="submit" name="what" value="unlock" { "Unlock…" }
                button type="submit" name="what" value="lock" { "Lock…" }
            }
            p.hint { "A dry run comes first." }
        }
    };
    Page { title: "Act on a list", section: Section::Accounts, live: "", body }.render(&visitor).into_response()
}

/// Somebody chose accounts and what to do: asks how.
pub(crate) async fn choose(form: Form) -> Response {
    let Form { visitor, fields } = form;
    match chosen(&fields) {
        Ok(chosen) => how(&visitor, &fields, &chosen, None),
        Err(failure) => visitor.failed(&failure.back("/accounts")),
    }
}

/// Asks what it would do, and keeps it to be confirmed.
pub(crate) async fn dry_run(form: Form) -> Response {
    let Form { visitor, fields } = form;
    let chosen = match chosen(&fields) {
        Ok(chosen) => chosen,
        Err(failure) => return visitor.failed(&failure.back("/accounts")),
    };
    let prepared = async {
        let kind = match fields.get("what") {
            "lock" => Kind::Lock(forms::lock_command(&fields)?),
            _ => Kind::Unlock(forms::unlock_command(&fields)?),
        };
        let request = v1::ActOnManyRequest {
            accounts: chosen.accounts.clone(),
            filter: chosen.query.as_ref().map(Query::filter),
            locked_since_ms: fields.time("locked-since")?,
            dry_run: true,
            expected_count: None,
            actor: visitor.actor(&fields),
            reason: fields.get("reason").to_owned(),
            kind: Some(kind),
        };
        visitor.app.bulk.prepare(&visitor.calls, &visitor.who.name, request).await
    };
    match prepared.await {
        Ok(action) => visitor.done(&path(&action.id), "This is a dry run: nothing was done yet.".to_owned()),
        Err(failure) if failure.status == http::StatusCode::UNAUTHORIZED => visitor.failed(&failure),
        Err(failure) => how(&visitor, &fields, &chosen, Some(&failure)),
    }
}

/// A bulk action: what it would do, or how far it is.
pub(crate) async fn action(visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes());
    let Some(action) = visitor.app.bulk.find(fields.get("id"), &visitor.who.name) else {
        return visitor.failed(&gone());
    };
    let is_prepared = matches!(action.progress(), Progress::Prepared);
    let parts = parts(&visitor, &action.id);
    let path = path(&action.id);
    let body = html! {
        p.path { a href="/accounts" { "Accounts" } " / " }
        h1 { (title(&action)) }
        dl.facts {
            div { dt { (if is_lock(&action.request) { "How" } else { "Evidence and probation" }) } dd { (command_words(&action.request)) } }
            div { dt { "Reason" } dd { (action.request.reason) } }
        }
        (part(&parts, "progress"))
        @if is_prepared { (confirm_form(&visitor, &action)) } @else {
            noscript { p { a.button href=(path) { "See how far it is" } } }
        }
    };
    let live = if is_prepared { "" } else { &path };
    let page = Page { title: title(&action), section: Section::Accounts, live, body };
    page.render(&visitor).into_response()
}

/// Does it.
pub(crate) async fn confirm(form: Form) -> Response {
    let Form { visitor, fields } = form;
    let Some(action) = visitor.app.bulk.find(fields.get("id"), &visitor.who.name) else {
        return visitor.failed(&gone());
    };
    if fields.get("expected") != action.planned.total.to_string() {
        return visitor
            .failed(&Failure::invalid("The number of accounts is not the one of the dry run.").back(path(&action.id)));
    }
    action.confirm(visitor.calls.clone(), visitor.app.ending.clone());
    axum::response::Redirect::to(&path(&action.id)).into_response()
}

/// What of it can change.
pub(super) fn parts(visitor: &Visitor, id: &str) -> Vec<Part> {
    let markup = match visitor.app.bulk.find(id, &visitor.who.name) {
        Some(action) => progress(&action),
        None => words::nothing("This bulk action is no longer kept. The audit has it."),
    };
    vec![Part { id: "progress", markup }]
}

/// Whether it changes no more.
pub(super) fn is_over(visitor: &Visitor, id: &str) -> bool {
    let action = visitor.app.bulk.find(id, &visitor.who.name);
    action.is_none_or(|action| matches!(action.progress(), Progress::Over(..)))
}

/// Which accounts.
struct Chosen {
    /// These.
    accounts: Vec<String>,
    /// Or those that it finds.
    query: Option<Query>,
}

fn chosen(fields: &Fields) -> Result<Chosen, Failure> {
    if fields.get("scope") == "filter" {
        let query = Query::parse(fields)?;
        if query.filter() == v1::AccountFilter::default() {
            return Err(Failure::invalid(
                "The filter is empty, which would be everybody. Set it, and then take what it finds.",
            ));
        }
        return Ok(Chosen { accounts: Vec::new(), query: Some(query) });
    }
    let pasted = fields.get("pasted").lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut accounts = fields.all("account");
    accounts.extend(pasted.map(str::to_owned));
    if accounts.is_empty() {
        return Err(Failure::invalid("No account is chosen. Choose some, or take all that the filter finds."));
    }
    Ok(Chosen { accounts, query: None })
}

fn how(visitor: &Visitor, fields: &Fields, chosen: &Chosen, failure: Option<&Failure>) -> Response {
    let is_lock = fields.get("what") == "lock";
    let verb = if is_lock { "Lock" } else { "Unlock" };
    let which = match &chosen.query {
        Some(query) => query.words(),
        None => words::count(chosen.accounts.len() as u64, "account", "accounts"),
    };
    let title = format!("{verb} {which}");
    let body = html! {
        p.path { a href="/accounts" { "Accounts" } " / " }
        h1 { (title) }
        @if let Some(failure) = failure { div.problem role="alert" { strong { (failure.title) ". " } (failure.text) } }
        form.narrow method="post" action="/bulk/dry-run" {
            (form_token(visitor))
            input type="hidden" name="what" value=(fields.get("what"));
            @match &chosen.query {
                Some(query) => { input type="hidden" name="scope" value="filter"; (query.hidden()) }
                None => { textarea.hidden name="pasted" aria-hidden="true" tabindex="-1" { (chosen.accounts.join("\n")) } }
            }
            (forms::reason("bulk", fields))
            @if is_lock { (forms::lock_fields("bulk", fields)) } @else {
                (forms::unlock_fields("bulk", fields))
                label for="bulk-locked-since" { "Only those locked since (UTC)" }
                input #bulk-locked-since type="datetime-local" name="locked-since" value=(fields.get("locked-since"))
                    max=(forms::now_field()) aria-describedby="bulk-since-hint";
                p #bulk-since-hint.hint { "Left empty: whenever they were locked." }
            }
            (actor_field(visitor, "bulk"))
            button.primary type="submit" { "Try without doing it" }
        }
    };
    let status = failure.map_or(http::StatusCode::OK, |failure| failure.status);
    let page = Page { title: &title, section: Section::Accounts, live: "", body };
    (status, page.render(visitor)).into_response()
}

fn confirm_form(visitor: &Visitor, action: &Arc<BulkAction>) -> Markup {
    let possible = action.planned.possible();
    let verb = if is_lock(&action.request) { "Lock" } else { "Unlock" };
    let class = if is_lock(&action.request) { "danger" } else { "primary" };
    html! {
        @if possible == 0 {
            p { "There is nothing to do. " a.button href="/accounts" { "Back" } }
        } @else {
            form.row method="post" action="/bulk/action" {
                (form_token(visitor))
                input type="hidden" name="id" value=(action.id);
                input type="hidden" name="expected" value=(action.planned.total);
                button class=(class) type="submit" { (verb) " " (words::count(possible, "account", "accounts")) }
                a.button href="/accounts" { "Leave it" }
            }
            p.hint { "If it has become other accounts by then, nothing is done." }
        }
    }
}

fn progress(action: &BulkAction) -> Markup {
    match action.progress() {
        Progress::Prepared => html! {
            p.headline { "Of " (words::count(action.planned.total, "account", "accounts")) ", "
                strong { (words::grouped(action.planned.possible())) } " would be changed, "
                (words::grouped(action.planned.refused)) " not." }
            (details(&action.planned))
        },
        Progress::Running(tally) => html! { (bar("Working", &tally)) (refusals(&tally)) },
        Progress::Over(tally, None) => html! { (bar("Done", &tally)) (details(&tally)) },
        Progress::Over(tally, Some(failure)) => html! {
            div.problem role="alert" { strong { (failure.title) ". " } (failure.text) }
            (bar("Stopped", &tally))
            (details(&tally))
        },
    }
}

fn bar(word: &str, tally: &Tally) -> Markup {
    let so_far = tally.done + tally.refused;
    html! {
        p.headline {
            strong { (word) ": " } (words::grouped(tally.done)) " of " (words::count(tally.total, "account", "accounts"))
            @if tally.refused > 0 { ", " (words::grouped(tally.refused)) " could not be done" }
        }
        progress max=(tally.total.max(1)) value=(so_far) aria-label="Progress" {}
    }
}

fn details(tally: &Tally) -> Markup {
    html! {
        @if !tally.steps.is_empty() {
            ul { @for ((before, after), number) in &tally.steps {
                li { (words::count(*number, "account", "accounts")) ": " (words::status_word(*before)) " → " (words::status_word(*after)) }
            } }
        }
        (refusals(tally))
        @if !tally.examples.is_empty() {
            details {
                summary { "Accounts" @if tally.possible() > tally.examples.len() as u64 { ", the first " (tally.examples.len()) } }
                ul.names { @for outcome in &tally.examples { li { (words::account(&outcome.account)) } } }
            }
        }
    }
}

fn refusals(tally: &Tally) -> Markup {
    html! {
        @if !tally.refusals.is_empty() {
            details open {
                summary { "Not to be done" @if tally.refused > tally.refusals.len() as u64 { ", the first " (tally.refusals.len()) } }
                (words::table("Not to be done", &html! {
                    thead { tr { th scope="col" { "Account" } th scope="col" { "Why" } } }
                    tbody { @for outcome in &tally.refusals {
                        tr { th scope="row" { (words::account(&outcome.account)) } td { (outcome.refused) } }
                    } }
                }))
            }
        }
    }
}

fn title(action: &BulkAction) -> &'static str {
    if is_lock(&action.request) { "Lock many accounts" } else { "Unlock many accounts" }
}

fn is_lock(request: &v1::ActOnManyRequest) -> bool {
    matches!(request.kind, Some(Kind::Lock(_)))
}

fn command_words(request: &v1::ActOnManyRequest) -> String {
    match &request.kind {
        Some(Kind::Lock(lock)) => forms::lock_words(lock),
        Some(Kind::Unlock(unlock)) => forms::unlock_words(unlock),
        None => String::new(),
    }
}

fn path(id: &str) -> String {
    link("/bulk/action", &[("id", id)])
}

fn gone() -> Failure {
    Failure::not_found("This bulk action is not kept, or is somebody else's. The audit has what was done.")
        .back("/accounts")
}
