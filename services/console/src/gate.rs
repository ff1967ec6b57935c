//! What every request passes: is it for us, does it come from a page of ours, and what its answer tells the browser.

use crate::app::App;
use crate::layout;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Nothing but what this server serves; no script and no style in a page itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];
/// A year, as browsers want it at least.
const ONLY_TLS: &str = "max-age=31536000";

/// Lets a request through, or refuses it, and says in the answer what the browser must not do.
pub(crate) async fn gate(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&app, &request) {
        None => next.run(request).await,
        Some((why, status, text)) => {
            app.metrics.refuse(why);
            (status, layout::bare("Refused", text)).into_response()
        }
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if app.is_secure {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(ONLY_TLS));
    }
    // Pages tell of people; only what says otherwise, our own script and style, may be kept.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn refusal(app: &App, request: &Request) -> Option<(&'static str, StatusCode, &'static str)> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_our_host(host, app) {
        let text =
            "This console does not answer to that name. Its configuration ([console] host_names) says which it has.";
        return Some(("host", StatusCode::MISDIRECTED_REQUEST, text));
    }
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_safe && !is_from_our_page(request.headers(), host, app.is_secure) {
        let text = "This did not come from a page of this console, so nothing was done.";
        return Some(("origin", StatusCode::FORBIDDEN, text));
    }
    None
}

/// Whether `host`, as the browser names it, is one of ours. A page elsewhere could otherwise let its own name point to
/// this address, and would be of the same origin.
fn is_our_host(host: &str, app: &App) -> bool {
    let name = name_of(host).to_ascii_lowercase();
    let given = &app.config.host_names;
    if given.iter().any(|other| other.eq_ignore_ascii_case(&name)) {
        return true;
    }
    // A name that was let point here fails at the certificate, and an address cannot be let point anywhere.
    let is_address = name.parse::<IpAddr>().is_ok();
    if app.is_secure { given.is_empty() || is_address } else { name == "localhost" || is_address }
}

/// `name` of `name:port` or `[address]:port`.
fn name_of(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Whether the browser says that a page of this origin asks. One that says nothing of it shows itself by the form's token.
fn is_from_our_page(headers: &HeaderMap, host: &str, is_secure: bool) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let scheme = if is_secure { "https" } else { "http" };
    let origin = text(header::ORIGIN).is_none_or(|origin| origin == format!("{scheme}://{host}"));
    let site = text(HeaderName::from_static("sec-fetch-site")).is_none_or(|site| site == "same-origin");
    origin && site
}

/// Whether somebody at `peer` may be asked for nothing: only on this machine itself, and not for somebody behind a proxy.
pub(crate) fn is_on_this_machine(peer: SocketAddr, headers: &HeaderMap) -> bool {
    let proxied = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
    peer.ip().to_canonical().is_loopback() && !proxied.iter().any(|name| headers.contains_key(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_of_the_same_origin_may_post() {
        let from = |pairs: &[(&'static str, &'static str)]| {
            let headers =
                pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            is_from_our_page(&headers.collect(), "console.example:7712", true)
        };
        assert!(from(&[("origin", "https://console.example:7712"), ("sec-fetch-site", "same-origin")]));
        assert!(from(&[]));
        for wrong in ["http://console.example:7712", "https://console.example", "https://evil.example", "null", ""] {
            assert!(!from(&[("origin", wrong)]), "{wrong}");
        }
        for wrong in ["cross-site", "same-site", "none", ""] {
            assert!(!from(&[("origin", "https://console.example:7712"), ("sec-fetch-site", wrong)]), "{wrong}");
        }
    }

    #[test]
    fn a_hosts_name_is_read_without_its_port() {
        assert_eq!(
            ["a.b:1", "a.b", "[::1]:7", "[::1]", "127.0.0.1:80", ""].map(name_of),
            ["a.b", "a.b", "::1", "::1", "127.0.0.1", ""]
        );
    }

    #[test]
    fn only_this_machine_without_a_proxy_is_asked_for_nothing() {
        let none = HeaderMap::new();
        let here = "127.0.0.1:1".parse().unwrap();
        assert!(is_on_this_machine(here, &none));
        assert!(is_on_this_machine("[::ffff:127.0.0.1]:1".parse().unwrap(), &none));
        assert!(!is_on_this_machine("192.0.2.1:1".parse().unwrap(), &none));
        let proxied =
            HeaderMap::from_iter([(HeaderName::from_static("x-forwarded-for"), HeaderValue::from_static("x"))]);
        assert!(!is_on_this_machine(here, &proxied));
    }
}
