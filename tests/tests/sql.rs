//! `tidegate sql`, `accounts history` and `history erase` against a real server: as a command, in a pipe, and as a shell on
//! a terminal.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use tidegate_proto::v1;
use tidegate_proto::v1::event_service_client::EventServiceClient;
use tidegate_tests::command::{self, Ended};
use tidegate_tests::installation::{Log, Server, TIMEOUT};
use tidegate_tests::programs;
use tidegate_tests::secured::Credentials;
use tidegate_tests::terminal::{CTRL_C, ENTER, TAB, Terminal};
use xtask::paths::workspace_root;
use xtask::wait::wait_until;

const JO: &str = "jo@example.test";
const AL: &str = "al@example.test";
const MESSAGES: u64 = 300;
/// So much that no machine is done with it before somebody cancels it.
const ENDLESS: &str = "SELECT sum(value % 7) FROM generate_series(1, 1000000000000)";

/// The shell waits for keys: from here on it takes what is pasted as one. Its prompt itself is drawn again with keys.
const PROMPT: &str = "\u{1b}[?2004h";

struct Analyst {
    server: Server,
    dir: tempfile::TempDir,
}

impl Analyst {
    /// A server with 300 messages in its history, two of them of AL's, and a lock of JO.
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path(), "server", "serve", &Log::Embedded, "mode = \"observe\"\n").unwrap();
        publish(&server);
        let analyst = Self { server, dir };
        analyst
            .server
            .admin(&["accounts", "lock", JO, "--reason", "reported by\tthe bank"])
            .unwrap()
            .succeeded()
            .unwrap();
        wait_until("the history has everything", TIMEOUT, || {
            let counts = "SELECT (SELECT count(*) FROM events) AS e, (SELECT count(*) FROM locks) AS l, \
                          (SELECT count(*) FROM audit WHERE account IS NOT NULL) AS a";
            let ended = analyst.run(&["sql", "--csv", counts]);
            ended.code() == 0 && ended.stdout.ends_with(&format!("\n{MESSAGES},1,2\n"))
        })
        .unwrap();
        analyst
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs::tidegate().unwrap());
        command.args(arguments).env("TIDEGATE_HISTORY", self.address()).current_dir(self.dir.path());
        command
    }

    fn address(&self) -> String {
        format!("http://{}", self.server.history)
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        command::run(self.command(arguments), TIMEOUT).unwrap()
    }

    /// Runs `tidegate sql ARGUMENTS < text`.
    fn piped(&self, arguments: &[&str], text: &str) -> Ended {
        let input = self.dir.path().join("input");
        fs::write(&input, text).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "program=$0; exec \"$program\" sql \"$@\" < input"]).arg(programs::tidegate().unwrap());
        shell.args(arguments).env("TIDEGATE_HISTORY", self.address()).current_dir(self.dir.path());
        command::run(shell, TIMEOUT).unwrap()
    }

    fn shell(&self) -> Terminal {
        let state = self.dir.path().join("state");
        let environment = [("TIDEGATE_HISTORY", self.address()), ("XDG_STATE_HOME", state.display().to_string())];
        let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
        Terminal::start(&programs::tidegate().unwrap(), &["sql"], &environment).unwrap()
    }

    fn queries(&self, result: &str) -> f64 {
        self.server.process.metric("tidegate_history_queries_total", &[("result", result)]).unwrap()
    }

    fn wait_until_a_query_runs(&self) {
        let running = || self.server.process.metric("tidegate_history_queries_running", &[]).unwrap();
        wait_until("the query runs", TIMEOUT, || running() > 0.0).unwrap();
    }
}

fn publish(server: &Server) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let event = |sequence: u64| {
        let is_other = sequence > MESSAGES - 2;
        let submission = v1::Submission {
            client_address: vec![203, 0, 113, if is_other { 9 } else { u8::try_from(sequence % 9).unwrap() }],
            recipient_count: 2,
            recipient_domains: vec!["a.example".into(), "b.example".into()],
            size_bytes: 1_000,
            subject: "hi\u{1b}[2J".into(),
            ..v1::Submission::default()
        };
        v1::Event {
            id: Some(v1::EventId { node: "mx1".into(), lane: v1::Lane::Live.into(), sequence }),
            site: "ams".into(),
            account: if is_other { AL } else { JO }.into(),
            time_ms: now - 1_000,
            trace_parent: String::new(),
            kind: Some(v1::event::Kind::Submission(submission)),
        }
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = EventServiceClient::connect(format!("http://{}", server.control)).await.unwrap();
        let events = (1..=MESSAGES).map(event).collect();
        client.publish(v1::PublishRequest { events }).await.unwrap();
    });
}

