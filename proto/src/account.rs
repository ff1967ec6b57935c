//! Account states between the wire and the domain.

use crate::bounds::{self, MAX_EVIDENCE, MAX_EXEMPTIONS, MAX_NAME_OCTETS, MAX_RULE_OCTETS, MAX_TEXT_OCTETS, bounded};
use crate::command::{queued_mail_from_proto, queued_mail_to_proto};
use crate::error::{DecodeError, missing};
use crate::timeline::{
    client_to_proto, clients_from_proto, milestone_to_proto, subjects_from_proto, timeline_from_proto,
};
use crate::v1;
use prost::Message as _;
use tidegate_domain as domain;
use tidegate_domain::{Account, Cause, Status};

/// The state on the wire.
pub fn state_to_proto(state: &domain::AccountState) -> v1::AccountState {
    v1::AccountState {
        lock: state.status.lock().map(lock_to_proto),
        timeline: state.timeline.iter().map(milestone_to_proto).collect(),
        ..state_for_edge(state)
    }
}

/// The state without what only people look at: its timeline, and the clients and subjects of its lock. Edges do not
/// need them, and are many.
pub fn state_for_edge(state: &domain::AccountState) -> v1::AccountState {
    let status = match state.status {
        Status::Active => v1::AccountStatus::Active,
        Status::Throttled(_) => v1::AccountStatus::Throttled,
        Status::Locked(_) => v1::AccountStatus::Locked,
    };
    v1::AccountState {
        account: state.account.as_str().to_owned(),
        status: status.into(),
        lock: state.status.lock().map(lock_for_edge),
        version: state.version,
        changed_ms: state.changed_ms,
        exemptions: state.exemptions.iter().map(exemption_to_proto).collect(),
        clean_slate: state
            .clean_slate
            .map(|slate| v1::CleanSlate { event_offset: slate.event_offset, time_ms: slate.time_ms }),
        probation_until_ms: state.probation_until_ms,
        notice: state.notice.as_ref().map(|notice| v1::Notice {
            rule: Some(rule_to_proto(&notice.rule)),
            at_ms: notice.at_ms,
            evidence: evidence_to_proto(&notice.evidence),
        }),
        last_command: state.last_command.as_ref().map(outcome_to_proto),
        as_of_event_offset: state.as_of.event_offset,
        as_of_command_offset: state.as_of.command_offset,
        timeline: Vec::new(),
        auto_unlocks: state.auto_unlocks,
    }
}

/// Reads a state from the bytes of a record.
///
/// # Errors
/// When the bytes are not a state, or what they say cannot be: no account, a lock without a cause, ...
pub fn state_from_proto(bytes: &[u8]) -> Result<domain::AccountState, DecodeError> {
    let state = v1::AccountState::decode(bytes)
        .map_err(|error| DecodeError::Protobuf { message: "AccountState", reason: error.to_string() })?;
    domain::AccountState::try_from(state)
}

impl TryFrom<v1::AccountState> for domain::AccountState {
    type Error = DecodeError;

    fn try_from(state: v1::AccountState) -> Result<Self, DecodeError> {
        let account = Account::parse(&state.account)
            .map_err(|source| DecodeError::Account { message: "AccountState", source })?;
        let status = state.status();
        let lock = || lock_from_proto(state.lock.clone().ok_or_else(|| missing("AccountState", "lock"))?);
        let status = match status {
            v1::AccountStatus::Unspecified => return Err(missing("AccountState", "status")),
            v1::AccountStatus::Active => Status::Active,
            v1::AccountStatus::Throttled => Status::Throttled(lock()?),
            v1::AccountStatus::Locked => Status::Locked(lock()?),
        };
        Ok(Self {
            account,
            status,
            version: state.version,
            changed_ms: state.changed_ms,
            exemptions: state.exemptions.into_iter().take(MAX_EXEMPTIONS).map(exemption_from_proto).collect(),
            clean_slate: state
                .clean_slate
                .map(|slate| domain::CleanSlate { event_offset: slate.event_offset, time_ms: slate.time_ms }),
            probation_until_ms: state.probation_until_ms,
            notice: state.notice.map(notice_from_proto).transpose()?,
            last_command: state.last_command.map(outcome_from_proto),
            as_of: domain::AsOf { event_offset: state.as_of_event_offset, command_offset: state.as_of_command_offset },
            timeline: timeline_from_proto(state.timeline),
            auto_unlocks: state.auto_unlocks,
        })
    }
}

