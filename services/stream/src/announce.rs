//! The rule set in force, as it stands on the topic `rules`.

use crate::in_force::InForce;
use crate::partition::action_name;
use bytes::Bytes;
use prost::Message as _;
use tidegate_bus::Message;
use tidegate_detect::Mode;
use tidegate_domain::Action;
use tidegate_proto::v1;

/// Most problems that are told, and the longest, in octets.
const MAX_PROBLEMS: usize = 100;
const MAX_PROBLEM_OCTETS: usize = 1_000;

/// The message that tells which rules the owner of `partition` has in force, and what is wrong with what is not.
pub fn rule_set_message(partition: u32, in_force: &InForce) -> Message {
    let rules = &in_force.rules;
    let mode = match rules.mode() {
        Mode::Observe => v1::RuleMode::Observe,
        Mode::Enforce => v1::RuleMode::Enforce,
    };
    let rule_set = v1::RuleSet {
        partition,
        version: rules.version().to_owned(),
        mode: mode.into(),
        rules: rules
            .list()
            .iter()
            .map(|rule| v1::Rule {
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
            })
            .collect(),
        since_ms: in_force.since_ms,
        problems: problems(in_force),
        activity: Vec::new(),
        limits: rules.limits().into_iter().collect(),
    };
    Message { key: Bytes::from(partition.to_string()), value: Some(rule_set.encode_to_vec().into()) }
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
