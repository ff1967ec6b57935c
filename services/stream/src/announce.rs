//! The rule set in force and what its rules did lately, as they stand on the topic `rules`.

use crate::activity::{Activity, MAX_RECENT, RuleActivity};
use crate::in_force::InForce;
use crate::partition::action_name;
use bytes::Bytes;
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_bus::{Bus, MESSAGE_MAX_BYTES, Message, Topic};
use tidegate_detect::{Mode, RuleInfo};
use tidegate_domain::Action;
use tidegate_proto::v1;
use tidegate_runtime::backoff::Backoff;
use tidegate_runtime::error_line;
use tokio::sync::Notify;

/// Most problems that are told, and the longest, in octets.
const MAX_PROBLEMS: usize = 100;
const MAX_PROBLEM_OCTETS: usize = 1_000;
/// Largest message: well below what the log takes.
const MAX_OCTETS: usize = MESSAGE_MAX_BYTES * 2 / 3;
/// Longest texts of a rule, in octets, when whole ones are too much.
const SHORT_TEXT_OCTETS: usize = 200;
/// How long a fault of the log is waited out, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Tells, in a task of its own, so that nobody waits for a slow log. Of each partition the newest message waits; it
/// takes the place of one that was not written yet.
#[derive(Clone)]
pub(crate) struct Announcer {
    bus: Arc<dyn Bus>,
    waiting: Arc<Mutex<BTreeMap<u32, Message>>>,
    wake: Arc<Notify>,
}

impl Announcer {
    /// Tells nothing before [`run`](Self::run).
    pub fn new(bus: Arc<dyn Bus>) -> Self {
        Self { bus, waiting: Arc::default(), wake: Arc::default() }
    }

    /// What is in force in a partition, and what its rules did.
    pub fn tell(&self, partition: u32, in_force: &InForce, activity: &Activity) {
        self.waiting().insert(partition, rule_set_message(partition, in_force, activity));
        self.wake.notify_one();
    }

    /// The partition is another worker's to tell of.
    pub fn forget(&self, partition: u32) {
        self.waiting().remove(&partition);
    }

