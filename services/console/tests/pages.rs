//! What the pages show and do, over an API that is made up.

#![allow(clippy::unwrap_used, missing_docs)]

mod api;
mod client;

use api::Api;
use client::{Browser, Page, serve};
use reqwest::StatusCode;
use std::time::Duration;
use tidegate_console::ConsoleConfig;
use tonic::Status;

const JO: &str = "/account?name=jo%40example.org";

#[tokio::test]
async fn an_account_is_unlocked_with_a_reason_and_evidence_and_the_audit_has_it() {
    let api = Api::empty(false);
    api.locked("jo@example.org");
    let served = serve(&api, ConsoleConfig::default()).await;
    let mut browser = Browser::signed_in(&served, "admin").await;
    let page = browser.get(JO).await;
    for told in
        ["Locked", "recipients", "15m", "2001:db8:7::5109", "Re: invoice 20431 overdue", "<svg", "smtp-a", "given up"]
    {
        assert!(page.body.contains(told), "{told} in {}", page.body);
    }
    // Refused by the API: the page says why, and keeps what was typed.
    let page = browser.submit(JO, "/account/unlock", &[("name", "jo@example.org"), ("reason", "ticket <7>")]).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    assert!(
        page.body.contains("unlock.evidence is not set") && page.body.contains("ticket &lt;7&gt;"),
        "{}",
        page.body
    );
    assert_eq!(api.state("jo@example.org").unwrap().status, 3);

    let typed =
        [("name", "jo@example.org"), ("reason", "ticket 7"), ("changed", "2026-11-25T08:30"), ("probation", "72")];
    let page = browser.submit(JO, "/account/unlock", &typed).await;
    let page = browser.follow(&page).await;
    assert!(page.body.contains("Done. The account is active.") && page.body.contains("On probation"), "{}", page.body);
    assert!(!browser.get(JO).await.body.contains("Done."), "a note is shown once");
    let page = browser.get("/audit").await;
    assert!(
        page.body.contains("UnlockAccount") && page.body.contains("ticket 7") && page.body.contains("locked → active")
    );
    let page =
        browser.submit(JO, "/account/clear", &[("name", "jo@example.org"), ("reason", "x"), ("windows", "yes")]).await;
    assert!(browser.follow(&page).await.body.contains("not seen to be applied yet"));
}

#[tokio::test]
async fn scripts_in_names_subjects_and_reasons_stay_text() {
    let api = Api::empty(false);
    let name = "\"<script>alert('name')</script>\"@example.org";
    api.locked(name);
    let served = serve(&api, ConsoleConfig::default()).await;
    let mut browser = Browser::signed_in(&served, "admin").await;
    let path: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let (account, typed) =
        (format!("/account?name={path}"), format!("/accounts?contains={path}&rule=%22%3E%3Cscript%3Ex"));
    for path in ["/", "/accounts", &account, &typed] {
        let page = browser.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        assert!(page.body.contains("&lt;script&gt;"), "{path}: it is shown");
        assert_eq!(page.body.matches("<script").count(), 1, "{path}: only our own");
    }
    assert!(browser.get(&account).await.body.contains("&lt;script&gt;alert('subject')"));
    let reason = "</textarea><script>alert('reason')</script>";
    let page = browser
        .submit(&account, "/account/lock", &[("name", name), ("reason", reason), ("reply", "\"><script>")])
        .await;
    for path in [page.location(), "/audit"] {
        let page = browser.get(path).await;
        assert!(
            page.body.contains("&lt;script&gt;alert('reason')") && page.body.matches("<script").count() == 1,
            "{path}"
        );
    }
}

#[tokio::test]
async fn each_role_is_shown_what_it_can_do_and_the_api_decides() {
    let api = Api::empty(false);
    api.locked("jo@example.org");
    api.locked("al@example.com");
    let served = serve(&api, ConsoleConfig::default()).await;

    let mut viewer = Browser::signed_in(&served, "viewer").await;
    let page = viewer.get(JO).await;
    assert!(!page.body.contains("/account/unlock") && !page.body.contains("href=\"/audit\""));
    let typed = [("name", "jo@example.org"), ("reason", "x"), ("note", "x")];
    let page = viewer.submit("/", "/account/unlock", &typed).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.body.contains("vera is viewer; this needs the role operator or admin"), "{}", page.body);
    let page = viewer.get("/audit").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.body.contains("this needs the role admin") && page.body.contains(">Back</a>"));

    let mut domain = Browser::signed_in(&served, "domain").await;
    for path in ["/", "/accounts"] {
        let page = domain.get(path).await;
        assert!(page.body.contains("example.org") && !page.body.contains("example.com"), "{path}");
    }
    assert!(domain.get("/").await.body.contains("Edges cannot be shown: edges are not of your domains"));
    assert_eq!(domain.get("/account?name=al%40example.com").await.status, StatusCode::NOT_FOUND);
    assert!(!domain.get("/rules").await.body.contains("/rules/switch"));
}

