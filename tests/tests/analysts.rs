//! The tools that analysts have, real ones, over mail that was just sent: the examples of `deploy/examples/analytics` ask
//! the history by ADBC (pandas and Polars) and JDBC, and read its tables themselves.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tidegate_tests::analyst::Analyst;
use tidegate_tests::command::{self, Ended};
use tidegate_tests::hijack::Sites;
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use tidegate_tests::mail::{BURST_RULES, PASSWORD, THIEF, person, send_spam};
use tidegate_tests::secured::Credentials;
use xtask::smtp::{Outcome, SmtpClient};
use xtask::tools;
use xtask::wait::wait_until;

/// Gives rows for hours.
const ENDLESS: &str = "SELECT a.value FROM generate_series(1, 1000000000000) a";

/// A provider after a hijacking: mail has been sent, the thief is locked, and unlocked again.
struct Provider {
    server: Server,
    /// Queue ids of the messages that were accepted, by account.
    sent: BTreeMap<String, Vec<String>>,
    lock: String,
    _sites: Sites,
    dir: tempfile::TempDir,
}

impl Provider {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), "server", "serve", &Log::Embedded, BURST_RULES).unwrap();
        let sites = Sites::start(dir.path(), server.control, "", 2).unwrap();
        let mut sent: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut note = |account: &str, outcome: &Outcome| {
            let id = outcome.reply.text.rsplit_once("queued as ").map(|(_, id)| id.trim().to_owned());
            sent.entry(account.to_owned()).or_default().extend(id);
        };
        for number in 0..2 {
            let from = person(number);
            let mut client = SmtpClient::login(sites.postfixes[number].address(), &from, PASSWORD).unwrap();
            for letter in 0..3 + number {
                let text = format!("Subject: Letter {letter}\n\n{}\n", "All is well. ".repeat(1 + 9 * letter));
                let outcome = client.send(&from, &["friend@elsewhere.test"], &text).unwrap();
                assert!(outcome.is_accepted(), "{outcome:?}");
                note(&from, &outcome);
            }
        }
        let mut thief = sites.thief_at(0).unwrap();
        let refused = (0..1_000).any(|number| {
            let outcome = send_spam(&mut thief, number).unwrap();
            note(THIEF, &outcome);
            !outcome.is_accepted()
        });
        assert!(refused, "the thief was never locked");
        let unlock = ["accounts", "unlock", THIEF, "--reason", "called back", "--password-changed", "now"];
        server.admin(&unlock).unwrap().succeeded().unwrap();

        let analyst = Analyst::new(server.history).unwrap();
        let total: usize = sent.values().map(Vec::len).sum();
        let there = || {
            analyst
                .ask("SELECT count(*) FROM events WHERE is_message")
                .is_ok_and(|rows| rows[0][0] == total.to_string())
        };
        wait_until("all mail to be in the history", TIMEOUT, there).unwrap();
        let ended = || analyst.ask("SELECT lock_id FROM locks WHERE how_it_ended = 'unlocked'").unwrap_or_default();
        wait_until("the lock and its end to be in the history", TIMEOUT, || ended().len() == 1).unwrap();
        let lock = ended()[0][0].clone();
        Self { server, sent, lock, _sites: sites, dir }
    }

    fn history(&self) -> SocketAddr {
        self.server.history
    }

    /// Where the tables are.
    fn tables(&self) -> PathBuf {
        self.dir.path().join("server/log/history")
    }

    /// `account,count` of all that was sent, as the tools are to say it, with what stands between.
    fn counts(&self, between: &str) -> Vec<String> {
        self.sent.iter().map(|(account, ids)| format!("{account}{between}{}", ids.len())).collect()
    }

    /// All queue ids, sorted.
    fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.sent.values().flatten().cloned().collect();
        ids.sort_unstable();
        ids
    }
}

#[test]
fn the_tools_of_analysts_tell_what_was_just_sent() {
    let provider = Provider::start();
    adbc_on_loopback(&provider);
    jdbc_on_loopback(&provider);
    tables_themselves(&provider);
}

