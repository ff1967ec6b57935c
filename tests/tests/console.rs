//! An abuse desk's day on the web console, in a real Chromium, over HTTPS, on a real service with a real edge.
//!
//! Pictures of every page, wide and narrow, light and dark, are left in `target/console`.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use tidegate_tests::browser::{Browser, Look};
use tidegate_tests::command;
use tidegate_tests::hostile;
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use tidegate_tests::mail::BURST_RULES;
use tidegate_tests::process::{Launch, Process};
use tidegate_tests::programs;
use tidegate_tests::secured::Credentials;
use xtask::paths::target_dir;
use xtask::ports::free_port;
use xtask::tools;
use xtask::wait::wait_until;

const THIEF: &str = "thief@example.test";
/// A name that is a script, and a valid account.
const HOSTILE: &str = "<script>document.title='taken'</script>@example.test";

/// A service that asks who calls, its console, and a browser.
struct Desk {
    browser: Browser,
    console: String,
    server: Server,
    credentials: Credentials,
    admin: PathBuf,
    dir: TempDir,
}

impl Desk {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Credentials::make(&dir.path().join("credentials")).unwrap();
        let admin = credentials.token("amy", "admin", &[]).unwrap();
        let console = format!("127.0.0.1:{}", free_port().unwrap());
        let file = |name: &str| credentials.file(name);
        let sections = format!(
            "{}trust_domain = \"example.test\"\n\n[console]\nlisten = \"{console}\"\n\n[console.tls]\ncertificate = {:?}\nkey = {:?}\n",
            // Its last section is `[access]`.
            credentials.sections(),
            file("server.pem"),
            file("server.key"),
        );
        let server = Server::start_with(dir.path(), "server", "serve", &Log::Embedded, BURST_RULES, &sections).unwrap();
        let browser = Browser::start(dir.path()).unwrap();
        browser.look(Look::ALL[0]).unwrap();
        Self { browser, console: format!("https://{console}"), server, credentials, admin, dir }
    }

    fn go(&self, path: &str) {
        self.browser.go(&format!("{}{path}", self.console)).unwrap();
    }

    /// Signs in with the token in a file.
    fn sign_in(&self, token: &Path) {
        self.go("/sign-in");
        self.browser.type_into("#token", fs::read_to_string(token).unwrap().trim()).unwrap();
        self.browser.click("button[type=submit]").unwrap();
        self.browser.wait_for("h1", "Overview").unwrap();
    }

    fn sign_out(&self) {
        self.browser.click(".person button").unwrap();
        self.browser.wait_for(".note", "You are signed out.").unwrap();
    }

    /// Runs a command as an admin.
    fn admin(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        let ended = self.credentials.admin(self.server.control, &self.admin, &arguments).unwrap().succeeded().unwrap();
        serde_json::from_str(&ended.stdout).unwrap()
    }

    fn lock(&self, account: &str, reason: &str) {
        self.admin(&["accounts", "lock", account, "--reason", reason]);
    }

    fn status(&self, account: &str) -> String {
        self.admin(&["accounts", "show", account])["status"].as_str().unwrap().to_owned()
    }

    /// A mail host with its own certificate; gives where Postfix would ask it.
    fn edge(&self) -> (Process, SocketAddr) {
        let path = |name: &str| self.dir.path().join(name);
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut make = Command::new(programs::tidegate().unwrap());
        make.args(["certificate", "edge", "--authority", &text(&self.credentials.file("ca"))]);
        make.args(["--out", &text(&path("mx1")), "--trust-domain", "example.test", "--site", "ams", "--node", "mx1"]);
        command::run(make, TIMEOUT).unwrap().succeeded().unwrap();
        let address = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
        let (policy, ops) = (address(), address());
        let (home, config) = (path("edge"), path("edge.toml"));
        fs::create_dir_all(&home).unwrap();
        let settings = format!(
            "node = \"mx1\"\nsite = \"ams\"\nstate_directory = {home:?}\n\n[policy]\nlisten = [\"inet:{policy}\"]\n\n\
             [control]\nendpoint = \"https://{}\"\nmax_backoff_ms = 500\n[control.tls]\ncertificate = {:?}\nkey = {:?}\n\
             ca = {:?}\n\n[ops]\nlisten = \"{ops}\"\n",
            self.server.control,
            path("mx1.pem"),
            path("mx1.key"),
            self.credentials.file("ca.pem"),
        );
        fs::write(&config, settings).unwrap();
        let launch = Launch::new("edge", programs::tidegate_edge().unwrap());
        let edge = launch.args([Path::new("--config"), &config]).ops(ops).start(self.dir.path()).unwrap();
        wait_until("the edge is connected", TIMEOUT, || {
            self.admin(&["edges"]).as_array().is_some_and(|edges| edges.iter().any(|edge| edge["connected"] == true))
        })
        .unwrap();
        (edge, policy)
    }
}