#[tokio::test]
async fn what_the_api_fails_with_is_said_and_no_page_breaks() {
    let api = Api::plausible(false);
    let served = serve(&api, ConsoleConfig::default()).await;
    let mut browser = Browser::signed_in(&served, "admin").await;
    let failures = [
        (Status::unavailable("the replica is not whole yet"), StatusCode::SERVICE_UNAVAILABLE),
        (Status::unimplemented("this method is of a newer version"), StatusCode::NOT_IMPLEMENTED),
        (Status::internal("<b>broken</b>"), StatusCode::BAD_GATEWAY),
        (Status::resource_exhausted("too many watches"), StatusCode::TOO_MANY_REQUESTS),
    ];
    for (status, expected) in failures {
        api.fail(Some(status.clone()));
        for path in ["/", "/accounts", JO, "/rules", "/edges", "/audit"] {
            let page = browser.get(path).await;
            assert_eq!(page.status, expected, "{path}");
            let said = status.message().replace('<', "&lt;").replace('>', "&gt;");
            assert!(page.body.contains(&said) && page.body.contains("<nav"), "{path}: {}", page.body);
        }
        assert_eq!(browser.get("/settings").await.status, StatusCode::OK, "what cannot be asked is a hint there");
    }
    api.fail(None);
    for (path, expected) in [
        ("/accounts?page=nonsense", "page_token is not from an answer before"),
        ("/accounts?size=many", "size is &quot;many&quot;; allowed: a number"),
        ("/audit?since=soon", "since: &quot;soon&quot; is no time"),
        ("/account?name=a+b", "contains white space"),
    ] {
        let page = browser.get(path).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{path}");
        assert!(page.body.contains(expected), "{path}: {}", page.body);
    }
}

#[tokio::test]
async fn a_rule_is_switched_off_and_limits_are_set_and_taken_back() {
    let api = Api::empty(false);
    let served = serve(&api, ConsoleConfig::default()).await;
    let mut browser = Browser::signed_in(&served, "admin").await;
    let page = browser.get("/rules").await;
    for told in ["Observe mode", "A rules file was not taken.", "Would have locked", "<strong>12 accounts</strong>"] {
        assert!(page.body.contains(told), "{told}");
    }
    let page =
        browser.submit("/rules", "/rules/switch", &[("rule", "burst"), ("to", "off"), ("reason", "wrong")]).await;
    assert!(browser.follow(&page).await.body.contains("The rule burst is switched off."));
    assert!(browser.get("/rules").await.body.contains("switched off"));
    assert!(browser.get("/settings").await.body.contains("burst"));

    let limits = [
        ("subject", "example.net"),
        ("limit", "recipients_1h_lock"),
        ("limit-recipients_1h_lock", "77.5"),
        ("reason", "x"),
    ];
    let page = browser.submit("/settings", "/settings/limits", &limits).await;
    let page = browser.follow(&page).await;
    assert!(page.body.contains("example.net") && page.body.contains("77.5"), "{}", page.body);
    let back = [("subject", "example.net"), ("remove", "yes"), ("reason", "x")];
    let page = browser.submit("/settings", "/settings/limits", &back).await;
    assert!(!browser.follow(&page).await.body.contains("77.5"));
    let domain = [("domain", "Example.NET"), ("rule", "burst"), ("until", "2030-01-01T00:00"), ("reason", "x")];
    let page = browser.submit("/settings", "/settings/exemption", &domain).await;
    assert!(browser.follow(&page).await.body.contains("The domain example.net is exempt."));
}

