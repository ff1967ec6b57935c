//! The one owner of a partition: a newer claim makes the older one void.

use super::Log;
use crate::limits::check_owned;
use crate::{BusError, Message, Owner, Place, Topic};
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The number of the newest claim. Locked from looking until a batch is handed over, so that none comes in between.
type Newest = Arc<Mutex<u64>>;

/// Who owns what in this process.
#[derive(Default)]
pub(crate) struct Owners {
    newest: Mutex<HashMap<(String, u32), Newest>>,
}

/// The right to a partition, as long as it is the newest.
pub(crate) struct Claim {
    partition: u32,
    number: u64,
    newest: Newest,
}

pub(crate) struct EmbeddedOwner {
    log: Arc<Log>,
    group: String,
    claim: Claim,
}

impl Owners {
    /// A new claim, which makes all before it void.
    pub(crate) fn claim(&self, group: &str, partition: u32) -> Claim {
        let mut all = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = all.entry((group.to_owned(), partition)).or_default().clone();
        drop(all);
        let number = {
            let mut number = newest.lock().unwrap_or_else(PoisonError::into_inner);
            *number += 1;
            *number
        };
        Claim { partition, number, newest }
    }
}

impl Claim {
    /// Does something while no newer claim can come; none if there is one already.
    fn while_newest<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        (*newest == self.number).then(work)
    }
}

impl EmbeddedOwner {
    pub(crate) fn new(log: Arc<Log>, group: String, claim: Claim) -> Self {
        Self { log, group, claim }
    }
}

#[async_trait]
impl Owner for EmbeddedOwner {
    async fn committed(&mut self, topic: Topic) -> Result<Option<u64>, BusError> {
        let (group, partition) = (self.group.clone(), self.claim.partition);
        let doing = || format!("reading the position of {} in {}[{partition}]", self.group, topic.suffix());
        self.log.blocking(doing, move |journal| journal.position(&group, topic.suffix(), partition)).await
    }

    async fn commit(
        &mut self,
        messages: Vec<(Topic, Message)>,
        positions: Vec<(Topic, u64)>,
    ) -> Result<Vec<Place>, BusError> {
        let partition = self.claim.partition;
        check_owned(&messages, partition, self.log.partitions)?;
        let (mut batch, layout) = self.log.lay_out(messages.into_iter());
        for (topic, next_offset) in positions {
            batch = batch.position(self.group.as_str(), topic.suffix(), partition, next_offset);
        }
        let pass = self.log.gate.enter(batch.bytes()).await;
        let Some(submitted) = self.claim.while_newest(|| self.log.submit_with(batch, pass)) else {
            self.log.count_fenced();
            return Err(BusError::Fenced { partition });
        };
        let committed = submitted.wait(|| format!("committing to partition {partition}")).await?;
        Ok(layout.resolve(&committed).collect())
    }
}
