//! Records, rules and partitions to try things with.

use bytes::Bytes;
use prost::Message as _;
use tidegate_bus::{Record, Topic};
use tidegate_detect::{DEFAULT_STATISTICS, Engine, EngineLimits, Rules, Statistics};
use tidegate_domain::{Account, Change, Event, EventId, EventKind, Lane, Recipients, Submission};
use tidegate_proto::{event_to_proto, v1};
use tidegate_stream::{Output, Partition};

pub const RULES: &str = r#"
mode = "enforce"

[[rule]]
name = "five"
when = "messages_1m >= 5"
action = "lock"
reason = "five messages in a minute"
reply = "locked"
source = "this test"
"#;
pub const BEGIN_MS: i64 = 1_800_000_000_000;

pub fn rules() -> (Statistics, Rules) {
    let statistics = Statistics::parse("statistics.sql", DEFAULT_STATISTICS).unwrap();
    let rules = Rules::parse("rules.toml", RULES, &statistics).unwrap();
    (statistics, rules)
}

pub fn partition((statistics, rules): &(Statistics, Rules), decided_to: u64) -> Partition {
    let engine = Engine::new(statistics.clone(), rules.clone(), EngineLimits::default()).unwrap();
    Partition::new(0, engine, decided_to)
}

pub fn event(offset: u64, account: &str, sequence: u64, time_ms: i64, log_ms: i64) -> Record {
    let event = Event {
        id: EventId { node: "mx1".into(), lane: Lane::Live, sequence },
        site: "ams".into(),
        account: Account::parse(account).unwrap(),
        time_ms,
        kind: EventKind::Submission(Box::new(Submission {
            recipients: Recipients { count: 1, ..Recipients::default() },
            size: 1000,
            ..Submission::default()
        })),
    };
    record(Topic::Events, offset, account, event_to_proto(&event).encode_to_vec(), log_ms)
}

pub fn unlock(offset: u64, account: &str, log_ms: i64) -> Record {
    let command = v1::Command {
        id: format!("c{offset}"),
        account: account.into(),
        actor: "amy".into(),
        reason: "called".into(),
        kind: Some(v1::command::Kind::Unlock(v1::UnlockCommand::default())),
    };
    record(Topic::Commands, offset, account, command.encode_to_vec(), log_ms)
}

pub fn record(topic: Topic, offset: u64, key: &str, value: Vec<u8>, time_ms: i64) -> Record {
    Record {
        topic,
        partition: 0,
        offset,
        time_ms,
        key: Bytes::from(key.to_owned()),
        value: Some(value.into()),
        trace: None,
    }
}

pub fn locks(output: &Output) -> Vec<&str> {
    let changed = output.states.iter().zip(&output.changes);
    changed.filter(|(_, change)| **change == Change::Locked).map(|(state, _)| state.account.as_str()).collect()
}
