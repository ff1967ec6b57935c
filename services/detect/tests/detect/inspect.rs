//! What people see of an account: its statistics now and lately, and the limits in force for it.

use proptest::prelude::*;
use std::collections::BTreeMap;
use tidegate_detect::{
    DEFAULT_RULES, DEFAULT_STATISTICS, Engine, EngineLimits, EventBatchBuilder, RuleSettings, Rules, Statistics,
};
use tidegate_domain::{Account, Recipients, Submission};

const NOW_MS: i64 = 1_750_000_000_000;
const MINUTE_MS: i64 = 60_000;

fn engine() -> Engine {
    let statistics = Statistics::parse("statistics.sql", DEFAULT_STATISTICS).unwrap();
    let rules = Rules::parse("rules.toml", DEFAULT_RULES, &statistics).unwrap();
    Engine::new(statistics, rules, EngineLimits::default()).unwrap()
}

fn jo() -> Account {
    Account::parse("jo@example.org").unwrap()
}

fn send(engine: &mut Engine, times_ms: impl IntoIterator<Item = i64>) {
    let mut builder = EventBatchBuilder::new();
    for (offset, at_ms) in (0_u64..).zip(times_ms) {
        let recipients = Recipients { count: 1, internal: 0, domains: Vec::new(), hashes: vec![offset] };
        let submission = Submission { size: 1_000, recipients, ..Submission::default() };
        builder.push(&jo(), offset, at_ms, &submission, true);
        if builder.len() == 500 {
            engine.process(&builder.finish().unwrap()).unwrap();
        }
    }
    engine.process(&builder.finish().unwrap()).unwrap();
}

#[test]
fn the_limits_in_force_are_those_of_the_account() {
    let mut engine = engine();
    let limits_of = |engine: &Engine, account: &str, on_probation| -> Vec<(String, &'static str, f64)> {
        let account = Account::parse(account).unwrap();
        let inspection = engine.inspect(&account, on_probation, NOW_MS, 0).unwrap();
        let of_rule = inspection.limits.into_iter().filter(|limit| limit.rule == "many-addresses-1h");
        of_rule.map(|limit| (limit.column, limit.comparison, limit.limit)).collect()
    };
    let limits =
        |number: f64| vec![("client_ips_1h".to_owned(), ">=", number), ("messages_1h".to_owned(), ">=", 2.0 * number)];
    assert_eq!(limits_of(&engine, "jo@example.org", false), limits(10.0));
    assert_eq!(limits_of(&engine, "jo@example.org", true), limits(5.0));
    let limits_for = [("example.org".to_owned(), BTreeMap::from([("addresses_1h".to_owned(), 40.0)]))];
    let settings = RuleSettings { limits_for: limits_for.into(), switched_off: ["spam-lock".to_owned()].into() };
    let (rules, problems) = engine.rules().with_settings(settings);
    assert_eq!(problems, [""; 0]);
    engine.set_rules(rules).unwrap();
    assert_eq!(limits_of(&engine, "jo@example.org", false), limits(40.0));
    assert_eq!(limits_of(&engine, "jo@example.org", true), limits(20.0));
    assert_eq!(limits_of(&engine, "amy@b.example", false), limits(10.0));
    let all = engine.inspect(&jo(), false, NOW_MS, 0).unwrap().limits;
    assert!(all.iter().any(|limit| limit.rule == "spam-notify" && limit.action == "notify"));
    assert!(all.iter().all(|limit| limit.rule != "spam-lock"), "it is switched off");
}

#[test]
fn of_an_account_that_never_sent_there_are_the_values_of_nothing() {
    let inspection = engine().inspect(&jo(), false, NOW_MS, 50).unwrap();
    let value = |column: &str| inspection.values.iter().find(|(name, _)| name == column).unwrap().1;
    assert_eq!((value("messages_1h"), value("size_cv_24h")), (Some(0.0), None));
    assert!(inspection.series.is_empty());
}

#[test]
fn a_series_shows_the_past_and_is_bounded() {
    let mut engine = engine();
    // A message each second for an hour, then silence for an hour.
    send(&mut engine, (0..3_600).map(|second| NOW_MS + second * 1_000));
    let now_ms = NOW_MS + 120 * MINUTE_MS;
    let inspection = engine.inspect(&jo(), false, now_ms, 10_000).unwrap();
    let series = |column: &str| &inspection.series.iter().find(|series| series.column == column).unwrap().points;
    for one in &inspection.series {
        assert!((1..=200).contains(&one.points.len()), "{}: {}", one.column, one.points.len());
        assert!(one.points.is_sorted_by_key(|(at_ms, _)| *at_ms), "{}", one.column);
        assert_eq!(one.points.last().unwrap().0, now_ms);
    }
    let hour = series("messages_1h");
    let at = |minute: i64| hour.iter().find(|(at_ms, _)| *at_ms >= NOW_MS + minute * MINUTE_MS).unwrap().1.unwrap();
    assert!((1_700.0..=2_800.0).contains(&at(30)), "{}", at(30));
    assert!((3_500.0..=3_700.0).contains(&at(60)), "{}", at(60));
    assert!((1_700.0..=2_800.0).contains(&at(90)), "{}", at(90));
    assert!(hour.last().unwrap().1.unwrap() < 100.0, "{hour:?}");
    assert_eq!(hour[0].1, Some(0.0), "before it began");
    assert!(!inspection.series.iter().any(|series| series.column == "bytes_1m"), "no rule looks at it");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was sent: now is now, in the series as in the values, and as the engine tells it otherwise.
    #[test]
    fn the_last_point_is_the_value(gaps in proptest::collection::vec(0_i64..4_000_000, 1..120), points in 1_usize..300) {
        let mut engine = engine();
        let times = gaps.iter().scan(NOW_MS, |at_ms, gap| { *at_ms += gap; Some(*at_ms) }).collect::<Vec<_>>();
        send(&mut engine, times.iter().copied());
        let now_ms = times.last().unwrap() + 1_000;
        let inspection = engine.inspect(&jo(), false, now_ms, points).unwrap();
        prop_assert_eq!(&inspection.values, &engine.columns(&jo(), now_ms).unwrap());
        let values: BTreeMap<_, _> = inspection.values.into_iter().collect();
        prop_assert!(!inspection.series.is_empty());
        for series in inspection.series {
            prop_assert_eq!(series.points.last().unwrap().1, values[&series.column], "{}", series.column);
        }
    }
}