#[test]
fn a_lock_arrives_live_is_understood_undone_and_found_in_the_audit() {
    let desk = Desk::open();
    let Desk { browser, admin, .. } = &desk;
    let (_edge, policy) = desk.edge();
    desk.sign_in(admin);
    browser.wait_for("#newest", "No account is locked or throttled.").unwrap();
    browser.wait_for("[data-live-state]", "Live.").unwrap();

    hostile::hijack(policy, THIEF).unwrap();
    // The page was not loaded again.
    browser.wait_for("#newest", THIEF).unwrap();
    browser.wait_for("[data-said]", "is now locked.").unwrap();
    browser.click("#newest a.account").unwrap();

    browser.wait_for("h1", THIEF).unwrap();
    browser.wait_for("#state", "Many messages of one size to many domains").unwrap();
    for evidence in ["messages 1m", "size cv 15m", "recipient domains 15m", "192.0.2.1"] {
        browser.wait_for("#state", evidence).unwrap();
    }
    browser.wait_for("#statistics", "lock at >= 40").unwrap();
    assert!(browser.run("return document.querySelectorAll('#statistics svg').length", &[]).unwrap().as_u64() > Some(0));
    browser.wait_for("#applied", "In force").unwrap();
    browser.wait_for("#timeline", "Locked by the rule burst").unwrap();

    // Without evidence the service refuses, and what was typed stays.
    browser.type_into("#unlock-reason", "ticket 4711: called back").unwrap();
    browser.click("form[action='/account/unlock'] button").unwrap();
    browser.wait_for("[role=alert]", "password was changed").unwrap();
    assert_eq!(desk.status(THIEF), "locked");
    browser.type_into("#unlock-note", "new password set on the phone").unwrap();
    browser.click("form[action='/account/unlock'] button").unwrap();
    browser.wait_for(".note", "Done. The account is active.").unwrap();
    browser.wait_for("#state", "On probation").unwrap();
    browser.wait_for("#timeline", "Unlocked by amy: ticket 4711: called back").unwrap();
    assert_eq!(desk.status(THIEF), "active");

    browser.click("a[data-go=u]").unwrap();
    browser.wait_for("#records", "UnlockAccount").unwrap();
    browser.wait_for("#records", "ticket 4711: called back").unwrap();
    assert_eq!(browser.complaints().unwrap(), refused_form(&desk.console));
    desk.sign_out();
    desk.go("/accounts");
    browser.wait_for("h1", "Sign in").unwrap();
}

/// What Chromium logs of the form that was refused with a reason.
fn refused_form(console: &str) -> Vec<String> {
    vec![format!(
        "{console}/account/unlock - Failed to load resource: the server responded with a status of 409 (Conflict)"
    )]
}

#[test]
fn a_domains_administrator_sees_and_unlocks_only_its_own() {
    let desk = Desk::open();
    let Desk { browser, .. } = &desk;
    desk.lock("jo@example.test", "reported");
    desk.lock("al@other.test", "reported");
    desk.sign_in(&desk.credentials.token("dora", "operator", &["--domain", "example.test"]).unwrap());
    for path in ["/", "/accounts", "/rules", "/edges", "/sessions"] {
        desk.go(path);
        let page = browser.run("return document.documentElement.outerHTML", &[]).unwrap();
        assert!(!page.as_str().unwrap().contains("other.test"), "{path}: {page}");
    }
    desk.go("/accounts?status=locked&domains=other.test");
    browser.wait_for("#list", "0 accounts").unwrap();
    desk.go("/accounts");
    browser.wait_for("#list", "1 account").unwrap();
    // A change of another domain's account is not told either; one of its own, after it, is.
    browser.wait_for("[data-live-state]", "Live.").unwrap();
    desk.lock("bo@other.test", "reported");
    desk.lock("bo@example.test", "reported");
    browser.wait_for("[data-said]", "bo@example.test is now locked.").unwrap();
    browser.wait_for("#list", "2 accounts").unwrap();
    desk.go("/account?name=al%40other.test");
    browser.wait_for("[role=alert]", "accounts of example.test only").unwrap();

    // All that are found, after a dry run; but not everything there is, by a slip.
    desk.go("/accounts");
    browser.click("input[value=filter]").unwrap();
    browser.click("button[value=unlock]").unwrap();
    browser.wait_for("[role=alert]", "The filter is empty").unwrap();
    desk.go("/accounts?status=locked");
    browser.click("input[value=filter]").unwrap();
    browser.click("button[value=unlock]").unwrap();
    browser.wait_for("h1", "Unlock accounts: locked").unwrap();
    browser.type_into("#bulk-reason", "by mistake").unwrap();
    browser.type_into("#bulk-note", "asked all of them").unwrap();
    browser.click("form[action='/bulk/dry-run'] button").unwrap();
    browser.wait_for("#progress", "2 would be changed").unwrap();
    browser.click("form[action='/bulk/action'] button").unwrap();
    browser.wait_for("#progress", "Done: 2 of 2 accounts").unwrap();
    assert_eq!(["jo@example.test", "bo@example.test"].map(|name| desk.status(name)), ["active", "active"]);
    assert_eq!(["al@other.test", "bo@other.test"].map(|name| desk.status(name)), ["locked", "locked"]);
}

