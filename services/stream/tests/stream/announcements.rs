//! What is in force and what rules did stands on the topic `rules`.

use crate::lab::RULES;
use crate::running::{Running, log, until};
use tidegate_bus::Topic;
use tidegate_proto::v1;

/// What rule `five` did, over all partitions.
async fn activity(running: &Running) -> Vec<v1::RuleActivity> {
    let rule_sets = running.rule_sets().await;
    rule_sets.into_iter().flat_map(|set| set.activity).filter(|did| did.rule == "five").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_sees_what_rules_would_have_done_and_what_they_do() {
    let mut running = log(&RULES.replace("enforce", "observe"));
    running.start().await;
    running.send("jo@example.org", 9).await;
    until("a match is told", async || !activity(&running).await.is_empty()).await;
    let did = activity(&running).await.remove(0);
    let recent = &did.recent[0];
    assert_eq!((did.recent.len(), recent.account.as_str()), (1, "jo@example.org"));
    assert_eq!((recent.observed, recent.action.as_str()), (true, "lock"));
    assert!(recent.evidence[0].column == "messages_1m" && recent.evidence[0].value >= 5.0, "{recent:?}");
    assert!(did.matches >= 1 && did.last_ms == recent.at_ms);

    std::fs::write(&running.rules_file, RULES).unwrap();
    let enforced = |set: &v1::RuleSet| set.mode() == v1::RuleMode::Enforce;
    until("the other mode is in force", async || running.rule_sets().await.iter().all(enforced)).await;
    running.send("jo@example.org", 1).await;
    let acts = async || activity(&running).await.iter().any(|did| !did.recent[0].observed && did.matches >= 2);
    until("a match is told that was acted upon", acts).await;

    // Nothing happens, nothing is told.
    let told = running.records(Topic::Rules).await.len();
    running.send("amy@example.org", 1).await;
    let read = "tidegate_stream_events_total{result=\"counted\"}";
    until("the event is read", async || running.metric(read) >= 11).await;
    running.stop().await;
    assert_eq!(running.records(Topic::Rules).await.len(), told);
}
