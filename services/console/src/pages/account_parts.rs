//! What of an account's page can change.

use super::{evidence, shown};
use crate::clock;
use crate::visitor::Visitor;
use crate::words::{self, Part};
use maud::{Markup, html};
use tidegate_access::Need;
use tidegate_proto::v1;
use tidegate_proto::v1::{AccountStatus, NotificationStatus};
use tonic::Status;

/// Points of the past that are drawn.
const POINTS: u32 = 120;
/// The statistics' owner may be busy; the page does not wait longer, in milliseconds.
const INSPECT_WAIT_MS: u32 = 2_000;
/// Notifications and audit records that are shown.
const RECORDS: u32 = 20;
/// Plots that are shown.
const MAX_PLOTS: usize = 12;

/// What of the page of `name` can change.
pub(super) async fn parts(visitor: &Visitor, name: &str) -> Result<Vec<Part>, Status> {
    Ok(whole(visitor, name).await?.1)
}

/// The same with the account's state.
pub(super) async fn whole(visitor: &Visitor, name: &str) -> Result<(v1::AccountState, Vec<Part>), Status> {
    let calls = &visitor.calls;
    let account = || name.to_owned();
    let inspect = v1::InspectAccountRequest { account: account(), points: POINTS, wait_ms: INSPECT_WAIT_MS };
    let notifications = v1::ListNotificationsRequest {
        account: account(),
        page_size: RECORDS,
        ..v1::ListNotificationsRequest::default()
    };
    let audit = v1::ListAuditRequest {
        filter: Some(v1::AuditFilter { account: account(), actions: true, ..v1::AuditFilter::default() }),
        page_size: RECORDS,
        page_token: String::new(),
    };
    // Who may not see the audit is not refused, and audited for it, with every page.
    let may_see_audit = visitor.can(Need::Administer);
    let audit = async { if may_see_audit { Some(calls.list_audit(audit).await) } else { None } };
    let (account, inspected, notified, audited) = tokio::join!(
        calls.get_account(v1::GetAccountRequest { account: account() }),
        calls.inspect_account(inspect),
        calls.list_notifications(notifications),
        audit,
    );
    let v1::GetAccountResponse { state, edges } = account?;
    let state = state.unwrap_or_else(|| v1::AccountState { account: name.to_owned(), ..Default::default() });
    let mut parts = vec![
        Part { id: "state", markup: state_markup(&state) },
        Part {
            id: "statistics",
            markup: shown("Statistics", inspected, |answer| statistics(&answer.inspection.unwrap_or_default()))?,
        },
        Part { id: "timeline", markup: timeline(&state) },
        Part { id: "applied", markup: applied(&edges) },
        Part { id: "notified", markup: shown("Notifications", notified, |answer| notifications_markup(&answer))? },
    ];
    if let Some(audited) = audited {
        let markup = shown("The audit", audited, |answer| super::audit::records(&answer.records, false))?;
        parts.push(Part { id: "audited", markup });
    }
    Ok((state, parts))
}

fn state_markup(state: &v1::AccountState) -> Markup {
    let now_ms = clock::now_ms();
    let probation = state.probation_until_ms.filter(|until_ms| *until_ms > now_ms);
    let class = match AccountStatus::try_from(state.status) {
        Ok(AccountStatus::Locked) => "card locked",
        Ok(AccountStatus::Throttled) => "card throttled",
        _ => "card",
    };
    html! {
        section class=(class) {
            p.headline {
                @if state.version == 0 { "Nothing was ever decided about this account: its mail flows." }
                @else { (words::status(state.status)) " since " (words::time(state.changed_ms)) }
            }
            @if let Some(lock) = &state.lock { (lock_markup(lock)) }
            @if let Some(until_ms) = probation { p { "On probation, with tighter limits, until " (words::time(until_ms)) "." } }
            @for exemption in &state.exemptions {
                p {
                    "Exempt from " (if exemption.rules.is_empty() { "all rules".to_owned() } else { exemption.rules.join(", ") })
                    @match exemption.until_ms {
                        Some(until_ms) => { " until " (words::time(until_ms)) }
                        None => " until it is taken back",
                    }
                    " (by " (exemption.actor) ": " (exemption.reason) ")."
                }
            }
            @if state.auto_unlocks > 0 {
                p { "Its locks ended by themselves " (words::count(state.auto_unlocks.into(), "time", "times")) " since somebody last unlocked it." }
            }
            @if let Some(notice) = &state.notice {
                p {
                    "Last notice: " (notice.rule.as_ref().map_or("", |rule| rule.name.as_str())) ", " (words::time(notice.at_ms)) "."
                }
            }
        }
    }
}

