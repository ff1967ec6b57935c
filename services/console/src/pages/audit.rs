//! The audit: who asked what, whether it was allowed, and what came of it.

use super::View;
use crate::failure::Failure;
use crate::fields::{Fields, link};
use crate::layout::{Page, Section};
use crate::visitor::Visitor;
use crate::words::{self, Part, part};
use axum::extract::RawQuery;
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use std::collections::HashSet;
use tidegate_proto::v1;
use tonic::Status;

const PAGE_SIZE: u32 = 100;
/// The result of a record that is written before an act.
const ASKED: &str = "asked";

/// Which records, and which page of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    actor: String,
    account: String,
    method: String,
    denied: bool,
    all: bool,
    since: String,
    until: String,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
    page: String,
}

impl Query {
    /// Reads it.
    ///
    /// # Errors
    /// A sentence for who typed it.
    pub fn parse(fields: &Fields) -> Result<Self, String> {
        let text = |name: &str| fields.get(name).to_owned();
        Ok(Self {
            actor: text("actor"),
            account: text("account"),
            method: text("method"),
            denied: fields.has("denied"),
            all: fields.has("all"),
            since: text("since"),
            until: text("until"),
            since_ms: fields.time("since")?,
            until_ms: fields.time("until")?,
            page: text("page"),
        })
    }

    /// Which records.
    pub fn filter(&self) -> v1::AuditFilter {
        v1::AuditFilter {
            actor: self.actor.clone(),
            account: self.account.clone(),
            method: self.method.clone(),
            denied: self.denied,
            since_ms: self.since_ms,
            until_ms: self.until_ms,
            // Mere looking fills pages; who is denied is told of in any case.
            actions: !self.all && !self.denied,
        }
    }

    fn path(&self, page: &str) -> String {
        let flag = |set: bool| if set { "yes" } else { "" };
        link(
            "/audit",
            &[
                ("actor", &self.actor),
                ("account", &self.account),
                ("method", &self.method),
                ("denied", flag(self.denied)),
                ("all", flag(self.all)),
                ("since", &self.since),
                ("until", &self.until),
                ("page", page),
            ],
        )
    }
}

/// The page.
pub(crate) async fn show(visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes());
    let query = match Query::parse(&fields) {
        Ok(query) => query,
        Err(problem) => return visitor.failed(&Failure::invalid(problem).back("/audit")),
    };
    let parts = match View::Audit(query.clone()).parts(&visitor).await {
        Ok(parts) => parts,
        Err(status) => {
            // Who may not see it at all is not led back to it.
            let back = if status.code() == tonic::Code::PermissionDenied { "/" } else { "/audit" };
            return visitor.failed(&Failure::from(status).back(back));
        }
    };
    let live = query.path(&query.page);
    let body = html! {
        h1 { "Audit" }
        (filter_form(&query))
        (part(&parts, "records"))
    };
    Page { title: "Audit", section: Section::Audit, live: &live, body }.render(&visitor).into_response()
}

/// What of it can change.
pub(super) async fn parts(visitor: &Visitor, query: &Query) -> Result<Vec<Part>, Status> {
    let request =
        v1::ListAuditRequest { filter: Some(query.filter()), page_size: PAGE_SIZE, page_token: query.page.clone() };
    let answer = visitor.calls.list_audit(request).await?;
    let markup = html! {
        (records(&answer.records, true))
        nav.pages aria-label="Pages" {
            @if !query.page.is_empty() { a.button href=(query.path("")) { "First page" } }
            @if !answer.next_page_token.is_empty() {
                a.button rel="next" href=(query.path(&answer.next_page_token)) { "Next page" }
            }
        }
        @if let Some(oldest_ms) = answer.oldest_ms {
            p.hint { "At hand since " (words::time(oldest_ms)) ". What is older is in the history." }
        }
    };
    Ok(vec![Part { id: "records", markup }])
}

/// The records as a table; with the accounts where they differ.
pub(super) fn records(records: &[v1::AuditRecord], with_account: bool) -> Markup {
    if records.is_empty() {
        return words::nothing("No record fits.");
    }
    words::cards(
        "Audit records",
        &html! {
            thead { tr {
                th scope="col" { "When" } th scope="col" { "Who" } th scope="col" { "What" }
                @if with_account { th scope="col" { "Account" } }
                th scope="col" { "Outcome" } th scope="col" { "Reason" } th scope="col" { "From" }
            } }
            tbody { @for record in one_of_each(records) { (row(record, with_account)) } }
        },
    )
}

