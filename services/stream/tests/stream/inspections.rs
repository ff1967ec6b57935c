//! Who asks for an account's statistics is answered on the topic `inspections`, and nothing changes.

use crate::lab::{BEGIN_MS, RULES, event, partition, record, rules};
use crate::running::{Running, log, until};
use prost::Message as _;
use tidegate_bus::{Record, Topic};
use tidegate_domain::{Recipients, Submission};
use tidegate_proto::v1;

const INSPECT: v1::command::Kind = v1::command::Kind::Inspect(v1::InspectCommand { points: 40 });

fn inspect(offset: u64, log_ms: i64) -> Record {
    let command = v1::Command {
        id: format!("i{offset}"),
        account: "jo@example.org".into(),
        actor: "amy".into(),
        kind: Some(INSPECT),
        ..v1::Command::default()
    };
    record(Topic::Commands, offset, "jo@example.org", command.encode_to_vec(), log_ms)
}

#[test]
fn an_inspection_is_not_folded_into_the_state() {
    let mut partition = partition(&rules(), 0);
    let spam: Vec<Record> = (0..5).map(|n| event(n, "jo@example.org", n + 1, BEGIN_MS, BEGIN_MS)).collect();
    partition.events(&spam).unwrap();
    let before = partition.state("jo@example.org").cloned().unwrap();
    let output = partition.command(&inspect(7, BEGIN_MS + 10));
    assert_eq!((output.states.len(), output.inspections.len()), (0, 1));
    let request = &output.inspections[0];
    assert_eq!((request.inspect.id.as_str(), request.asked_ms), ("i7", BEGIN_MS + 10));
    let answer = partition.inspect(request, BEGIN_MS + 20).unwrap();
    assert_eq!(partition.state("jo@example.org"), Some(&before));
    let messages = answer.values.iter().find(|value| value.column == "messages_1m").unwrap();
    assert_eq!((answer.command_id.as_str(), answer.at_ms, messages.value), ("i7", BEGIN_MS + 20, 5.0));
    let limit = &answer.limits[0];
    assert_eq!((limit.rule.as_str(), limit.action.as_str(), limit.column.as_str()), ("five", "lock", "messages_1m"));
    assert_eq!((limit.comparison.as_str(), limit.limit), (">=", 5.0));
    // The same account, of which nothing was ever decided and nothing is known, in another life.
    let mut other = crate::lab::partition(&rules(), 0);
    let output = other.command(&inspect(7, BEGIN_MS));
    let answer = other.inspect(&output.inspections[0], BEGIN_MS).unwrap();
    assert!(other.state("jo@example.org").is_none() && !answer.values.is_empty() && answer.series.is_empty());
}

async fn answers(running: &Running) -> Vec<v1::Inspection> {
    let records = running.records(Topic::Inspections).await;
    records.iter().map(|record| v1::Inspection::decode(record.value.as_deref().unwrap()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_told_values_their_past_limits_and_clients() {
    let mut running = log(&RULES.replace(">= 5", ">= 500"));
    running.start().await;
    let submission = |octet: u8| Submission {
        client_address: Some([192, 0, 2, octet].into()),
        recipients: Recipients { count: 1, ..Recipients::default() },
        size: 1_000,
        ..Submission::default()
    };
    let events = (0..10).map(|number| running.event("jo@example.org", submission(number % 2))).collect::<Vec<_>>();
    tidegate_bus::Bus::append(running.bus.as_ref(), Topic::Events, events).await.unwrap();
    let read = "tidegate_stream_events_total{result=\"counted\"}";
    until("the events are read", async || running.metric(read) >= 10).await;
    running.ask("jo@example.org", "i1", INSPECT).await;
    until("an answer", async || !answers(&running).await.is_empty()).await;
    let answer = answers(&running).await.remove(0);
    assert_eq!((answer.command_id.as_str(), answer.account.as_str()), ("i1", "jo@example.org"));
    let messages = answer.values.iter().find(|value| value.column == "messages_1m").unwrap();
    let series = answer.series.iter().find(|series| series.column == "messages_1m").unwrap();
    assert!(series.points.len() > 1 && series.points.last().unwrap().value >= 10.0, "{series:?}");
    assert!(messages.value >= 10.0, "{messages:?}");
    assert_eq!((answer.limits[0].limit, answer.clients.len(), answer.clients[0].messages), (500.0, 2, 5));
    assert!(running.records(Topic::Accounts).await.is_empty(), "no state came of it");

    // Many at once: some are answered, the others are counted, and events go on.
    for number in 0..50 {
        running.ask("jo@example.org", &format!("many{number}"), INSPECT).await;
    }
    let count = |result: &str| running.metric(&format!("tidegate_stream_inspections_total{{result=\"{result}\"}}"));
    until("all are answered or counted", async || count("answered") + count("busy") >= 51).await;
    until("what was answered is written", async || answers(&running).await.len() as u64 == count("answered")).await;
    running.stop().await;
    // The next life does not answer them again.
    let answered = answers(&running).await.len();
    running.start().await;
    running.ask("amy@example.org", "i2", INSPECT).await;
    until("amy's answer", async || answers(&running).await.iter().any(|answer| answer.command_id == "i2")).await;
    assert_eq!(answers(&running).await.len(), answered + 1);
    running.stop().await;
}
