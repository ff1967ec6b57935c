//! All edges that were seen since the start: connected or not, how far, how fast.

use crate::edge_session::SentBatch;
use crate::edge_timing::EdgeTiming;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tidegate_domain::{Position, Positions};
use tidegate_proto::v1;
use tokio_util::sync::CancellationToken;

/// Acknowledged batches of an edge whose time of application is remembered.
const MAX_APPLIED: usize = 256;

/// The edges by node.
#[derive(Debug)]
pub(crate) struct EdgeRegistry {
    edges: Mutex<BTreeMap<String, Entry>>,
    max_edges: usize,
}

/// A connected edge's hold on its entry; dropping it marks the edge as gone.
#[derive(Debug)]
pub(crate) struct EdgeHandle {
    registry: Arc<EdgeRegistry>,
    node: String,
    connection: u64,
    /// Cancelled when the same node connects anew.
    pub replaced: CancellationToken,
}

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EdgeIdentity {
    /// The MTA host.
    pub node: String,
    /// Its site.
    pub site: String,
    /// Version of its software.
    pub version: String,
    /// Its clock, in milliseconds since 1970 UTC.
    pub now_ms: i64,
}

#[derive(Debug)]
struct Entry {
    identity: EdgeIdentity,
    /// Counts the node's connections.
    connection: u64,
    connected: bool,
    since_ms: i64,
    heard_ms: i64,
    /// What it has acknowledged.
    acked: Positions,
    unacked_states: u64,
    timing: EdgeTiming,
    applied: VecDeque<AppliedBatch>,
    status: Option<v1::EdgeStatus>,
    replaced: CancellationToken,
}

#[derive(Debug)]
struct AppliedBatch {
    advances: Vec<(u32, u64, u64)>,
    applied_ms: i64,
}

impl EdgeRegistry {
    /// Knows no edge; at most `max_edges` at a time.
    pub fn new(max_edges: usize) -> Self {
        Self { edges: Mutex::default(), max_edges }
    }

    /// An edge connects and holds `held`. A connection of the same node that is still there is ended. None when
    /// there are too many edges; one that is gone makes room first.
    pub fn connect(self: &Arc<Self>, identity: EdgeIdentity, held: Positions, now_ms: i64) -> Option<EdgeHandle> {
        let mut edges = self.edges.lock();
        let node = identity.node.clone();
        if !edges.contains_key(&node) && edges.len() >= self.max_edges {
            let gone = edges.iter().filter(|(_, entry)| !entry.connected).min_by_key(|(_, entry)| entry.heard_ms);
            let gone = gone.map(|(node, _)| node.clone())?;
            edges.remove(&gone);
        }
        let replaced = CancellationToken::new();
        let entry = edges.entry(node.clone()).or_insert_with(|| Entry {
            identity: identity.clone(),
            connection: 0,
            connected: false,
            since_ms: now_ms,
            heard_ms: now_ms,
            acked: Positions::new(),
            unacked_states: 0,
            timing: EdgeTiming::default(),
            applied: VecDeque::new(),
            status: None,
            replaced: CancellationToken::new(),
        });
        if entry.connected {
            tracing::warn!(node, site = entry.identity.site, "the node connected anew; its older connection is ended");
        }
        entry.replaced.cancel();
        entry.replaced = replaced.clone();
        entry.timing.hello(identity.now_ms, now_ms);
        entry.identity = identity;
        entry.connection += 1;
        entry.connected = true;
        entry.since_ms = now_ms;
        entry.heard_ms = now_ms;
        entry.acked = held;
        entry.unacked_states = 0;
        let connection = entry.connection;
        drop(edges);
        Some(EdgeHandle { registry: Arc::clone(self), node, connection, replaced })
    }

    /// All edges, by site and node.
    pub fn list(&self) -> Vec<v1::Edge> {
        let edges = self.edges.lock();
        let mut list: Vec<v1::Edge> = edges.values().map(Entry::to_proto).collect();
        drop(edges);
        list.sort_by(|a, b| (&a.site, &a.node).cmp(&(&b.site, &b.node)));
        list
    }

    /// What each edge has of the state at `position`; none: of an account without a state, which is in force
    /// everywhere.
    pub fn applied(&self, position: Option<Position>) -> Vec<v1::EdgeApplied> {
        let edges = self.edges.lock();
        let mut list: Vec<v1::EdgeApplied> = edges.values().map(|entry| entry.applied(position)).collect();
        drop(edges);
        list.sort_by(|a, b| (&a.site, &a.node).cmp(&(&b.site, &b.node)));
        list
    }

    fn with(&self, handle: &EdgeHandle, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.edges.lock().get_mut(&handle.node)
            && entry.connection == handle.connection
        {
            change(entry);
        }
    }
}

impl EdgeHandle {
    /// A batch was sent; so many states are not acknowledged now.
    pub fn sent(&self, unacked_states: u64) {
        self.registry.with(self, |entry| entry.unacked_states = unacked_states);
    }

