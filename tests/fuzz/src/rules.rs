//! Statistics and rules files: what is wrong has a place, and what is right never fails while it runs.

use std::sync::LazyLock;

use tidegate_detect::{
    DEFAULT_RULES, DEFAULT_STATISTICS, Engine, EngineLimits, EventBatchBuilder, Problem, RuleSettings, Rules, Source,
    Statistics, parse_files,
};
use tidegate_domain::{Account, Recipients, Submission};

use crate::input::outcome;
use crate::{Outcome, Target};

const SQL_WORDS: &[&str] = &[
    " = ",
    ";",
    "count(*)",
    "sum(",
    "avg(",
    "stddev(",
    "distinct(",
    "top_share(",
    "FILTER (WHERE ",
    "recipient_count",
    "size",
    "client_ip",
    "recipient_hashes",
    "spam",
    "fingerprint",
    "message",
    "1e308",
    "9223372036854775807",
    "0.0",
    "NULL",
    "CASE WHEN ",
    " THEN ",
    " ELSE ",
    " END",
    " IN (",
    " BETWEEN ",
    " LIKE '%'",
    " IS NULL",
    "NOT ",
    " AND ",
    " OR ",
    "ln(",
    "exp(",
    "sqrt(",
    "nullif(",
    "coalesce(",
    "greatest(",
    "round(",
    "/",
    "%",
    "*",
    "-",
    "--",
    "/*",
    "(",
    ")",
    "'",
    "\"",
    ",",
    "\n",
];
const RULE_WORDS: &[&str] = &[
    "[[rule]]\n",
    "[[limits_for]]\n",
    "[probation]\n",
    "factor = 0.5\n",
    "tighten = [\"limit\"]\n",
    "limits = { limit = 2 }\n",
    "accounts = [\"jo@a.test\"]\n",
    "max_auto_unlocks = 2\n",
    "[limits]\n",
    "mode = \"enforce\"\n",
    "name = \"a\"\n",
    "when = \"",
    "\"\"\"\n",
    "action = \"lock\"\n",
    "action = \"throttle\"\n",
    "for = \"30m\"\n",
    "reply = \"r\"\n",
    "reason = \"r\"\n",
    "source = \"s\"\n",
    "queued_mail = \"hold\"\n",
    "enabled = false\n",
    "domains = [\"a.test\"]\n",
    "messages_1h",
    "client_ips_15m",
    "size_cv_24h",
    "account_domain",
    "account_kind",
    "account",
    " >= ",
    " AND ",
    " OR ",
    "NOT ",
    "$limit",
    "limit = 5\n",
    "1e308",
    " / ",
    " * ",
    " - ",
    "ln(",
    "least(",
    "lower(",
    "starts_with(",
    "character_length(",
    " LIKE '%'",
    " IN (",
    "CASE WHEN ",
    "(",
    ")",
    "'",
    "\"",
    ",",
    "\n",
];

/// A statistics file, without the planner.
pub const STATISTICS_TEXT: Target = Target {
    name: "statistics-text",
    run: statistics_text,
    seeds: statistics_text_seeds,
    words: SQL_WORDS,
    max_octets: 4 * 1024,
    test_inputs: 10_000,
};

/// A statistics file, planned, and run over some events.
pub const STATISTICS: Target = Target {
    name: "statistics",
    run: statistics,
    seeds: statistics_seeds,
    words: SQL_WORDS,
    max_octets: 256,
    test_inputs: 1_000,
};

/// A rules file, without the predicates.
pub const RULES_TEXT: Target = Target {
    name: "rules-text",
    run: rules_text,
    seeds: rules_text_seeds,
    words: RULE_WORDS,
    max_octets: 4 * 1024,
    test_inputs: 10_000,
};

/// A predicate of a rule, planned, and run over some events.
pub const RULES: Target = Target {
    name: "rules",
    run: rules,
    seeds: predicate_seeds,
    words: RULE_WORDS,
    max_octets: 200,
    test_inputs: 1_000,
};