fn lock_markup(lock: &v1::Lock) -> Markup {
    html! {
        dl.facts {
            div { dt { "Why" } dd { (words::why(lock)) } }
            div { dt { "Since" } dd { (words::time(lock.since_ms)) } }
            div {
                dt { "Until" }
                dd { @match lock.until_ms { Some(until_ms) => (words::time(until_ms)), None => "somebody unlocks it" } }
            }
            div { dt { "Lock id" } dd { code { (lock.id) } } }
            @if let Some(rule) = &lock.rule { div { dt { "Rule set" } dd { code { (rule.rule_set) } } } }
            @if !lock.reply.is_empty() { div { dt { "The sender is told" } dd { (lock.reply) } } }
            @if lock.queued_mail == i32::from(v1::QueuedMail::Hold) { div { dt { "Queued mail" } dd { "held" } } }
            @if lock.queued_mail == i32::from(v1::QueuedMail::Delete) { div { dt { "Queued mail" } dd { "deleted" } } }
        }
        @if !lock.evidence.is_empty() { h2 { "Evidence" } (evidence::columns(&lock.evidence)) }
        @if !lock.clients.is_empty() { h2 { "Sent from" } (evidence::clients("Addresses before the lock", &lock.clients)) }
        @if !lock.subjects.is_empty() { h2 { "Subjects, as a sample" } (evidence::subjects(&lock.subjects)) }
    }
}

/// The statistics as plots, those that a rule looks at, and as a table, all.
fn statistics(inspection: &v1::Inspection) -> Markup {
    let limits_of = |column: &str| inspection.limits.iter().filter(|limit| limit.column == column).collect::<Vec<_>>();
    let value_of =
        |column: &str| inspection.values.iter().find(|value| value.column == column).map(|value| value.value);
    let is_alive = |series: &&v1::StatisticSeries| series.points.iter().any(|point| point.value > 0.0);
    let mut drawn: Vec<_> = inspection.series.iter().filter(is_alive).collect();
    // What is nearest to its limit comes first.
    let share = |series: &v1::StatisticSeries| {
        let value = value_of(&series.column).unwrap_or_default();
        let shares = limits_of(&series.column)
            .into_iter()
            .filter(|limit| limit.comparison.starts_with('>') && limit.limit > 0.0);
        shares.map(|limit| value / limit.limit).filter(|share| share.is_finite()).fold(0.0, f64::max)
    };
    drawn.sort_by(|a, b| share(b).total_cmp(&share(a)));
    drawn.truncate(MAX_PLOTS);
    html! {
        @if inspection.values.is_empty() {
            (words::nothing("No mail of this account is in the windows."))
        } @else {
            p.hint { "As of " (words::time(inspection.at_ms)) "." }
            div.plots {
                @for series in drawn {
                    @let limits = limits_of(&series.column);
                    figure {
                        figcaption {
                            (words::column(&series.column)) " "
                            @if let Some(value) = value_of(&series.column) { strong { (words::number(value)) } }
                        }
                        (crate::plot::series(&plot_label(series, &limits), &series.points, &limits))
                        (limits_markup(&limits, value_of(&series.column)))
                    }
                }
            }
            details {
                summary { "All statistics as a table" }
                (words::table("Statistics", &html! {
                    thead { tr {
                        th scope="col" { "Statistic" } th.number scope="col" { "Now" } th scope="col" { "Limits" }
                    } }
                    tbody {
                        @for value in &inspection.values {
                            tr {
                                th.short scope="row" { (words::column(&value.column)) }
                                td.number { (words::number(value.value)) }
                                td { (limits_markup(&limits_of(&value.column), Some(value.value))) }
                            }
                        }
                    }
                }))
            }
        }
        @if !inspection.clients.is_empty() { h3 { "Sent last from" } (evidence::clients("Addresses now", &inspection.clients)) }
    }
}

fn limits_markup(limits: &[&v1::LimitInForce], value: Option<f64>) -> Markup {
    html! {
        @if !limits.is_empty() {
            ul.limits {
                @for limit in limits {
                    @let held = value.is_some_and(|value| holds(limit, value));
                    li class={ "limit " (action_class(&limit.action)) } {
                        (limit.action) " at " (limit.comparison) " " (words::number(limit.limit))
                        " " span.rule { (limit.rule) }
                        @if held { " " strong.bad { "⚠ holds" } }
                    }
                }
            }
        }
    }
}

