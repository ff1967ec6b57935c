//! Who may ask, and whose rows they see.

use crate::lab::{DAY_MS, Lab, ask, lines, quick, submission, wait_for};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tidegate_access::{Access, AccessConfig, FailureBounds, NewEnrolment, NewToken, Role, TokenFile};
use tidegate_bus::Topic;

/// A service with tokens, and one token of each kind.
pub struct Secured {
    pub lab: Lab,
    pub all: String,
    limited: String,
    viewer: String,
    /// All kinds of credentials by name; none: there is nothing to show.
    pub credentials: Vec<(&'static str, Option<String>)>,
    _folder: TempDir,
}

pub async fn secured() -> Secured {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tokens.toml");
    fs::write(&path, "").unwrap();
    let make = |name: &'static str, role, domain: Option<&str>| {
        let domains = domain.map(|domain| vec![domain.to_owned()]);
        let new = NewToken { name: name.to_owned(), role, domains, lifetime: None };
        TokenFile::create(&path, new, DAY_MS).unwrap().0.reveal()
    };
    let all = make("ann", Role::Analyst, None);
    let limited = make("dora", Role::Analyst, Some("example.org"));
    let viewer = make("vic", Role::Viewer, None);
    let roles = [
        ("viewer", Role::Viewer, None),
        ("operator", Role::Operator, None),
        ("analyst", Role::Analyst, None),
        ("admin", Role::Admin, None),
        ("analyst of another domain", Role::Analyst, Some("example.com")),
        ("admin of another domain", Role::Admin, Some("example.com")),
    ];
    let mut credentials = useless(&path);
    credentials.extend(roles.map(|(name, role, domain)| (name, Some(make(name, role, domain)))));
    // Nobody is to be kept out for what somebody else at this address tried.
    let failures = FailureBounds { max: 1_000, ..FailureBounds::default() };
    let access = Access::open(&AccessConfig { tokens: Some(path), failures, ..AccessConfig::default() }).unwrap();
    let lab = Lab::start_with(quick(), access).await;
    lab.send([submission("kim@example.org", 1, DAY_MS), submission("sam@example.net", 2, DAY_MS)]).await;
    lab.append(Topic::Events, "x", b"\xff".to_vec()).await;
    let secured = Secured { lab, all, limited, viewer, credentials, _folder: folder };
    let counted = "SELECT count(*) AS n, (SELECT count(*) FROM rejected) AS r FROM events";
    wait_for(secured.lab.channel.clone(), Some(&secured.all), counted, &["2|1"]).await;
    secured
}

/// Credentials with which nobody may do anything here.
fn useless(path: &Path) -> Vec<(&'static str, Option<String>)> {
    let lifetime = Duration::from_hours(1);
    let token = |name: &str, now_ms| {
        let new = NewToken { name: name.to_owned(), role: Role::Admin, domains: None, lifetime: Some(lifetime) };
        TokenFile::create(path, new, now_ms).unwrap()
    };
    let now_ms = tidegate_gate::now_ms();
    let (expired, _) = token("expired", now_ms - 7_200_000);
    let (revoked, of_revoked) = token("revoked", now_ms);
    TokenFile::revoke(path, &of_revoked.id, now_ms).unwrap();
    let new = NewEnrolment { site: "ams".into(), node: "mx1".into(), lifetime };
    let (enrolment, _) = TokenFile::create_enrolment(path, new, now_ms).unwrap();
    let revoked = revoked.reveal();
    let wrong = format!("{}x", &revoked[..revoked.len() - 1]);
    let shown =
        [("wrong", wrong), ("expired", expired.reveal()), ("revoked", revoked), ("enrolment", enrolment.reveal())];
    let shown = shown.map(|(name, token)| (name, Some(token)));
    [("none", None)].into_iter().chain(shown).collect()
}

impl Secured {
    async fn ask(&self, token: &str, sql: &str) -> Result<Vec<String>, String> {
        ask(self.lab.channel.clone(), Some(token), sql).await.map(|batches| lines(&batches))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_of_an_analyst_nothing_is_told() {
    let secured = secured().await;
    let error = ask(secured.lab.channel.clone(), None, "SELECT 1").await.unwrap_err();
    assert!(error.contains("authentication credentials") || error.contains("nauthenticated"), "{error}");
    let error = secured.ask("tg_wrong", "SELECT 1").await.unwrap_err();
    assert!(error.contains("authentication credentials") || error.contains("nauthenticated"), "{error}");
    let error = secured.ask(&secured.viewer, "SELECT account FROM events").await.unwrap_err();
    assert!(error.contains("you are viewer"), "{error}");
    let denied = "SELECT actor, role, request FROM audit WHERE NOT allowed AND actor IS NOT NULL";
    let expected = ["vic|viewer|SELECT account FROM events"];
    wait_for(secured.lab.channel.clone(), Some(&secured.all), denied, &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_limited_to_a_domain_sees_nothing_of_others() {
    let secured = secured().await;
    let asks = |sql: &'static str| secured.ask(&secured.limited, sql);
    assert_eq!(asks("SELECT account FROM events").await.unwrap(), ["kim@example.org"]);
    assert_eq!(asks("SELECT count(*) FROM events").await.unwrap(), ["1"]);
    assert_eq!(asks("SELECT account FROM top_senders").await.unwrap(), ["kim@example.org"]);
    assert_eq!(asks("SELECT account FROM account_timeline").await.unwrap(), ["kim@example.org"]);
    assert_eq!(asks("SELECT count(*) FROM events WHERE domain = 'example.net'").await.unwrap(), ["0"]);
    assert_eq!(asks("SELECT count(*) FROM audit").await.unwrap(), ["0"]);
    let error = asks("SELECT * FROM rejected").await.unwrap_err();
    assert!(error.contains("rejected") && error.contains("not found"), "{error}");
    let listed = "SELECT count(*) FROM information_schema.tables WHERE table_name = 'rejected'";
    assert_eq!(asks(listed).await.unwrap(), ["0"]);
    assert_eq!(secured.ask(&secured.all, "SELECT count(*) FROM events").await.unwrap(), ["2"]);
}
