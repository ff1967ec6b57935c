//! How things are, in a few numbers, and the newest locks.

use super::{View, edges, shown};
use crate::fields::link;
use crate::layout::{Page, Section};
use crate::visitor::Visitor;
use crate::words::{self, Part, part};
use crate::{clock, plot};
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use tidegate_proto::v1;
use tonic::Status;

/// How many of the newest locks are shown.
const NEWEST: u32 = 10;

/// The page.
pub(crate) async fn show(visitor: Visitor) -> Response {
    let parts = match View::Overview.parts(&visitor).await {
        Ok(parts) => parts,
        Err(status) => return visitor.failed(&status.into()),
    };
    let body = html! {
        h1 { "Overview" }
        (part(&parts, "numbers"))
        div.columns.uneven {
            section {
                h2 { "Newest locks" }
                (part(&parts, "newest"))
            }
            div {
                section {
                    h2 { "Edges" }
                    (part(&parts, "edges"))
                }
                section {
                    h2 { "Locks per day" }
                    (part(&parts, "days"))
                }
            }
        }
    };
    Page { title: "Overview", section: Section::Overview, live: "/", body }.render(&visitor).into_response()
}

/// What of it can change.
pub(super) async fn parts(visitor: &Visitor) -> Result<Vec<Part>, Status> {
    let calls = &visitor.calls;
    let newest = v1::ListAccountsRequest {
        filter: Some(v1::AccountFilter {
            statuses: vec![v1::AccountStatus::Locked.into(), v1::AccountStatus::Throttled.into()],
            ..v1::AccountFilter::default()
        }),
        order: v1::AccountOrder::Changed.into(),
        page_size: NEWEST,
        page_token: String::new(),
    };
    let (overview, newest, edges) = tokio::join!(
        calls.get_overview(v1::GetOverviewRequest {}),
        calls.list_accounts(newest),
        calls.list_edges(v1::ListEdgesRequest {}),
    );
    // When not even accounts are told, there is no overview.
    let newest = newest?;
    let (numbers_markup, days_markup) = match overview {
        Ok(overview) => (numbers(&overview), days(&overview)),
        Err(status) => {
            let hint = shown("Numbers", Err::<(), _>(status.clone()), |()| html! {})?;
            (hint, words::hint("Locks per day", &status))
        }
    };
    Ok(vec![
        Part { id: "numbers", markup: numbers_markup },
        Part { id: "newest", markup: newest_locks(&newest.accounts) },
        Part { id: "edges", markup: shown("Edges", edges, |edges| edges::summary(&edges.edges))? },
        Part { id: "days", markup: days_markup },
    ])
}

fn numbers(overview: &v1::GetOverviewResponse) -> Markup {
    let told = |number: u64| words::grouped(number);
    let tile = |name: &str, value: &str, to: Option<&str>, class: &str| {
        html! {
            div class={ "tile " (class) } {
                dt { @match to { Some(to) => a href=(to) { (name) }, None => (name) } }
                dd { (value) }
            }
        }
    };
    let when = |number: u64, class: &'static str| if number > 0 { class } else { "" };
    html! {
        dl.tiles {
            (tile("Locked", &told(overview.locked), Some("/accounts?status=locked"), when(overview.locked, "locked")))
            (tile(
                "Throttled",
                &told(overview.throttled),
                Some("/accounts?status=throttled"),
                when(overview.throttled, "throttled"),
            ))
            (tile("On probation", &told(overview.on_probation), None, ""))
            (tile("Over limits in 1 h", &told(overview.over_limits), None, ""))
            @if let Some(rate) = overview.events_per_second {
                (tile("Events per second", &words::number(if rate < 10.0 { (rate * 10.0).round() / 10.0 } else { rate.round() }), None, ""))
            }
            @if let (Some(connected), gone) = (overview.edges_connected, overview.edges_gone.unwrap_or_default()) {
                @let value = format!("{connected} of {}", connected + gone);
                (tile("Edges connected", &value, Some("/edges"), if gone > 0 { "throttled" } else { "" }))
            }
            @if let Some(stalest) = overview.stalest_edge_ms {
                (tile("Stalest edge", &edges::staleness(stalest), Some("/edges"), ""))
            }
        }
    }
}

fn newest_locks(accounts: &[v1::AccountState]) -> Markup {
    if accounts.is_empty() {
        return words::nothing("No account is locked or throttled.");
    }
    let rows = html! {
        thead { tr {
            th scope="col" { "Account" } th scope="col" { "Status" } th scope="col" { "Why" } th scope="col" { "Since" }
        } }
        tbody {
            @for state in accounts {
                tr {
                    th scope="row" { (words::account(&state.account)) }
                    td.state { (words::status(state.status)) }
                    td.why { @if let Some(lock) = &state.lock { (words::why(lock)) } }
                    td.time { (words::short_time(state.lock.as_ref().map_or(state.changed_ms, |lock| lock.since_ms))) }
                }
            }
        }
    };
    html! {
        (words::cards("Newest locks", &rows))
        p { a href=(link("/accounts", &[("status", "refused"), ("order", "changed")])) { "All locked and throttled accounts" } }
    }
}

fn days(overview: &v1::GetOverviewResponse) -> Markup {
    let days = &overview.locks_per_day;
    let total: u64 = days.iter().map(|day| day.count).sum();
    let label = format!("Locks on each of the last {} days, {total} in all", days.len());
    html! {
        @if days.is_empty() {
            (words::nothing("No days are told yet."))
        } @else {
            (plot::days(&label, days))
            details {
                summary { "As a table" }
                (words::table("Locks per day", &html! {
                    thead { tr { th scope="col" { "Day (UTC)" } th.number scope="col" { "Locks" } } }
                    tbody {
                        @for day in days.iter().rev() {
                            tr {
                                th.short scope="row" { (clock::human(day.day_ms).split(' ').next().unwrap_or_default()) }
                                td.number { (day.count) }
                            }
                        }
                    }
                }))
            }
        }
    }
}
