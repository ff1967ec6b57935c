//! From protobuf to the domain: events, commands, account states, and the state machine that they go through.

use prost::Message as _;
use tidegate_domain::{
    Account, AccountState, Action, Change, ClientSeen, Command, Decision, Effect, Event, EventKind, Evidence,
    Input as Given, Login, Match, Milestone, Position, QueuedMail, Replica, RuleRef, Sightings, Submission, apply,
};
use tidegate_proto::{
    command_from_proto, event_from_proto, event_to_proto, state_for_edge, state_from_proto, state_to_proto, v1,
};

use crate::input::{Input, outcome, seed};
use crate::milter::check_submission;
use crate::{Outcome, Target};

const WORDS: &[&str] = &["jo@example.org", "local:root", "\u{e9}", "\0", "L-7K3QX2M9"];

/// A record of `events`.
pub const EVENT: Target =
    Target { name: "event", run: event, seeds: event_seeds, words: WORDS, max_octets: 4096, test_inputs: 20_000 };

/// Records of `commands`, taken by an account's state one after the other, with matches and time between them.
pub const COMMAND: Target =
    Target { name: "command", run: command, seeds: command_seeds, words: WORDS, max_octets: 2048, test_inputs: 20_000 };

/// A record of `accounts`, and what the state machine makes of it.
pub const STATE: Target =
    Target { name: "state", run: state, seeds: state_seeds, words: WORDS, max_octets: 4096, test_inputs: 20_000 };

fn event(octets: &[u8]) -> Outcome {
    let event = match event_from_proto(octets) {
        Ok(event) => event,
        Err(error) => return failed(&error),
    };
    let written = event_to_proto(&event).encode_to_vec();
    assert_eq!(event_from_proto(&written).as_ref(), Ok(&event), "it is not the same when it is read again");
    assert_eq!(event_to_proto(&event_from_proto(&written).unwrap()).encode_to_vec(), written);
    for text in [&event.id.node, &event.site] {
        assert!(text.len() <= 1024);
    }
    if let EventKind::Submission(submission) = &event.kind {
        let recipients = &submission.recipients;
        assert!(recipients.domains.len() <= 1000 && recipients.domains.iter().all(|domain| domain.len() <= 1024));
        assert!(recipients.count <= 1_000_000 && submission.size <= 1 << 40);
        let mut bounded = (**submission).clone();
        bounded.recipients.domains.truncate(100);
        check_submission(&bounded);
    }
    outcome((std::mem::discriminant(&event.kind), event.id.lane, written.len() == octets.len(), event.site.is_empty()))
}

/// Without what is different for each input, e.g. the text of a wrong account.
pub(crate) fn failed(error: &tidegate_proto::DecodeError) -> Outcome {
    use tidegate_proto::DecodeError as E;
    assert!(!error.to_line().is_empty());
    outcome(match error {
        E::Protobuf { reason, .. } => reason.chars().filter(|c| !c.is_ascii_digit()).take(60).collect(),
        E::Missing { message, field } | E::Value { message, field, .. } => format!("{message}.{field}"),
        E::Account { source, .. } => format!("{:?}", std::mem::discriminant(source)),
    })
}

fn command(octets: &[u8]) -> Outcome {
    let mut input = Input::new(octets);
    let mut state: Option<AccountState> = None;
    let mut seen = Vec::new();
    while !input.is_empty() && seen.len() < 20 {
        let choices = input.byte();
        let (offset, at_ms) = (input.u64() >> 1, input.i64());
        let read_to = (choices & 1 == 0).then_some(offset / 2);
        let length = usize::from(input.u16());
        match command_from_proto(input.take(length), offset, at_ms, read_to) {
            Ok((account, command)) => {
                assert!(!command.id.is_empty() && !command.actor.is_empty());
                let before = state.take().unwrap_or_else(|| AccountState::new(account));
                let (after, effects) = step(before, Given::Command(command.clone()));
                seen.push(outcome(effects.iter().map(kind).collect::<Vec<_>>()));
                let again = apply(after.clone(), Given::Command(command));
                assert_eq!((fixed(&again.0), again.1), (fixed(&after), Vec::new()), "a repeat changes something");
                state = Some(matches_and_time(after, choices, offset, at_ms));
            }
            Err(error) => seen.push(failed(&error)),
        }
    }
    outcome(seen)
}

