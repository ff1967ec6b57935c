//! A bounded map whose entries have an end: what the joiners remember.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// At most `capacity` entries; when it is full the one that would end first makes room.
#[derive(Debug)]
pub(crate) struct Expiring<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// By end, and by number where the ends are equal.
    order: BTreeMap<(i64, u64), K>,
    next_number: u64,
    capacity: usize,
}

#[derive(Debug)]
struct Entry<V> {
    place: (i64, u64),
    value: V,
}

impl<K: Clone + Eq + Hash, V> Expiring<K, V> {
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), next_number: 0, capacity: capacity.max(1) }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Puts an entry in, or replaces it. Gives back what had to make room for it.
    pub fn insert(&mut self, key: K, value: V, ends_ms: i64) -> Option<(K, V)> {
        self.remove(&key);
        let evicted = if self.entries.len() >= self.capacity { self.pop() } else { None };
        let place = (ends_ms, self.next_number);
        self.next_number += 1;
        self.order.insert(place, key.clone());
        self.entries.insert(key, Entry { place, value });
        evicted
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.place);
        Some(entry.value)
    }

    /// Takes out an entry whose end has come, the earliest first.
    pub fn pop_expired(&mut self, now_ms: i64) -> Option<(K, V)> {
        let ((ends_ms, _), _) = self.order.first_key_value()?;
        if *ends_ms <= now_ms { self.pop() } else { None }
    }

    fn pop(&mut self) -> Option<(K, V)> {
        let (_, key) = self.order.pop_first()?;
        let entry = self.entries.remove(&key)?;
        Some((key, entry.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Compared with a plain list that is searched.
        #[test]
        fn behaves_like_a_list(steps in proptest::collection::vec((0_u8..8, 0_i64..20, 0_u8..4), 0..200)) {
            let (mut map, mut list, mut order) = (Expiring::new(5), Vec::<(u8, u64, i64)>::new(), 0_u64);
            for (key, at, what) in steps {
                match what {
                    0 => {
                        let expected = list.iter().position(|entry| entry.0 == key).map(|at| list.remove(at).1);
                        prop_assert_eq!(map.remove(&key), expected);
                    }
                    1 => {
                        list.sort_by_key(|entry| (entry.2, entry.1));
                        let expected = list.first().filter(|entry| entry.2 <= at).map(|entry| (entry.0, entry.1));
                        if expected.is_some() {
                            list.remove(0);
                        }
                        prop_assert_eq!(map.pop_expired(at), expected);
                    }
                    _ => {
                        list.retain(|entry| entry.0 != key);
                        list.sort_by_key(|entry| (entry.2, entry.1));
                        let expected = (list.len() == 5).then(|| list.remove(0)).map(|entry| (entry.0, entry.1));
                        list.push((key, order, at));
                        prop_assert_eq!(map.insert(key, order, at), expected);
                        order += 1;
                    }
                }
                prop_assert_eq!(map.len(), list.len());
                prop_assert_eq!(map.order.len(), list.len());
            }
        }
    }
}