const FILE: &str = "a-file";

/// Each problem is one line that says where and what, and they come in the order of the file.
fn check(text: &str, problems: &[Problem]) -> Outcome {
    assert!(!problems.is_empty());
    assert!(problems.is_sorted_by_key(|problem| problem.position));
    let lines = text.split('\n').count() as u64 + 1;
    for problem in problems {
        assert_eq!(problem.file, FILE);
        assert!(!problem.message.is_empty());
        if let Some(position) = problem.position {
            assert!(position.line >= 1 && position.line <= lines, "{problem} in {text:?}");
            let longest = text.chars().count() as u64 + 1;
            assert!(position.column >= 1 && position.column <= longest, "{problem} in {text:?}");
        } else {
            // Only what is wrong with the file as a whole has no place.
            assert!(problem.subject.is_none(), "{problem} in {text:?}");
        }
    }
    // Words only: names and numbers are new in nearly every input.
    let words = |problem: &Problem| problem.message.split('`').step_by(2).collect::<String>();
    outcome(problems.iter().take(3).map(words).collect::<Vec<_>>())
}

fn statistics_text(octets: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(octets);
    match Statistics::outline(FILE, &text) {
        Ok(infos) => outcome((infos.len().min(4), infos.iter().any(|info| !info.description.is_empty()))),
        Err(problems) => check(&text, &problems),
    }
}

fn statistics(octets: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(octets);
    match Statistics::parse(FILE, &text) {
        Ok(statistics) => {
            assert_eq!(Statistics::outline(FILE, &text).as_deref(), Ok(statistics.list()));
            let names: Vec<&str> = statistics.list().iter().map(|info| info.name.as_str()).collect();
            let predicate = names.iter().map(|name| format!("{name}_1h >= 0")).collect::<Vec<_>>().join(" OR ");
            let rules = rule(&predicate);
            let rules = Rules::parse(FILE, &rules, &statistics).unwrap();
            run(statistics, rules)
        }
        Err(problems) => {
            if let Err(outlined) = Statistics::outline(FILE, &text) {
                assert!(outlined.iter().all(|problem| problems.contains(problem)));
            }
            check(&text, &problems)
        }
    }
}

fn rules_text(octets: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(octets);
    match Rules::outline(FILE, &text) {
        Ok(infos) => outcome(infos.iter().take(4).map(|info| (info.enabled, info.domains.len())).collect::<Vec<_>>()),
        Err(problems) => check(&text, &problems),
    }
}

fn rules(octets: &[u8]) -> Outcome {
    static STATISTICS: LazyLock<Statistics> = LazyLock::new(|| {
        Statistics::parse("shipped", "messages = count(*); size_cv = stddev(size) / avg(size); client_ips = distinct(client_ip); same = top_share(fingerprint); bytes = sum(size);").unwrap()
    });
    let predicate = String::from_utf8_lossy(octets);
    let text = rule(&predicate);
    match Rules::parse(FILE, &text, &STATISTICS) {
        Ok(rules) => {
            assert!(!rules.list()[0].when.is_empty());
            let limits = [("example.org".to_owned(), [("limit".to_owned(), 2.0)].into())];
            let settings = RuleSettings { limits_for: limits.into(), ..RuleSettings::default() };
            let (other, problems) = rules.with_settings(settings);
            assert_eq!(other.list(), rules.list());
            // With another number it may never hold, or always.
            assert!(problems.iter().all(|problem| problem.contains("example.org")), "{problems:?}");
            outcome((run(STATISTICS.clone(), rules), run(STATISTICS.clone(), other), problems.len()))
        }
        Err(problems) => check(&text, &problems),
    }
}

