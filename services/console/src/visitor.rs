//! Who asks for a page or sends a form, and how they are answered.

use crate::api::Calls;
use crate::app::App;
use crate::cookie::Cookie;
use crate::failure::Failure;
use crate::fields::{Fields, link};
use crate::gate::is_on_this_machine;
use crate::layout;
use crate::session::Session;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse as _, Redirect, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use std::sync::Arc;
use tidegate_access::{Need, Role};
use tidegate_proto::v1::{WhoAmIRequest, WhoAmIResponse};
use tidegate_runtime::http::Peer;

/// Who asks, and what the API lets them do.
#[derive(Clone)]
pub(crate) struct Visitor {
    /// Their session.
    pub session: Arc<Session>,
    /// Who they are, as the API says.
    pub who: Arc<WhoAmIResponse>,
    /// The API with their credential.
    pub calls: Calls,
    /// What all share.
    pub app: Arc<App>,
    /// The name that they gave last, where nothing proves it.
    pub actor: String,
    /// A note that waited for this page.
    pub note: Option<String>,
    /// The session's id; empty where nothing is asked for.
    id: String,
}

/// A form that somebody sent from a page of theirs.
pub(crate) struct Form {
    /// Who.
    pub visitor: Visitor,
    /// What.
    pub fields: Fields,
}

impl Visitor {
    /// Whether their role meets `need`. Only hides what the API would refuse: the API decides.
    pub fn can(&self, need: Need) -> bool {
        Role::ALL.into_iter().find(|role| role.as_str() == self.who.role).is_some_and(|role| role.meets(need))
    }

    /// Whether they are limited to domains.
    pub fn is_limited(&self) -> bool {
        !self.who.domains.is_empty()
    }

    /// Whether nothing proves who they are, so that each action says it.
    pub fn is_unproven(&self) -> bool {
        self.who.credential == "loopback"
    }

    /// The name for an action: theirs, or the one that the form gives.
    pub fn actor(&self, fields: &Fields) -> String {
        if self.is_unproven() { fields.get("actor").to_owned() } else { self.who.name.clone() }
    }

    /// Back to `to`, where `note` is shown.
    pub fn done(&self, to: &str, note: String) -> Response {
        let name = self.session.note(note);
        let with = if to.contains('?') { '&' } else { '?' };
        let mut response = Redirect::to(&format!("{to}{with}note={name}")).into_response();
        if self.is_unproven() {
            let actor: String = url::form_urlencoded::byte_serialize(self.actor.as_bytes()).collect();
            response
                .headers_mut()
                .extend(Cookie::Actor.set(&actor, self.app.is_secure).map(|cookie| (header::SET_COOKIE, cookie)));
        }
        response
    }

    /// What went wrong, on a page of its own; or the sign-in page, when the credential counts no longer.
    pub fn failed(&self, failure: &Failure) -> Response {
        if failure.status == StatusCode::UNAUTHORIZED {
            self.end("credential");
            return Redirect::to(&link("/sign-in", &[("why", "ended")])).into_response();
        }
        (failure.status, layout::failure(self, failure)).into_response()
    }

    /// Ends the session.
    pub fn end(&self, why: &'static str) {
        self.app.sessions.end(&self.id, why);
    }
}

impl FromRequestParts<Arc<App>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let Some(Peer(peer)) = parts.extensions.get::<Peer>().copied() else {
            let text = "The browser's address is not known, so nothing can be asked for it.";
            return Err((StatusCode::INTERNAL_SERVER_ERROR, layout::bare("Refused", text)).into_response());
        };
        let id = Cookie::Session.read(&parts.headers, app.is_secure).to_owned();
        let session = match app.sessions.find(&id) {
            Some(session) => session,
            None if is_on_this_machine(peer, &parts.headers) => {
                app.open_session(peer).await.ok_or_else(|| to_sign_in(parts, &id))?
            }
            None => return Err(to_sign_in(parts, &id)),
        };
        let calls = app.api.calls(session.caller(peer));
        if session.is_who_old() {
            match calls.who_am_i(WhoAmIRequest {}).await {
                Ok(who) => session.know(who),
                Err(status) if status.code() == tonic::Code::Unauthenticated => {
                    app.sessions.end(&id, "credential");
                    return Err(to_sign_in(parts, &id));
                }
                // What the page itself asks will fail too, and say why.
                Err(_) => {}
            }
        }
        let query = Fields::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let actor = Cookie::Actor.read(&parts.headers, app.is_secure);
        let actor = Fields::parse(format!("actor={actor}").as_bytes()).get("actor").to_owned();
        let note = session.take_note(query.get("note"));
        Ok(Self { who: session.who(), session, calls, app: Arc::clone(app), actor, note, id })
    }
}

impl FromRequest<Arc<App>> for Form {
    type Rejection = Response;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let mut visitor = Visitor::from_request_parts(&mut parts, app).await?;
        let fields = read_fields(Request::from_parts(parts, body)).await?;
        if !visitor.session.is_csrf(fields.get("csrf")) {
            app.metrics.refuse("csrf");
            let text = "This form is not of your session (it is old, or from elsewhere), so nothing was done. \
                        Go back, load the page again and send it once more.";
            return Err((StatusCode::FORBIDDEN, layout::bare("Refused", text)).into_response());
        }
        visitor.actor = visitor.actor(&fields);
        Ok(Self { visitor, fields })
    }
}

/// The fields of a form's body.
///
/// # Errors
/// The answer, when it is too large or is no form.
pub(crate) async fn read_fields(request: Request) -> Result<Fields, Response> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        let text = "This is not a form of this console, so nothing was done.";
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, layout::bare("Refused", text)).into_response());
    }
    match Bytes::from_request(request, &()).await {
        Ok(body) => Ok(Fields::parse(&body)),
        Err(problem) => Err((problem.status(), layout::bare("Refused", &problem.body_text())).into_response()),
    }
}

/// To the sign-in page, and from there back to where somebody wanted to go.
fn to_sign_in(parts: &Parts, id: &str) -> Response {
    if parts.uri.path() == "/live" {
        return (StatusCode::UNAUTHORIZED, "sign in first\n").into_response();
    }
    let wanted = parts.uri.path_and_query().map_or("/", |wanted| wanted.as_str());
    let wanted = if parts.method == http::Method::GET && wanted != "/" { wanted } else { "" };
    // Who had a session is told that it ended.
    let why = if id.is_empty() { "" } else { "ended" };
    Redirect::to(&link("/sign-in", &[("to", wanted), ("why", why)])).into_response()
}

/// Where to go after the sign-in: only to a page of ours.
pub(crate) fn wanted(to: &str) -> &str {
    let is_ours = to.starts_with('/') && !to.starts_with("//") && !to.contains(['\\', '\r', '\n', '\t']);
    if is_ours { to } else { "/" }
}

/// The address of who asks.
pub(crate) fn peer_of(request: &Request) -> Option<Peer> {
    request.extensions().get::<Peer>().copied()
}

/// The cookie `cookie` in `headers`.
pub(crate) fn cookie_of(cookie: Cookie, headers: &HeaderMap, app: &App) -> String {
    cookie.read(headers, app.is_secure).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_sign_in_one_stays_here() {
        assert_eq!(wanted("/accounts?status=locked"), "/accounts?status=locked");
        for elsewhere in ["https://evil.example", "//evil.example", "/\\evil.example", "", "/\t/evil.example"] {
            assert_eq!(wanted(elsewhere), "/", "{elsewhere}");
        }
    }
}
