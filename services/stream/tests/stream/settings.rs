//! What administrators set at run time: rules off, exemptions of domains, other limits; and probation.

use crate::lab::{BEGIN_MS, RULES, event, locks, partition, record, rules, unlock};
use crate::running::{Running, log, message, until};
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_bus::{Bus, Record, Topic};
use tidegate_detect::{RuleSettings, Rules};
use tidegate_domain::{DomainExemption, SettingKind};
use tidegate_proto::{state_to_proto, v1};

fn limited() -> String {
    RULES.replace("mode = \"enforce\"", "mode = \"enforce\"\n[limits]\nmost = 5").replace(">= 5", ">= $most")
}

fn messages(from: u64, count: u64, account: &str) -> Vec<Record> {
    let at_ms = |offset: u64| BEGIN_MS + offset.cast_signed();
    (from..from + count).map(|offset| event(offset, account, offset + 1, at_ms(offset), at_ms(offset))).collect()
}

#[test]
fn what_a_domains_exemption_covers_is_only_observed_until_it_ends() {
    let mut partition = partition(&rules(), 0);
    let exemption = |domain: &str, rules: &[&str]| DomainExemption {
        domain: domain.into(),
        rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
        until_ms: Some(BEGIN_MS + 100),
    };
    partition.set_exemptions(Arc::new(
        [exemption("example.org", &["five"]), exemption("b.example", &["other"])].into_iter().collect(),
    ));
    let output = partition.events(&messages(0, 6, "jo@example.org")).unwrap();
    assert!(output.states.is_empty() && output.told.is_empty(), "{output:?}");
    assert_eq!(output.observed[0].name, "five");
    assert_eq!(locks(&partition.events(&messages(10, 6, "jo@b.example")).unwrap()), ["jo@b.example"]);
    assert_eq!(locks(&partition.events(&messages(100, 1, "jo@example.org")).unwrap()), ["jo@example.org"]);
}

#[test]
fn a_probationer_is_locked_earlier_and_that_ends_also_after_a_restart() {
    let (statistics, _) = rules();
    let text = format!("{}\n[probation]\nlimits = {{ most = 3 }}\n", limited());
    let rules = (statistics.clone(), Rules::parse("rules.toml", &text, &statistics).unwrap());
    let unlock_for = |offset: u64, probation_ms: i64, log_ms: i64| {
        let mut command =
            v1::Command::decode(unlock(offset, "jo@example.org", log_ms).value.as_deref().unwrap()).unwrap();
        command.kind = Some(v1::command::Kind::Unlock(v1::UnlockCommand {
            probation_ms: Some(probation_ms),
            ..Default::default()
        }));
        record(Topic::Commands, offset, "jo@example.org", command.encode_to_vec(), log_ms)
    };
    let mut first = partition(&rules, 0);
    assert_eq!(locks(&first.events(&messages(0, 5, "jo@example.org")).unwrap()).len(), 1);
    let unlocked = first.command(&unlock_for(0, 1_000, BEGIN_MS + 10)).states.remove(0);
    assert_eq!(unlocked.probation_until_ms, Some(BEGIN_MS + 1_010));
    // The next life knows of the probation from the state alone.
    let mut second = partition(&rules, 0);
    let state = state_to_proto(&unlocked).encode_to_vec();
    second.load_state(&record(Topic::Accounts, 0, "jo@example.org", state, BEGIN_MS)).unwrap();
    for mut life in [first, second] {
        assert!(locks(&life.events(&messages(20, 2, "jo@example.org")).unwrap()).is_empty());
        assert_eq!(locks(&life.events(&messages(30, 1, "jo@example.org")).unwrap()).len(), 1, "the third of three");
        life.command(&unlock_for(1, 1_000, BEGIN_MS + 40));
        let after_ms = 2_000;
        assert!(locks(&life.events(&messages(after_ms, 4, "jo@example.org")).unwrap()).is_empty(), "it is over");
        assert_eq!(locks(&life.events(&messages(after_ms + 10, 1, "jo@example.org")).unwrap()).len(), 1);
    }
}