#[test]
fn an_answer_is_a_table_json_csv_or_parquet() {
    let analyst = Analyst::start();
    let sql =
        "SELECT account, count(*) AS messages, min(recipient_domains) AS domains FROM events GROUP BY 1 ORDER BY 2";
    let table = analyst.run(&["sql", sql]).succeeded().unwrap().stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].contains("account") && lines[1].contains(AL) && lines[2].contains("298"), "{table}");
    assert_eq!(lines[3], "(2 rows)", "{table}");
    let csv = analyst.run(&["sql", "--csv", sql]).succeeded().unwrap().stdout;
    let list = "\"[\"\"a.example\"\",\"\"b.example\"\"]\"";
    assert_eq!(csv, format!("account,messages,domains\n{AL},2,{list}\n{JO},298,{list}\n"));
    let json = analyst.run(&["sql", "--json", sql]).succeeded().unwrap().stdout;
    let rows: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&rows[0]["account"], &rows[1]["messages"]), (&Value::from(AL), &Value::from(298)));
    let file = analyst.dir.path().join("all.parquet");
    let all = ["sql", "--parquet", "all.parquet", "SELECT *, now() - time AS age FROM events"];
    let told = analyst.run(&all).succeeded().unwrap();
    assert!(told.stdout.is_empty() && told.stderr.contains("300 rows"), "{}", told.report());
    let octets = fs::read(&file).unwrap();
    assert!(octets.starts_with(b"PAR1") && octets.ends_with(b"PAR1"));
    // What somebody wrote into a subject does not speak to the terminal.
    let subject = analyst.run(&["sql", "SELECT DISTINCT subject FROM events"]).succeeded().unwrap().stdout;
    assert!(subject.contains("hi\\u{1b}[2J") && !subject.contains('\u{1b}'), "{subject}");
}

#[test]
fn statements_come_from_files_and_pipes_and_the_first_mistake_ends_them() {
    let analyst = Analyst::start();
    let text = "-- two of them\nSELECT count(*)\nFROM events; SELECT ';' AS semicolon\n";
    let expected = "count(*)\n300\nsemicolon\n;\n";
    assert_eq!(analyst.piped(&["--csv"], text).succeeded().unwrap().stdout, expected);
    fs::write(analyst.dir.path().join("two.sql"), text).unwrap();
    assert_eq!(analyst.run(&["sql", "--csv", "--file", "two.sql"]).succeeded().unwrap().stdout, expected);
    assert_eq!(analyst.piped(&["--csv", "--file", "-"], "\\i two.sql\n").succeeded().unwrap().stdout, expected);
    let described = analyst.piped(&[], "\\d\n\\d events\n\\d locks").succeeded().unwrap().stdout;
    for told in ["account_timeline", "Each lock: why", "fingerprint", "array<bigint>", "Its query:"] {
        assert!(described.contains(told), "{told}: {described}");
    }

    fs::write(analyst.dir.path().join("wrong.sql"), "SELECT 1;\n\nSELECT account\nFORM events;\nSELECT 2;\n").unwrap();
    let wrong = analyst.run(&["sql", "--csv", "--file", "wrong.sql"]);
    assert_eq!((wrong.code(), wrong.stdout.as_str()), (2, "Int64(1)\n1\n"), "{}", wrong.report());
    assert!(wrong.stderr.contains("wrong.sql, statement of line 3"), "{}", wrong.report());
    let unknown = analyst.run(&["sql", "SELECT account,\n  messagez FROM events"]);
    assert_eq!(unknown.code(), 2, "{}", unknown.report());
    let lines: Vec<&str> = unknown.stderr.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("LINE 2:   messagez")).expect(&unknown.stderr);
    assert_eq!(lines[at].find("messagez"), lines[at + 1].find('^'), "{}", unknown.report());

    let write = analyst.run(&["sql", "DELETE FROM events"]);
    assert!(write.code() == 1 && write.stderr.contains("read-only"), "{}", write.report());
    let several = analyst.run(&["sql", "--parquet", "none.parquet", "SELECT 1; SELECT 2"]);
    assert!(several.code() == 2 && !analyst.dir.path().join("none.parquet").exists(), "{}", several.report());
    let nowhere = analyst.run(&["sql", "--server", "http://127.0.0.1:1", "SELECT 1"]);
    assert!(nowhere.code() == 1 && nowhere.stderr.contains("is it running?"), "{}", nowhere.report());
}

