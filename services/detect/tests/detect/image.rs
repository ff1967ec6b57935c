//! Engines written down and made again: other statistics, damage, and what is left out.

use proptest::prelude::*;
use std::sync::LazyLock;
use tidegate_detect::{
    DEFAULT_STATISTICS, Engine, EngineLimits, EventBatchBuilder, LoadError, Rules, Statistics, Taken,
};
use tidegate_domain::{Account, Recipients, Submission};

const NOW_MS: i64 = 1_750_000_000_000;

static SHIPPED: LazyLock<Statistics> = LazyLock::new(|| Statistics::parse("shipped", DEFAULT_STATISTICS).unwrap());

fn engine_of(statistics: &Statistics) -> Engine {
    let rules = Rules::parse("rules.toml", "", statistics).unwrap();
    Engine::new(statistics.clone(), rules, EngineLimits::default()).unwrap()
}

fn account(number: u64) -> Account {
    Account::parse(&format!("a{number}@example.org")).unwrap()
}

/// Each of the accounts sends so many messages within an hour, to ever new recipients.
fn send(engine: &mut Engine, accounts: u64, messages: u64) {
    let mut builder = EventBatchBuilder::new();
    for number in 0..accounts {
        for message in 0..messages {
            let recipients = Recipients {
                count: 2,
                internal: 0,
                domains: vec!["example.net".into()],
                hashes: vec![message, number],
            };
            let submission =
                Submission { size: 1_000 + message, fingerprint: message + 1, recipients, ..Submission::default() };
            let at_ms = NOW_MS - (messages - message).cast_signed() * 3_600_000 / messages.cast_signed();
            builder.push(&account(number), message, at_ms, &submission, true);
        }
    }
    engine.process(&builder.finish().unwrap()).unwrap();
}

fn written(engine: &mut Engine) -> Vec<u8> {
    engine.begin_changes(true);
    let mut octets = Vec::new();
    assert_eq!(engine.take_changes(usize::MAX, &mut octets), Taken::Last);
    octets
}

fn columns(engine: &Engine, number: u64) -> Vec<(String, Option<f64>)> {
    engine.columns(&account(number), NOW_MS).unwrap()
}

#[test]
fn an_engine_made_again_says_the_same_of_everybody() {
    let mut first = engine_of(&SHIPPED);
    send(&mut first, 5, 3);
    send(&mut first, 2, 200);
    let octets = written(&mut first);
    let mut second = engine_of(&SHIPPED);
    let loaded = second.load(&SHIPPED.layout(), &octets).unwrap();
    assert_eq!((loaded.accounts, loaded.started_empty.len(), loaded.dropped.len()), (5, 0, 0));
    for number in 0..6 {
        assert_eq!(columns(&second, number), columns(&first, number));
    }
    assert_eq!(second.stats(), first.stats());
    let mut nothing = Vec::new();
    assert!(!second.begin_changes(false), "what was read is written down already");
    assert_eq!((second.take_changes(usize::MAX, &mut nothing), nothing.len()), (Taken::Last, 0));
}

#[test]
fn other_statistics_keep_what_fits_and_start_the_rest_empty() {
    const OLD: &str = "
        gone = max(size);
        messages = count(*) FILTER (WHERE message);
        people = distinct(recipient_hashes);
    ";
    const NEW: &str = "
        contents = distinct(fingerprint);
        people = distinct(recipient_hashes);
        octets = sum(size);
        smallest = min(size);
        replies = count(*) FILTER (WHERE reply);
        messages = count(*) FILTER (WHERE message);
        spread = stddev(size);
        same = top_share(fingerprint);
    ";
    let (old, new) = (Statistics::parse("old", OLD).unwrap(), Statistics::parse("new", NEW).unwrap());
    let mut first = engine_of(&old);
    send(&mut first, 2, 100);
    let mut second = engine_of(&new);
    let loaded = second.load(&old.layout(), &written(&mut first)).unwrap();
    assert_eq!(loaded.dropped, ["max(size)"]);
    assert_eq!(loaded.started_empty.len(), 6, "{:?}", loaded.started_empty);
    let value =
        |engine: &Engine, name: &str| columns(engine, 1).into_iter().find(|(column, _)| column == name).unwrap().1;
    assert_eq!(value(&second, "messages_24h"), Some(100.0));
    assert_eq!(value(&second, "people_24h"), value(&first, "people_24h"));
    let empty = ["contents_24h", "octets_24h", "smallest_24h", "replies_24h", "spread_24h", "same_24h"];
    assert_eq!(empty.map(|name| value(&second, name)), [Some(0.0), None, None, Some(0.0), None, None]);

    // What comes now is counted in all of them, and what was kept goes on.
    send(&mut second, 2, 2);
    assert_eq!(value(&second, "messages_24h"), Some(102.0));
    assert_eq!(
        empty.map(|name| value(&second, name).map(f64::round)),
        [Some(2.0), Some(2_001.0), Some(1_000.0), Some(0.0), Some(1.0), Some(1.0)]
    );
}