fn lock_to_proto(lock: &domain::Lock) -> v1::Lock {
    v1::Lock {
        clients: lock.clients.iter().map(client_to_proto).collect(),
        subjects: lock.subjects.clone(),
        ..lock_for_edge(lock)
    }
}

fn lock_for_edge(lock: &domain::Lock) -> v1::Lock {
    let (rule, actor) = match &lock.cause {
        Cause::Rule(rule) => (Some(rule_to_proto(rule)), String::new()),
        Cause::Admin { actor } => (None, actor.clone()),
    };
    v1::Lock {
        id: lock.id.clone(),
        rule,
        actor,
        reason: lock.reason.clone(),
        evidence: evidence_to_proto(&lock.evidence),
        since_ms: lock.since_ms,
        until_ms: lock.until_ms,
        reply: lock.reply.clone(),
        queued_mail: queued_mail_to_proto(lock.queued_mail).into(),
        clients: Vec::new(),
        subjects: Vec::new(),
    }
}

fn lock_from_proto(lock: v1::Lock) -> Result<domain::Lock, DecodeError> {
    let queued_mail = queued_mail_from_proto(lock.queued_mail());
    let cause = match lock.rule {
        Some(rule) => Cause::Rule(rule_from_proto(rule)),
        None if lock.actor.is_empty() => return Err(missing("Lock", "rule (or actor)")),
        None => Cause::Admin { actor: bounded(lock.actor, MAX_NAME_OCTETS) },
    };
    Ok(domain::Lock {
        id: bounded(lock.id, MAX_NAME_OCTETS),
        cause,
        reason: bounded(lock.reason, MAX_TEXT_OCTETS),
        evidence: evidence_from_proto(lock.evidence),
        since_ms: lock.since_ms,
        until_ms: lock.until_ms,
        reply: bounded(lock.reply, MAX_TEXT_OCTETS),
        queued_mail,
        clients: clients_from_proto(lock.clients),
        subjects: subjects_from_proto(lock.subjects),
    })
}

fn rule_to_proto(rule: &domain::RuleRef) -> v1::RuleRef {
    v1::RuleRef { name: rule.name.clone(), rule_set: rule.rule_set.clone() }
}

fn rule_from_proto(rule: v1::RuleRef) -> domain::RuleRef {
    domain::RuleRef { name: bounded(rule.name, MAX_RULE_OCTETS), rule_set: bounded(rule.rule_set, MAX_NAME_OCTETS) }
}

fn evidence_to_proto(evidence: &[domain::Evidence]) -> Vec<v1::Evidence> {
    evidence.iter().map(|one| v1::Evidence { column: one.column.clone(), value: one.value }).collect()
}

fn evidence_from_proto(evidence: Vec<v1::Evidence>) -> Vec<domain::Evidence> {
    let column =
        |one: v1::Evidence| domain::Evidence { column: bounded(one.column, MAX_RULE_OCTETS), value: one.value };
    evidence.into_iter().take(MAX_EVIDENCE).map(column).collect()
}

fn exemption_to_proto(exemption: &domain::Exemption) -> v1::Exemption {
    v1::Exemption {
        rules: exemption.rules.clone(),
        until_ms: exemption.until_ms,
        actor: exemption.actor.clone(),
        reason: exemption.reason.clone(),
    }
}

fn exemption_from_proto(exemption: v1::Exemption) -> domain::Exemption {
    domain::Exemption {
        rules: bounds::rules(exemption.rules),
        until_ms: exemption.until_ms,
        actor: bounded(exemption.actor, MAX_NAME_OCTETS),
        reason: bounded(exemption.reason, MAX_TEXT_OCTETS),
    }
}

fn notice_from_proto(notice: v1::Notice) -> Result<domain::Notice, DecodeError> {
    Ok(domain::Notice {
        rule: rule_from_proto(notice.rule.ok_or_else(|| missing("Notice", "rule"))?),
        at_ms: notice.at_ms,
        evidence: evidence_from_proto(notice.evidence),
    })
}

fn outcome_to_proto(outcome: &domain::CommandOutcome) -> v1::CommandOutcome {
    v1::CommandOutcome {
        id: outcome.id.clone(),
        actor: outcome.actor.clone(),
        reason: outcome.reason.clone(),
        at_ms: outcome.at_ms,
        evidence: outcome.evidence.as_ref().map(|evidence| v1::UnlockEvidence {
            password_changed_ms: evidence.password_changed_ms,
            note: evidence.note.clone(),
        }),
        refused: outcome.refused.clone().unwrap_or_default(),
    }
}

