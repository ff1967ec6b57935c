//! Makes topics that are missing, and refuses those that are not as they must be.

use super::shared::{Shared, failed};
use crate::{BusError, Kept, Topic};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer as _;
use rdkafka::types::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const DAY_MS: &str = "86400000";
const WEEK_MS: &str = "604800000";
/// How long new topics are waited for between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A topic as the brokers know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) partitions: usize,
    pub(super) replicas: usize,
    all_led: bool,
}

pub(super) type Admin = AdminClient<super::context::Context>;

/// Makes what is missing, if that is allowed, and checks all of them.
pub(crate) async fn prepare(shared: &Shared) -> Result<(), BusError> {
    let admin = admin(shared)?;
    let found = find(shared).await?;
    let missing: Vec<Topic> = Topic::ALL.into_iter().filter(|topic| !found.contains_key(topic)).collect();
    if !missing.is_empty() {
        if !shared.config.create_topics {
            return Err(refuse_missing(shared, &missing));
        }
        create(shared, &admin, &missing).await?;
    }
    let found = wait_until_led(shared).await?;
    check_policies(shared, &admin, &found).await
}

pub(super) fn admin(shared: &Shared) -> Result<Admin, BusError> {
    let client = shared.config.client().create_with_context(shared.context());
    client.map_err(|source| failed("making a client that manages topics", source))
}

pub(super) async fn find(shared: &Shared) -> Result<BTreeMap<Topic, Found>, BusError> {
    // All topics are asked for, since asking for one by name can make it, with whatever settings the brokers have.
    let metadata = shared.metadata("asking for the topics", |client, timeout| client.fetch_metadata(None, timeout));
    let metadata = metadata.await?;
    let mut found = BTreeMap::new();
    for listed in metadata.topics() {
        if let Some(topic) = shared.topic(listed.name())
            && !listed.partitions().is_empty()
        {
            let replicas = listed.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
            let all_led = listed.partitions().iter().all(|partition| partition.leader() >= 0);
            found.insert(topic, Found { partitions: listed.partitions().len(), replicas, all_led });
        }
    }
    Ok(found)
}

pub(super) async fn create(shared: &Shared, admin: &Admin, missing: &[Topic]) -> Result<(), BusError> {
    let ages: Vec<Option<String>> =
        missing.iter().map(|topic| shared.config.max_age_ms(*topic).map(|age_ms| age_ms.to_string())).collect();
    // -1: as the brokers say.
    let replicas = shared.config.replication_factor.map_or(-1, i32::from);
    let in_sync = shared.config.in_sync_replicas().map(|replicas| replicas.to_string());
    let new: Vec<NewTopic<'_>> = missing
        .iter()
        .zip(&ages)
        .map(|(topic, age_ms)| {
            let new = NewTopic::new(
                shared.name(*topic),
                shared.config.partitions.cast_signed(),
                TopicReplication::Fixed(replicas),
            )
            // The brokers' clocks are trusted, an edge's is not.
            .set("message.timestamp.type", "LogAppendTime");
            let new = match &in_sync {
                Some(in_sync) => new.set("min.insync.replicas", in_sync),
                None => new,
            };
            match age_ms {
                Some(age_ms) => new.set("cleanup.policy", "delete").set("retention.ms", age_ms),
                None => new
                    .set("cleanup.policy", "compact")
                    .set("delete.retention.ms", WEEK_MS)
                    // Only closed segments are compacted, and account states are few.
                    .set("segment.ms", DAY_MS)
                    .set("segment.bytes", "67108864"),
            }
        })
        .collect();
    let timeout = shared.timeout();
    let options = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
    let results = admin.create_topics(&new, &options).await.map_err(|source| failed("creating the topics", source))?;
    for result in results {
        match result {
            Ok(topic) => tracing::info!(topic, "created the topic"),
            // Another process was faster; it is checked like one that was there before.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                let problem = format!("cannot be created: {code}; create it, or allow it to this user");
                return Err(BusError::Topic { topic, problem });
            }
        }
    }
    Ok(())
}