#[test]
fn forgetting_up_to_a_time_leaves_what_came_after() {
    let mut engine = engine_of(&SHIPPED);
    send(&mut engine, 2, 60);
    let mut octets = written(&mut engine);
    engine.forget_up_to(&account(0), NOW_MS - 30 * 60_000);
    let messages = |engine: &Engine, number| {
        columns(engine, number).into_iter().find(|(name, _)| name == "messages_24h").unwrap().1.unwrap()
    };
    assert!((59.5..60.5).contains(&messages(&engine, 1)), "{}", messages(&engine, 1));
    assert!((28.0..=31.0).contains(&messages(&engine, 0)), "{}", messages(&engine, 0));
    // What was forgotten does not come back with what was written before.
    assert!(!engine.begin_changes(false));
    assert_eq!(engine.take_changes(usize::MAX, &mut octets), Taken::Last);
    let mut again = engine_of(&SHIPPED);
    again.load(&SHIPPED.layout(), &octets).unwrap();
    assert_eq!(columns(&again, 0), columns(&engine, 0));
    engine.forget_up_to(&account(1), NOW_MS);
    assert!(columns(&engine, 1).is_empty());
    engine.forget_up_to(&account(7), NOW_MS);
}

#[test]
fn a_layout_that_is_none_is_refused() {
    let mut layout = SHIPPED.layout();
    layout[0].state = "int decimal".to_owned();
    let error = engine_of(&SHIPPED).load(&layout, b"").unwrap_err();
    assert!(matches!(error, LoadError::Layout { .. }), "{error:?}");
    assert!(error.to_string().contains("is `int decimal`"), "{error}");
}

#[test]
fn changes_that_nobody_takes_are_bounded() {
    let rules = Rules::parse("rules.toml", "", &SHIPPED).unwrap();
    let limits = EngineLimits { max_accounts: 1, ..EngineLimits::default() };
    let mut engine = Engine::new(SHIPPED.clone(), rules, limits).unwrap();
    assert!(engine.begin_changes(false));
    for batch in 0..21 {
        let mut builder = EventBatchBuilder::new();
        for number in 0..5_000 {
            builder.push(&account(batch * 5_000 + number), number, NOW_MS, &Submission::default(), true);
        }
        engine.process(&builder.finish().unwrap()).unwrap();
    }
    let mut octets = Vec::new();
    assert_eq!((engine.take_changes(usize::MAX, &mut octets), octets.len()), (Taken::Lost, 0));
    assert!(engine.begin_changes(false), "everything has to be written again");
    assert_eq!(engine.take_changes(usize::MAX, &mut octets), Taken::Last);
    let mut second = engine_of(&SHIPPED);
    second.load(&SHIPPED.layout(), &octets).unwrap();
    assert_eq!(second.stats().accounts, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Damage is told, or what is read can be worked with.
    #[test]
    fn damaged_octets_never_harm(
        (flips, cut) in (proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), 0_usize..40)
    ) {
        let mut first = engine_of(&SHIPPED);
        send(&mut first, 3, 70);
        let mut octets = written(&mut first);
        octets.truncate(octets.len() - cut);
        for (place, octet) in flips {
            let place = place.index(octets.len());
            octets[place] = octet;
        }
        let mut engine = engine_of(&SHIPPED);
        if engine.load(&SHIPPED.layout(), &octets).is_ok() {
            send(&mut engine, 3, 2);
            for number in 0..3 {
                columns(&engine, number);
            }
            engine.expire(NOW_MS);
        }
    }
}