fn adbc_on_loopback(provider: &Provider) {
    let address = provider.history().to_string();
    let adbc = |arguments: &[&str]| adbc(&[&["--server", &address][..], arguments].concat());
    let told = |arguments: &[&str]| adbc(arguments).succeeded().unwrap().stdout;

    let counted = "SELECT account, count(*) AS messages FROM events WHERE is_message GROUP BY 1 ORDER BY 1";
    let ids = "SELECT queue_id FROM events WHERE is_message AND time > ? ORDER BY 1";
    for frames in ["pandas", "polars"] {
        let answer = told(&["query", "--frames", frames, counted]);
        assert_eq!(lines(&answer), with_head("account,messages", provider.counts(",")), "{frames}");
        let since = "SELECT queue_id FROM events WHERE is_message AND size_bytes > ? ORDER BY 1";
        assert_eq!(lines(&told(&["query", "--frames", frames, since, "0"])), with_head("queue_id", provider.ids()));
    }
    assert_eq!(adbc(&["query", ids, "0"]).code(), 1, "a number is no time");
    let counted = "SELECT count(*) FROM events WHERE is_message AND account = ?";
    let prepared = told(&["prepared", counted, THIEF, &person(1), "nobody@example.test"]);
    let thefts = provider.sent[THIEF].len();
    let expected = format!("parameters: $1 string\n{THIEF} {thefts}\n{} 4\nnobody@example.test 0\n", person(1));
    assert_eq!(prepared, expected);

    let tables = told(&["tables"]);
    assert!(tables.starts_with("Tidegate history "), "{tables}");
    for beginning in [
        "tidegate history events TABLE date, time, account, kind, ",
        "tidegate history locks VIEW account, domain, lock_id, ",
    ] {
        assert!(tables.lines().any(|told| told.starts_with(beginning)), "{beginning}\n{tables}");
    }
    let schema = told(&["schema", "events"]);
    let line = "size_bytes int64 Size of the message in octets.";
    assert!(schema.lines().any(|told| told == line), "{schema}");
    assert!(told(&["schema", "top_senders"]).starts_with("date date32[day] \naccount string \n"));

    let wrong = adbc(&["query", "SELECT acount FROM events"]);
    assert_eq!(wrong.code(), 1);
    assert!(wrong.stderr.contains("acount") && wrong.stderr.contains("Column: 8"), "{}", wrong.report());
    let refused = adbc(&["query", "DELETE FROM events"]);
    assert!(refused.stderr.contains("read-only"), "{}", refused.report());
    let cancelled = adbc(&["cancel", ENDLESS]);
    assert_eq!(cancelled.code(), 1, "{}", cancelled.report());
    assert!(cancelled.stderr.contains("cancel"), "{}", cancelled.report());
    nothing_runs_any_more(provider);
}

fn jdbc_on_loopback(provider: &Provider) {
    let url = format!("jdbc:arrow-flight-sql://{}/?useEncryption=false", provider.history());
    let jdbc = Jdbc::compile();
    let told = |arguments: &[&str]| jdbc.run(&url, None, arguments).succeeded().unwrap().stdout;

    let counted = "SELECT account, count(*) FROM events WHERE is_message GROUP BY 1 ORDER BY 1";
    assert_eq!(lines(&told(&["query", counted])), provider.counts("|"));
    let prepared = "SELECT queue_id FROM events WHERE is_message AND account = ? AND time > ? AND time < ? AND \
                    date >= ? AND size_bytes > ? ORDER BY 1";
    let parameters = [THIEF, "2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z", "2020-01-01", "0"];
    let mut ids = provider.sent[THIEF].clone();
    ids.sort_unstable();
    assert_eq!(lines(&told(&[&["query", prepared][..], &parameters].concat())), ids);
    let late = [THIEF, "2100-01-01T00:00:00Z", "2100-01-01T00:00:00Z", "2020-01-01", "0"];
    assert_eq!(told(&[&["query", prepared][..], &late].concat()), "");
    let locks = told(&["query", "SELECT * FROM locks"]);
    for part in [provider.lock.as_str(), THIEF, "|burst|", "messages_1m", "|called back|", "|amy|"] {
        assert!(locks.contains(part), "{part}: {locks}");
    }
    assert_eq!(lines(&told(&["limits", "SELECT account, time FROM events"])).len(), 2);

    let metadata = told(&["metadata"]);
    for line in [
        "product|Tidegate history|0.1.0",
        "read only|true|transactions|false|quote|\"|isolation|0",
        "catalog|tidegate",
        "schema|history|tidegate",
        "schema|information_schema|tidegate",
        "schema of the catalog|history|tidegate",
        "table type|TABLE",
        "table type|VIEW",
    ] {
        assert!(metadata.lines().any(|told| told == line), "{line}\n{metadata}");
    }
    for beginning in [
        "table|tidegate|history|events|TABLE|",
        "table|tidegate|history|locks|VIEW|",
        "column|tidegate|history|events|size_bytes|-5|",
        "column of a view|tidegate|history|locks|lock_id|12|",
    ] {
        assert!(metadata.lines().any(|told| told.starts_with(beginning)), "{beginning}\n{metadata}");
    }
    assert!(metadata.contains("|Size of the message in octets.|"), "{metadata}");
    assert!(metadata.lines().any(|line| line.starts_with("functions|") && line.contains("network_of")), "{metadata}");
    assert!(!metadata.contains("key|"), "there are no keys: {metadata}");

    let wrong = jdbc.run(&url, None, &["query", "SELECT acount FROM events"]);
    assert!(wrong.code() == 1 && wrong.stderr.contains("Column: 8"), "{}", wrong.report());
    let refused = jdbc.run(&url, None, &["query", "DROP TABLE events"]);
    assert!(refused.stderr.contains("read-only"), "{}", refused.report());
    let cancelled = jdbc.run(&url, None, &["cancel", ENDLESS]);
    assert!(cancelled.code() == 1 && cancelled.stderr.contains("cancel"), "{}", cancelled.report());
    nothing_runs_any_more(provider);
}