/// A file with this rule, in a TOML string with escapes, and a sound one after it.
fn rule(predicate: &str) -> String {
    // JSON's escapes are TOML's; of what TOML does not allow JSON leaves one character alone.
    let quoted = serde_json::Value::from(predicate.replace('\u{7f}', " ")).to_string();
    let rest = "action = \"observe\"\nreason = \"r\"\nsource = \"s\"\n";
    format!(
        "[limits]\nlimit = 5\n[[rule]]\nname = \"a\"\nwhen = {quoted}\n{rest}[[rule]]\nname = \"b\"\nwhen = \"1 < $limit \
         AND account <> 'x'\"\n{rest}"
    )
}

/// What was planned never fails while it runs.
fn run(statistics: Statistics, rules: Rules) -> Outcome {
    let mut engine = Engine::new(statistics, rules, EngineLimits::default()).unwrap();
    let mut matches = 0;
    for start in [0, 1_700_000_000_000, 1_700_000_000_001] {
        let mut builder = EventBatchBuilder::new();
        for (number, size) in [0, 1, u64::MAX, 4_000].into_iter().enumerate() {
            let submission = Submission {
                size,
                client_address: (number > 0).then_some([192, 0, 2, number as u8].into()),
                recipients: Recipients { count: number as u32, hashes: vec![size], ..Recipients::default() },
                fingerprint: number as u64,
                spam: number == 2,
                spam_score: (number == 3).then_some(f64::MAX),
                ..Submission::default()
            };
            let account = Account::parse(if number == 0 { "address:192.0.2.1" } else { "jo@example.org" }).unwrap();
            builder.push(&account, start as u64 + number as u64, start, &submission, true);
        }
        matches += engine.process(&builder.finish().unwrap()).unwrap().len();
    }
    let account = Account::parse("jo@example.org").unwrap();
    let columns = engine.columns(&account, 1_700_000_000_001).unwrap();
    assert!(columns.iter().all(|(_, value)| value.is_none_or(f64::is_finite)), "{columns:?}");
    outcome((matches, columns.iter().filter(|(_, value)| value.is_some()).count()))
}

fn entries() -> Vec<String> {
    DEFAULT_STATISTICS.split("\n\n").filter(|entry| entry.contains(" = ")).map(str::to_owned).collect()
}

fn statistics_text_seeds() -> Vec<Vec<u8>> {
    let pairs = entries().windows(2).map(<[String]>::concat).collect::<Vec<_>>();
    pairs.into_iter().chain(entries()).map(String::into_bytes).collect()
}

fn statistics_seeds() -> Vec<Vec<u8>> {
    let without_comment =
        |entry: String| entry.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
    let short = entries().into_iter().map(without_comment).filter(|entry| entry.len() < 250);
    short.map(String::into_bytes).collect()
}

fn rules_text_seeds() -> Vec<Vec<u8>> {
    let (head, rules) = DEFAULT_RULES.split_once("[[rule]]").unwrap();
    let each = rules.split("[[rule]]").map(|rule| format!("[[rule]]{rule}"));
    each.chain([head.to_owned()]).map(String::into_bytes).collect()
}

fn predicate_seeds() -> Vec<Vec<u8>> {
    let file = parse_files(
        Source { name: "shipped", text: DEFAULT_STATISTICS },
        Source { name: "shipped", text: DEFAULT_RULES },
    );
    let (_, rules) = file.unwrap();
    let mut seeds: Vec<Vec<u8>> =
        rules.list().iter().map(|info| info.when.clone().into_bytes()).filter(|when| when.len() < 200).collect();
    let own = [
        "messages_1h >= 60 AND size_cv_15m < 0.1",
        "client_ips_24h >= 20 OR (same_1h > 0.9 AND messages_24h >= $limit)",
        "account_domain IN ('example.org') AND NOT starts_with(account, 'news')",
        "CASE WHEN messages_1h > 5 THEN bytes_1h / messages_1h ELSE NULL END > 1000",
        "account_kind = 'login' AND bytes_5m BETWEEN 1 AND 2e9 AND account LIKE '%@%'",
    ];
    seeds.extend(own.map(|text| text.as_bytes().to_vec()));
    seeds
}