fn outcome_from_proto(outcome: v1::CommandOutcome) -> domain::CommandOutcome {
    domain::CommandOutcome {
        id: bounded(outcome.id, MAX_NAME_OCTETS),
        actor: bounded(outcome.actor, MAX_NAME_OCTETS),
        reason: bounded(outcome.reason, MAX_TEXT_OCTETS),
        at_ms: outcome.at_ms,
        evidence: outcome.evidence.map(|evidence| domain::UnlockEvidence {
            password_changed_ms: evidence.password_changed_ms,
            note: bounded(evidence.note, MAX_TEXT_OCTETS),
        }),
        refused: Some(bounded(outcome.refused, MAX_TEXT_OCTETS)).filter(|why| !why.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::{MAX_CLIENTS, MAX_SUBJECTS};
    use proptest::prelude::*;

    fn locked() -> domain::AccountState {
        let rule = domain::RuleRef { name: "burst".into(), rule_set: "ab12".into() };
        let evidence = vec![domain::Evidence { column: "messages_15m".into(), value: 61.0 }];
        domain::AccountState {
            status: Status::Locked(domain::Lock {
                id: "L-7K3QX2M9".into(),
                cause: Cause::Rule(rule.clone()),
                reason: "burst".into(),
                evidence: evidence.clone(),
                since_ms: 5,
                until_ms: Some(9),
                reply: "locked".into(),
                queued_mail: domain::QueuedMail::Hold,
                clients: vec![domain::ClientSeen { address: [192, 0, 2, 1].into(), messages: 61, last_ms: 5 }],
                subjects: vec!["Your invoice".into()],
            }),
            version: 3,
            changed_ms: 5,
            exemptions: vec![domain::Exemption {
                rules: vec!["burst".into()],
                until_ms: None,
                actor: "amy".into(),
                reason: "newsletter".into(),
            }],
            clean_slate: Some(domain::CleanSlate { event_offset: Some(4), time_ms: 3 }),
            probation_until_ms: Some(88),
            notice: Some(domain::Notice { rule, at_ms: 2, evidence }),
            last_command: Some(domain::CommandOutcome {
                id: "c1".into(),
                actor: "amy".into(),
                reason: "called".into(),
                at_ms: 3,
                evidence: Some(domain::UnlockEvidence { password_changed_ms: Some(2), note: "by phone".into() }),
                refused: Some("it is not locked".into()),
            }),
            as_of: domain::AsOf { event_offset: Some(7), command_offset: None },
            timeline: vec![milestone(3)],
            auto_unlocks: 2,
            ..domain::AccountState::new(Account::parse("jo@example.org").unwrap())
        }
    }

    fn milestone(version: u64) -> domain::Milestone {
        domain::Milestone {
            version,
            at_ms: 5,
            change: domain::Change::Locked,
            rule: Some("burst".into()),
            actor: None,
            reason: "burst".into(),
            lock_id: Some("L-7K3QX2M9".into()),
        }
    }

    #[test]
    fn a_state_survives_the_wire() {
        let state = locked();
        assert_eq!(state_from_proto(&state_to_proto(&state).encode_to_vec()), Ok(state));
    }

    fn timeline() -> impl Strategy<Value = Vec<domain::Milestone>> {
        use domain::Change as C;
        let changes = [C::Locked, C::Throttled, C::Noticed, C::Unlocked, C::Expired, C::Amended, C::CommandRefused];
        let told = || prop::option::of("[a-z]{1,20}");
        let change = prop::sample::select(changes.to_vec());
        let milestone = (any::<(u64, i64)>(), change, told(), told(), "\\PC{0,60}", told()).prop_map(
            |((version, at_ms), change, rule, actor, reason, lock_id)| domain::Milestone {
                version,
                at_ms,
                change,
                rule,
                actor,
                reason,
                lock_id,
            },
        );
        proptest::collection::vec(milestone, 0..=domain::Milestone::MAX)
    }

    fn clients() -> impl Strategy<Value = Vec<domain::ClientSeen>> {
        let client = any::<(std::net::IpAddr, u32, i64)>()
            .prop_map(|(address, messages, last_ms)| domain::ClientSeen { address, messages, last_ms });
        proptest::collection::vec(client, 0..=MAX_CLIENTS)
    }

    proptest! {
        #[test]
        fn what_people_look_at_survives_the_wire_and_is_not_told_to_edges(
            timeline in timeline(),
            clients in clients(),
            subjects in proptest::collection::vec("\\PC{0,100}", 0..=MAX_SUBJECTS),
            auto_unlocks in any::<u32>(),
        ) {
            let mut state = domain::AccountState { timeline, auto_unlocks, ..locked() };
            let Status::Locked(lock) = &mut state.status else { unreachable!() };
            (lock.clients, lock.subjects) = (clients, subjects);
            let mut for_edge = state_from_proto(&state_for_edge(&state).encode_to_vec()).unwrap();
            prop_assert_eq!(state_from_proto(&state_to_proto(&state).encode_to_vec()), Ok(state.clone()));
            prop_assert!(for_edge.timeline.is_empty());
            let Status::Locked(told) = &mut for_edge.status else { panic!("{for_edge:?}") };
            prop_assert!(told.clients.is_empty() && told.subjects.is_empty());
            let Status::Locked(lock) = &state.status else { unreachable!() };
            (told.clients, told.subjects) = (lock.clients.clone(), lock.subjects.clone());
            for_edge.timeline = state.timeline.clone();
            prop_assert_eq!(for_edge, state);
        }
    }

    #[test]
    fn of_a_timeline_the_newest_are_taken_and_what_is_unknown_is_left_out() {
        let mut message = state_to_proto(&locked());
        message.timeline = (0..30).map(|version| milestone_to_proto(&milestone(version))).collect();
        message.timeline[29].change = 99;
        let lock = message.lock.as_mut().unwrap();
        lock.clients = vec![v1::ClientSeen { address: vec![1, 2, 3], ..Default::default() }; 3];
        let state = domain::AccountState::try_from(message).unwrap();
        let versions: Vec<u64> = state.timeline.iter().map(|milestone| milestone.version).collect();
        assert_eq!(versions, (14..29).collect::<Vec<u64>>());
        assert!(state.status.lock().unwrap().clients.is_empty());
    }

    /// What the log's limits of `tidegate-bus` are: a state that could not be written would keep all others back.
    const RECORD_OCTETS: usize = 900_000;

    #[test]
    fn the_largest_state_fits_a_record() {
        let long = || "x".repeat(20_000);
        let mut message = state_to_proto(&locked());
        let exemption =
            v1::Exemption { rules: vec!["x".repeat(70); 300], until_ms: Some(i64::MAX), actor: long(), reason: long() };
        let evidence = vec![v1::Evidence { column: long(), value: 0.1 }; 500];
        message.exemptions = vec![exemption; 110];
        let lock = message.lock.as_mut().unwrap();
        (lock.id, lock.reason, lock.reply, lock.evidence) = (long(), long(), long(), evidence.clone());
        lock.clients = vec![v1::ClientSeen { address: vec![7; 16], messages: u32::MAX, last_ms: i64::MIN }; 50];
        lock.subjects = vec![long(); 50];
        let milestone = v1::Milestone {
            version: u64::MAX,
            at_ms: i64::MIN,
            change: 1,
            rule: long(),
            actor: long(),
            reason: long(),
            lock_id: long(),
        };
        message.timeline = vec![milestone; 50];
        let notice = message.notice.as_mut().unwrap();
        (notice.rule, notice.evidence) = (Some(v1::RuleRef { name: long(), rule_set: long() }), evidence);
        let outcome = message.last_command.as_mut().unwrap();
        (outcome.id, outcome.actor, outcome.reason, outcome.refused) = (long(), long(), long(), long());
        let state = domain::AccountState::try_from(message).unwrap();
        let octets = state_to_proto(&state).encoded_len();
        assert!(octets < RECORD_OCTETS, "{octets}");
        assert_eq!(domain::AccountState::try_from(state_to_proto(&state)), Ok(state));
    }

    #[test]
    fn a_lock_without_a_cause_is_an_error() {
        let mut message = state_to_proto(&locked());
        message.lock.as_mut().unwrap().rule = None;
        let error = domain::AccountState::try_from(message).unwrap_err();
        assert_eq!(error.to_string(), "Lock.rule (or actor) is not set");
        let mut message = state_to_proto(&locked());
        message.lock = None;
        assert!(domain::AccountState::try_from(message).is_err());
    }
}