    /// Writes what waits, until it is dropped.
    pub async fn run(self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let messages = std::mem::take(&mut *self.waiting());
            if messages.is_empty() {
                self.wake.notified().await;
            } else if let Err(error) = self.bus.append(Topic::Rules, messages.values().cloned().collect()).await {
                tracing::warn!(error = %error_line(&error), "could not tell which rules are in force; trying again");
                for (partition, message) in messages {
                    self.waiting().entry(partition).or_insert(message);
                }
                tokio::time::sleep(backoff.pause()).await;
            } else {
                backoff.reset();
            }
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Message>> {
        // Nobody panics while it is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The message that tells which rules the owner of `partition` has in force, what they did, and what is wrong with what
/// is not in force. Of too much the oldest matches are left out first.
fn rule_set_message(partition: u32, in_force: &InForce, activity: &Activity) -> Message {
    let rules = &in_force.rules;
    let mode = match rules.mode() {
        Mode::Observe => v1::RuleMode::Observe,
        Mode::Enforce => v1::RuleMode::Enforce,
    };
    let mut rule_set = v1::RuleSet {
        partition,
        version: rules.version().to_owned(),
        mode: mode.into(),
        rules: rules.list().iter().map(rule_message).collect(),
        since_ms: in_force.since_ms,
        problems: problems(in_force),
        activity: Vec::new(),
        limits: rules.limits().into_iter().collect(),
    };
    if rule_set.encoded_len() > MAX_OCTETS {
        for rule in &mut rule_set.rules {
            for text in [&mut rule.source, &mut rule.reason, &mut rule.predicate] {
                text.truncate(text.floor_char_boundary(SHORT_TEXT_OCTETS));
            }
            rule.domains.truncate(10);
        }
    }
    for most in [MAX_RECENT, MAX_RECENT / 4, 1, 0] {
        let did = |rule: &RuleInfo| Some(activity_message(&rule.name, activity.of(&rule.name)?, most));
        rule_set.activity = rules.list().iter().filter_map(did).filter(|did| did.matches > 0).collect();
        if rule_set.encoded_len() <= MAX_OCTETS {
            break;
        }
    }
    Message::new(Bytes::from(partition.to_string()), Some(rule_set.encode_to_vec().into()))
}

fn rule_message(rule: &RuleInfo) -> v1::Rule {
    v1::Rule {
        name: rule.name.clone(),
        predicate: rule.when.clone(),
        action: action_name(rule.action).to_owned(),
        for_ms: match rule.action {
            Action::Throttle { for_ms } => Some(for_ms),
            Action::Lock { for_ms, .. } => for_ms,
            Action::Observe | Action::Notify => None,
        },
        reason: rule.reason.clone(),
        reply: rule.reply.clone(),
        source: rule.source.clone(),
        enabled: rule.enabled,
        domains: rule.domains.clone(),
        switched_off: rule.switched_off,
    }
}

fn activity_message(rule: &str, did: &RuleActivity, most: usize) -> v1::RuleActivity {
    let recent = did.recent.iter().take(most).map(|one| v1::RuleMatch {
        account: one.account.as_str().to_owned(),
        at_ms: one.at_ms,
        action: one.action.to_owned(),
        observed: one.observed,
        evidence: one
            .evidence
            .iter()
            .map(|one| v1::Evidence { column: one.column.clone(), value: one.value })
            .collect(),
    });
    v1::RuleActivity { rule: rule.to_owned(), matches: did.matches, last_ms: did.last_ms, recent: recent.collect() }
}

fn problems(in_force: &InForce) -> Vec<String> {
    let all = in_force.file_problems.iter().chain(&in_force.setting_problems);
    let mut told: Vec<String> = all.clone().take(MAX_PROBLEMS).map(|problem| cut(problem)).collect();
    let more = all.count() - told.len();
    if more > 0 {
        told.push(format!("and {more} more; the log of the stream service has them all"));
    }
    told
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_PROBLEM_OCTETS)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_detect::{DEFAULT_STATISTICS, Rules, Statistics};
    use tidegate_domain::{Account, Evidence, Match, RuleRef};

    /// As large as a rules file may be, and everything that can be told of it.
    #[test]
    fn the_largest_rule_set_fits_a_record() {
        let text = |number: usize| {
            format!(
                "[[rule]]\nname = 'r{number}-{name}'\nwhen = 'messages_1m >= {number}1'\naction = 'notify'\nreason = \
                 '{long}'\nsource = '{long}'\n",
                name = "x".repeat(50),
                long = "y".repeat(900),
            )
        };
        let statistics = Statistics::parse("statistics.sql", DEFAULT_STATISTICS).unwrap();
        let rules = Rules::parse("rules.toml", &(1..=500).map(text).collect::<String>(), &statistics).unwrap();
        let mut activity = Activity::default();
        activity.follow(&rules);
        for rule in rules.list() {
            for number in 0..30_u32 {
                let found = Match {
                    rule: RuleRef { name: rule.name.clone(), rule_set: "v".to_owned() },
                    action: Action::Notify,
                    reason: String::new(),
                    reply: String::new(),
                    evidence: vec![Evidence { column: "z".repeat(64), value: 5.0 }; 200],
                };
                let account = Account::parse(&format!("{}{number}@example.org", "a".repeat(200))).unwrap();
                activity.note(&account, number.into(), &found, false);
            }
        }
        let in_force = InForce {
            rules,
            since_ms: 0,
            exemptions: Arc::default(),
            setting_problems: vec!["p".repeat(5_000); 500],
            file_problems: Vec::new(),
        };
        let message = rule_set_message(3, &in_force, &activity);
        let value = message.value.unwrap();
        assert!(value.len() <= MAX_OCTETS, "{}", value.len());
        let told = v1::RuleSet::decode(value).unwrap();
        assert_eq!((told.rules.len(), told.activity.len(), told.problems.len()), (500, 500, 101));
        assert!(told.activity.iter().all(|did| did.matches == 30));
        let few = rule_set_message(3, &InForce { setting_problems: Vec::new(), ..in_force }, &Activity::default());
        let few = v1::RuleSet::decode(few.value.unwrap()).unwrap();
        assert!(few.activity.is_empty() && few.problems.is_empty());
    }
}
