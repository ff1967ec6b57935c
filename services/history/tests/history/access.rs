//! Who may ask, and whose rows they see.

use crate::lab::{DAY_MS, Lab, ask, lines, quick, submission, wait_for};
use std::fs;
use tempfile::TempDir;
use tidegate_access::{Access, AccessConfig, NewToken, Role, TokenFile};
use tidegate_bus::Topic;

/// A service with tokens, and one token of each kind.
pub struct Secured {
    pub lab: Lab,
    pub all: String,
    limited: String,
    viewer: String,
    _folder: TempDir,
}

pub async fn secured() -> Secured {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tokens.toml");
    fs::write(&path, "").unwrap();
    let make = |name: &str, role, domains| {
        let new = NewToken { name: name.to_owned(), role, domains, lifetime: None };
        TokenFile::create(&path, new, DAY_MS).unwrap().0.reveal()
    };
    let all = make("ann", Role::Analyst, None);
    let limited = make("dora", Role::Analyst, Some(vec!["example.org".to_owned()]));
    let viewer = make("vic", Role::Viewer, None);
    let access = Access::open(&AccessConfig { tokens: Some(path), ..AccessConfig::default() }).unwrap();
    let lab = Lab::start_with(quick(), access).await;
    lab.send([submission("jo@example.org", 1, DAY_MS), submission("sam@example.net", 2, DAY_MS)]).await;
    lab.append(Topic::Events, "x", b"\xff".to_vec()).await;
    let secured = Secured { lab, all, limited, viewer, _folder: folder };
    let counted = "SELECT count(*) AS n, (SELECT count(*) FROM rejected) AS r FROM events";
    wait_for(secured.lab.channel.clone(), Some(&secured.all), counted, &["2|1"]).await;
    secured
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
    assert_eq!(asks("SELECT account FROM events").await.unwrap(), ["jo@example.org"]);
    assert_eq!(asks("SELECT count(*) FROM events").await.unwrap(), ["1"]);
    assert_eq!(asks("SELECT account FROM top_senders").await.unwrap(), ["jo@example.org"]);
    assert_eq!(asks("SELECT account FROM account_timeline").await.unwrap(), ["jo@example.org"]);
    assert_eq!(asks("SELECT count(*) FROM events WHERE domain = 'example.net'").await.unwrap(), ["0"]);
    assert_eq!(asks("SELECT count(*) FROM audit").await.unwrap(), ["0"]);
    let error = asks("SELECT * FROM rejected").await.unwrap_err();
    assert!(error.contains("rejected") && error.contains("not found"), "{error}");
    let listed = "SELECT count(*) FROM information_schema.tables WHERE table_name = 'rejected'";
    assert_eq!(asks(listed).await.unwrap(), ["0"]);
    assert_eq!(secured.ask(&secured.all, "SELECT count(*) FROM events").await.unwrap(), ["2"]);
}
