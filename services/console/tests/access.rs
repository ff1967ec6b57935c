//! Who gets in, what a page may not do, and what is refused before the API is asked.

#![allow(clippy::unwrap_used, missing_docs)]

mod api;
mod client;

use api::Api;
use client::{Browser, serve};
use reqwest::StatusCode;
use tidegate_console::ConsoleConfig;

const LOCKED: &str = "jo@example.org";
const UNLOCK: [(&str, &str); 4] =
    [("name", LOCKED), ("reason", "called back"), ("note", "called"), ("probation", "24")];

fn with_a_lock(is_open: bool) -> Api {
    let api = Api::empty(is_open);
    api.locked(LOCKED);
    api
}

fn is_locked(api: &Api) -> bool {
    api.state(LOCKED).unwrap().status == 3
}

#[tokio::test]
async fn the_api_judges_who_signs_in_and_its_words_are_shown() {
    let api = Api::empty(false);
    let served = serve(&api, ConsoleConfig::default()).await;
    let mut browser = Browser::new(&served);
    let page = browser.get("/accounts?status=locked").await;
    assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/sign-in?to=%2Faccounts%3Fstatus%3Dlocked"));
    assert_eq!(browser.get("/live?of=/").await.status, StatusCode::UNAUTHORIZED);

    let page = browser.sign_in("wrong").await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    assert!(page.body.contains("the token is not known, or is revoked"), "{}", page.body);
    let page = browser.sign_in("limited").await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(page.body.contains("too many failed attempts from your address; try again in 30 s"));
    assert_eq!(browser.sign_in("two words").await.status, StatusCode::BAD_REQUEST);
    assert!(!browser.cookies.contains_key("tidegate"));

    let page = browser.sign_in("viewer").await;
    assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/"));
    let cookie = page.header("set-cookie");
    assert!(cookie.starts_with("tidegate=") && cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
    assert!(browser.get("/").await.body.contains("vera"));
    assert!(api.peers().iter().all(|peer| peer == "127.0.0.1") && !api.peers().is_empty());
}

#[tokio::test]
async fn a_sign_in_without_its_cookie_is_refused() {
    let served = serve(&Api::empty(false), ConsoleConfig::default()).await;
    let mut browser = Browser::new(&served);
    let csrf = browser.get("/sign-in").await.csrf();
    browser.cookies.clear();
    let page = browser.post("/sign-in", &[("csrf", &csrf), ("token", "admin")]).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(!browser.cookies.contains_key("tidegate"));
}

#[tokio::test]
async fn a_session_ends_at_sign_out_from_another_one_and_with_its_token() {
    let api = Api::empty(false);
    let served = serve(&api, ConsoleConfig::default()).await;
    let mut one = Browser::signed_in(&served, "operator").await;
    let mut other = Browser::signed_in(&served, "operator").await;
    let kept = one.cookies.clone();
    let page = one.submit("/", "/sign-out", &[]).await;
    assert_eq!(page.location(), "/sign-in?why=out");
    one.cookies = kept;
    assert!(one.get("/").await.location().starts_with("/sign-in"), "the old cookie is worth nothing");

    let mut third = Browser::signed_in(&served, "operator").await;
    // The newest session stands first.
    let handle = other.get("/sessions").await.value_of("name=\"session\" value=\"");
    let page = other.submit("/sessions", "/sessions", &[("session", &handle)]).await;
    assert!(other.follow(&page).await.body.contains("The session has ended."));
    assert!(third.get("/").await.location().starts_with("/sign-in"));

    api.revoke("operator");
    let page = other.get("/").await;
    assert_eq!(page.location(), "/sign-in?why=ended");
    assert!(other.get("/accounts").await.location().starts_with("/sign-in"));
}

#[tokio::test]
async fn no_page_has_a_script_or_style_of_its_own_and_none_may_be_kept() {
    let api = Api::plausible(false);
    let served = serve(&api, ConsoleConfig::default()).await;
    let mut browser = Browser::signed_in(&served, "admin").await;
    let account = "/account?name=anna.berg%40example.org";
    let pages =
        ["/", "/accounts", account, "/bulk", "/rules", "/edges", "/audit", "/settings", "/sessions", "/sign-in", "/no"];
    for path in pages {
        let page = browser.get(path).await;
        let policy = page.header("content-security-policy");
        for part in
            ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(page.header("cache-control"), "no-store", "{path}");
        assert_eq!(page.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(page.body.matches("<script").count(), page.body.matches("<script src=\"/assets/").count(), "{path}");
        for own in ["<style", " style=", " onclick=", "javascript:", "http://", "https://cdn"] {
            assert!(!page.body.contains(own), "{path} has {own}");
        }
    }
    let style = browser.get("/").await.value_of("rel=\"stylesheet\" href=\"");
    let page = browser.get(&style).await;
    assert_eq!(page.header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(page.header("content-type"), "text/css; charset=utf-8");
    assert_eq!(browser.get("/assets/console-other.css").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_form_from_elsewhere_does_nothing() {
    let api = with_a_lock(false);
    let served = serve(&api, ConsoleConfig::default()).await;
    let mut browser = Browser::signed_in(&served, "operator").await;
    let csrf = browser.get("/bulk").await.csrf();
    let other = Browser::signed_in(&served, "operator").await.get("/bulk").await.csrf();
    for wrong in ["", "x", &other] {
        let page = browser.post("/account/unlock", &[&[("csrf", wrong)], &UNLOCK[..]].concat()).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{wrong}");
    }
    let foreign = [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("host", "evil.example"),
    ];
    for (name, value) in foreign {
        browser.headers = vec![(name, value.to_owned())];
        let page = browser.post("/account/unlock", &[&[("csrf", csrf.as_str())], &UNLOCK[..]].concat()).await;
        assert!(page.status.is_client_error(), "{name}: {value}: {}", page.status);
    }
    assert!(is_locked(&api));
    let origin = format!("http://{}", served.address);
    browser.headers = vec![("origin", origin), ("sec-fetch-site", "same-origin".to_owned())];
    let page = browser.post("/account/unlock", &[&[("csrf", csrf.as_str())], &UNLOCK[..]].concat()).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    assert!(!is_locked(&api));
}

#[tokio::test]
async fn a_name_that_was_let_point_here_is_not_answered() {
    let served = serve(&with_a_lock(true), ConsoleConfig::default()).await;
    let mut browser = Browser::new(&served);
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
    browser.headers = vec![("host", "evil.example".to_owned())];
    let page = browser.get("/").await;
    assert_eq!(page.status, StatusCode::MISDIRECTED_REQUEST);
    assert!(!page.body.contains(LOCKED));
}

#[tokio::test]
async fn where_nothing_is_asked_for_each_action_says_who_acts() {
    let api = with_a_lock(true);
    let served = serve(&api, ConsoleConfig::default()).await;
    let mut browser = Browser::new(&served);
    let path = "/account?name=jo%40example.org";
    let page = browser.get(path).await;
    assert!(page.body.contains("name=\"actor\" required"), "{}", page.body);
    let page = browser.submit(path, "/account/unlock", &[&UNLOCK[..], &[("actor", "Ann Ö.")]].concat()).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    let page = browser.follow(&page).await;
    assert!(page.body.contains("value=\"Ann Ö.\"") && page.body.contains("The account is active."), "{}", page.body);
    // Somebody behind a proxy is not on this machine.
    browser.headers = vec![("x-forwarded-for", "192.0.2.1".to_owned())];
    assert!(browser.get("/").await.location().starts_with("/sign-in"));
    let page = browser.sign_in("").await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
}