#[tokio::test]
async fn many_are_unlocked_after_a_dry_run_and_only_as_many_as_it_said() {
    let api = Api::empty(false);
    (0..100).for_each(|number| api.locked(&format!("a{number}@example.org")));
    let served = serve(&api, ConsoleConfig::default()).await;
    let mut browser = Browser::signed_in(&served, "operator").await;
    let locked = |api: &Api| (0..100).filter(|n| api.state(&format!("a{n}@example.org")).unwrap().status == 3).count();

    assert_eq!(
        browser.submit("/accounts", "/bulk", &[("what", "unlock"), ("scope", "chosen")]).await.status,
        StatusCode::BAD_REQUEST
    );
    let page =
        browser.submit("/accounts", "/bulk", &[("what", "unlock"), ("scope", "filter"), ("status", "locked")]).await;
    assert!(page.body.contains("Unlock accounts: locked") && page.body.contains("name=\"status\" value=\"locked\""));
    let asked = [
        ("what", "unlock"),
        ("scope", "filter"),
        ("status", "locked"),
        ("reason", "a wrong rule"),
        ("note", "nobody's fault"),
    ];
    let page = browser.submit("/accounts", "/bulk/dry-run", &asked).await;
    let page = browser.follow(&page).await;
    assert!(
        page.body.contains("<strong>100</strong> would be changed")
            && page.body.contains("100 accounts: locked → active")
    );
    assert_eq!(locked(&api), 100, "nothing is done yet");
    let id = page.value_of("name=\"id\" value=\"");

    // Nobody else's hand, and no other number.
    let path = format!("/bulk/action?id={id}");
    let mut other = Browser::signed_in(&served, "admin").await;
    assert_eq!(other.get(&path).await.status, StatusCode::NOT_FOUND);
    let page = browser.submit(&path, "/bulk/action", &[("id", &id), ("expected", "99")]).await;
    assert_eq!((page.status, locked(&api)), (StatusCode::BAD_REQUEST, 100));

    let page = browser.submit(&path, "/bulk/action", &[("id", &id), ("expected", "100")]).await;
    assert_eq!(page.location(), path);
    let page = settled(&mut browser, &path).await;
    assert!(
        page.body.contains("Done: </strong>100 of 100 accounts") || page.body.contains("100 of 100 accounts"),
        "{}",
        page.body
    );
    assert_eq!(locked(&api), 0);

    // The filter finds others by then: nothing is done, and it is said.
    api.locked("a1@example.org");
    let page = browser.submit("/accounts", "/bulk/dry-run", &asked).await;
    let path = page.location().split("&note").next().unwrap().to_owned();
    let id = path.split('=').nth(1).unwrap().to_owned();
    api.locked("a2@example.org");
    browser.submit(&path, "/bulk/action", &[("id", &id), ("expected", "1")]).await;
    let page = settled(&mut browser, &path).await;
    assert!(page.body.contains("2 accounts are meant by now; nothing was done"), "{}", page.body);
    assert_eq!(locked(&api), 2);
}

#[tokio::test]
async fn a_pasted_list_is_locked_and_what_cannot_be_is_named() {
    let api = Api::empty(false);
    api.locked("a@example.org");
    let served = serve(&api, ConsoleConfig::default()).await;
    let mut browser = Browser::signed_in(&served, "operator").await;
    let asked = [
        ("what", "lock"),
        ("scope", "pasted"),
        ("pasted", "a@example.org\n# known\n\nb@example.org\r\n"),
        ("reason", "leak"),
        ("hours", "4"),
    ];
    let page = browser.submit("/bulk", "/bulk/dry-run", &asked).await;
    let page = browser.follow(&page).await;
    assert!(page.body.contains("it is locked already") && page.body.contains("Lock 1 account"), "{}", page.body);
    let id = page.value_of("name=\"id\" value=\"");
    browser.submit("/bulk", "/bulk/action", &[("id", &id), ("expected", "2")]).await;
    settled(&mut browser, &format!("/bulk/action?id={id}")).await;
    let lock = api.state("b@example.org").unwrap().lock.unwrap();
    assert_eq!(lock.until_ms.unwrap() - lock.since_ms, 4 * 3_600_000);
}

/// The page of a bulk action when it is over.
async fn settled(browser: &mut Browser, path: &str) -> Page {
    loop {
        let page = browser.get(path).await;
        if !page.body.contains("Working: ") {
            return page;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
