//! The account state machine against a naive list of facts, and its invariants one by one.
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use tidegate_domain::{
    Account, AccountState, Action, Change, ClientSeen, Command, CommandKind, Decision, Effect, Evidence, Input, Match,
    Milestone, QueuedMail, RuleRef, Sightings, Status, UnlockEvidence, apply,
};

fn account() -> Account {
    Account::parse("jo@example.org").unwrap()
}

fn found(name: &str, action: Action) -> Match {
    Match {
        rule: RuleRef { name: name.into(), rule_set: "v1".into() },
        action,
        reason: "because".into(),
        reply: "ask the help desk".into(),
        evidence: vec![Evidence { column: "messages_15m".into(), value: 61.0 }],
    }
}

fn matches(event_offset: u64, at_ms: i64, matches: Vec<Match>) -> Input {
    Input::Matches { event_offset, at_ms, matches, sightings: Sightings::default() }
}

fn lock() -> Action {
    Action::Lock { for_ms: None, queued_mail: QueuedMail::Hold, max_auto_unlocks: None }
}

fn command(offset: u64, at_ms: i64, events_read_to: Option<u64>, kind: CommandKind) -> Input {
    Input::Command(Command {
        id: format!("c{offset}"),
        offset,
        at_ms,
        events_read_to,
        actor: "amy".into(),
        reason: "she called".into(),
        kind,
    })
}

fn unlock() -> CommandKind {
    CommandKind::Unlock {
        evidence: UnlockEvidence { password_changed_ms: Some(1), note: "changed by phone".into() },
        probation_ms: 1000,
    }
}

fn changes(effects: &[Effect]) -> Vec<Change> {
    effects
        .iter()
        .filter_map(|effect| if let Effect::Changed(change) = effect { Some(*change) } else { None })
        .collect()
}

#[test]
fn the_strongest_match_decides_and_the_state_tells_why() {
    let throttle = Action::Throttle { for_ms: 500 };
    let input = matches(7, 100, vec![found("watch", Action::Observe), found("slow", throttle), found("burst", lock())]);
    let (state, effects) = apply(AccountState::new(account()), input);
    assert_eq!(changes(&effects), [Change::Locked]);
    let Decision::Refuse(lock) = state.decide(100) else { panic!("{state:?}") };
    assert_eq!((lock.evidence[0].value, lock.since_ms, lock.until_ms), (61.0, 100, None));
    assert!(lock.id.len() == 10 && lock.id.starts_with("L-"), "{}", lock.id);
    assert_eq!(state.as_of.event_offset, Some(7));
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Observed(_))).count(), 2);
}

#[test]
fn a_throttle_ends_by_itself_and_a_timed_lock_starts_a_clean_slate() {
    let throttled =
        apply(AccountState::new(account()), matches(1, 100, vec![found("slow", Action::Throttle { for_ms: 50 })])).0;
    assert!(matches!(throttled.decide(149), Decision::Throttle(_)));
    assert_eq!(throttled.decide(150), Decision::Pass);
    let (ended, effects) = apply(throttled, Input::Clock { now_ms: 150 });
    assert_eq!((changes(&effects), ended.status), (vec![Change::Expired], Status::Active));

    let timed = Action::Lock { for_ms: Some(50), queued_mail: QueuedMail::Keep, max_auto_unlocks: None };
    let locked = apply(AccountState::new(account()), matches(1, 100, vec![found("burst", timed)])).0;
    let (ended, effects) = apply(locked, Input::Clock { now_ms: 200 });
    assert!(effects.contains(&Effect::ForgetWindows));
    assert!(!ended.counts(1, 100) && !ended.counts(2, 150) && ended.counts(2, 151));
}

