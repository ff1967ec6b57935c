//! Actions: command, outcome, audit.

use crate::harness::{Control, active, locked};
use prost::Message as _;
use tidegate_bus::{Topic, partition_of};
use tidegate_control::ControlConfig;
use tidegate_proto::v1;

fn lock(account: &str) -> v1::LockAccountRequest {
    v1::LockAccountRequest {
        account: account.into(),
        actor: "amy".into(),
        reason: "reported by abuse desk".into(),
        lock: Some(v1::LockCommand { for_ms: Some(60_000), ..Default::default() }),
        wait_ms: 20_000,
    }
}

async fn audit(control: &Control) -> Vec<v1::AuditRecord> {
    let records = control.records(Topic::Audit).await;
    let mut records: Vec<_> =
        records.iter().map(|record| v1::AuditRecord::decode(record.value.as_deref().unwrap()).unwrap()).collect();
    // The test itself looks at accounts, which stands in the audit too.
    records.retain(|record| !record.method.ends_with("/GetAccount"));
    records.sort_by_key(|record| (record.time_ms, record.result.is_empty()));
    records
}

#[tokio::test]
async fn a_lock_becomes_a_command_and_is_answered_with_the_state_that_came_of_it() {
    let control = Control::start(Vec::new()).await;
    let mut admin = control.admin();
    let (answer, _) = tokio::join!(admin.lock_account(lock(" Jo@Example.ORG")), control.play_stream(0));
    let answer = answer.unwrap().into_inner();
    assert!(answer.applied);
    let state = answer.state.unwrap();
    assert_eq!((state.account.as_str(), state.status()), ("jo@example.org", v1::AccountStatus::Locked));
    let held = state.lock.clone().unwrap();
    assert_eq!((held.actor.as_str(), held.reason.as_str()), ("amy", "reported by abuse desk"));
    assert_eq!(held.reply, ControlConfig::default().lock_reply, "a lock without a text gets the default");
    assert_eq!(state.last_command.unwrap().id, answer.command_id);

    let commands = control.records(Topic::Commands).await;
    assert_eq!(commands.len(), 1);
    assert_eq!(&commands[0].key[..], b"jo@example.org");
    assert_eq!(commands[0].partition, partition_of(b"jo@example.org", 4));

    let audit = audit(&control).await;
    assert_eq!(audit.len(), 2);
    for record in &audit {
        assert_eq!((record.actor.as_str(), record.account.as_str(), record.allowed), ("amy", "jo@example.org", true));
        assert_eq!(record.method, "tidegate.v1.AdminService/LockAccount");
        assert!(record.peer.starts_with("127.0.0.1:"), "{}", record.peer);
        assert_eq!(record.command_id, answer.command_id);
    }
    assert_eq!((audit[0].result.as_str(), audit[1].result.as_str()), ("asked", ""));
    assert_ne!(audit[0].id, audit[1].id);
    assert!(audit[0].before.is_none() && audit[0].after.is_none());
    assert_eq!(audit[1].after.as_ref().unwrap().status(), v1::AccountStatus::Locked);
}