    /// Batches came into force, the last of them at `applied_ms` by the edge's clock; so many states are not
    /// acknowledged now. Gives the time from sending to application in milliseconds, when the last one tells it.
    pub fn acknowledged(
        &self,
        batches: Vec<SentBatch>,
        applied_ms: i64,
        now_ms: i64,
        unacked_states: u64,
    ) -> Option<f64> {
        let mut propagation_ms = None;
        self.registry.with(self, |entry| {
            entry.heard_ms = now_ms;
            entry.unacked_states = unacked_states;
            if let Some(last) = batches.last() {
                let measured = entry.timing.acknowledged(last.sent_ms, applied_ms, now_ms, last.live);
                propagation_ms = last.live.then_some(measured);
            }
            for batch in batches {
                for (partition, _, to) in &batch.advances {
                    entry.acked.insert(*partition, *to);
                }
                if entry.applied.len() >= MAX_APPLIED {
                    entry.applied.pop_front();
                }
                entry.applied.push_back(AppliedBatch { advances: batch.advances, applied_ms });
            }
        });
        propagation_ms
    }

    /// The edge told how it is.
    pub fn health(&self, health: &v1::EdgeHealth, now_ms: i64) {
        self.registry.with(self, |entry| {
            entry.heard_ms = now_ms;
            entry.timing.heard(health.now_ms, now_ms);
            entry.status = Some(v1::EdgeStatus {
                sessions: health.sessions,
                decisions: health.decisions,
                refusals: health.refusals,
                spooled: health.spooled,
                lost: health.lost,
            });
        });
    }
}

impl Drop for EdgeHandle {
    fn drop(&mut self) {
        self.registry.with(self, |entry| {
            entry.connected = false;
            entry.since_ms = tidegate_gate::now_ms();
        });
    }
}

impl Entry {
    fn to_proto(&self) -> v1::Edge {
        let propagation_ms = self.timing.propagation_ms();
        v1::Edge {
            node: self.identity.node.clone(),
            site: self.identity.site.clone(),
            version: self.identity.version.clone(),
            connected: self.connected,
            since_ms: self.since_ms,
            heard_ms: self.heard_ms,
            behind: self.unacked_states,
            propagation_p50_ms: propagation_ms.map(|(p50, _)| p50),
            propagation_p99_ms: propagation_ms.map(|(_, p99)| p99),
            clock_skew_ms: self.timing.skew_ms(),
            status: self.status,
        }
    }

    fn applied(&self, position: Option<Position>) -> v1::EdgeApplied {
        let holds = |at: &Position| self.acked.get(&at.partition).is_some_and(|next| *next > at.offset);
        let brought = |batch: &&AppliedBatch, at: Position| {
            batch
                .advances
                .iter()
                .any(|(partition, from, to)| *partition == at.partition && (*from..*to).contains(&at.offset))
        };
        let in_force = position.as_ref().is_none_or(holds);
        let batch =
            position.filter(|_| in_force).and_then(|at| self.applied.iter().rev().find(|batch| brought(batch, at)));
        v1::EdgeApplied {
            node: self.identity.node.clone(),
            site: self.identity.site.clone(),
            in_force,
            applied_ms: batch.map(|batch| batch.applied_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(node: &str) -> EdgeIdentity {
        EdgeIdentity { node: node.into(), site: "ams".into(), version: "1".into(), now_ms: 0 }
    }

    fn batch(from: u64, to: u64) -> SentBatch {
        SentBatch { sequence: 1, states: 2, sent_ms: 10, live: true, advances: vec![(0, from, to)], pushes: Vec::new() }
    }

    #[test]
    fn what_is_acknowledged_is_in_force() {
        let registry = Arc::new(EdgeRegistry::new(10));
        let handle = registry.connect(identity("mx1"), Positions::from([(0, 3)]), 0).unwrap();
        let at = |offset| Some(Position { partition: 0, offset });
        let applied = |offset| registry.applied(at(offset)).remove(0);
        assert_eq!((applied(2).in_force, applied(3).in_force), (true, false));
        assert_eq!(handle.acknowledged(vec![batch(3, 8)], 14, 20, 0), Some(5.0));
        assert_eq!((applied(7).in_force, applied(7).applied_ms), (true, Some(14)));
        assert_eq!((applied(2).in_force, applied(2).applied_ms), (true, None));
        assert!(!applied(8).in_force);
        assert!(registry.applied(None)[0].in_force);
        drop(handle);
        assert!(!registry.list()[0].connected);
        assert!(applied(7).in_force, "what it holds stays in force while it is cut off");
    }

    #[test]
    fn a_second_connection_of_a_node_replaces_the_first() {
        let registry = Arc::new(EdgeRegistry::new(10));
        let first = registry.connect(identity("mx1"), Positions::new(), 0).unwrap();
        assert!(!first.replaced.is_cancelled());
        let second = registry.connect(identity("mx1"), Positions::new(), 1).unwrap();
        assert!(first.replaced.is_cancelled() && !second.replaced.is_cancelled());
        first.sent(99);
        drop(first);
        let edges = registry.list();
        assert_eq!((edges.len(), edges[0].connected, edges[0].behind), (1, true, 0));
    }

    #[test]
    fn a_gone_edge_makes_room_and_a_connected_one_does_not() {
        let registry = Arc::new(EdgeRegistry::new(2));
        let one = registry.connect(identity("mx1"), Positions::new(), 0).unwrap();
        let _two = registry.connect(identity("mx2"), Positions::new(), 1).unwrap();
        assert!(registry.connect(identity("mx3"), Positions::new(), 2).is_none());
        drop(one);
        let _three = registry.connect(identity("mx3"), Positions::new(), 3).unwrap();
        let nodes: Vec<_> = registry.list().into_iter().map(|edge| edge.node).collect();
        assert_eq!(nodes, ["mx2", "mx3"]);
    }
}
