//! The same rules with other limits: for domains, for accounts, on probation; and rules that are switched off.

use proptest::prelude::*;
use std::collections::BTreeMap;
use tidegate_detect::{
    DEFAULT_RULES, DEFAULT_STATISTICS, Engine, EngineLimits, EventBatchBuilder, Limits, Mode, RuleSettings, Rules,
    Statistics,
};
use tidegate_domain::{Account, Recipients, Submission};

const NOW_MS: i64 = 1_750_000_000_000;

/// A count that gates watch, a digest that they watch, and a limit that tightens when it rises.
const RULES: &str = r#"
mode = "enforce"

[limits]
many = 6
people = 4
alike = 0.1

[[rule]]
name = "many"
when = "messages_15m >= $many"
action = "notify"
reason = "many messages"
source = "this test"

[[rule]]
name = "people"
when = "messages_15m >= 2 AND different_recipients_15m >= $people"
action = "notify"
reason = "many people"
source = "this test"

[[rule]]
name = "alike"
when = "messages_15m >= $many - 1 AND size_cv_15m <= $alike"
action = "observe"
reason = "messages of one size"
source = "this test"
"#;

fn statistics() -> Statistics {
    Statistics::parse("statistics.sql", DEFAULT_STATISTICS).unwrap()
}

fn parse(more: &str) -> Rules {
    Rules::parse("rules.toml", &format!("{RULES}{more}"), &statistics()).unwrap()
}

fn limits(numbers: &[(&str, f64)]) -> Limits {
    numbers.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
}

fn limits_for(subjects: &[(&str, &[(&str, f64)])]) -> RuleSettings {
    let limits_for = subjects.iter().map(|(subject, numbers)| ((*subject).to_owned(), limits(numbers)));
    RuleSettings { limits_for: limits_for.collect(), ..RuleSettings::default() }
}

fn engine(rules: Rules) -> Engine {
    Engine::new(rules.statistics().clone(), rules, EngineLimits::default()).unwrap()
}

fn message(number: u64, size: u64) -> Submission {
    let recipients = Recipients { count: 1, internal: 0, domains: Vec::new(), hashes: vec![number] };
    Submission { size, recipients, ..Submission::default() }
}

/// How many messages it takes until rule `many` holds for an account, one after the other.
fn messages_until_many(engine: &mut Engine, account: &str, probation_until_ms: Option<i64>) -> u64 {
    let account = Account::parse(account).unwrap();
    engine.forget(&account);
    for number in 1..100 {
        let mut builder = EventBatchBuilder::new();
        builder.push(&account, number, NOW_MS + number.cast_signed(), &message(0, 1_000 * number), true);
        let found = engine.process_with(&builder.finish().unwrap(), |_| probation_until_ms).unwrap();
        if found.iter().flat_map(|found| &found.matches).any(|found| found.rule.name == "many") {
            return number;
        }
    }
    panic!("rule `many` never held for {account}");
}

#[test]
fn an_accounts_limits_go_over_its_domains_and_settings_over_the_file() {
    let file = "
        [[limits_for]]
        domains = ['big.example', 'Small.example.']
        limits = { many = 20, people = 90 }
        [[limits_for]]
        accounts = ['news@big.example', 'jo']
        limits = { many = 30 }
    ";
    let of_file = parse(file);
    let mut engine = engine(of_file.clone());
    let until_many = |engine: &mut Engine, accounts: &[&str]| -> Vec<u64> {
        accounts.iter().map(|account| messages_until_many(engine, account, None)).collect()
    };
    let accounts = ["jo@example.org", "jo@big.example", "jo@small.example", "news@big.example", "jo"];
    assert_eq!(until_many(&mut engine, &accounts), [6, 20, 20, 30, 30]);
    let settings = limits_for(&[
        ("big.example", &[("many", 25.0)]),
        ("news@big.example", &[("people", 3.0)]),
        ("amy@example.org", &[("many", 2.0)]),
    ]);
    let (rules, problems) = of_file.with_settings(settings);
    assert_eq!(problems, [""; 0]);
    assert_ne!(rules.version(), of_file.version());
    engine.set_rules(rules.clone()).unwrap();
    assert_eq!(until_many(&mut engine, &accounts), [6, 25, 20, 30, 30]);
    assert_eq!(until_many(&mut engine, &["amy@example.org"]), [2]);
    // Settings are in place of those before, not added to them.
    let (rules, _) = rules.with_settings(RuleSettings::default());
    assert_eq!(rules.version(), of_file.version());
    engine.set_rules(rules).unwrap();
    assert_eq!(until_many(&mut engine, &["jo@big.example", "amy@example.org"]), [20, 6]);
}