fn tables_themselves(provider: &Provider) {
    let tables = provider.tables();
    let delta = |arguments: &[&str]| {
        let mut command = python("delta.py");
        command.arg(&tables).args(arguments);
        command::run(command, TIMEOUT).unwrap().succeeded().unwrap().stdout
    };
    let described = delta(&["describe"]);
    let total: usize = provider.sent.values().map(Vec::len).sum();
    assert!(described.contains("reader 1, writer 2, features []"), "{described}");
    assert!(described.contains("  size_bytes  long  Size of the message in octets.\n"), "{described}");
    let counted: Vec<String> =
        provider.sent.iter().map(|(account, ids)| format!("('{account}', {})", ids.len())).collect();
    let messages = delta(&["messages"]);
    for engine in ["polars", "pandas"] {
        let line = format!("{engine} {}", counted.join(" "));
        assert!(messages.lines().any(|told| told == line), "{line}\n{messages}");
    }
    let locks = delta(&["locks"]);
    assert!(locks.starts_with(&format!("{} {THIEF} burst 20", provider.lock)), "{locks}");

    // The positions up to which the topic was read, added up, are the events: nothing was read twice or left out.
    let apps = applications(&tables.join("events/_delta_log"));
    let asked: Vec<&str> = apps.iter().flat_map(|app| ["--app", app]).collect();
    let log = delta(&[&["log"][..], &asked].concat());
    assert!(log.contains("commit 0 CREATE TABLE") || log.contains("WRITE"), "{log}");
    let of_files = |word: &str, at: usize| -> usize {
        let lines = log.lines().filter(|line| line.starts_with(word));
        lines.map(|line| line.split(' ').nth(at).unwrap().parse::<usize>().unwrap()).sum()
    };
    assert_eq!(of_files("file", 2), total, "{log}");
    assert_eq!(of_files("position", 2), total, "{log}");
}