#[test]
fn the_readmes_questions_are_answered() {
    let readme = fs::read_to_string(workspace_root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```sql\n").unwrap();
    let analyst = Analyst::start();
    let answers = analyst.piped(&["--csv"], rest.split_once("```").unwrap().0).succeeded().unwrap();
    assert!(answers.stdout.contains("other_account") && answers.stdout.contains("hour"), "{}", answers.report());
    for (_, rest) in readme.match_indices("tidegate sql \"").map(|(at, begin)| readme.split_at(at + begin.len())) {
        analyst.run(&["sql", rest.split_once('"').unwrap().0]).succeeded().unwrap();
    }
}

#[test]
fn ctrl_c_cancels_on_the_server() {
    let analyst = Analyst::start();
    let script = format!("\"$0\" sql \"{ENDLESS}\" & program=$!; read -r go < go; kill -INT $program; wait $program");
    let go = analyst.dir.path().join("go");
    assert!(Command::new("mkfifo").arg(&go).status().unwrap().success());
    let mut shell = Command::new("sh");
    // A shell without job control starts what runs in the background with SIGINT ignored; the program takes it all the same.
    shell.args(["-c", &script]).arg(programs::tidegate().unwrap());
    shell.env("TIDEGATE_HISTORY", analyst.address()).current_dir(analyst.dir.path());
    let ended = std::thread::spawn(move || command::run(shell, TIMEOUT).unwrap());
    analyst.wait_until_a_query_runs();
    fs::write(&go, "go\n").unwrap();
    let ended = ended.join().unwrap();
    assert!(ended.code() == 1 && ended.stderr.contains("cancelled"), "{}", ended.report());
    wait_until("it ends there", TIMEOUT, || analyst.queries("cancelled") > 0.0).unwrap();
}

#[test]
fn the_shell_edits_lines_and_goes_on_after_ctrl_c() {
    let analyst = Analyst::start();
    let mut terminal = analyst.shell();
    terminal.wait_for(PROMPT, TIMEOUT).unwrap();
    terminal.press(&format!("SELECT count(*){ENTER}FROM events WHERE account = '{JO}';{ENTER}")).unwrap();
    terminal.wait_for("298", TIMEOUT).unwrap();
    terminal.wait_for("(1 row)", TIMEOUT).unwrap();
    terminal.wait_for(PROMPT, TIMEOUT).unwrap();

    // A mistake is shown, and is no end.
    terminal.press(&format!("SELECT messagez FROM events;{ENTER}")).unwrap();
    terminal.wait_for("LINE 1: SELECT messagez", TIMEOUT).unwrap();
    terminal.wait_for(PROMPT, TIMEOUT).unwrap();

    // Names are known soon; then Tab completes this one.
    wait_until("the names are known", TIMEOUT, || {
        terminal.press(&format!("\\d account_ti{TAB}{ENTER}")).unwrap();
        let told = terminal.wait_for(PROMPT, TIMEOUT).unwrap();
        told.contains("All that is known of an account")
    })
    .unwrap();

    // Ctrl-C at the prompt drops what is typed.
    terminal.press("SELECT 'dropped").unwrap();
    terminal.wait_for("'dropped", TIMEOUT).unwrap();
    terminal.press(CTRL_C).unwrap();
    terminal.wait_for(PROMPT, TIMEOUT).unwrap();

    // While a query runs it is told how far it is, and Ctrl-C cancels it.
    terminal.press(&format!("{ENDLESS};{ENTER}")).unwrap();
    terminal.wait_for("0 rows, ", TIMEOUT).unwrap();
    terminal.wait_for("(Ctrl-C cancels)", TIMEOUT).unwrap();
    terminal.press(CTRL_C).unwrap();
    terminal.wait_for("the query was cancelled", TIMEOUT).unwrap();
    wait_until("it ends on the server", TIMEOUT, || analyst.queries("cancelled") > 0.0).unwrap();
    terminal.wait_for(PROMPT, TIMEOUT).unwrap();

    let mut type_line = |line: &str, answer: &str| {
        terminal.press(&format!("{line}{ENTER}")).unwrap();
        terminal.wait_for(answer, TIMEOUT).unwrap();
        terminal.wait_for(PROMPT, TIMEOUT).unwrap();
    };
    type_line("\\x on", "Each row is a list.");
    type_line("\\timing", "Times are told.");
    type_line("SELECT 40 + 2 AS answer;", "-[ row 1 ]-\r\nanswer  42\r\n(1 row)\r\nTime: ");
    let file = analyst.dir.path().join("answer.csv");
    type_line("\\f csv", "csv");
    type_line(&format!("\\o {}", file.display()), "answer.csv");
    type_line("SELECT 1 AS one;", "Time: ");
    terminal.press(&format!("\\q{ENTER}")).unwrap();
    assert_eq!(terminal.wait_for_end(TIMEOUT).unwrap(), 0);
    assert_eq!(fs::read_to_string(&file).unwrap(), "one\n1\n");

    // The next shell remembers what was typed, and nobody else can read it.
    let remembered = analyst.dir.path().join("state/tidegate/sql_history");
    assert_eq!(fs::metadata(&remembered).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&remembered).unwrap().contains("messagez"));
    let mut again = analyst.shell();
    again.wait_for(PROMPT, TIMEOUT).unwrap();
    again.press("\u{1b}[A\u{1b}[A").unwrap();
    again.wait_for("SELECT 1 AS one;", TIMEOUT).unwrap();
}

