//! One's own sessions, each of which can be ended.

use crate::layout::{Page, Section, form_token};
use crate::visitor::{Form, Visitor};
use crate::words;
use axum::response::{IntoResponse as _, Response};
use maud::html;

/// The page.
pub(crate) async fn show(visitor: Visitor) -> Response {
    let all = visitor.app.sessions.of(&visitor.who.name);
    let who = &visitor.who;
    let body = html! {
        h1 { "Your sessions" }
        dl.facts {
            div { dt { "Name" } dd { (who.name) } }
            div { dt { "Role" } dd { (who.role) } }
            div { dt { "Domains" } dd { @if who.domains.is_empty() { "all" } @else { (who.domains.join(", ")) } } }
            div { dt { "Proven by" } dd { (who.credential) } }
            @if let Some(expires_ms) = who.expires_ms { div { dt { "Counts until" } dd { (words::time(expires_ms)) } } }
        }
        (words::table("Your sessions", &html! {
            thead { tr {
                th scope="col" { "From" } th scope="col" { "Signed in" } th scope="col" { "Last used" }
                th scope="col" { span.hidden { "End" } }
            } }
            tbody { @for session in &all {
                tr {
                    th scope="row" {
                        code { (session.peer.ip()) }
                        @if session.handle == visitor.session.handle { " " span.mark { "this one" } }
                    }
                    td.time { (words::time(session.began_ms)) }
                    td.time { (words::time(session.used_ms())) }
                    td {
                        form method="post" action="/sessions" {
                            (form_token(&visitor))
                            input type="hidden" name="session" value=(session.handle);
                            button type="submit" { "End" span.hidden { " the session from " (session.peer.ip()) } }
                        }
                    }
                }
            } }
        }))
        @if all.is_empty() { (words::nothing("Nobody signs in on this machine: nothing is asked for here.")) }
    };
    Page { title: "Your sessions", section: Section::Other, live: "", body }.render(&visitor).into_response()
}

/// Ends one of them.
pub(crate) async fn end(form: Form) -> Response {
    let Form { visitor, fields } = form;
    let was = visitor.app.sessions.end_of(&visitor.who.name, fields.get("session"));
    let note = if was { "The session has ended." } else { "That session had ended already." };
    visitor.done("/sessions", note.to_owned())
}