#[test]
fn other_limits_come_into_force_without_losing_what_was_counted() {
    let (statistics, _) = rules();
    let of_file = Rules::parse("rules.toml", &limited(), &statistics).unwrap();
    let mut partition = partition(&(statistics, of_file.clone()), 0);
    assert!(partition.events(&messages(0, 3, "jo@example.org")).unwrap().states.is_empty());
    let limits_for = [("example.org".to_owned(), BTreeMap::from([("most".to_owned(), 4.0)]))];
    let settings = RuleSettings { limits_for: limits_for.into(), ..RuleSettings::default() };
    partition.set_rules(of_file.with_settings(settings).0).unwrap();
    assert_eq!(locks(&partition.events(&messages(10, 1, "jo@example.org")).unwrap()), ["jo@example.org"]);
}

fn switch(off: bool) -> SettingKind {
    SettingKind::RuleSwitch { rule: "five".into(), off }
}

async fn announced(running: &Running, holds: impl Fn(&v1::RuleSet) -> bool) {
    until("an announcement", async || {
        let rule_sets = running.rule_sets().await;
        rule_sets.len() == 2 && rule_sets.iter().all(&holds)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_in_force_from_the_start_and_follow_what_is_set() {
    let mut running = log(&limited());
    running.set(switch(true)).await;
    let strange = message("rule/other", b"\xff\xff".to_vec());
    running.bus.append(Topic::Settings, vec![strange]).await.unwrap();
    running.start().await;
    announced(&running, |set| set.rules[0].switched_off && !set.rules[0].enabled).await;
    assert_eq!(running.metric("tidegate_stream_settings_total{result=\"rejected\"}"), 1);
    let off = running.rule_sets().await[0].clone();
    assert_eq!(off.limits, [("most".to_owned(), 5.0)].into());
    running.send("jo@example.org", 20).await;
    running.send("amy@b.example", 5).await;
    until("all events are read", async || running.metric("tidegate_stream_events_total{result=\"counted\"}") >= 25)
        .await;
    assert_eq!(running.state("jo@example.org").await.version, 0, "its rule is off");

    running
        .set(SettingKind::LimitsFor { subject: "b.example".into(), limits: [("most".to_owned(), 50.0)].into() })
        .await;
    running
        .set(SettingKind::LimitsFor { subject: "c.example".into(), limits: [("mots".to_owned(), 50.0)].into() })
        .await;
    running.unset("rule/five").await;
    announced(&running, |set| set.rules[0].enabled && set.problems.len() == 1 && set.version != off.version).await;
    let problem = &running.rule_sets().await[0].problems[0];
    assert!(problem.contains("c.example") && problem.contains("`most`"), "{problem}");
    running.send("jo@example.org", 1).await;
    running.send("amy@b.example", 10).await;
    until("jo is locked", async || running.state("jo@example.org").await.status() == v1::AccountStatus::Locked).await;
    let unlock = v1::UnlockCommand { probation_ms: Some(60_000), ..Default::default() };
    running.ask("jo@example.org", "c1", v1::command::Kind::Unlock(unlock)).await;
    until("jo is unlocked", async || running.state("jo@example.org").await.status() == v1::AccountStatus::Active).await;
    let timeline = running.state("jo@example.org").await.timeline;
    let told: Vec<_> = timeline.iter().map(|one| (one.change(), one.rule.as_str(), one.actor.as_str())).collect();
    assert_eq!(told, [(v1::Change::Locked, "five", ""), (v1::Change::Unlocked, "", "amy")]);
    running.send("amy@b.example", 40).await;
    until("amy is locked", async || running.state("amy@b.example").await.status() == v1::AccountStatus::Locked).await;
    let evidence = running.state("amy@b.example").await.lock.unwrap().evidence;
    assert!(evidence[0].value >= 50.0, "{evidence:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_into_force_while_events_come_without_end() {
    let mut running = log(&limited());
    running.start().await;
    announced(&running, |set| set.rules[0].enabled).await;
    let mut off = false;
    for round in 0..4_u32 {
        off = !off;
        running.set(switch(off)).await;
        let mut batch = 0;
        let is_told = |sets: &[v1::RuleSet]| sets.len() == 2 && sets.iter().all(|set| set.rules[0].switched_off == off);
        // Events go on until what was set has been announced.
        loop {
            running.send(&format!("user{}@example.org", batch % 50), 1_000).await;
            if is_told(&running.rule_sets().await) {
                break;
            }
            batch += 1;
            assert!(batch < 2_000, "round {round}: it never came into force");
        }
    }
    running.stop().await;
}