#[test]
fn an_accounts_timeline_is_told_in_few_lines() {
    let analyst = Analyst::start();
    let told = analyst.run(&["accounts", "history", JO, "--since", "1d"]).succeeded().unwrap().stdout;
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].contains("298 messages to 596 recipients, 1 lock"), "{told}");
    // 298 messages from nine addresses within one hour (or two).
    assert!(lines.len() < 20, "{told}");
    let locked = lines.iter().position(|line| line.contains("LOCKED by amy: reported by\\tthe bank (L-")).expect(&told);
    assert!(
        lines.iter().take(locked).any(|line| line.contains("sent 34 messages to 68 recipients from 203.0.113.")),
        "{told}"
    );
    assert!(lines.iter().any(|line| line.contains("amy asked for LockAccount")), "{told}");
    let json = analyst.run(&["accounts", "history", JO, "--json"]).succeeded().unwrap().stdout;
    let value: Value = serde_json::from_str(&json).unwrap();
    let kinds: Vec<&str> =
        value["entries"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert!(["did", "decided", "asked"].iter().all(|kind| kinds.contains(kind)), "{json}");
    let nothing = analyst.run(&["accounts", "history", JO, "--until", "2d"]).succeeded().unwrap();
    assert!(nothing.stdout.contains("has nothing of"), "{}", nothing.report());
    let wrong = analyst.run(&["accounts", "history", JO, "--since", "yesterday"]);
    assert!(wrong.code() == 2 && wrong.stderr.contains("2026-11-25"), "{}", wrong.report());
}