/// Names under which the sink has committed offsets.
fn applications(log: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(log).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        let actions = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        found.extend(actions.filter_map(|action| action["txn"]["appId"].as_str().map(str::to_owned)));
    }
    found.retain(|app| app.starts_with("tidegate/"));
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn over_tls_a_token_opens_the_history_as_a_password_or_as_a_bearer_token() {
    let dir = tempfile::tempdir().unwrap();
    let credentials = Credentials::make(&dir.path().join("credentials")).unwrap();
    let analyst = credentials.token("analyst", "analyst", &[]).unwrap();
    let viewer = credentials.token("viewer", "viewer", &[]).unwrap();
    let admin = credentials.token("admin", "admin", &[]).unwrap();
    let wrong = dir.path().join("wrong.token");
    fs::write(&wrong, "tg_000000000000_wrong").unwrap();
    let tls = format!(
        "[history.tls]\ncertificate = {:?}\nkey = {:?}\n",
        credentials.file("server.pem"),
        credentials.file("server.key")
    );
    let sections = credentials.sections() + &tls;
    let rules = "mode = \"observe\"\n";
    let server = Server::start_with(dir.path(), "server", "serve", &Log::Embedded, rules, &sections).unwrap();
    for account in ["jo@example.test", "al@other.test"] {
        let lock = ["accounts", "lock", account, "--reason", "reported"];
        credentials.admin(server.control, &admin, &lock).unwrap().succeeded().unwrap();
    }
    let (address, ca) = (format!("localhost:{}", server.history.port()), credentials.file("ca.pem"));
    let locked = "SELECT account FROM locks ORDER BY 1";
    let adbc = |token: Option<&Path>, more: &[&str]| {
        let mut command = python("adbc.py");
        command.args(["--server", &address, "--ca"]).arg(&ca);
        token.map(|token| command.arg("--token-file").arg(token));
        command.args(more).args(["query", locked]);
        command::run(command, TIMEOUT).unwrap()
    };
    let expected = "account\nal@other.test\njo@example.test\n";
    wait_until("both locks to be in the history", TIMEOUT, || adbc(Some(&analyst), &[]).stdout == expected).unwrap();
    assert_eq!(adbc(Some(&analyst), &["--user", "ann"]).succeeded().unwrap().stdout, expected);
    for (token, more) in [(Some(wrong.as_path()), &[][..]), (Some(&wrong), &["--user", "ann"]), (None, &[])] {
        let refused = adbc(token, more);
        assert!(refused.code() == 1 && refused.stderr.contains("a valid credential is needed"), "{}", refused.report());
    }
    let refused = adbc(Some(&viewer), &[]);
    assert!(refused.stderr.contains("this needs the role analyst"), "{}", refused.report());

    let jdbc = Jdbc::compile();
    let url = format!("jdbc:arrow-flight-sql://{address}/?useEncryption=true&tlsRootCerts={}", ca.display());
    let expected = "al@other.test\njo@example.test\n";
    assert_eq!(jdbc.run(&url, Some(&analyst), &["query", locked]).succeeded().unwrap().stdout, expected);
    let with_token = format!("{url}&token={}", fs::read_to_string(&analyst).unwrap().trim());
    assert_eq!(jdbc.run(&with_token, None, &["query", locked]).succeeded().unwrap().stdout, expected);
    let refused = jdbc.run(&url, Some(&wrong), &["query", locked]);
    assert!(refused.code() != 0 && refused.stderr.contains("a valid credential is needed"), "{}", refused.report());
}

/// The example in Java, compiled.
struct Jdbc {
    driver: PathBuf,
    classes: tempfile::TempDir,
}

impl Jdbc {
    fn compile() -> Self {
        let (driver, classes) = (tools::flight_sql_jdbc().unwrap(), tempfile::tempdir().unwrap());
        let mut javac = Command::new("javac");
        javac.arg("-d").arg(classes.path()).arg(example("Metadata.java"));
        command::run(javac, TIMEOUT).unwrap().succeeded().unwrap();
        Self { driver, classes }
    }

    fn run(&self, url: &str, token: Option<&Path>, arguments: &[&str]) -> Ended {
        let mut java = Command::new("java");
        java.arg("--add-opens=java.base/java.nio=ALL-UNNAMED").arg("-cp");
        java.arg(std::env::join_paths([self.driver.as_path(), self.classes.path()]).unwrap()).args(["Metadata", url]);
        java.args(arguments).env_remove("TIDEGATE_TOKEN_FILE");
        token.map(|token| java.env("TIDEGATE_TOKEN_FILE", token));
        command::run(java, TIMEOUT).unwrap()
    }
}

fn adbc(arguments: &[&str]) -> Ended {
    let mut command = python("adbc.py");
    command.args(arguments);
    command::run(command, TIMEOUT).unwrap()
}

fn python(name: &str) -> Command {
    let mut command = Command::new(tools::python_of_analysts().unwrap());
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(example(name));
    command
}

fn example(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/analytics");
    folder.canonicalize().unwrap().join(name)
}

fn nothing_runs_any_more(provider: &Provider) {
    wait_until("the cancelled query to end", TIMEOUT, || {
        provider.server.process.metric("tidegate_history_queries_running", &[]).is_ok_and(|running| running < 1.0)
    })
    .unwrap();
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn with_head(head: &str, mut lines: Vec<String>) -> Vec<String> {
    lines.insert(0, head.to_owned());
    lines
}