fn state(octets: &[u8]) -> Outcome {
    let mut input = Input::new(octets);
    let choices = input.byte();
    let (offset, at_ms) = (input.u64(), input.i64());
    let state = match state_from_proto(input.rest()) {
        Ok(state) => state,
        Err(error) => return failed(&error),
    };
    let written = state_to_proto(&state).encode_to_vec();
    // Evidence may be NaN, which is not equal to itself: octets are.
    assert_eq!(fixed(&state_from_proto(&written).unwrap()), written, "it is not the same when it is read again");
    let for_edge = state_from_proto(&state_for_edge(&state).encode_to_vec()).unwrap();
    assert!(for_edge.timeline.is_empty() && for_edge.status.lock().is_none_or(|lock| lock.clients.is_empty()));
    assert_eq!(for_edge.decide(at_ms) == Decision::Pass, state.decide(at_ms) == Decision::Pass);
    let mut replica = Replica::new();
    let account = state.account.clone();
    let position = Position { partition: u32::from(choices), offset: offset >> 1 };
    drop(replica.apply(position, &account, Some(state.clone())));
    drop(replica.apply(position, &account, Some(state.clone())));
    assert_eq!((replica.len(), replica.position_of(account.as_str())), (1, Some(position)));
    let decided = outcome(std::mem::discriminant(&state.decide(at_ms)));
    let after = matches_and_time(state.clone(), choices, offset, at_ms);
    outcome((decided, after.status.as_str(), state.notice.is_some(), state.exemptions.len().min(3)))
}

/// The state as octets.
fn fixed(state: &AccountState) -> Vec<u8> {
    state_to_proto(state).encode_to_vec()
}

/// What a rule may bring, then the passing of time, each twice.
fn matches_and_time(mut state: AccountState, choices: u8, offset: u64, at_ms: i64) -> AccountState {
    let action = match choices >> 2 & 3 {
        0 => Action::Notify,
        1 => Action::Throttle { for_ms: at_ms },
        2 => Action::Lock { for_ms: Some(at_ms), queued_mail: QueuedMail::Hold, max_auto_unlocks: None },
        _ => Action::Lock { for_ms: Some(at_ms), queued_mail: QueuedMail::Keep, max_auto_unlocks: Some(1) },
    };
    let found = Match {
        rule: RuleRef { name: "burst".into(), rule_set: "ab12".into() },
        action,
        reason: String::new(),
        reply: String::new(),
        evidence: vec![Evidence { column: "messages_15m".into(), value: 61.0 }],
    };
    for _ in 0..2 {
        let sightings = Sightings {
            clients: vec![ClientSeen { address: [192, 0, 2, 1].into(), messages: 3, last_ms: at_ms }],
            subjects: vec!["Your invoice".to_owned()],
        };
        let matches = vec![found.clone(), found.clone()];
        let given = Given::Matches { event_offset: offset, at_ms, matches, sightings };
        state = step(state, given).0;
    }
    for now_ms in [at_ms, at_ms.saturating_add(1), i64::MIN, i64::MAX] {
        state = step(state, Given::Clock { now_ms }).0;
    }
    let lasting = state.status.lock().and_then(|lock| lock.until_ms);
    assert_eq!(lasting, None, "a lock with an end has not ended at the end of time");
    state
}

/// One step: a state is published when, and only when, it says so.
fn step(state: AccountState, given: Given) -> (AccountState, Vec<Effect>) {
    let before = state.clone();
    let (after, effects) = apply(state, given);
    let changed = effects.iter().filter(|effect| matches!(effect, Effect::Changed(_))).count() as u64;
    assert_eq!(after.version, before.version.saturating_add(changed));
    assert!(after.timeline.len() <= Milestone::MAX);
    if changed > 0 {
        assert_eq!(after.timeline.last().map(|milestone| milestone.version), Some(after.version));
    }
    assert_eq!(after.account, before.account);
    // Octets, since NaN is no evidence of a change.
    assert_eq!(fixed(&state_from_proto(&fixed(&after)).unwrap()), fixed(&after));
    (after, effects)
}

fn kind(effect: &Effect) -> Option<u8> {
    match effect {
        Effect::Changed(change) => Some(*change as u8),
        Effect::Observed(_) => None,
        Effect::ForgetWindows => Some(u8::MAX),
    }
}