#[test]
fn an_account_is_forgotten_when_that_is_confirmed() {
    let analyst = Analyst::start();
    let erase = ["history", "erase", "--account", JO, "--reason", "request 12"];
    let unconfirmed = analyst.run(&erase);
    assert!(unconfirmed.code() == 2 && unconfirmed.stderr.contains("--yes"), "{}", unconfirmed.report());
    let named = analyst.run(&["history", "erase", "--account", JO, "--reason", "Jo@example.test asked", "--yes"]);
    assert!(named.code() == 2 && named.stderr.contains("names the account"), "{}", named.report());

    let environment = [("TIDEGATE_HISTORY", analyst.address())];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut terminal = Terminal::start(&programs::tidegate().unwrap(), &erase, &environment).unwrap();
    terminal.wait_for("Type the account to go on: ", TIMEOUT).unwrap();
    terminal.press(&format!("yes{ENTER}")).unwrap();
    terminal.wait_for("nothing was done", TIMEOUT).unwrap();
    assert_eq!(terminal.wait_for_end(TIMEOUT).unwrap(), 1);
    let count = "SELECT count(*) FROM events";
    assert_eq!(analyst.run(&["sql", "--csv", count]).stdout, "count(*)\n300\n");

    let told = analyst.run(&[&erase[..], &["--yes"]].concat()).succeeded().unwrap().stdout;
    assert!(told.contains("events           298 rows, "), "{told}");
    assert!(told.contains("account_changes") && told.contains("audit"), "{told}");
    assert_eq!(analyst.run(&["sql", "--csv", count]).stdout, "count(*)\n2\n");
    let again = analyst.run(&[&erase[..], &["--yes", "--json"]].concat()).succeeded().unwrap().stdout;
    let tables: Value = serde_json::from_str(&again).unwrap();
    assert!(tables.as_array().unwrap().iter().all(|one| one["rows"] == 0), "{again}");
    // (That question stands in the audit, with the name.)
    let nothing = analyst.run(&["accounts", "history", JO]).succeeded().unwrap().stdout;
    assert!(nothing.contains("has nothing of"), "{nothing}");

    // The service is asked for as before.
    let usage = analyst.run(&["history"]);
    assert!(usage.code() == 2 && usage.stderr.contains("--config"), "{}", usage.report());
    let config = analyst.server.config.to_str().unwrap();
    let mut with_config = analyst.command(&erase);
    with_config.env("TIDEGATE_CONFIG", config);
    let unconfirmed = command::run(with_config, TIMEOUT).unwrap();
    assert!(unconfirmed.code() == 2 && unconfirmed.stderr.contains("--yes"), "{}", unconfirmed.report());
    analyst.run(&["history", "--config", config, "--check-config"]).succeeded().unwrap();
}

#[test]
fn analysts_prove_who_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let credentials = Credentials::make(&dir.path().join("credentials")).unwrap();
    let file = |name: &str| credentials.file(name);
    let tls = format!(
        "{}[history.tls]\ncertificate = {:?}\nkey = {:?}\nclient_ca = {:?}\n",
        credentials.sections(),
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    );
    let analyst = credentials.token("ana", "analyst", &[]).unwrap();
    let viewer = credentials.token("vic", "viewer", &[]).unwrap();
    let server =
        Server::start_with(dir.path(), "server", "serve", &Log::Embedded, "mode = \"observe\"\n", &tls).unwrap();
    let ask = |token: &Path, arguments: &[&str]| {
        let mut command = Command::new(programs::tidegate().unwrap());
        command.args(arguments).env("TIDEGATE_HISTORY", format!("https://{}", server.history));
        command.env("TIDEGATE_CA", file("ca.pem")).env("TIDEGATE_TOKEN_FILE", token);
        command::run(command, TIMEOUT).unwrap()
    };
    let counted = ask(&analyst, &["sql", "--csv", "SELECT count(*) AS n FROM events"]).succeeded().unwrap();
    assert_eq!(counted.stdout, "n\n0\n");
    let refused = ask(&viewer, &["sql", "SELECT 1"]);
    assert!(refused.code() == 1 && refused.stderr.contains("viewer"), "{}", refused.report());
    let erase = ["history", "erase", "--account", JO, "--reason", "request 12", "--yes"];
    let refused = ask(&analyst, &erase);
    assert!(refused.code() == 1 && refused.stderr.contains("you are analyst"), "{}", refused.report());
    fs::write(dir.path().join("wrong.token"), "tg_wrong").unwrap();
    let wrong = ask(&dir.path().join("wrong.token"), &["sql", "SELECT 1"]);
    assert!(wrong.code() == 1 && !wrong.stderr.contains("tg_wrong"), "{}", wrong.report());
}
