//! Prepared statements, and the queries that run: what is remembered between two calls of a client.

use crate::metrics::Metrics;
use crate::query::QueryError;
use datafusion::common::ScalarValue;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use tokio_util::sync::CancellationToken;

/// A statement that was prepared.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    /// Who prepared it: nobody else may run it.
    pub owner: String,
    /// The statement.
    pub sql: String,
    /// Values for its parameters, when they were bound.
    pub values: Option<Vec<ScalarValue>>,
}

/// All that were prepared and not closed; the oldest go when there are too many.
pub(crate) struct PreparedStatements {
    most: usize,
    metrics: Metrics,
    held: Mutex<(HashMap<String, Prepared>, VecDeque<String>)>,
}

/// Queries that run, by their ids.
#[derive(Default)]
pub(crate) struct RunningQueries(Mutex<HashMap<String, (String, CancellationToken)>>);

/// A query that runs, until this is dropped.
pub(crate) struct Runs<'a> {
    queries: &'a RunningQueries,
    id: String,
}

impl PreparedStatements {
    pub fn new(most: usize, metrics: Metrics) -> Self {
        Self { most, metrics, held: Mutex::default() }
    }

    /// Remembers a statement.
    pub fn insert(&self, id: String, prepared: Prepared) {
        let mut held = self.held.lock();
        let (statements, order) = &mut *held;
        statements.insert(id.clone(), prepared);
        order.push_back(id);
        while statements.len() > self.most {
            let Some(oldest) = order.pop_front() else { break };
            statements.remove(&oldest);
        }
        // Closed ones leave their places behind.
        if order.len() > 2 * self.most {
            order.retain(|id| statements.contains_key(id));
        }
        self.metrics.prepared.set(i64::try_from(statements.len()).unwrap_or(i64::MAX));
    }

    /// A statement of `owner`'s.
    pub fn get(&self, id: &str, owner: &str) -> Result<Prepared, QueryError> {
        let held = self.held.lock();
        held.0.get(id).filter(|prepared| prepared.owner == owner).cloned().ok_or(QueryError::Forgotten)
    }

    /// Binds values to a statement of `owner`'s.
    pub fn bind(&self, id: &str, owner: &str, values: Vec<ScalarValue>) -> Result<(), QueryError> {
        let mut held = self.held.lock();
        let prepared = held.0.get_mut(id).filter(|prepared| prepared.owner == owner);
        prepared.ok_or(QueryError::Forgotten)?.values = Some(values);
        Ok(())
    }

    /// Forgets a statement of `owner`'s.
    pub fn close(&self, id: &str, owner: &str) {
        let mut held = self.held.lock();
        if held.0.get(id).is_some_and(|prepared| prepared.owner == owner) {
            held.0.remove(id);
            self.metrics.prepared.set(i64::try_from(held.0.len()).unwrap_or(i64::MAX));
        }
    }
}

impl RunningQueries {
    /// Notes that `owner`'s query runs, until what is given is dropped.
    pub fn runs(&self, id: String, owner: String, cancelled: CancellationToken) -> Runs<'_> {
        self.insert(id.clone(), owner, cancelled);
        Runs { queries: self, id }
    }

    /// Notes that `owner`'s query runs.
    pub fn insert(&self, id: String, owner: String, cancelled: CancellationToken) {
        self.0.lock().insert(id, (owner, cancelled));
    }

    /// Notes that a query has ended.
    pub fn remove(&self, id: &str) {
        self.0.lock().remove(id);
    }

    /// Cancels a query of `owner`'s. Gives whether it runs here.
    pub fn cancel(&self, id: &str, owner: &str) -> bool {
        let running = self.0.lock();
        let Some((_, cancelled)) = running.get(id).filter(|(runs_for, _)| runs_for == owner) else { return false };
        cancelled.cancel();
        true
    }
}

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        self.queries.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    fn prepared(sql: &str) -> Prepared {
        Prepared { owner: "ann".to_owned(), sql: sql.to_owned(), values: None }
    }

    #[test]
    fn the_oldest_go_and_only_the_owner_has_a_statement() {
        let statements = PreparedStatements::new(2, Metrics::new(&mut Registry::default()));
        for id in ["a", "b", "c"] {
            statements.insert(id.to_owned(), prepared(id));
        }
        assert!(statements.get("a", "ann").is_err());
        assert_eq!(statements.get("b", "ann").unwrap().sql, "b");
        assert!(statements.get("b", "bob").is_err());
        statements.close("b", "bob");
        assert!(statements.get("b", "ann").is_ok());
        statements.close("b", "ann");
        assert!(statements.get("b", "ann").is_err());
    }

    #[test]
    fn only_the_owner_cancels_and_only_while_it_runs() {
        let running = RunningQueries::default();
        let cancelled = CancellationToken::new();
        let runs = running.runs("q".to_owned(), "ann".to_owned(), cancelled.clone());
        assert!(!running.cancel("q", "bob") && !cancelled.is_cancelled());
        assert!(running.cancel("q", "ann") && cancelled.is_cancelled());
        drop(runs);
        assert!(!running.cancel("q", "ann"));
    }
}
