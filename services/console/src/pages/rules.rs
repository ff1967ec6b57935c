//! The rules in force, what they did or would have done, and the switch.

use super::evidence;
use super::rule_fold::{Folded, FoldedRule, fold};
use crate::clock;
use crate::failure::Failure;
use crate::layout::{Page, Section, actor_field, form_token};
use crate::visitor::{Form, Visitor};
use crate::words::{self, Part, part};
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use tidegate_access::Need;
use tidegate_proto::v1;
use tonic::Status;

/// The page.
pub(crate) async fn show(visitor: Visitor) -> Response {
    let answer = match visitor.calls.list_rules(v1::ListRulesRequest {}).await {
        Ok(answer) => answer,
        Err(status) => return visitor.failed(&status.into()),
    };
    let folded = fold(&answer.rule_sets);
    let parts = render(&folded);
    let body = html! {
        h1 { "Rules" }
        @if visitor.can(Need::Administer) && !visitor.is_limited() { (switches(&visitor, &folded)) }
        (part(&parts, "rules"))
    };
    Page { title: "Rules", section: Section::Rules, live: "/rules", body }.render(&visitor).into_response()
}

/// What of it can change.
pub(super) async fn parts(visitor: &Visitor) -> Result<Vec<Part>, Status> {
    let answer = visitor.calls.list_rules(v1::ListRulesRequest {}).await?;
    Ok(render(&fold(&answer.rule_sets)))
}

/// Switches a rule off or on.
pub(crate) async fn switch(form: Form) -> Response {
    let Form { visitor, fields } = form;
    let rule = fields.get("rule").to_owned();
    let off = fields.get("to") == "off";
    let request = v1::SwitchRuleRequest {
        rule: rule.clone(),
        off,
        actor: visitor.actor(&fields),
        reason: fields.get("reason").to_owned(),
        wait_ms: 0,
    };
    match visitor.calls.switch_rule(request).await {
        Ok(answer) => {
            let to = if off { "off" } else { "on, as its file says" };
            let note = if answer.applied {
                format!("The rule {rule} is switched {to}.")
            } else {
                format!("The rule {rule} will be switched {to}: it is durable, but not all workers have it yet.")
            };
            visitor.done("/rules", note)
        }
        Err(status) => visitor.failed(&Failure::from(status).back("/rules")),
    }
}

fn render(folded: &Folded) -> Vec<Part> {
    vec![Part { id: "rules", markup: whole(folded) }]
}

fn whole(folded: &Folded) -> Markup {
    if folded.versions.is_empty() {
        return words::nothing("No worker has told its rules yet.");
    }
    html! {
        @for problem in &folded.problems {
            div.problem { strong { "A rules file was not taken. " } (problem) }
        }
        @if folded.versions.len() > 1 {
            p.note { "A change is spreading: partitions have " (folded.versions.len()) " versions." }
        }
        p {
            @if folded.is_mixed { strong { "Some workers only observe, others act. " } }
            @else if folded.is_observing { strong { "Observe mode: rules are counted and do nothing. " } }
            @else { "Rules act. " }
            "Version " code { (folded.versions[0].0) } ", in force since " (words::time(folded.since_ms)) "."
        }
        @for rule in &folded.rules { (one(rule)) }
        @if !folded.limits.is_empty() {
            section {
                h2 { "Limits that predicates name" }
                (words::table("Limits", &html! {
                    thead { tr { th scope="col" { "Name" } th.number scope="col" { "Default" } } }
                    tbody { @for (name, limit) in &folded.limits {
                        tr { th scope="row" { code { "$" (name) } } td.number { (words::number(*limit)) } }
                    } }
                }))
            }
        }
    }
}

fn one(folded: &FoldedRule) -> Markup {
    let rule = &folded.rule;
    html! {
        article.rule-card aria-label={ "Rule " (rule.name) } {
            h2 { (rule.name) " " span class={ "action-word " (rule.action) } { (rule.action) }
                @if rule.switched_off { " " span.mark.bad { "switched off" } }
                @else if !rule.enabled { " " span.mark { "off in its file" } }
            }
            pre tabindex="0" role="region" aria-label={ "Predicate of " (rule.name) } { code { (rule.predicate) } }
            dl.facts {
                @if !rule.reason.is_empty() { div { dt { "Reason" } dd { (rule.reason) } } }
                @if !rule.reply.is_empty() { div { dt { "The sender is told" } dd { (rule.reply) } } }
                @if let Some(for_ms) = rule.for_ms { div { dt { "For" } dd { (clock::span(for_ms)) } } }
                @if !rule.domains.is_empty() { div { dt { "Only for" } dd { (rule.domains.join(", ")) } } }
                @if !rule.source.is_empty() { div { dt { "Source of the limit" } dd { (rule.source) } } }
                div {
                    dt { "Held" }
                    dd {
                        (words::count(folded.matches, "time", "times")) " since the workers started"
                        @if folded.last_ms > 0 { ", last " (words::short_time(folded.last_ms)) }
                    }
                }
            }
            @if folded.would_have > 0 {
                p.would { "Would have " (past(&rule.action)) " " strong { (words::count(folded.would_have as u64, "account", "accounts")) }
                    " of the newest matches." }
            }
            @if !folded.recent.is_empty() {
                details {
                    summary { "Newest matches" }
                    (words::table(&format!("Newest matches of {}", rule.name), &html! {
                        thead { tr {
                            th scope="col" { "Account" } th scope="col" { "When" } th scope="col" { "What" }
                            th scope="col" { "Evidence" }
                        } }
                        tbody { @for held in &folded.recent {
                            tr {
                                th scope="row" { (words::account(&held.account)) }
                                td.time { (words::short_time(held.at_ms)) }
                                td { @if held.observed { "would have " } (past(&held.action)) }
                                td { (evidence::columns(&held.evidence)) }
                            }
                        } }
                    }))
                }
            }
        }
    }
}

fn past(action: &str) -> &str {
    match action {
        "lock" => "locked",
        "throttle" => "throttled",
        "notify" => "notified",
        "observe" => "observed",
        other => other,
    }
}

fn switches(visitor: &Visitor, folded: &Folded) -> Markup {
    html! {
        details.action {
            summary { "Switch a rule off or on…" }
            form.narrow method="post" action="/rules/switch" {
                (form_token(visitor))
                label for="switch-rule" { "Rule" }
                select #switch-rule name="rule" required {
                    @for FoldedRule { rule, .. } in &folded.rules {
                        option value=(rule.name) { (rule.name) @if rule.switched_off { " (switched off)" } }
                    }
                }
                fieldset {
                    legend { "To" }
                    label.check { input type="radio" name="to" value="off" checked; " off, whatever its file says" }
                    label.check { input type="radio" name="to" value="on"; " as its file says" }
                }
                (super::account_forms::reason("switch", &crate::fields::Fields::default()))
                (actor_field(visitor, "switch"))
                button.danger type="submit" { "Switch" }
                p.hint {
                    "Accounts that it locked stay locked; unlock them from the "
                    a href="/accounts?status=refused" { "accounts" } ", filtered by the rule."
                }
            }
        }
    }
}
