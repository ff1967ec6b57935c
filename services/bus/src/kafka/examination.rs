//! Looks at all topics before anything is started on them, and tells everything that is wrong at once.

use super::config::KafkaConfig;
use super::shared::{Shared, failed};
use super::topics::{
    Admin, Found, admin, check_policy, create, find, lone_copy_counts, refuse_partitions, wait_until_led,
};
use crate::{BusError, Topic};
use rdkafka::admin::{AdminOptions, ResourceSpecifier};
use std::collections::BTreeMap;

/// How the topics are, and what is wrong with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicsExamined {
    /// All of them, in the order of [`Topic::ALL`].
    pub topics: Vec<ExaminedTopic>,
}

/// How one topic is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExaminedTopic {
    /// Its full name, e.g. `tidegate.events`.
    pub name: String,
    /// Its partitions; 0: there is no such topic.
    pub partitions: usize,
    /// The least replicas of a partition; 0: there is no such topic.
    pub replicas: usize,
    /// Its `cleanup.policy`; none: not told to this user.
    pub cleanup_policy: Option<String>,
    /// Whether it was made now.
    pub created: bool,
    /// What is wrong with it and what to do: nothing may run on it.
    pub problems: Vec<String>,
    /// What is allowed, but not wise.
    pub warnings: Vec<String>,
}

impl TopicsExamined {
    /// Whether nothing is wrong.
    pub fn is_fine(&self) -> bool {
        self.topics.iter().all(|topic| topic.problems.is_empty())
    }
}

/// Looks at all topics. With `create_missing`, topics that are missing are made, unless one that is there is wrong. It
/// must be called on a tokio runtime.
///
/// # Errors
/// When Kafka cannot be asked, or does not make a topic.
pub async fn examine_topics(config: KafkaConfig, create_missing: bool) -> Result<TopicsExamined, BusError> {
    let shared = Shared::new(config.with_property_files()?)?;
    let admin = admin(&shared)?;
    let before = look(&shared, &admin).await?;
    let is_missing = |topic: &ExaminedTopic| topic.partitions == 0;
    let wrong = before.topics.iter().any(|topic| !is_missing(topic) && !topic.problems.is_empty());
    let missing: Vec<Topic> = Topic::ALL
        .into_iter()
        .zip(&before.topics)
        .filter(|(_, seen)| is_missing(seen))
        .map(|(topic, _)| topic)
        .collect();
    if !create_missing || wrong || missing.is_empty() {
        return Ok(before);
    }
    create(&shared, &admin, &missing).await?;
    wait_until_led(&shared).await?;
    let mut after = look(&shared, &admin).await?;
    for (topic, seen) in Topic::ALL.into_iter().zip(&mut after.topics) {
        seen.created = missing.contains(&topic);
    }
    Ok(after)
}

async fn look(shared: &Shared, admin: &Admin) -> Result<TopicsExamined, BusError> {
    let found = find(shared).await?;
    let settings = settings(shared, admin, &found).await?;
    let topics = Topic::ALL.into_iter().map(|topic| examined(shared, topic, found.get(&topic), settings.get(&topic)));
    Ok(TopicsExamined { topics: topics.collect() })
}

/// What of a topic's settings matters.
#[derive(Debug, Default)]
struct Settings {
    cleanup_policy: Option<String>,
    min_insync_replicas: Option<String>,
}

async fn settings(
    shared: &Shared,
    admin: &Admin,
    found: &BTreeMap<Topic, Found>,
) -> Result<BTreeMap<Topic, Settings>, BusError> {
    if found.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names: Vec<_> = found.keys().map(|topic| ResourceSpecifier::Topic(shared.name(*topic))).collect();
    let options = AdminOptions::new().request_timeout(Some(shared.timeout()));
    let described = admin
        .describe_configs(&names, &options)
        .await
        .map_err(|source| failed("asking for the topics' settings", source))?;
    // A topic whose settings this user may not see is left out.
    let told = found.keys().zip(described).filter_map(|(topic, result)| {
        let resource = result.ok()?;
        let value = |name: &str| resource.get(name).and_then(|entry| entry.value.clone());
        let settings =
            Settings { cleanup_policy: value("cleanup.policy"), min_insync_replicas: value("min.insync.replicas") };
        Some((*topic, settings))
    });
    Ok(told.collect())
}

fn examined(shared: &Shared, topic: Topic, found: Option<&Found>, settings: Option<&Settings>) -> ExaminedTopic {
    let name = shared.name(topic).to_owned();
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let Some(found) = found else {
        problems.push("is missing; make it with `tidegate topics create`".to_owned());
        return ExaminedTopic {
            name,
            partitions: 0,
            replicas: 0,
            cleanup_policy: None,
            created: false,
            problems,
            warnings,
        };
    };
    let text = |error: BusError| match error {
        BusError::Topic { problem, .. } => problem,
        other => other.to_string(),
    };
    if found.partitions != shared.config.partitions as usize {
        problems.push(text(refuse_partitions(shared, topic, found.partitions)));
    }
    match settings {
        Some(settings) => {
            if let Err(error) = check_policy(&name, topic.kept(), settings.cleanup_policy.as_deref()) {
                problems.push(text(error));
            }
            if lone_copy_counts(found.replicas, settings.min_insync_replicas.as_deref()) {
                warnings.push(
                    "min.insync.replicas is 1: what was acknowledged can be lost with one broker; set it to 2 or more"
                        .to_owned(),
                );
            }
        }
        None => warnings.push("its settings are not told to this user, so they are not checked".to_owned()),
    }
    let cleanup_policy = settings.and_then(|settings| settings.cleanup_policy.clone());
    ExaminedTopic {
        name,
        partitions: found.partitions,
        replicas: found.replicas,
        cleanup_policy,
        created: false,
        problems,
        warnings,
    }
}