#[tokio::test]
async fn unlock_exempt_and_clear_go_the_same_way() {
    let control = Control::start(vec![locked("jo@example.org", 3)]).await;
    let mut admin = control.admin();
    let unlock = v1::UnlockAccountRequest {
        account: "jo@example.org".into(),
        actor: "amy".into(),
        reason: "password changed".into(),
        unlock: Some(v1::UnlockCommand {
            evidence: Some(v1::UnlockEvidence { password_changed_ms: Some(2), note: "called back".into() }),
            probation_ms: Some(1_000),
        }),
        wait_ms: 20_000,
    };
    let (answer, seen) = tokio::join!(admin.unlock_account(unlock.clone()), control.play_stream(0));
    let state = answer.unwrap().into_inner().state.unwrap();
    assert_eq!(state.status(), v1::AccountStatus::Active);
    assert!(state.clean_slate.is_some() && state.probation_until_ms.is_some());
    assert_eq!(state.last_command.unwrap().evidence.unwrap().note, "called back");

    let (answer, seen) = tokio::join!(admin.unlock_account(unlock), control.play_stream(seen));
    let status = answer.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    assert_eq!(status.message(), "jo@example.org: it is not locked");

    let exempt = v1::ExemptAccountRequest {
        account: "jo@example.org".into(),
        actor: "amy".into(),
        reason: "newsletter".into(),
        exempt: Some(v1::ExemptCommand { rules: vec!["burst".into()], until_ms: None }),
        wait_ms: 20_000,
    };
    let (answer, seen) = tokio::join!(admin.exempt_account(exempt), control.play_stream(seen));
    assert_eq!(answer.unwrap().into_inner().state.unwrap().exemptions[0].rules, ["burst"]);

    let clear = v1::ClearAccountRequest {
        account: "jo@example.org".into(),
        actor: "amy".into(),
        reason: "over".into(),
        clear: Some(v1::ClearCommand { exemptions: true, windows: false }),
        wait_ms: 20_000,
    };
    let (answer, _) = tokio::join!(admin.clear_account(clear), control.play_stream(seen));
    assert!(answer.unwrap().into_inner().state.unwrap().exemptions.is_empty());

    let results: Vec<String> = audit(&control).await.into_iter().map(|record| record.result).collect();
    assert_eq!(results.iter().filter(|result| *result == "asked").count(), 4);
    assert_eq!(results.iter().filter(|result| *result == "jo@example.org: it is not locked").count(), 1);
}

#[tokio::test]
async fn a_command_that_nobody_applies_is_durable_and_said_to_wait() {
    let control = Control::start(vec![active("jo@example.org", 1)]).await;
    let request = v1::LockAccountRequest { wait_ms: 1, ..lock("jo@example.org") };
    let answer = control.admin().lock_account(request).await.unwrap().into_inner();
    assert!(!answer.applied);
    assert_eq!(answer.state.unwrap().version, 1);
    let commands = control.records(Topic::Commands).await;
    let command = v1::Command::decode(commands[0].value.as_deref().unwrap()).unwrap();
    assert_eq!(command.id, answer.command_id);
    let audit = audit(&control).await;
    assert!(audit.iter().any(|record| record.result.contains("not applied in time")), "{audit:?}");
}

#[tokio::test]
async fn a_later_command_does_not_hide_the_outcome() {
    let control = Control::start(Vec::new()).await;
    let mut admin = control.admin();
    // The state that comes reflects a later command too: the log may have compacted the one between.
    let later = async {
        let place = loop {
            if let Some(record) = control.records(Topic::Commands).await.first() {
                break record.offset;
            }
            tokio::task::yield_now().await;
        };
        let mut state = locked("jo@example.org", 2);
        state.as_of.command_offset = Some(place + 1);
        control.put(vec![state]).await;
    };
    let (answer, ()) = tokio::join!(admin.lock_account(lock("jo@example.org")), later);
    assert!(answer.unwrap().into_inner().applied);
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_and_audited_and_nothing_is_written() {
    let control = Control::start(Vec::new()).await;
    let mut admin = control.admin();
    for (request, expected) in [
        (lock(""), "account: an account's name is empty"),
        (v1::LockAccountRequest { actor: String::new(), ..lock("jo@example.org") }, "actor is empty"),
        (v1::LockAccountRequest { reason: " ".into(), ..lock("jo@example.org") }, "reason is empty"),
        (v1::LockAccountRequest { wait_ms: 99_000, ..lock("jo@example.org") }, "wait_ms is 99000; allowed: 0 to 20000"),
    ] {
        let status = admin.lock_account(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().starts_with(expected), "{status}");
    }
    assert!(control.records(Topic::Commands).await.is_empty());
    let audit = audit(&control).await;
    assert_eq!(audit.len(), 4);
    assert!(audit.iter().all(|record| !record.allowed && !record.result.is_empty()));
}

#[tokio::test]
async fn without_an_audit_record_nothing_is_done() {
    let control = Control::start(Vec::new()).await;
    control.bus.close().await;
    let status = control.admin().lock_account(lock("jo@example.org")).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(status.message().starts_with("the audit record could not be written, so nothing was done"), "{status}");
    assert!((control.metric("tidegate_control_audit_failures_total") - 1.0).abs() < 0.1);
}