#[test]
fn an_unlock_starts_a_clean_slate_also_for_events_that_arrive_late() {
    let locked = apply(AccountState::new(account()), matches(7, 100, vec![found("burst", lock())])).0;
    let (state, effects) = apply(locked, command(0, 500, Some(9), unlock()));
    assert_eq!(changes(&effects), [Change::Unlocked]);
    assert!(effects.contains(&Effect::ForgetWindows));
    assert_eq!(state.decide(500), Decision::Pass);
    assert_eq!(state.probation_until_ms, Some(1500));
    let outcome = state.last_command.as_ref().unwrap();
    assert_eq!((outcome.actor.as_str(), outcome.evidence.as_ref().unwrap().password_changed_ms), ("amy", Some(1)));
    for (offset, at_ms) in [(8, 480), (9, 600), (12, 400)] {
        let (same, effects) = apply(state.clone(), matches(offset, at_ms, vec![found("burst", lock())]));
        assert_eq!((same, effects.len()), (state.clone(), 0), "offset {offset} at {at_ms}");
    }
    let (again, _) = apply(state, matches(13, 700, vec![found("burst", lock())]));
    assert!(matches!(again.status, Status::Locked(_)), "new spam locks again");
}

#[test]
fn commands_that_cannot_be_done_say_why_and_change_nothing_else() {
    let (state, effects) = apply(AccountState::new(account()), command(0, 5, None, unlock()));
    assert_eq!(changes(&effects), [Change::CommandRefused]);
    assert_eq!(state.last_command.as_ref().unwrap().refused.as_deref(), Some("it is not locked"));
    let kind = CommandKind::Exempt { rules: vec![], until_ms: Some(4) };
    let (state, _) = apply(state, command(1, 5, None, kind));
    assert!(state.exemptions.is_empty() && state.last_command.unwrap().refused.unwrap().contains("passed already"));
}

#[test]
fn exemptions_name_rules_and_end() {
    let kind = CommandKind::Exempt { rules: vec!["burst".into()], until_ms: Some(1000) };
    let exempt = apply(AccountState::new(account()), command(0, 5, None, kind)).0;
    let (same, effects) = apply(exempt.clone(), matches(1, 999, vec![found("burst", lock())]));
    assert_eq!((same, changes(&effects).len(), effects.len()), (exempt.clone(), 0, 1));
    assert!(matches!(apply(exempt.clone(), matches(1, 999, vec![found("other", lock())])).0.status, Status::Locked(_)));
    assert!(matches!(
        apply(exempt.clone(), matches(1, 1000, vec![found("burst", lock())])).0.status,
        Status::Locked(_)
    ));
    let (cleared, _) = apply(exempt, command(1, 6, None, CommandKind::Clear { exemptions: true, windows: false }));
    assert!(cleared.exemptions.is_empty() && cleared.clean_slate.is_none());
}

#[test]
fn a_notice_is_not_repeated_within_the_hour() {
    let noticed = apply(AccountState::new(account()), matches(1, 0, vec![found("warn", Action::Notify)])).0;
    let (same, effects) = apply(noticed.clone(), matches(2, 3_599_999, vec![found("warn", Action::Notify)]));
    assert_eq!((&same, changes(&effects).len()), (&noticed, 0));
    let (_, effects) = apply(noticed, matches(3, 3_600_000, vec![found("warn", Action::Notify)]));
    assert_eq!(changes(&effects), [Change::Noticed]);
}

fn timed_lock(max_auto_unlocks: Option<u32>) -> Action {
    Action::Lock { for_ms: Some(50), queued_mail: QueuedMail::Keep, max_auto_unlocks }
}