#[test]
fn every_page_is_accessible_fits_its_window_and_takes_no_script_from_anybody() {
    let desk = Desk::open();
    let Desk { browser, .. } = &desk;
    let (_edge, policy) = desk.edge();
    hostile::hijack(policy, THIEF).unwrap();
    for number in 0..30 {
        desk.lock(&format!("person{number}@example.test"), "their bank called: <img src=x onerror=alert(1)>");
    }
    desk.lock(HOSTILE, "</textarea><script>document.title='taken'</script>");
    desk.admin(&["settings", "exempt-domain", "other.test", "--reason", "<script>document.title='taken'</script>"]);
    let axe = tools::axe().unwrap();
    let pictures = target_dir().join("console");
    fs::create_dir_all(&pictures).unwrap();

    let hostile = "/account?name=%3Cscript%3Edocument.title%3D%27taken%27%3C%2Fscript%3E%40example.test";
    let pages = [
        ("overview", "/", "h1", "Overview"),
        ("accounts", "/accounts?order=changed", "#list", "person3@example.test"),
        ("account", "/account?name=thief%40example.test", "#statistics", "lock at >= 40"),
        ("hostile", hostile, "h1", HOSTILE),
        ("bulk", "/bulk", "h1", "Act on a list"),
        ("rules", "/rules", "#rules", "burst"),
        ("edges", "/edges", "#edges", "mx1"),
        ("audit", "/audit", "#records", "LockAccount"),
        ("settings", "/settings", "main", "other.test"),
        ("sessions", "/sessions", "main", "this one"),
    ];
    let mut faults = Vec::new();
    let mut inspect = |page: &str, look: Look| {
        let serious = browser.serious_faults(&axe).unwrap();
        faults.extend(serious.iter().map(|fault| format!("{page}, {}: {fault}", look.name)));
        if browser.is_too_wide().unwrap() {
            faults.push(format!("{page}, {}: it is wider than its window", look.name));
        }
        let title = browser.run("return document.title", &[]).unwrap();
        if title == "taken" {
            faults.push(format!("{page}, {}: a script from outside ran", look.name));
        }
        browser.picture(&pictures.join(format!("{page}-{}.png", look.name))).unwrap();
    };
    for look in Look::ALL {
        browser.look(look).unwrap();
        desk.go("/sign-in");
        inspect("sign-in", look);
        desk.sign_in(&desk.admin);
        for (name, path, selector, text) in pages {
            desk.go(path);
            browser.wait_for(selector, text).unwrap();
            inspect(name, look);
        }
        desk.go("/accounts?status=locked");
        browser.click("input[value=filter]").unwrap();
        browser.click("button[value=unlock]").unwrap();
        browser.wait_for("h1", "Unlock accounts: locked").unwrap();
        inspect("bulk-how", look);
        browser.type_into("#bulk-reason", "a drill").unwrap();
        browser.type_into("#bulk-note", "none needed").unwrap();
        browser.click("form[action='/bulk/dry-run'] button").unwrap();
        browser.wait_for("#progress", "32 would be changed").unwrap();
        inspect("bulk-plan", look);
        desk.sign_out();
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(browser.complaints().unwrap(), [""; 0], "the policy refused nothing, since nothing was tried");
}

#[test]
fn keys_alone_do_and_ten_thousand_locks_leave_the_page_usable() {
    let desk = Desk::open();
    let Desk { browser, dir, .. } = &desk;
    desk.sign_in(&desk.admin);
    browser.wait_for("[data-live-state]", "Live.").unwrap();
    let press = |keys: &str| browser.type_into("body", keys).unwrap();
    press("ga");
    browser.wait_for("h1", "Accounts").unwrap();
    browser.wait_for("[data-live-state]", "Live.").unwrap();

    let file = dir.path().join("all.txt");
    let names: Vec<String> = (0..10_000).map(|number| format!("a{number}@example.test\n")).collect();
    let names = names.concat();
    fs::write(&file, names).unwrap();
    let lock = ["accounts", "bulk", "lock", "--file", file.to_str().unwrap(), "--reason", "a drill", "--apply"];
    assert_eq!(desk.admin(&lock)["changed"].as_u64(), Some(10_000));
    browser.wait_for("#list", "10,000 accounts").unwrap();

    // The filter works as one types, on the page as it is.
    press("/");
    let typed = browser.run("return document.activeElement.id", &[]).unwrap();
    assert_eq!(typed, "contains");
    browser.type_into("#contains", "a9999").unwrap();
    browser.wait_for("#list", "1 account").unwrap();
    assert_eq!(browser.path().unwrap(), "/accounts?contains=a9999&size=100");
    browser.wait_for("[data-live-state]", "Live.").unwrap();
    desk.lock("xa9999@example.test", "typed live");
    browser.wait_for("#list", "2 accounts").unwrap();
}