fn event_seeds() -> Vec<Vec<u8>> {
    let event = |kind| Event {
        id: tidegate_domain::EventId { node: "mx1".into(), lane: tidegate_domain::Lane::Spooled, sequence: 7 },
        site: "ams".into(),
        account: Account::parse("jo@example.org").unwrap(),
        time_ms: 1_700_000_000_000,
        kind,
    };
    let submission = Submission {
        client_address: Some([192, 0, 2, 1].into()),
        client_port: 40_000,
        helo: "client.test".into(),
        sender: "jo@example.org".into(),
        recipients: tidegate_domain::Recipients {
            count: 3,
            internal: 1,
            domains: vec!["dest.test".into()],
            hashes: vec![1, 2],
        },
        size: 4_000,
        queue_id: "4XyZ".into(),
        subject_hash: 5,
        mailer_hash: 6,
        fingerprint: 7,
        spam_score: Some(8.5),
        tls: "TLSv1.3".into(),
        ..Submission::default()
    };
    let delivery = tidegate_domain::Delivery {
        queue_id: "4XyZ".into(),
        recipient_domain: "dest.test".into(),
        outcome: tidegate_domain::DeliveryOutcome::Bounced,
        status: "5.1.1".into(),
    };
    let kinds = [
        EventKind::Submission(Box::new(submission)),
        EventKind::Login(Login { client_address: Some([0; 16].into()), protocol: "imap".into(), success: false }),
        EventKind::Delivery(delivery),
    ];
    kinds.into_iter().map(|kind| event_to_proto(&event(kind)).encode_to_vec()).collect()
}

fn commands() -> Vec<Vec<u8>> {
    let lock =
        v1::LockCommand { for_ms: Some(60_000), reply: "Locked".into(), queued_mail: v1::QueuedMail::Hold.into() };
    let evidence = v1::UnlockEvidence { password_changed_ms: Some(1), note: "by phone".into() };
    let kinds = [
        v1::command::Kind::Lock(lock),
        v1::command::Kind::Unlock(v1::UnlockCommand { evidence: Some(evidence), probation_ms: Some(5_000) }),
        v1::command::Kind::Exempt(v1::ExemptCommand { rules: vec!["burst".into()], until_ms: Some(1 << 50) }),
        v1::command::Kind::Clear(v1::ClearCommand { exemptions: true, windows: true }),
    ];
    let command = |kind| v1::Command {
        id: "c1".into(),
        account: "jo@example.org".into(),
        actor: "amy".into(),
        reason: "reported".into(),
        kind: Some(kind),
    };
    kinds.into_iter().map(|kind| command(kind).encode_to_vec()).collect()
}

fn command_seeds() -> Vec<Vec<u8>> {
    let framed = |number: u64, octets: &[u8]| {
        let head = [&[number as u8][..], &(number << 1).to_be_bytes(), &(1_700_000_000_000_u64 + number).to_be_bytes()];
        [&head.concat()[..], &(octets.len() as u16).to_be_bytes(), octets].concat()
    };
    let mut all = commands();
    let inspect = v1::command::Kind::Inspect(v1::InspectCommand { points: 60 });
    all.push(v1::Command { kind: Some(inspect), ..v1::Command::decode(&*all[0]).unwrap() }.encode_to_vec());
    let mut seeds: Vec<_> = all.iter().map(|octets| framed(2, octets)).collect();
    seeds.push(all.iter().enumerate().flat_map(|(number, octets)| framed(number as u64 * 5 + 1, octets)).collect());
    // The account is never locked by a command: rules may notify again and again.
    seeds.push((1..4).flat_map(|number| framed(number * 20, &all[2])).collect());
    seeds.push(all.iter().rev().enumerate().flat_map(|(number, octets)| framed(number as u64 * 6, octets)).collect());
    seeds
}

/// States that the state machine makes.
pub fn states() -> Vec<AccountState> {
    let mut states = vec![AccountState::new(Account::parse("jo@example.org").unwrap())];
    for (number, octets) in commands().iter().enumerate() {
        let (_, command): (_, Command) = command_from_proto(octets, number as u64, 1_700_000_000_000, Some(4)).unwrap();
        let (next, effects) = apply(states.last().unwrap().clone(), Given::Command(command));
        assert!(effects.contains(&Effect::Changed(Change::Locked)) || number > 0);
        states.push(next);
    }
    states.push(matches_and_time(states[0].clone(), 0, 9, 1_700_000_000_000));
    states.push(matches_and_time(states[0].clone(), 0xff, 9, 1_700_000_000_000));
    states
}

fn state_seeds() -> Vec<Vec<u8>> {
    let head = [&[0][..], &9_u64.to_be_bytes(), &1_700_000_000_000_i64.to_be_bytes()].concat();
    states().iter().map(|state| seed(&head, &fixed(state))).collect()
}