#[test]
fn a_probationer_is_judged_by_tighter_limits_until_its_time_has_passed() {
    let rules = parse("[probation]\nfactor = 0.5\ntighten = ['many']\nlimits = { people = 2, alike = 0.3 }\n");
    let mut engine = engine(rules.with_settings(limits_for(&[("big.example", &[("many", 40.0)])])).0);
    for (account, usual, on_probation) in [("jo@example.org", 6, 3), ("jo@big.example", 40, 20)] {
        assert_eq!(messages_until_many(&mut engine, account, None), usual);
        assert_eq!(messages_until_many(&mut engine, account, Some(NOW_MS + 1_000)), on_probation);
        assert_eq!(messages_until_many(&mut engine, account, Some(NOW_MS)), usual, "it is over");
        // It ends after the second message, though nothing was decided in between.
        assert_eq!(messages_until_many(&mut engine, account, Some(NOW_MS + 3)), usual);
    }
}

/// With the shipped rules, from the moment when the account is unlocked.
#[test]
fn the_shipped_probation_halves_what_a_thief_can_send() {
    let rules = Rules::parse("rules.toml", DEFAULT_RULES, &statistics()).unwrap().in_mode(Mode::Enforce);
    let recipients_until_lock = |probation_until_ms| {
        let mut engine = engine(rules.clone());
        let jo = Account::parse("jo@example.org").unwrap();
        for number in 1..=60_u64 {
            let mut builder = EventBatchBuilder::new();
            let recipients = Recipients { count: 10, ..Recipients::default() };
            let submission = Submission { size: 1_000 * number, recipients, ..Submission::default() };
            builder.push(&jo, number, NOW_MS + number.cast_signed() * 40_000, &submission, true);
            let found = engine.process_with(&builder.finish().unwrap(), |_| probation_until_ms).unwrap();
            if found.iter().flat_map(|found| &found.matches).any(|found| found.rule.name == "recipients-1h") {
                return number * 10;
            }
        }
        panic!("never locked");
    };
    assert_eq!(recipients_until_lock(None), 500);
    assert_eq!(recipients_until_lock(Some(NOW_MS + 86_400_000)), 250);
}

#[test]
fn a_rule_that_is_switched_off_is_not_evaluated() {
    let of_file = parse("");
    let switched_off = |names: &[&str]| RuleSettings {
        switched_off: names.iter().map(|name| (*name).to_owned()).collect(),
        ..RuleSettings::default()
    };
    let (rules, problems) = of_file.with_settings(switched_off(&["people", "gone"]));
    assert_eq!(problems, ["settings: rule `gone` is switched off, and there is none of this name"]);
    let flags: Vec<_> = rules.list().iter().map(|rule| (rule.enabled, rule.switched_off)).collect();
    assert_eq!(flags, [(true, false), (false, true), (true, false)]);
    assert_ne!(rules.version(), of_file.version());
    let names = |rules: &Rules| -> Vec<String> {
        let mut builder = EventBatchBuilder::new();
        for number in 0..9 {
            builder.push(&Account::parse("jo@example.org").unwrap(), number, NOW_MS, &message(number, 1_000), true);
        }
        let found = engine(rules.clone()).process(&builder.finish().unwrap()).unwrap();
        found.iter().flat_map(|found| &found.matches).map(|found| found.rule.name.clone()).collect()
    };
    assert_eq!(names(&of_file), ["many", "people", "alike"]);
    assert_eq!(names(&rules), ["many", "alike"]);
    let (again, _) = rules.with_settings(switched_off(&[]));
    assert_eq!((names(&again), again.version()), (names(&of_file), of_file.version()));
    // What its file switches off stays off.
    let off = parse("enabled = false\n");
    let (rules, _) = off.with_settings(switched_off(&["alike"])).0.with_settings(switched_off(&[]));
    assert_eq!((rules.list()[2].enabled, rules.list()[2].switched_off), (false, false));
}