#[test]
fn a_lock_that_ended_by_itself_often_enough_has_no_end_until_a_command_has_unlocked() {
    let mut state = AccountState::new(account());
    let lock_again = |state: &mut AccountState, event_offset: u64| {
        let at_ms = event_offset.cast_signed() * 1_000;
        let input = matches(event_offset, at_ms, vec![found("burst", timed_lock(Some(2)))]);
        *state = apply(state.clone(), input).0;
        let until_ms = state.status.lock().unwrap().until_ms;
        *state = apply(state.clone(), Input::Clock { now_ms: at_ms + 500 }).0;
        until_ms
    };
    assert_eq!([1, 2, 3].map(|offset| lock_again(&mut state, offset)), [Some(1_050), Some(2_050), None]);
    assert_eq!((state.auto_unlocks, state.status.as_str()), (2, "locked"));
    state = apply(state, command(1, 3_600, Some(3), unlock())).0;
    assert_eq!(state.auto_unlocks, 0);
    assert_eq!(lock_again(&mut state, 4), Some(4_050));
    // A throttle is no lock, and a rule without the key always has its end.
    let slow = vec![found("slow", Action::Throttle { for_ms: 50 })];
    state = apply(apply(state, matches(5, 5_000, slow)).0, Input::Clock { now_ms: 5_500 }).0;
    assert_eq!(state.auto_unlocks, 1);
    state.auto_unlocks = u32::MAX;
    state = apply(state, matches(6, 6_000, vec![found("burst", timed_lock(None))])).0;
    assert_eq!(state.status.lock().unwrap().until_ms, Some(6_050));
    assert_eq!(apply(state, Input::Clock { now_ms: 6_500 }).0.auto_unlocks, u32::MAX);
}

#[test]
fn the_timeline_tells_what_was_decided_by_whom_and_why() {
    let mut state = AccountState::new(account());
    let mut steps = vec![
        matches(1, 100, vec![found("warn", Action::Notify)]),
        matches(2, 200, vec![found("burst", timed_lock(None))]),
        // Its end is seen together with the next lock.
        matches(3, 300, vec![found("burst", lock())]),
        command(
            1,
            400,
            Some(3),
            CommandKind::Lock { for_ms: None, reply: String::new(), queued_mail: QueuedMail::Keep },
        ),
        command(2, 500, Some(3), unlock()),
        command(3, 600, Some(3), CommandKind::Exempt { rules: vec![], until_ms: None }),
    ];
    for step in steps.drain(..) {
        state = apply(state, step).0;
    }
    let told: Vec<_> = state
        .timeline
        .iter()
        .map(|one| (one.version, one.at_ms, one.change, one.rule.as_deref(), one.actor.as_deref(), one.reason.as_str()))
        .collect();
    let locked_already = state.timeline[4].reason.as_str();
    assert!(locked_already.starts_with("it is locked already"), "{locked_already}");
    let expected = [
        (1, 100, Change::Noticed, Some("warn"), None, "because"),
        (2, 200, Change::Locked, Some("burst"), None, "because"),
        (3, 250, Change::Expired, None, None, "its time has passed"),
        (4, 300, Change::Locked, Some("burst"), None, "because"),
        (5, 400, Change::CommandRefused, None, Some("amy"), locked_already),
        (6, 500, Change::Unlocked, None, Some("amy"), "she called"),
        (7, 600, Change::Amended, None, Some("amy"), "she called"),
    ];
    assert_eq!(told, expected);
    let ids: Vec<Option<&str>> = state.timeline.iter().map(|one| one.lock_id.as_deref()).collect();
    assert!(ids[0].is_none() && ids[4].is_none() && ids[6].is_none(), "{ids:?}");
    assert!(ids[1].is_some() && ids[1] == ids[2] && ids[3] == ids[5] && ids[1] != ids[3], "{ids:?}");
}

#[test]
fn the_timeline_is_bounded_and_the_newest_stay() {
    let mut state = AccountState::new(account());
    let long = Match { reason: "é".repeat(1_000), ..found("warn", Action::Notify) };
    for hour in 0..40 {
        state = apply(state, matches(hour, hour.cast_signed() * 3_600_000, vec![long.clone()])).0;
    }
    let versions: Vec<u64> = state.timeline.iter().map(|milestone| milestone.version).collect();
    assert_eq!(versions, (25..=40).collect::<Vec<u64>>());
    assert_eq!(state.timeline[0].reason.len(), Milestone::MAX_REASON_OCTETS);
}

