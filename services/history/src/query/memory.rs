//! How the parts of one query share the memory that it may take.

use datafusion::common::human_readable_size;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;

/// Half of the memory is kept in equal shares for those parts that can put things aside on disk, so that each can
/// work; the other half is for whoever comes first.
///
/// The engine's own pool (`FairSpillPool`) gives all of them equal shares of everything, most of which lie idle: a query
/// of a few steps has a dozen such parts on two threads, and the one that holds the groups puts them aside again and
/// again beside memory that nobody uses.
#[derive(Debug)]
pub(crate) struct QueryMemory {
    octets: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// By those that can spill, each by its number.
    spillable: HashMap<usize, usize>,
    unspillable: usize,
}

impl QueryMemory {
    /// For a query that may take so many octets.
    pub fn new(octets: usize) -> Self {
        Self { octets, taken: Mutex::default() }
    }
}

impl Taken {
    fn all(&self) -> usize {
        self.unspillable + self.spillable.values().sum::<usize>()
    }

    /// What each that can spill may have whatever the others have.
    fn share(&self, octets: usize) -> usize {
        octets.saturating_sub(self.unspillable) / 2 / self.spillable.len().max(1)
    }

    /// How much more `consumer` may have.
    fn room(&self, octets: usize, consumer: &MemoryConsumer) -> usize {
        let free = octets.saturating_sub(self.all());
        if !consumer.can_spill() {
            return free;
        }
        let share = self.share(octets);
        let own = self.spillable.get(&consumer.id()).copied().unwrap_or_default();
        let others = self.spillable.iter().filter(|(id, _)| **id != consumer.id());
        let kept: usize = others.map(|(_, taken)| share.saturating_sub(*taken)).sum();
        free.saturating_sub(kept).max(share.saturating_sub(own))
    }

    fn add(&mut self, consumer: &MemoryConsumer, octets: usize) {
        if consumer.can_spill() {
            *self.spillable.entry(consumer.id()).or_default() += octets;
        } else {
            self.unspillable += octets;
        }
    }
}

impl MemoryPool for QueryMemory {
    fn name(&self) -> &'static str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.taken.lock().add(consumer, 0);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.taken.lock().spillable.remove(&consumer.id());
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.taken.lock().add(reservation.consumer(), additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let (consumer, mut taken) = (reservation.consumer(), self.taken.lock());
        if !consumer.can_spill() {
            taken.unspillable = taken.unspillable.saturating_sub(shrink);
        } else if let Some(own) = taken.spillable.get_mut(&consumer.id()) {
            *own = own.saturating_sub(shrink);
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let (consumer, mut taken) = (reservation.consumer(), self.taken.lock());
        let room = taken.room(self.octets, consumer);
        if additional > room {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} needs {} more than the {} it has, and may have {}",
                consumer.name(),
                human_readable_size(additional),
                human_readable_size(reservation.size()),
                human_readable_size(room),
            )));
        }
        taken.add(consumer, additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.taken.lock().all()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.octets)
    }
}

impl fmt::Display for QueryMemory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} of {}", human_readable_size(self.reserved()), human_readable_size(self.octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn pool(octets: usize) -> Arc<dyn MemoryPool> {
        Arc::new(QueryMemory::new(octets))
    }

    fn part(pool: &Arc<dyn MemoryPool>, name: &str, can_spill: bool) -> MemoryReservation {
        MemoryConsumer::new(name).with_can_spill(can_spill).register(pool)
    }

    #[test]
    fn one_that_needs_it_has_what_the_others_leave_idle_and_they_still_have_their_shares() {
        let pool = pool(1_600);
        let parts: Vec<_> = (0..8).map(|_| part(&pool, "groups", true)).collect();
        // A share is 100.
        assert!(parts[0].try_grow(901).is_err());
        parts[0].try_grow(900).unwrap();
        assert!(parts[0].try_grow(1).is_err());
        for other in &parts[1..] {
            other.try_grow(100).unwrap();
            assert!(other.try_grow(1).is_err());
        }
        assert_eq!(pool.reserved(), 1_600);
        parts[0].shrink(500);
        parts[3].try_grow(500).unwrap();
        assert!(parts[4].try_grow(1).is_err());
    }

    #[test]
    fn one_that_cannot_put_aside_has_all_that_is_free() {
        let pool = pool(1_000);
        let (groups, join) = (part(&pool, "groups", true), part(&pool, "join", false));
        groups.try_grow(300).unwrap();
        let error = join.try_grow(701).unwrap_err().to_string();
        assert!(error.contains("join needs 701.0 B more than the 0.0 B it has, and may have 700.0 B"), "{error}");
        join.try_grow(700).unwrap();
        // A share of what is left, and it has more.
        assert!(groups.try_grow(1).is_err());
        groups.shrink(200);
        groups.try_grow(50).unwrap();
        groups.try_grow(150).unwrap();
        assert_eq!(pool.reserved(), 1_000);
    }

    #[test]
    fn who_comes_late_has_a_share_when_all_is_taken() {
        let pool = pool(1_000);
        let early = part(&pool, "groups", true);
        early.try_grow(1_000).unwrap();
        let late = part(&pool, "sort", true);
        late.try_grow(250).unwrap();
        assert!(late.try_grow(1).is_err() && early.try_grow(1).is_err());
        drop(early);
        late.try_grow(750).unwrap();
    }

    #[test]
    fn what_ends_gives_back_its_memory_and_its_share() {
        let pool = pool(1_000);
        let first = part(&pool, "groups", true);
        let second = part(&pool, "groups", true);
        second.try_grow(750).unwrap();
        drop(second);
        assert_eq!(pool.reserved(), 0);
        first.try_grow(1_000).unwrap();
        assert_eq!(pool.to_string(), "1000.0 B of 1000.0 B");
    }
}
