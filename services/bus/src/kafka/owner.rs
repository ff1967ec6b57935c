//! The one owner of a partition, as the rest of the program sees it.

use super::shared::{LookUp, Shared, blocking, failed, offset_of, until_answered};
use super::stats::add;
use super::transactions::Transactions;
use crate::limits::check_owned;
use crate::{BusError, Message, Owner, Place, Topic};
use async_trait::async_trait;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How much longer than a request a commit may take. librdkafka's `send_offsets_to_transaction` has no limit of its own:
/// when the group's coordinator is lost at the wrong moment, it waits for ever.
const ABANDONED_AFTER: Duration = Duration::from_secs(2);

/// How long a position may be unsettled. Whoever had the partition before is fenced, and what it left under way is ended,
/// before the position is asked for; but a broker that was killed can come back with the position of a transaction that
/// has ended, and take it for one that is under way for good.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);

pub(crate) struct KafkaOwner {
    shared: Arc<Shared>,
    /// The group's name here.
    name: String,
    group: Arc<LookUp>,
    partition: u32,
    /// Used on blocking threads only. Locked for as long as a commit takes, also when its caller has gone away.
    transactions: Option<Arc<Mutex<Transactions>>>,
}

impl KafkaOwner {
    pub(crate) async fn open(shared: Arc<Shared>, group: &str, partition: u32) -> Result<Self, BusError> {
        let (opening, name) = (shared.clone(), group.to_owned());
        let opened = blocking(format!("taking partition {partition} over"), move || {
            let group = opening.group(&name)?;
            let transactions = Transactions::begin(opening, group.clone(), &name, partition)?;
            Ok::<_, BusError>((group, transactions))
        });
        let (group_name, (group, transactions)) = (group.to_owned(), opened.await??);
        Ok(Self { shared, name: group_name, group, partition, transactions: Some(Arc::new(Mutex::new(transactions))) })
    }
}

#[async_trait]
impl Owner for KafkaOwner {
    async fn committed(&mut self, topic: Topic) -> Result<Option<u64>, BusError> {
        let (shared, group, group_name) = (self.shared.clone(), self.group.clone(), self.name.clone());
        let (name, partition) = (self.shared.name(topic).to_owned(), self.partition.cast_signed());
        let doing = format!("reading the committed position in {name}[{partition}]");
        let asked = blocking(doing.clone(), move || {
            let ask = |group: &LookUp, timeout: Duration| {
                until_answered(timeout, |left| {
                    let mut list = TopicPartitionList::new();
                    list.add_partition(&name, partition);
                    let committed = group.committed_offsets(list, left)?;
                    // Serves its events, so that they do not pile up.
                    drop(group.poll(Duration::ZERO));
                    offset_of(&committed)
                })
            };
            let timeout = shared.timeout();
            match ask(&group, timeout.min(SETTLES_WITHIN)) {
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut) => {
                    tracing::warn!(
                        partition,
                        topic = name,
                        "a position does not settle; going on from the last committed one"
                    );
                    ask(&*shared.group_as_committed(&group_name)?, timeout).map_err(|source| failed(doing, source))
                }
                asked => asked.map_err(|source| failed(doing, source)),
            }
        });
        asked.await?
    }

    async fn commit(
        &mut self,
        messages: Vec<(Topic, Message)>,
        positions: Vec<(Topic, u64)>,
    ) -> Result<Vec<Place>, BusError> {
        check_owned(&messages, self.partition, self.shared.config.partitions)?;
        let doing = || format!("committing to partition {}", self.partition);
        // Taken only when this is dropped.
        let Some(transactions) = self.transactions.clone() else { return Err(BusError::Closed { doing: doing() }) };
        let result = blocking(doing(), move || {
            let mut transactions = transactions.lock().unwrap_or_else(PoisonError::into_inner);
            transactions.commit(&messages, &positions)
        });
        let counters = &self.shared.counters;
        let limit = self.shared.timeout() + ABANDONED_AFTER;
        let Ok(result) = tokio::time::timeout(limit, result).await else {
            // Whatever becomes of it: the next owner fences it, and reads what is committed.
            self.transactions = None;
            add(&counters.owners_abandoned, 1);
            tracing::error!(
                partition = self.partition,
                limit_ms = limit.as_millis(),
                "a commit never ends; this owner is given up, to be replaced by a new one"
            );
            return Err(BusError::Fenced { partition: self.partition });
        };
        let result = result?;
        match &result {
            Ok(_) => add(&counters.commits, 1),
            Err(BusError::Fenced { .. }) => add(&counters.fenced, 1),
            Err(_) => add(&counters.commit_failures, 1),
        }
        result
    }
}

impl Drop for KafkaOwner {
    /// A producer waits for its threads when it goes: not on a thread of the runtime.
    fn drop(&mut self) {
        // One that was given up stays with the call that never ends.
        if let Some(transactions) = self.transactions.take() {
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(move || drop(transactions))),
                Err(_) => drop(transactions),
            }
        }
    }
}