#[test]
fn settings_that_cannot_be_had_are_told_and_left_out() {
    let rules = parse("[probation]\nfactor = 0.5\n");
    let settings = limits_for(&[
        ("a.example", &[("mny", 3.0), ("people", 2.0)]),
        ("b.example", &[("alike", 0.0), ("many", 0.0)]),
        ("c.example", &[("many", 3.0)]),
    ]);
    let (rules, problems) = rules.with_settings(settings);
    let expected = ["settings: limits for `a.example`: unknown limit `mny` (did you mean `many`?): left out"];
    assert_eq!(problems, expected);
    let mut engine = engine(rules.clone());
    assert_eq!(messages_until_many(&mut engine, "jo@c.example", None), 3);

    let impossible = "[[rule]]\nname = 'share'\nwhen = 'messages_1h > 1 AND same_content_1h >= $share'\naction = 'notify'\n\
                      reason = 'r'\nsource = 's'\n";
    let text = format!("{}{impossible}", RULES.replace("[limits]", "[limits]\nshare = 0.9"));
    let rules = Rules::parse("rules.toml", &text, &statistics()).unwrap();
    let (rules, problems) = rules
        .with_settings(limits_for(&[("a.example", &[("share", 5.0), ("many", 2.0)]), ("b.example", &[("many", 2.0)])]));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("settings: limits for `a.example`: with them rule `share`: it never holds"));
    let mut engine = self::engine(rules);
    assert_eq!(messages_until_many(&mut engine, "jo@a.example", None), 6, "all of its limits are the usual ones");
    assert_eq!(messages_until_many(&mut engine, "jo@b.example", None), 2);
}

#[test]
fn there_are_256_different_sets_of_limits() {
    let limits_for =
        (0..300).map(|number| (format!("d{number:03}.example"), limits(&[("many", 7.0 + f64::from(number / 2 * 2))])));
    let few = RuleSettings { limits_for: limits_for.collect(), ..RuleSettings::default() };
    assert_eq!(parse("").with_settings(few).1, [""; 0], "two domains share each of 150 sets");
    let limits_for =
        (0..300).map(|number| (format!("d{number:03}.example"), limits(&[("many", 7.0 + f64::from(number))])));
    let many = RuleSettings { limits_for: limits_for.collect(), ..RuleSettings::default() };
    let (rules, problems) = parse("").with_settings(many);
    assert_eq!(problems.len(), 44);
    assert_eq!(
        problems[0],
        "settings: limits for `d256.example`: there are 256 different sets of limits already: left out"
    );
    let mut engine = engine(rules);
    assert_eq!(messages_until_many(&mut engine, "jo@d040.example", None), 47);
    assert_eq!(messages_until_many(&mut engine, "jo@d299.example", None), 6);
}

/// What one account is judged by.
#[derive(Debug, Clone, Copy)]
struct Person {
    account: &'static str,
    many: f64,
    people: f64,
}

