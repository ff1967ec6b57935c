//! The account state machine: [`apply`] folds rule matches, commands and the passing of time into the
//! one state of an account.
//!
//! Invariants, each held by a test below:
//! - an input at or below the state's [`AsOf`] changes nothing again, so inputs may be replayed;
//! - a match never weakens what is in force: locked stays locked, whoever locked it;
//! - an unlock starts a clean slate, and only a command unlocks before the lock's time has passed;
//! - a rule's lock that ended by itself often enough does not end by itself again, until a command has unlocked;
//! - the same inputs give the same lock id, so that a replay never makes a second lock.

use crate::state::{
    AccountState, Cause, CleanSlate, ClientSeen, CommandOutcome, Evidence, Exemption, Lock, Notice, QueuedMail,
    RuleRef, Status, UnlockEvidence,
};
use crate::timeline::{Because, Change};

/// A notice about an account is not repeated by the same rule within this time.
const NOTICE_QUIET_MS: i64 = 60 * 60 * 1000;
/// Most exemptions that one account holds; more are refused.
const MAX_EXEMPTIONS: usize = 100;

/// What can change an account's state.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Rules that held for the account after the event at `event_offset`.
    Matches {
        /// Offset, in the account's partition of `events`, of the last event that was counted.
        event_offset: u64,
        /// The event's own time.
        at_ms: i64,
        /// All rules that held, in the order of the rule set.
        matches: Vec<Match>,
        /// What a lock that begins now tells besides.
        sightings: Sightings,
    },
    /// An administrator's command.
    Command(Command),
    /// Nothing happened, time passed.
    Clock {
        /// Now.
        now_ms: i64,
    },
}

/// What was seen of an account's messages, for the people who look at its lock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sightings {
    /// Addresses from which it sent.
    pub clients: Vec<ClientSeen>,
    /// Subjects of its messages, as a sample.
    pub subjects: Vec<String>,
}

/// A rule that held.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// Which.
    pub rule: RuleRef,
    /// What it asks for.
    pub action: Action,
    /// Reason, for administrators.
    pub reason: String,
    /// What the SMTP client is told.
    pub reply: String,
    /// The statistics that made it hold.
    pub evidence: Vec<Evidence>,
}

/// What a rule asks for, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Count it only.
    Observe,
    /// Tell the user and the administrators.
    Notify,
    /// Refuse mail for a time (`450`).
    Throttle {
        /// For how long.
        for_ms: i64,
    },
    /// Refuse mail (`550`).
    Lock {
        /// For how long; none: until somebody unlocks it.
        for_ms: Option<i64>,
        /// What to do with mail that is queued already.
        queued_mail: QueuedMail,
        /// After so many locks that ended by themselves the next one has no end; none: it always has one.
        max_auto_unlocks: Option<u32>,
    },
}

/// An administrator's command, as it stands on the topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Unique; a repeat is recognised by it.
    pub id: String,
    /// Offset in the account's partition of `commands`.
    pub offset: u64,
    /// When the log took it.
    pub at_ms: i64,
    /// Highest offset of `events` that had been read when it was applied; none: no event.
    pub events_read_to: Option<u64>,
    /// Who asks.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// For what.
    pub kind: CommandKind,
}

/// What a [`Command`] asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum CommandKind {
    /// Refuse the account's mail.
    Lock {
        /// For how long; none: until somebody unlocks it.
        for_ms: Option<i64>,
        /// What the SMTP client is told.
        reply: String,
        /// What to do with mail that is queued already.
        queued_mail: QueuedMail,
    },
    /// Let it flow again, with a clean slate.
    Unlock {
        /// Why it is believed that the thief no longer knows the password.
        evidence: UnlockEvidence,
        /// Tighter limits for this long; 0 for none.
        probation_ms: i64,
    },
    /// Let rules pass it by for a time.
    Exempt {
        /// Names of the rules; empty means all.
        rules: Vec<String>,
        /// Until when; none: until it is taken back.
        until_ms: Option<i64>,
    },
    /// Forget about it.
    Clear {
        /// Take all exemptions back.
        exemptions: bool,
        /// Start a clean slate without an unlock: its events so far no longer count.
        windows: bool,
    },
}

/// What an input led to, besides the new state.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// The state changed and is to be published.
    Changed(Change),
    /// A rule held, but nothing changes: it only observes, is exempted, or something as strong is in force.
    Observed(RuleRef),
    /// The account's events so far no longer count: its windows are to be emptied.
    ForgetWindows,
}

/// Applies one input to an account's state.
///
/// Gives the new state and what follows from it. Without an [`Effect::Changed`] the state is the old one
/// and nothing is to be published.
#[must_use]
pub fn apply(mut state: AccountState, input: Input) -> (AccountState, Vec<Effect>) {
    let effects = match input {
        Input::Matches { event_offset, at_ms, matches, sightings } => {
            on_matches(&mut state, event_offset, at_ms, matches, sightings)
        }
        Input::Command(command) => on_command(&mut state, command),
        Input::Clock { now_ms } => expire(&mut state, now_ms),
    };
    (state, effects)
}

