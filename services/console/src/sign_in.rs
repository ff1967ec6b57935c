//! Signing in with a token or a JWT, which the API judges, and signing out.

use crate::api::{Caller, Token};
use crate::app::App;
use crate::cookie::Cookie;
use crate::failure::words;
use crate::fields::Fields;
use crate::gate::is_on_this_machine;
use crate::layout;
use crate::metrics::ResultLabel;
use crate::session::random;
use crate::visitor::{Form, cookie_of, peer_of, read_fields, wanted};
use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use http::{HeaderMap, StatusCode, header};
use maud::html;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;
use tidegate_proto::v1::WhoAmIRequest;
use tidegate_runtime::http::Peer;
use tonic::Code;

/// The page.
pub(crate) async fn show(State(app): State<Arc<App>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let query = Fields::parse(query.unwrap_or_default().as_bytes());
    let told = match query.get("why") {
        "ended" => Some("Your session has ended. Sign in again to go on."),
        "out" => Some("You are signed out."),
        _ => None,
    };
    page(&app, &headers, StatusCode::OK, query.get("to"), told, None)
}

/// Somebody sent the form.
pub(crate) async fn sign_in(State(app): State<Arc<App>>, request: Request) -> Response {
    let headers = request.headers().clone();
    let Some(Peer(peer)) = peer_of(&request) else {
        return (StatusCode::INTERNAL_SERVER_ERROR, layout::bare("Refused", "Your address is not known."))
            .into_response();
    };
    let fields = match read_fields(request).await {
        Ok(fields) => fields,
        Err(response) => return response,
    };
    let to = wanted(fields.get("to"));
    let refused = |status, result, problem: &str| {
        app.metrics.sign_ins.get_or_create(&ResultLabel { result }).inc();
        page(&app, &headers, status, to, None, Some(problem))
    };
    let expected = cookie_of(Cookie::SignIn, &headers, &app);
    if expected.is_empty() || !bool::from(expected.as_bytes().ct_eq(fields.get("csrf").as_bytes())) {
        let problem = "The form was old, or your browser takes no cookies. Please try again.";
        return refused(StatusCode::FORBIDDEN, "form", problem);
    }
    let Some(token) = Token::parse(fields.get("token")) else {
        return refused(StatusCode::BAD_REQUEST, "malformed", "This is no token: paste it whole, without spaces.");
    };
    let caller = Caller { token: Some(token.clone()), peer };
    let who = match app.api.calls(caller).who_am_i(WhoAmIRequest {}).await {
        Ok(who) => who,
        Err(status) => {
            let (http, result) = match status.code() {
                Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "limited"),
                Code::Unauthenticated | Code::PermissionDenied => (StatusCode::UNAUTHORIZED, "refused"),
                _ => (StatusCode::BAD_GATEWAY, "failed"),
            };
            return refused(http, result, &words(&status));
        }
    };
    // Where the API asks for nothing, any token would do, also for somebody who is not on this machine.
    if who.credential == "loopback" && !is_on_this_machine(peer, &headers) {
        let problem = "The service behind this console takes no tokens: it only serves its own machine.";
        return refused(StatusCode::FORBIDDEN, "no_tokens", problem);
    }
    app.metrics.sign_ins.get_or_create(&ResultLabel { result: "done" }).inc();
    tracing::info!(name = who.name, role = who.role, %peer, "signed in to the console");
    let id = app.sessions.begin(token, who, peer);
    let cookies = [Cookie::Session.set(&id, app.is_secure), Cookie::SignIn.clear(app.is_secure)];
    with_cookies(Redirect::to(to).into_response(), cookies)
}

/// Ends the session.
pub(crate) async fn sign_out(form: Form) -> Response {
    form.visitor.end("signed_out");
    let secure = form.visitor.app.is_secure;
    let cookies = [Cookie::Session.clear(secure), Cookie::Actor.clear(secure)];
    with_cookies(Redirect::to("/sign-in?why=out").into_response(), cookies)
}

fn with_cookies(mut response: Response, cookies: [Option<http::HeaderValue>; 2]) -> Response {
    for cookie in cookies.into_iter().flatten() {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

fn page(
    app: &App,
    headers: &HeaderMap,
    status: StatusCode,
    to: &str,
    told: Option<&str>,
    problem: Option<&str>,
) -> Response {
    // Two tabs share it.
    let known = cookie_of(Cookie::SignIn, headers, app);
    let csrf = if known.len() == random().len() { known } else { random() };
    let body = html! {
        h1 { "Sign in" }
        @if let Some(told) = told { p.note role="status" { (told) } }
        @if let Some(problem) = problem {
            div.problem role="alert" { strong { "Not signed in. " } (problem) }
        }
        form method="post" action="/sign-in" {
            input type="hidden" name="csrf" value=(csrf);
            input type="hidden" name="to" value=(to);
            label for="token" { "Token" }
            input #token type="password" name="token" required autocomplete="off" spellcheck="false"
                autocapitalize="none" aria-describedby="token-hint" autofocus;
            p #token-hint.hint {
                "A token of yours (" code { "tidegate token create" } ") or a JWT of your identity provider. "
                "It is kept in this server's memory until you sign out."
            }
            button.primary type="submit" { "Sign in" }
        }
    };
    let cookie = Cookie::SignIn.set(&csrf, app.is_secure);
    with_cookies((status, layout::alone("Sign in", &body)).into_response(), [cookie, None])
}
