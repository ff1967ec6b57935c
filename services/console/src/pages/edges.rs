//! The edges: connected or not, how far behind, how fast.

use super::View;
use crate::layout::{Page, Section};
use crate::visitor::Visitor;
use crate::words::{self, Part, part};
use crate::{clock, words::grouped};
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use tidegate_proto::v1;
use tonic::Status;

/// A clock that is further off than this is worth a word, in milliseconds: an event's time counts up to 2 s ahead.
const SKEW_MS: i64 = 2_000;

/// The page.
pub(crate) async fn show(visitor: Visitor) -> Response {
    let parts = match View::Edges.parts(&visitor).await {
        Ok(parts) => parts,
        Err(status) => return visitor.failed(&status.into()),
    };
    let body = html! { h1 { "Edges" } (part(&parts, "edges")) };
    Page { title: "Edges", section: Section::Edges, live: "/edges", body }.render(&visitor).into_response()
}

/// What of it can change.
pub(super) async fn parts(visitor: &Visitor) -> Result<Vec<Part>, Status> {
    let answer = visitor.calls.list_edges(v1::ListEdgesRequest {}).await?;
    Ok(vec![Part { id: "edges", markup: whole(&answer.edges) }])
}

/// For the overview.
pub(super) fn summary(edges: &[v1::Edge]) -> Markup {
    if edges.is_empty() {
        return words::nothing("No edge has been seen.");
    }
    words::table(
        "Edges",
        &html! {
            thead { tr {
                th scope="col" { "Node" } th scope="col" { "Connection" } th scope="col" { "Heard" } th.number scope="col" { "Behind" }
            } }
            tbody {
                @for edge in edges {
                    tr {
                        th.short scope="row" { (edge.node) " " span.site { (edge.site) } }
                        td { (connection(edge)) }
                        td.time { (heard(edge)) }
                        td.number { (states(edge.behind)) }
                    }
                }
            }
        },
    )
}

/// How long an edge has not been heard: coarse, since each heartbeat would change it.
pub(super) fn staleness(ms: i64) -> String {
    match ms {
        ..10_000 => "<10 s".to_owned(),
        10_000..60_000 => format!("{} s", ms / 10_000 * 10),
        _ => clock::span(ms),
    }
}

fn whole(edges: &[v1::Edge]) -> Markup {
    if edges.is_empty() {
        return words::nothing("No edge has been seen since the service was started.");
    }
    let ms =
        |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |ms| format!("{} ms", words::number(ms.round())));
    words::table(
        "Edges",
        &html! {
            thead { tr {
                th scope="col" { "Node" } th scope="col" { "Connection" } th scope="col" { "Since" } th scope="col" { "Heard" }
                th.number scope="col" { "States behind" } th.number scope="col" { "Propagation, 50 and 99 %" }
                th.number scope="col" { "Clock off by" } th.number scope="col" { "Sessions" }
                th.number scope="col" { "Refused / decided" } th.number scope="col" { "Spooled" } th.number scope="col" { "Lost" }
                th scope="col" { "Version" }
            } }
            tbody {
                @for edge in edges {
                    tr {
                        th.short scope="row" { (edge.node) " " span.site { (edge.site) } }
                        td { (connection(edge)) }
                        td.time { (words::short_time(edge.since_ms)) }
                        td.time { (heard(edge)) }
                        td.number { (states(edge.behind)) }
                        td.number { (ms(edge.propagation_p50_ms)) ", " (ms(edge.propagation_p99_ms)) }
                        td.number {
                            @if edge.clock_skew_ms.abs() > SKEW_MS { span.bad { "⚠ " (grouped(edge.clock_skew_ms)) " ms" } }
                            @else { (grouped(edge.clock_skew_ms)) " ms" }
                        }
                        @match &edge.status {
                            Some(status) => {
                                td.number { (status.sessions) }
                                td.number { (states(status.refusals)) " / " (states(status.decisions)) }
                                td.number { (states(status.spooled)) }
                                td.number {
                                    @if status.lost > 0 { span.bad { "⚠ " (states(status.lost)) } } @else { "0" }
                                }
                            }
                            None => { td.number { "–" } td.number { "–" } td.number { "–" } td.number { "–" } }
                        }
                        td { (edge.version) }
                    }
                }
            }
        },
    )
}

fn connection(edge: &v1::Edge) -> Markup {
    html! {
        @if edge.connected { span.status.active { span aria-hidden="true" { "● " } "Connected" } }
        @else { span.status.locked { span aria-hidden="true" { "■ " } "Gone" } }
    }
}

fn heard(edge: &v1::Edge) -> Markup {
    let ago = clock::now_ms().saturating_sub(edge.heard_ms);
    html! {
        @if edge.connected { (staleness(ago)) " ago" } @else { (words::short_time(edge.heard_ms)) }
    }
}

fn states(number: u64) -> String {
    grouped(number)
}
