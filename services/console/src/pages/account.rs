//! One account: what is, why, since when, and what can be done.

use super::account_forms as forms;
use super::account_parts;
use crate::failure::Failure;
use crate::fields::Fields;
use crate::layout::{Page, Section, actor_field, form_token};
use crate::visitor::Visitor;
use crate::words::{Part, account_path, part};
use axum::extract::RawQuery;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use maud::{Markup, html};
use tidegate_access::Need;
use tidegate_proto::v1::{AccountState, AccountStatus, ListRulesRequest};

/// What was typed into a form that could not be done.
pub(super) struct Draft {
    /// Which: `lock`, `unlock`, `exempt`, `clear`.
    pub form: &'static str,
    /// What was typed.
    pub fields: Fields,
    /// Why it could not be done.
    pub failure: Failure,
}

/// The page.
pub(crate) async fn show(visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes());
    page(&visitor, fields.get("name"), None).await
}

/// The page, with what was typed in vain.
pub(super) async fn page(visitor: &Visitor, name: &str, draft: Option<Draft>) -> Response {
    let rules = async {
        let answer = visitor.calls.list_rules(ListRulesRequest {}).await;
        let sets = answer.map(|answer| answer.rule_sets).unwrap_or_default();
        let mut names: Vec<_> = sets.into_iter().flat_map(|set| set.rules).map(|rule| rule.name).collect();
        names.sort();
        names.dedup();
        names
    };
    let (whole, rules) = tokio::join!(account_parts::whole(visitor, name), rules);
    let (state, parts) = match whole {
        Ok(whole) => whole,
        Err(status) => return visitor.failed(&Failure::from(status).back("/accounts")),
    };
    let status = draft.as_ref().map_or(StatusCode::OK, |draft| draft.failure.status);
    let can_act = visitor.can(Need::Act);
    let body = html! {
        p.path { a href="/accounts" { "Accounts" } " / " }
        h1.account { (state.account) }
        @if let Some(draft) = &draft {
            div.problem role="alert" { strong { (draft.failure.title) ". " } (draft.failure.text) }
        }
        div.with-aside[can_act] {
            div.state { (part(&parts, "state")) }
            @if can_act { aside aria-label="Actions" { (actions(visitor, &state, &rules, draft.as_ref())) } }
            div.rest { (main_column(&parts)) }
        }
    };
    let live = account_path(&state.account);
    let page = Page { title: &state.account, section: Section::Accounts, live: &live, body };
    (status, page.render(visitor)).into_response()
}

fn main_column(parts: &[Part]) -> Markup {
    html! {
        section {
            h2 { "Statistics against limits" }
            (part(parts, "statistics"))
        }
        section { h2 { "Timeline" } (part(parts, "timeline")) }
        section { h2 { "In force at the edges" } (part(parts, "applied")) }
        section { h2 { "Notifications" } (part(parts, "notified")) }
        @if parts.iter().any(|part| part.id == "audited") {
            section { h2 { "Audit of this account" } (part(parts, "audited")) }
        }
    }
}

fn actions(visitor: &Visitor, state: &AccountState, rules: &[String], draft: Option<&Draft>) -> Markup {
    let is_refused =
        matches!(AccountStatus::try_from(state.status), Ok(AccountStatus::Locked | AccountStatus::Throttled));
    let nothing = Fields::default();
    let typed = |form: &str| draft.filter(|draft| draft.form == form).map_or(&nothing, |draft| &draft.fields);
    let is_open = |form: &str, usual: bool| draft.map_or(usual, |draft| draft.form == form);
    let form = |name: &str, title: &str, open: bool, class: &str, button: &str, fields: &Markup| {
        html! {
            details.action open[open] name="action" {
                summary { (title) }
                form method="post" action={ "/account/" (name) } {
                    (form_token(visitor))
                    input type="hidden" name="name" value=(state.account);
                    (fields)
                    (actor_field(visitor, name))
                    button class=(class) type="submit" { (button) }
                }
            }
        }
    };
    let unlock = html! { (forms::reason("unlock", typed("unlock"))) (forms::unlock_fields("unlock", typed("unlock"))) };
    let lock = html! { (forms::reason("lock", typed("lock"))) (forms::lock_fields("lock", typed("lock"))) };
    html! {
        (form("unlock", "Unlock", is_open("unlock", is_refused), "primary", "Unlock", &unlock))
        (form("lock", "Lock", is_open("lock", false), "danger", "Lock", &lock))
        (form("exempt", "Exempt from rules", is_open("exempt", false), "", "Exempt", &exempt(rules, typed("exempt"))))
        (form("clear", "Clear", is_open("clear", false), "", "Clear", &clear(typed("clear"))))
    }
}

fn exempt(rules: &[String], typed: &Fields) -> Markup {
    let chosen = typed.all("rule");
    html! {
        (forms::reason("exempt", typed))
        fieldset {
            legend { "Rules" }
            @for rule in rules {
                label.check {
                    input type="checkbox" name="rule" value=(rule) checked[chosen.contains(rule)]; " " (rule)
                }
            }
            @if rules.is_empty() {
                label for="exempt-rule" { "Name of the rule" }
                input #exempt-rule name="rule" value=(typed.get("rule"));
            }
            p.hint { "None chosen: all rules." }
        }
        label for="exempt-until" { "Until (UTC)" }
        input #exempt-until type="datetime-local" name="until" value=(typed.get("until")) aria-describedby="exempt-hint";
        p #exempt-hint.hint { "Left empty: until it is taken back." }
    }
}

fn clear(typed: &Fields) -> Markup {
    html! {
        (forms::reason("clear", typed))
        fieldset {
            legend { "What" }
            label.check {
                input type="checkbox" name="exemptions" value="yes" checked[typed.has("exemptions")];
                " Take all exemptions back"
            }
            label.check {
                input type="checkbox" name="windows" value="yes" checked[typed.has("windows")];
                " Start a clean slate: mail so far no longer counts"
            }
        }
    }
}
