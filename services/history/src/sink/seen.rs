//! Repeats of events: an edge that does not know whether an event was taken publishes it again, and it stands in the
//! topic twice. As in the windows, the highest number seen of each node and lane, in each partition, tells a repeat.

use crate::lake::LakeTable;
use crate::query::scan;
use arrow::array::{AsArray as _, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use hashbrown::HashMap;
use prost::Message as _;
use std::collections::BTreeSet;
use std::sync::Arc;
use tidegate_proto::v1;

/// Nodes that are remembered; when there are more, all of a partition are forgotten.
const MAX_NODES: usize = 50_000;
/// A repeat comes so soon after the first, in milliseconds of the log: what is older is not looked for at the start.
const LOOK_BACK_MS: i64 = 24 * 60 * 60 * 1000;

/// The highest number seen of each lane of each node.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    by_partition: HashMap<u32, HashMap<String, [Option<u64>; 2]>>,
}

impl Seen {
    /// Whether an event is a repeat. If not, it is remembered.
    pub fn is_repeat(&mut self, partition: u32, id: &v1::EventId) -> bool {
        let lanes = self.by_partition.entry(partition).or_default();
        let lane = lanes.entry_ref(&id.node as &str);
        let [live, spooled] = lane.or_default();
        let highest = if id.lane() == v1::Lane::Spooled { spooled } else { live };
        let is_repeat = highest.is_some_and(|highest| id.sequence <= highest);
        *highest = Some(highest.map_or(id.sequence, |highest| highest.max(id.sequence)));
        if lanes.len() > MAX_NODES {
            lanes.clear();
        }
        is_repeat
    }

    /// What the table has of `partitions`, of about the last day.
    pub async fn read(
        events: &Arc<LakeTable>,
        partitions: &BTreeSet<u32>,
        now_ms: i64,
    ) -> Result<Self, DataFusionError> {
        let context = SessionContext::new();
        let list = partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut seen = Self::default();
        if list.is_empty() {
            return Ok(seen);
        }
        context.register_table("events", Arc::new(scan(&context, events, &events.newest())?))?;
        let since_ms = now_ms.saturating_sub(LOOK_BACK_MS);
        let sql = format!(
            "SELECT log_partition, node, lane = 'spooled', max(sequence) FROM events \
             WHERE logged >= to_timestamp_millis({since_ms}) AND log_partition IN ({list}) GROUP BY 1, 2, 3"
        );
        for batch in context.sql(&sql).await?.collect().await? {
            let nodes = cast(batch.column(1), &DataType::Utf8)?;
            let nodes: &StringArray = nodes.as_string();
            let (partitions, spooled) = (batch.column(0).as_primitive::<Int32Type>(), batch.column(2).as_boolean());
            let highest = batch.column(3).as_primitive::<Int64Type>();
            for row in 0..batch.num_rows() {
                let partition = u32::try_from(partitions.value(row)).unwrap_or_default();
                let nodes_of = seen.by_partition.entry(partition).or_default();
                let lanes = nodes_of.entry(nodes.value(row).to_owned()).or_default();
                lanes[usize::from(spooled.value(row))] = Some(highest.value(row).cast_unsigned());
            }
        }
        Ok(seen)
    }
}

/// The number of an event, if the octets are one.
pub(crate) fn event_id(octets: &[u8]) -> Option<v1::EventId> {
    /// An event, of which only the number is read.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Numbered {
        #[prost(message, optional, tag = "1")]
        id: Option<v1::EventId>,
    }
    Numbered::decode(octets).ok()?.id
}