const PEOPLE: [Person; 4] = [
    Person { account: "jo@example.org", many: 6.0, people: 4.0 },
    Person { account: "amy@big.example", many: 9.0, people: 4.0 },
    Person { account: "news@big.example", many: 9.0, people: 8.0 },
    Person { account: "bob@small.example", many: 3.0, people: 2.0 },
];

/// An engine that knows one set of limits, for one account.
fn plain(many: f64, people: f64) -> Engine {
    let text =
        RULES.replace("many = 6", &format!("many = {many:?}")).replace("people = 4", &format!("people = {people:?}"));
    engine(Rules::parse("rules.toml", &text, &statistics()).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// An engine with variants finds for each account what an engine finds that knows only this account's limits at the
    /// time: no room of one variant is taken for another's.
    #[test]
    fn each_account_is_judged_as_if_its_limits_were_the_only_ones(
        events in proptest::collection::vec((0_usize..4, 0_u64..12, 0_i64..8_000), 1..90),
        cuts in proptest::collection::vec(any::<bool>(), 90),
        until in proptest::collection::vec(proptest::option::of(0_i64..300_000), 4),
    ) {
        let settings = limits_for(&[
            ("big.example", &[("many", 9.0)]),
            ("news@big.example", &[("people", 8.0)]),
            ("small.example", &[("many", 3.0), ("people", 2.0)]),
        ]);
        let probation = "[probation]\nfactor = 0.5\ntighten = ['many', 'people']\n";
        let mut engine = engine(parse(probation).with_settings(settings).0);
        let mut plain: Vec<[Engine; 2]> = PEOPLE
            .map(|one| [plain(one.many, one.people), plain(one.many * 0.5, one.people * 0.5)])
            .into();
        let until_ms: BTreeMap<&str, i64> = PEOPLE
            .iter()
            .zip(&until)
            .filter_map(|(one, until)| Some((one.account, NOW_MS + (*until)?)))
            .collect();
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        let mut batch: Vec<(usize, u64, i64, Submission)> = Vec::new();
        let mut now_ms = NOW_MS;
        for (offset, ((person, recipient, after_ms), cut)) in (0..).zip(events.iter().zip(&cuts)) {
            now_ms += after_ms;
            batch.push((*person, offset, now_ms, message(*recipient, 1_000 + recipient * 50)));
            if !cut && offset + 1 < events.len() as u64 {
                continue;
            }
            let push = |builder: &mut EventBatchBuilder, (person, offset, at_ms, message): &(usize, u64, i64, Submission)| {
                builder.push(&Account::parse(PEOPLE[*person].account).unwrap(), *offset, *at_ms, message, true);
            };
            let mut builder = EventBatchBuilder::new();
            for event in &batch {
                push(&mut builder, event);
            }
            let until_of = |account: &Account| until_ms.get(account.as_str()).copied();
            found.extend(engine.process_with(&builder.finish().unwrap(), until_of).unwrap());
            for (person, engines) in plain.iter_mut().enumerate() {
                for (is_tight, engine) in engines.iter_mut().enumerate() {
                    batch.iter().filter(|event| event.0 == person).for_each(|event| push(&mut builder, event));
                    let applies = |at_ms: i64| {
                        until_ms.get(PEOPLE[person].account).is_some_and(|until| at_ms < *until) == (is_tight == 1)
                    };
                    let judged = engine.process(&builder.finish().unwrap()).unwrap();
                    expected.extend(judged.into_iter().filter(|judged| applies(judged.at_ms)));
                }
            }
            batch.clear();
        }
        let told = |mut all: Vec<tidegate_detect::AccountMatches>| {
            all.sort_by_key(|one| one.event_offset);
            let names = |one: &tidegate_detect::AccountMatches| -> Vec<String> {
                one.matches.iter().map(|found| format!("{} {:?}", found.rule.name, found.evidence)).collect()
            };
            all.iter().map(|one| (one.event_offset, one.account.to_string(), names(one))).collect::<Vec<_>>()
        };
        prop_assert_eq!(told(found), told(expected));
    }
}