#[test]
fn a_lock_tells_from_where_and_with_which_subjects_the_account_sent() {
    let sightings = Sightings {
        clients: vec![ClientSeen { address: [192, 0, 2, 1].into(), messages: 61, last_ms: 99 }],
        subjects: vec!["Your invoice".into()],
    };
    let told = |action| {
        let input = Input::Matches {
            event_offset: 1,
            at_ms: 100,
            matches: vec![found("burst", action)],
            sightings: sightings.clone(),
        };
        let lock = apply(AccountState::new(account()), input).0.status.lock().cloned().unwrap();
        Sightings { clients: lock.clients, subjects: lock.subjects }
    };
    assert_eq!(told(lock()), sightings);
    assert_eq!(told(Action::Throttle { for_ms: 5 }), sightings);
}

/// What can happen, as small numbers; offsets rise as they do in a partition.
#[derive(Debug, Clone)]
enum Step {
    Rule { action: u8 },
    Lock { timed: bool },
    Unlock,
    Exempt,
    Clear,
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u8..5).prop_map(|action| Step::Rule { action }),
        1 => any::<bool>().prop_map(|timed| Step::Lock { timed }),
        2 => Just(Step::Unlock),
        1 => Just(Step::Exempt),
        1 => Just(Step::Clear),
        2 => (0u16..400).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..40)
}

/// The inputs that the steps are, with rising offsets and times.
fn inputs(steps: &[Step]) -> Vec<Input> {
    let (mut events, mut commands, mut now_ms) = (0, 0, 1000);
    let mut inputs = Vec::new();
    for step in steps {
        now_ms += 1;
        let mut ask = |kind| {
            commands += 1;
            command(commands, now_ms, (events > 0).then_some(events), kind)
        };
        inputs.push(match step {
            Step::Rule { action } => {
                events += 1;
                let action = match action {
                    0 => Action::Observe,
                    1 => Action::Notify,
                    2 => Action::Throttle { for_ms: 100 },
                    3 => timed_lock(Some(1)),
                    _ => lock(),
                };
                matches(events, now_ms, vec![found("rule", action)])
            }
            Step::Lock { timed } => ask(CommandKind::Lock {
                for_ms: timed.then_some(200),
                reply: "by hand".into(),
                queued_mail: QueuedMail::Keep,
            }),
            Step::Unlock => ask(unlock()),
            Step::Exempt => ask(CommandKind::Exempt { rules: vec!["rule".into()], until_ms: Some(now_ms + 50) }),
            Step::Clear => ask(CommandKind::Clear { exemptions: true, windows: true }),
            Step::Wait(span) => {
                now_ms += i64::from(*span);
                Input::Clock { now_ms }
            }
        });
    }
    inputs
}

#[test]
fn absurd_times_and_versions_are_survived() {
    // Times come from edges and from files, and may be anything.
    let early = apply(AccountState::new(account()), matches(1, i64::MIN + 5, vec![found("warn", Action::Notify)])).0;
    let (late, effects) = apply(early, matches(2, i64::MAX, vec![found("warn", Action::Notify)]));
    assert_eq!(changes(&effects), [Change::Noticed]);
    let (_, effects) = apply(late, matches(3, i64::MIN, vec![found("warn", Action::Notify)]));
    assert_eq!(changes(&effects), []);
    let last = AccountState { version: u64::MAX, ..AccountState::new(account()) };
    assert_eq!(apply(last, matches(1, 0, vec![found("burst", lock())])).0.version, u64::MAX);
}

/// Naive: remembers facts only (refused as what, until when; exempt until when) and asks them anew each time.
#[derive(Default)]
struct Facts {
    refused: Option<(u8, Option<i64>)>,
    exempt_until: Option<i64>,
    ended_by_themselves: u32,
}

