//! Where to read on, as the tables say it.

use crate::lake::{Lake, LakeError, LakeTable};
use crate::tables::Table;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_bus::{Bus, BusError, ReadFrom, Topic};

/// The topics that are kept.
pub(crate) const TOPICS: [Topic; 3] = [Topic::Events, Topic::Accounts, Topic::Audit];

/// Up to where records of each partition are in the tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Positions {
    /// By table and partition; none: nothing yet.
    by_partition: BTreeMap<(Table, u32), Option<u64>>,
}

/// Where reading can begin.
#[derive(Debug, Default)]
pub(crate) struct Start {
    pub from: Vec<ReadFrom>,
    /// Records that the log no longer has, and that are not in the tables either.
    pub missed: u64,
    /// Partitions whose log ends before what the tables have of it.
    pub too_short: Vec<String>,
}

/// Under which name a partition's offsets stand in the commits. Another log has other names: its offsets mean others.
pub(crate) fn app(log_id: &str, topic: Topic, partition: u32) -> String {
    format!("tidegate/{log_id}/{}/{partition}", topic.suffix())
}

/// Up to where records of partitions of a topic are in a table (none: nothing yet), after looking whether others have
/// committed.
///
/// # Errors
/// When the store does not answer.
pub(crate) async fn reached(
    table: &LakeTable,
    log_id: &str,
    topic: Topic,
    partitions: impl Iterator<Item = u32> + Clone,
) -> Result<BTreeMap<u32, Option<u64>>, LakeError> {
    let state = table.refresh().await?;
    let apps: Vec<String> = partitions.clone().map(|partition| app(log_id, topic, partition)).collect();
    let numbers = table.numbers(&state, &apps).await?;
    Ok(partitions.zip(numbers.into_iter().map(|number| number.map(i64::cast_unsigned))).collect())
}

impl Positions {
    /// What the tables say of `partitions`, after looking whether others have committed.
    pub async fn read(lake: &Lake, log_id: &str, partitions: &BTreeSet<u32>) -> Result<Self, LakeError> {
        let mut by_partition = BTreeMap::new();
        for topic in TOPICS {
            let Some(kind) = Table::of_topic(topic) else { continue };
            let table = lake.table(kind);
            for (partition, next) in reached(table, log_id, topic, partitions.iter().copied()).await? {
                by_partition.insert((kind, partition), next);
            }
        }
        Ok(Self { by_partition })
    }

    /// What the table says of a partition (none: nothing yet); none: it is not among those that were asked for.
    #[allow(clippy::option_option, reason = "the one says nothing of the other")]
    pub fn of(&self, table: Table, partition: u32) -> Option<Option<u64>> {
        self.by_partition.get(&(table, partition)).copied()
    }

    /// The table says so now.
    pub fn set(&mut self, table: Table, partition: u32, next: u64) {
        if let Some(position) = self.by_partition.get_mut(&(table, partition)) {
            *position = Some(next);
        }
    }

    /// Where to begin reading, as far as the log has it.
    pub async fn start(&self, bus: &dyn Bus) -> Result<Start, BusError> {
        let mut start = Start::default();
        for (&(table, partition), &position) in &self.by_partition {
            let Some(topic) = table.topic() else { continue };
            let bounds = bus.bounds(topic, partition).await?;
            let offset = position.unwrap_or(0);
            if offset > bounds.next {
                start.too_short.push(format!(
                    "partition {partition} of the topic {} ends at {}, but the table has records up to {offset}",
                    topic.suffix(),
                    bounds.next
                ));
                continue;
            }
            // A compacted topic forgets on purpose: what is gone there was superseded.
            if position.is_some() && topic != Topic::Accounts {
                start.missed += bounds.first.saturating_sub(offset);
            }
            start.from.push(ReadFrom { topic, partition, offset: offset.max(bounds.first) });
        }
        Ok(start)
    }
}
