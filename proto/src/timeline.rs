//! Timelines and sightings between the wire and the domain.

use crate::bounds::{MAX_CLIENTS, MAX_NAME_OCTETS, MAX_RULE_OCTETS, MAX_SUBJECT_OCTETS, MAX_SUBJECTS, bounded};
use crate::event::{address_from_proto, address_to_proto};
use crate::v1;
use tidegate_domain::{Change, ClientSeen, Milestone};

/// The milestone on the wire.
pub(crate) fn milestone_to_proto(milestone: &Milestone) -> v1::Milestone {
    v1::Milestone {
        version: milestone.version,
        at_ms: milestone.at_ms,
        change: change_to_proto(milestone.change).into(),
        rule: milestone.rule.clone().unwrap_or_default(),
        actor: milestone.actor.clone().unwrap_or_default(),
        reason: milestone.reason.clone(),
        lock_id: milestone.lock_id.clone().unwrap_or_default(),
    }
}

/// The newest milestones of a timeline. One of a kind that only a newer version knows is left out: the rest of the
/// state is worth having.
pub(crate) fn timeline_from_proto(mut timeline: Vec<v1::Milestone>) -> Vec<Milestone> {
    timeline.drain(..timeline.len().saturating_sub(Milestone::MAX));
    let milestone = |one: v1::Milestone| {
        let told = |text: String, octets| Some(bounded(text, octets)).filter(|text| !text.is_empty());
        Some(Milestone {
            version: one.version,
            at_ms: one.at_ms,
            change: change_from_proto(one.change())?,
            rule: told(one.rule, MAX_RULE_OCTETS),
            actor: told(one.actor, MAX_NAME_OCTETS),
            reason: bounded(one.reason, Milestone::MAX_REASON_OCTETS),
            lock_id: told(one.lock_id, MAX_NAME_OCTETS),
        })
    };
    timeline.into_iter().filter_map(milestone).collect()
}

/// How a state changed, on the wire.
pub fn change_to_proto(change: Change) -> v1::Change {
    match change {
        Change::Locked => v1::Change::Locked,
        Change::Throttled => v1::Change::Throttled,
        Change::Noticed => v1::Change::Noticed,
        Change::Unlocked => v1::Change::Unlocked,
        Change::Expired => v1::Change::Expired,
        Change::Amended => v1::Change::Amended,
        Change::CommandRefused => v1::Change::CommandRefused,
    }
}

fn change_from_proto(change: v1::Change) -> Option<Change> {
    Some(match change {
        v1::Change::Unspecified => return None,
        v1::Change::Locked => Change::Locked,
        v1::Change::Throttled => Change::Throttled,
        v1::Change::Noticed => Change::Noticed,
        v1::Change::Unlocked => Change::Unlocked,
        v1::Change::Expired => Change::Expired,
        v1::Change::Amended => Change::Amended,
        v1::Change::CommandRefused => Change::CommandRefused,
    })
}

/// An address from which an account sent, on the wire.
pub fn client_to_proto(client: &ClientSeen) -> v1::ClientSeen {
    v1::ClientSeen {
        address: address_to_proto(Some(client.address)),
        messages: client.messages,
        last_ms: client.last_ms,
    }
}

/// Addresses from which an account sent; what is no address is left out.
pub(crate) fn clients_from_proto(clients: Vec<v1::ClientSeen>) -> Vec<ClientSeen> {
    let client = |one: v1::ClientSeen| {
        let address = address_from_proto("ClientSeen", &one.address).ok()??;
        Some(ClientSeen { address, messages: one.messages, last_ms: one.last_ms })
    };
    clients.into_iter().filter_map(client).take(MAX_CLIENTS).collect()
}

/// A sample of subjects.
pub(crate) fn subjects_from_proto(mut subjects: Vec<String>) -> Vec<String> {
    subjects.truncate(MAX_SUBJECTS);
    subjects.into_iter().map(|subject| bounded(subject, MAX_SUBJECT_OCTETS)).collect()
}