/// Without the records that a command was asked for, where there is one of what came of it: an act is recorded before
/// and after.
fn one_of_each(records: &[v1::AuditRecord]) -> impl Iterator<Item = &v1::AuditRecord> {
    let ended: HashSet<&str> =
        records.iter().filter(|record| record.result != ASKED).map(|record| record.command_id.as_str()).collect();
    records.iter().filter(move |record| {
        record.result != ASKED || record.command_id.is_empty() || !ended.contains(record.command_id.as_str())
    })
}

fn row(record: &v1::AuditRecord, with_account: bool) -> Markup {
    let method = record.method.rsplit('/').next().unwrap_or_default();
    let states = [record.before.as_ref(), record.after.as_ref()].map(|state| state.map(|state| state.status));
    html! {
        tr {
            td.time { (words::time(record.time_ms)) }
            td { span.actor { (record.actor) } " " span.role { (record.role) } }
            th scope="row" {
                span title=(record.method) { (method) }
                @if !record.request.is_empty() { " " span.hint { (record.request) } }
            }
            @if with_account { td { @if !record.account.is_empty() { (words::account(&record.account)) } } }
            td {
                @if record.allowed { @if record.result.is_empty() { "done" } @else { (record.result) } }
                @else { span.bad { "⚠ denied" } @if !record.result.is_empty() { ": " (record.result) } }
                @if let [Some(before), Some(after)] = states && before != after {
                    " " span.hint { (words::status_word(before)) " → " (words::status_word(after)) }
                }
            }
            td.why { (record.reason) }
            td { code { (record.peer) } }
        }
    }
}

fn filter_form(query: &Query) -> Markup {
    let text = |name: &str, label: &str, value: &str, first: bool| {
        html! {
            div {
                label for=(name) { (label) }
                input id=(name) name=(name) value=(value) data-first[first] autocapitalize="none" spellcheck="false";
            }
        }
    };
    html! {
        form.filter method="get" action="/audit" role="search" aria-label="Filter" data-filter="records" {
            (text("actor", "Who", &query.actor, true))
            (text("account", "Account", &query.account, false))
            (text("method", "Method contains", &query.method, false))
            div {
                label for="since" { "From (UTC)" }
                input #since type="datetime-local" name="since" value=(query.since);
            }
            div {
                label for="until" { "Before (UTC)" }
                input #until type="datetime-local" name="until" value=(query.until);
            }
            div.end {
                label.check { input type="checkbox" name="denied" value="yes" checked[query.denied]; " denied only" }
                label.check { input type="checkbox" name="all" value="yes" checked[query.all]; " mere looking too" }
                button.primary type="submit" { "Filter" }
                a href="/audit" { "Reset" }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_becomes_a_filter_and_its_own_address() {
        let read = |text: &str| Query::parse(&Fields::parse(text.as_bytes()));
        let query = read("actor=amy&account=jo%40x&denied=yes&since=2026-11-25T13%3A45&page=p").unwrap();
        let filter = query.filter();
        assert_eq!((filter.actor.as_str(), filter.account.as_str(), filter.denied), ("amy", "jo@x", true));
        assert_eq!((filter.since_ms, filter.until_ms, filter.actions), (Some(1_795_614_300_000), None, false));
        assert_eq!(read(query.path("p").split_once('?').unwrap().1).unwrap(), query);
        assert!(read("").unwrap().filter().actions, "mere looking is left out unless asked for");
        assert!(read("since=soon").is_err());
    }

    #[test]
    fn an_act_that_is_over_is_one_line() {
        let record = |command_id: &str, result: &str| v1::AuditRecord {
            command_id: command_id.into(),
            result: result.into(),
            ..v1::AuditRecord::default()
        };
        let records = [record("a", ""), record("a", ASKED), record("b", ASKED), record("", ASKED), record("", "")];
        let shown: Vec<_> = one_of_each(&records).map(|record| (&*record.command_id, &*record.result)).collect();
        assert_eq!(shown, [("a", ""), ("b", ASKED), ("", ASKED), ("", "")], "what is not over is shown");
    }

    #[test]
    fn hostile_records_stay_text() {
        let script = "<script>alert(1)</script>".to_owned();
        let record = v1::AuditRecord {
            actor: script.clone(),
            role: script.clone(),
            peer: script.clone(),
            method: script.clone(),
            account: script.clone(),
            reason: script.clone(),
            result: script.clone(),
            request: script,
            ..v1::AuditRecord::default()
        };
        assert!(!records(&[record], true).into_string().contains("<script"));
    }
}