impl Facts {
    fn expire(&mut self, now_ms: i64) {
        if self.refused.is_some_and(|(_, until)| until.is_some_and(|until| now_ms >= until)) {
            self.ended_by_themselves += u32::from(self.refused.is_some_and(|(strength, _)| strength == 3));
            self.refused = None;
        }
    }

    fn learn(&mut self, input: &Input) {
        match input {
            Input::Clock { now_ms } => self.expire(*now_ms),
            Input::Matches { at_ms, matches, .. } => {
                self.expire(*at_ms);
                if self.exempt_until.is_some_and(|until| *at_ms < until) {
                    return;
                }
                let strength = self.refused.map_or(0, |(strength, _)| strength);
                match matches[0].action {
                    Action::Throttle { for_ms } if strength < 2 => self.refused = Some((2, Some(at_ms + for_ms))),
                    Action::Lock { for_ms, max_auto_unlocks, .. } if strength < 3 => {
                        let ends = max_auto_unlocks.is_none_or(|most| self.ended_by_themselves < most);
                        self.refused = Some((3, for_ms.filter(|_| ends).map(|span| at_ms + span)));
                    }
                    _ => {}
                }
            }
            Input::Command(command) => {
                self.expire(command.at_ms);
                match &command.kind {
                    CommandKind::Lock { for_ms, .. } => {
                        if self.refused.is_none_or(|(strength, _)| strength < 3) {
                            self.refused = Some((3, for_ms.map(|span| command.at_ms + span)));
                        }
                    }
                    CommandKind::Unlock { .. } => {
                        if self.refused.take().is_some() {
                            self.ended_by_themselves = 0;
                        }
                    }
                    CommandKind::Exempt { until_ms, .. } => {
                        self.exempt_until = self.exempt_until.max(*until_ms);
                    }
                    CommandKind::Clear { exemptions, .. } => {
                        if *exemptions {
                            self.exempt_until = None;
                        }
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// The machine and the facts agree on what is refused; a replay from any point of the past changes nothing; only
    /// a command or the lock's own time lets a locked account go.
    #[test]
    fn equals_the_facts_and_a_replay_changes_nothing(steps in steps(), from in 0usize..40) {
        let inputs = inputs(&steps);
        let (mut state, mut facts) = (AccountState::new(account()), Facts::default());
        for input in &inputs {
            let before = state.clone();
            let (after, effects) = apply(state, input.clone());
            facts.learn(input);
            let strength = match after.status { Status::Active => 0, Status::Throttled(_) => 2, Status::Locked(_) => 3 };
            prop_assert_eq!(strength, facts.refused.map_or(0, |(strength, _)| strength), "after {:?}", input);
            let changed = changes(&effects);
            prop_assert_eq!(after.version, before.version + changed.len() as u64);
            let told: Vec<Change> = after.timeline.iter().rev().take(changed.len()).rev().map(|one| one.change).collect();
            prop_assert_eq!(told, changed);
            prop_assert_eq!(after.timeline.last().map_or(0, |newest| newest.version), after.version);
            prop_assert_eq!(after.auto_unlocks, facts.ended_by_themselves);
            if matches!(before.status, Status::Locked(_)) && !matches!(after.status, Status::Locked(_)) {
                let asked = matches!(input, Input::Command(_));
                prop_assert!(asked || changes(&effects).contains(&Change::Expired) || !before.status.lock().unwrap().in_force(i64::MAX));
            }
            state = after;
        }
        // Time passing is not replayed: it is not on any topic.
        for input in inputs.iter().skip(from).filter(|input| !matches!(input, Input::Clock { .. })) {
            let reflected = match input {
                Input::Matches { event_offset, .. } => state.as_of.event_offset.is_some_and(|seen| *event_offset <= seen),
                Input::Command(_) => true,
                Input::Clock { .. } => false,
            };
            if reflected {
                let (same, effects) = apply(state.clone(), input.clone());
                prop_assert_eq!(&same, &state);
                prop_assert!(effects.is_empty());
            }
        }
    }
}
