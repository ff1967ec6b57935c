//! The rule set in force, as it stands on the topic `rules`.

use crate::partition::action_name;
use bytes::Bytes;
use prost::Message as _;
use tidegate_bus::Message;
use tidegate_detect::{Mode, Rules};
use tidegate_domain::Action;
use tidegate_proto::v1;

/// The message that tells which rules the owner of `partition` has in force since `since_ms`, and what is wrong with
/// a newer file that was not taken.
pub fn rule_set_message(partition: u32, rules: &Rules, since_ms: i64, problems: &[String]) -> Message {
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
                switched_off: false,
            })
            .collect(),
        since_ms,
        problems: problems.to_vec(),
        activity: Vec::new(),
        limits: std::collections::HashMap::new(),
    };
    Message { key: Bytes::from(partition.to_string()), value: Some(rule_set.encode_to_vec().into()) }
}