fn action_class(action: &str) -> &'static str {
    match action {
        "lock" => "limit-lock",
        "throttle" => "limit-throttle",
        "notify" => "limit-notify",
        _ => "limit-observe",
    }
}

fn holds(limit: &v1::LimitInForce, value: f64) -> bool {
    match limit.comparison.as_str() {
        ">=" => value >= limit.limit,
        ">" => value > limit.limit,
        "<=" => value <= limit.limit,
        "<" => value < limit.limit,
        _ => false,
    }
}

fn plot_label(series: &v1::StatisticSeries, limits: &[&v1::LimitInForce]) -> String {
    let known = series.points.iter().map(|point| point.value).filter(|value| value.is_finite());
    let most = known.clone().fold(f64::NEG_INFINITY, f64::max);
    let last = series.points.last().map_or(f64::NAN, |point| point.value);
    let limits: Vec<_> =
        limits.iter().map(|limit| format!("{} at {} {}", limit.action, limit.comparison, limit.limit)).collect();
    let limits = if limits.is_empty() { "no limit".to_owned() } else { limits.join(", ") };
    format!("{}: now {}, at most {}; {limits}", series.column, words::number(last), words::number(most))
}

fn timeline(state: &v1::AccountState) -> Markup {
    html! {
        @if state.timeline.is_empty() { (words::nothing("Nothing yet.")) }
        @else {
            ol.timeline {
                @for milestone in state.timeline.iter().rev() {
                    li {
                        (words::time(milestone.at_ms)) " "
                        strong { (words::change(milestone.change)) }
                        @if !milestone.rule.is_empty() { " by the rule " span.rule { (milestone.rule) } }
                        @if !milestone.actor.is_empty() { " by " span.actor { (milestone.actor) } }
                        @if !milestone.reason.is_empty() { ": " span.reason { (milestone.reason) } }
                        @if !milestone.lock_id.is_empty() { " " code { (milestone.lock_id) } }
                    }
                }
            }
        }
    }
}

fn applied(edges: &[v1::EdgeApplied]) -> Markup {
    if edges.is_empty() {
        return words::nothing("No edge is known.");
    }
    words::table(
        "Edges",
        &html! {
            thead { tr {
                th scope="col" { "Site" } th scope="col" { "Node" } th scope="col" { "Newest state" } th scope="col" { "Since" }
            } }
            tbody {
                @for edge in edges {
                    tr {
                        td { (edge.site) }
                        th.short scope="row" { (edge.node) }
                        td {
                            @if edge.in_force { span.status.active { span aria-hidden="true" { "● " } "In force" } }
                            @else { span.status.throttled { span aria-hidden="true" { "▲ " } "Not yet" } }
                        }
                        td.time { @if let Some(at_ms) = edge.applied_ms { (words::time(at_ms)) } }
                    }
                }
            }
        },
    )
}

fn notifications_markup(answer: &v1::ListNotificationsResponse) -> Markup {
    if answer.notifications.is_empty() {
        return words::nothing("Nobody was told anything.");
    }
    words::table(
        "Notifications",
        &html! {
            thead { tr {
                th scope="col" { "When" } th scope="col" { "What" } th scope="col" { "Channel" } th scope="col" { "To" }
                th scope="col" { "Outcome" }
            } }
            tbody {
                @for told in &answer.notifications {
                    tr {
                        td.time { (words::short_time(told.time_ms)) }
                        td { (words::change(told.change)) }
                        td { (told.channel) }
                        td { (told.recipient) }
                        td {
                            (outcome(told.status))
                            @if told.attempts > 1 { ", " (told.attempts) " attempts" }
                            @if !told.error.is_empty() { ": " (told.error) }
                        }
                    }
                }
            }
        },
    )
}

fn outcome(status: i32) -> &'static str {
    match NotificationStatus::try_from(status) {
        Ok(NotificationStatus::Pending) => "to be sent",
        Ok(NotificationStatus::Sent) => "sent",
        Ok(NotificationStatus::Dead) => "given up",
        Ok(NotificationStatus::Suppressed) => "left out: too many",
        Ok(NotificationStatus::Unspecified) | Err(_) => "unknown",
    }
}