/// Waits until every topic is known with all its partitions, and each has a leader. Refuses another number of them.
pub(super) async fn wait_until_led(shared: &Shared) -> Result<BTreeMap<Topic, Found>, BusError> {
    let began = Instant::now();
    loop {
        let found = find(shared).await?;
        let mut waits_for = None;
        for topic in Topic::ALL {
            match found.get(&topic) {
                Some(found) if found.partitions != shared.config.partitions as usize => {
                    return Err(refuse_partitions(shared, topic, found.partitions));
                }
                Some(found) if found.all_led => {}
                _ => waits_for = Some(topic),
            }
        }
        let Some(topic) = waits_for else { return Ok(found) };
        if began.elapsed() > shared.timeout() {
            let problem = "has partitions without a leader; look at the brokers".to_owned();
            return Err(BusError::Topic { topic: shared.name(topic).to_owned(), problem });
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn check_policies(shared: &Shared, admin: &Admin, found: &BTreeMap<Topic, Found>) -> Result<(), BusError> {
    let names = Topic::ALL.map(|topic| ResourceSpecifier::Topic(shared.name(topic)));
    let options = AdminOptions::new().request_timeout(Some(shared.timeout()));
    let described = admin
        .describe_configs(&names, &options)
        .await
        .map_err(|source| failed("asking for the topics' settings", source))?;
    for (topic, result) in Topic::ALL.into_iter().zip(described) {
        match result {
            Ok(resource) => {
                let policy = resource.get("cleanup.policy").and_then(|entry| entry.value.as_deref());
                check_policy(shared.name(topic), topic.kept(), policy)?;
                let in_sync = resource.get("min.insync.replicas").and_then(|entry| entry.value.as_deref());
                if let Some(replicas) = found.get(&topic).map(|found| found.replicas)
                    && lone_copy_counts(replicas, in_sync)
                {
                    tracing::warn!(
                        topic = shared.name(topic),
                        replicas,
                        "min.insync.replicas is 1: what was acknowledged can be lost with one broker; set it to 2 or more"
                    );
                }
            }
            // Not everybody may ask; the topics can be right all the same.
            Err(code) => {
                tracing::warn!(topic = shared.name(topic), %code, "cannot see the topic's settings: they are not checked");
            }
        }
    }
    Ok(())
}

pub(super) fn check_policy(name: &str, kept: Kept, policy: Option<&str>) -> Result<(), BusError> {
    let wanted = match kept {
        Kept::Delete { .. } => "delete",
        Kept::Compact => "compact",
    };
    let Some(policy) = policy.filter(|policy| *policy != wanted) else { return Ok(()) };
    let problem = format!("has cleanup.policy={policy}; it must be {wanted}, or records are lost or never deleted");
    Err(BusError::Topic { topic: name.to_owned(), problem })
}

/// Whether a record counts as durable that only one broker has, though others should.
pub(super) fn lone_copy_counts(replicas: usize, in_sync: Option<&str>) -> bool {
    replicas > 1 && in_sync == Some("1")
}

pub(super) fn refuse_partitions(shared: &Shared, topic: Topic, found: usize) -> BusError {
    let wanted = shared.config.partitions;
    let problem = format!(
        "has {found} partitions, the configuration says {wanted}; all topics must have the same number: set partitions, \
         or create the topic anew"
    );
    BusError::Topic { topic: shared.name(topic).to_owned(), problem }
}

fn refuse_missing(shared: &Shared, missing: &[Topic]) -> BusError {
    let names: Vec<&str> = missing.iter().map(|topic| shared.name(*topic)).collect();
    let compacted: Vec<&str> =
        missing.iter().filter(|topic| topic.kept() == Kept::Compact).map(|topic| shared.name(*topic)).collect();
    let policy = match compacted.as_slice() {
        [] => String::new(),
        names => format!(", cleanup.policy=compact for {}", names.join(" and ")),
    };
    let partitions = shared.config.partitions;
    let problem = format!(
        "missing, and create_topics is false; create with {partitions} partitions each{policy}, or set create_topics"
    );
    BusError::Topic { topic: names.join(", "), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_by_one_of_many_is_told() {
        assert!(lone_copy_counts(3, Some("1")) && lone_copy_counts(2, Some("1")));
        assert!(!lone_copy_counts(3, Some("2")) && !lone_copy_counts(1, Some("1")) && !lone_copy_counts(3, None));
    }

    #[test]
    fn a_policy_that_would_lose_states_is_refused() {
        let delete = Kept::Delete { max_age_ms: 1 };
        assert!(check_policy("t", delete, Some("delete")).is_ok());
        assert!(check_policy("t", Kept::Compact, Some("compact")).is_ok());
        assert!(check_policy("t", Kept::Compact, None).is_ok(), "not told");
        let error = check_policy("t", Kept::Compact, Some("compact,delete")).unwrap_err().to_string();
        assert!(error.contains("cleanup.policy=compact,delete; it must be compact"), "{error}");
        assert!(check_policy("t", delete, Some("compact")).is_err());
    }
}