fn on_matches(
    state: &mut AccountState,
    event_offset: u64,
    at_ms: i64,
    matches: Vec<Match>,
    sightings: Sightings,
) -> Vec<Effect> {
    if state.as_of.event_offset.is_some_and(|seen| event_offset <= seen) || !state.counts(event_offset, at_ms) {
        return Vec::new();
    }
    let mut effects = expire(state, at_ms);
    let mut strongest: Option<Match> = None;
    for found in matches {
        if state.is_exempt(&found.rule.name, at_ms) || rank(found.action) <= in_force(state) {
            effects.push(Effect::Observed(found.rule));
            continue;
        }
        match &mut strongest {
            Some(best) if rank(best.action) >= rank(found.action) => effects.push(Effect::Observed(found.rule)),
            best => {
                if let Some(weaker) = best.replace(found) {
                    effects.push(Effect::Observed(weaker.rule));
                }
            }
        }
    }
    let Some(found) = strongest else { return effects };
    let because =
        Because { rule: Some(found.rule.name.clone()), reason: found.reason.clone(), lock_id: None, actor: None };
    let change = match found.action {
        Action::Observe => {
            effects.push(Effect::Observed(found.rule));
            return effects;
        }
        Action::Notify => {
            let quiet = state.notice.as_ref().is_some_and(|last| {
                last.rule.name == found.rule.name && at_ms.saturating_sub(last.at_ms) < NOTICE_QUIET_MS
            });
            if quiet {
                effects.push(Effect::Observed(found.rule));
                return effects;
            }
            state.notice = Some(Notice { rule: found.rule, at_ms, evidence: found.evidence });
            Change::Noticed
        }
        Action::Throttle { for_ms } => {
            let lock = rule_lock(state, event_offset, at_ms, found, sightings);
            state.status = Status::Throttled(Lock { until_ms: Some(at_ms.saturating_add(for_ms)), ..lock });
            state.changed_ms = at_ms;
            Change::Throttled
        }
        Action::Lock { for_ms, queued_mail, max_auto_unlocks } => {
            let lock = rule_lock(state, event_offset, at_ms, found, sightings);
            let may_end = max_auto_unlocks.is_none_or(|most| state.auto_unlocks < most);
            let until_ms = for_ms.filter(|_| may_end).map(|span| at_ms.saturating_add(span));
            state.status = Status::Locked(Lock { until_ms, queued_mail, ..lock });
            state.changed_ms = at_ms;
            Change::Locked
        }
    };
    state.as_of.event_offset = Some(event_offset);
    let lock = state.status.lock().filter(|_| change != Change::Noticed);
    let lock_id = lock.map(|lock| lock.id.clone());
    state.note(change, at_ms, Because { lock_id, ..because });
    effects.push(Effect::Changed(change));
    effects
}

/// The lock that a match asks for, without its end.
fn rule_lock(state: &AccountState, event_offset: u64, at_ms: i64, found: Match, sightings: Sightings) -> Lock {
    Lock {
        id: lock_id(state.account.as_str(), &format!("event {event_offset} {}", found.rule.name)),
        cause: Cause::Rule(found.rule),
        reason: found.reason,
        evidence: found.evidence,
        since_ms: at_ms,
        until_ms: None,
        reply: found.reply,
        queued_mail: QueuedMail::Keep,
        clients: sightings.clients,
        subjects: sightings.subjects,
    }
}

/// Strength of an action; a match changes something only when it is stronger than what is in force.
fn rank(action: Action) -> u8 {
    match action {
        Action::Observe => 0,
        Action::Notify => 1,
        Action::Throttle { .. } => 2,
        Action::Lock { .. } => 3,
    }
}

fn in_force(state: &AccountState) -> u8 {
    match state.status {
        Status::Active => 0,
        Status::Throttled(_) => 2,
        Status::Locked(_) => 3,
    }
}

