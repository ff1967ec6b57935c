//! A cluster of Kafka nodes, each broker and controller, so that one may be away: topics have as many replicas as there
//! are nodes, and are written while all but one are in step.

use std::path::Path;

use crate::error::Result;
use crate::kafka::{KafkaRig, Node};
use crate::ports::free_port;

/// Smaller than that of a node alone: there are many.
const HEAP_MB: u16 = 384;

/// Starts so many nodes with their data in `dir`, and waits until all answer. Any of them is an address for clients.
///
/// # Errors
/// When Kafka cannot be fetched, or one does not start.
pub fn start(dir: &Path, nodes: u16) -> Result<Vec<KafkaRig>> {
    let voters = (1..=nodes).map(|id| Ok((id, free_port()?))).collect::<Result<Vec<_>>>()?;
    let launch = |id| {
        let node =
            Node { id, port: free_port()?, voters: voters.clone(), doors: Vec::new(), login: None, heap_mb: HEAP_MB };
        KafkaRig::launch(&dir.join(format!("node-{id}")), node)
    };
    let mut nodes = (1..=nodes).map(launch).collect::<Result<Vec<_>>>()?;
    nodes.iter_mut().try_for_each(KafkaRig::wait_until_up)?;
    Ok(nodes)
}