fn on_command(state: &mut AccountState, command: Command) -> Vec<Effect> {
    if state.as_of.command_offset.is_some_and(|seen| command.offset <= seen) {
        return Vec::new();
    }
    let mut effects = expire(state, command.at_ms);
    state.as_of.command_offset = Some(command.offset);
    if let Some(read_to) = command.events_read_to {
        // What was read before the command is part of what the administrator acted upon.
        state.as_of.event_offset = state.as_of.event_offset.max(Some(read_to));
    }
    let slate = CleanSlate { event_offset: command.events_read_to, time_ms: command.at_ms };
    let mut given_evidence = None;
    let mut lock_of_change = state.status.lock().map(|lock| lock.id.clone());
    let result = match command.kind {
        CommandKind::Lock { for_ms, reply, queued_mail } => {
            let lock = Lock {
                id: lock_id(state.account.as_str(), &format!("command {} {}", command.offset, command.id)),
                cause: Cause::Admin { actor: command.actor.clone() },
                reason: command.reason.clone(),
                evidence: Vec::new(),
                since_ms: command.at_ms,
                until_ms: for_ms.map(|span| command.at_ms.saturating_add(span)),
                reply,
                queued_mail,
                clients: Vec::new(),
                subjects: Vec::new(),
            };
            match &state.status {
                Status::Locked(present) => Err(format!("it is locked already (lock {})", present.id)),
                Status::Active | Status::Throttled(_) => {
                    lock_of_change = Some(lock.id.clone());
                    state.status = Status::Locked(lock);
                    state.changed_ms = command.at_ms;
                    Ok(Change::Locked)
                }
            }
        }
        CommandKind::Unlock { evidence, probation_ms } => {
            given_evidence = Some(evidence);
            if matches!(state.status, Status::Active) {
                Err("it is not locked".to_owned())
            } else {
                state.status = Status::Active;
                state.changed_ms = command.at_ms;
                state.clean_slate = Some(slate);
                state.notice = None;
                state.auto_unlocks = 0;
                state.probation_until_ms = (probation_ms > 0).then(|| command.at_ms.saturating_add(probation_ms));
                effects.push(Effect::ForgetWindows);
                Ok(Change::Unlocked)
            }
        }
        CommandKind::Exempt { rules, until_ms } => {
            state.exemptions.retain(|old| old.until_ms.is_none_or(|until| until > command.at_ms));
            if until_ms.is_some_and(|until| until <= command.at_ms) {
                Err("the exemption's end has passed already".to_owned())
            } else if state.exemptions.len() >= MAX_EXEMPTIONS {
                Err(format!("it has {MAX_EXEMPTIONS} exemptions already; clear them first"))
            } else {
                let (actor, reason) = (command.actor.clone(), command.reason.clone());
                state.exemptions.push(Exemption { rules, until_ms, actor, reason });
                Ok(Change::Amended)
            }
        }
        CommandKind::Clear { exemptions, windows } => {
            if exemptions {
                state.exemptions.clear();
            }
            if windows {
                state.clean_slate = Some(slate);
                state.notice = None;
                effects.push(Effect::ForgetWindows);
            }
            Ok(Change::Amended)
        }
    };
    let change = *result.as_ref().unwrap_or(&Change::CommandRefused);
    let because = Because {
        rule: None,
        actor: Some(command.actor.clone()),
        reason: result.as_ref().err().unwrap_or(&command.reason).clone(),
        lock_id: lock_of_change.filter(|_| matches!(change, Change::Locked | Change::Unlocked)),
    };
    state.note(change, command.at_ms, because);
    state.last_command = Some(CommandOutcome {
        id: command.id,
        actor: command.actor,
        reason: command.reason,
        at_ms: command.at_ms,
        evidence: given_evidence,
        refused: result.err(),
    });
    effects.push(Effect::Changed(change));
    effects
}

/// Ends what has run out. A lock that ends by itself starts a clean slate too, or the next message would
/// bring it back for old spam.
fn expire(state: &mut AccountState, now_ms: i64) -> Vec<Effect> {
    if state.probation_until_ms.is_some_and(|until| now_ms >= until) {
        state.probation_until_ms = None;
    }
    let Some(lock) = state.status.lock() else { return Vec::new() };
    let Some(until_ms) = lock.until_ms.filter(|until| *until <= now_ms) else { return Vec::new() };
    let because =
        Because { lock_id: Some(lock.id.clone()), reason: "its time has passed".to_owned(), ..Because::default() };
    let was_locked = matches!(state.status, Status::Locked(_));
    state.status = Status::Active;
    state.changed_ms = until_ms;
    state.note(Change::Expired, until_ms, because);
    let mut effects = vec![Effect::Changed(Change::Expired)];
    if was_locked {
        state.auto_unlocks = state.auto_unlocks.saturating_add(1);
        state.clean_slate = Some(CleanSlate { event_offset: state.as_of.event_offset, time_ms: until_ms });
        effects.push(Effect::ForgetWindows);
    }
    effects
}

/// Short, speakable id of a lock: 40 bits of FNV-1a over what caused it, in Crockford's base 32.
fn lock_id(account: &str, cause: &str) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let hash = account
        .bytes()
        .chain([0])
        .chain(cause.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = hash ^ (hash >> 29);
    let digits = (0..8).rev().map(|digit| char::from(ALPHABET[(mixed >> (digit * 5)) as usize & 31]));
    std::iter::once('L').chain(std::iter::once('-')).chain(digits).collect()
}
