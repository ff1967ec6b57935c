//! `top_share(x)`: exact counts of up to [`MAX_EXACT`] values, then a frequent-items sketch.

use super::Digest;
use super::distinct::{HASH_OCTETS, external, read_short, shorten, write_short};
use crate::varint;
use datafusion::common::{Result, exec_err};
use datasketches::frequencies::{ErrorType, FrequentItemsSketch};

/// Most values that are counted one by one.
const MAX_EXACT: usize = 64;
/// Counters of the sketch: counts are wrong by at most 3.5 / 256 = 1.4 % of all.
const MAX_MAP_SIZE: usize = 256;
/// Most values that one group counts; more are no longer told apart from this many.
const MAX_TOTAL: u64 = 1 << 48;
const EXACT: u8 = 0;
const SKETCH: u8 = 1;

/// How often each value of a group occurs.
///
/// State: nothing when empty; `0` and, for each value, 6 octets of hash and a varint count; or `1` and a sketch of
/// `u64` items in DataSketches' portable format.
#[derive(Debug)]
pub(crate) enum TopShareDigest {
    Exact(Vec<(u64, u64)>),
    Sketch(Box<FrequentItemsSketch<u64>>),
}

impl Default for TopShareDigest {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

impl TopShareDigest {
    fn add_short(&mut self, short: u64, count: u64) -> Result<()> {
        match self {
            Self::Exact(counts) => {
                if let Some((_, known)) = counts.iter_mut().find(|(value, _)| *value == short) {
                    *known = known.saturating_add(count).min(MAX_TOTAL);
                    return Ok(());
                }
                if counts.len() < MAX_EXACT {
                    counts.push((short, count.min(MAX_TOTAL)));
                    return Ok(());
                }
                add_to(self.sketch()?, short, count);
            }
            Self::Sketch(sketch) => add_to(sketch, short, count),
        }
        Ok(())
    }

    fn sketch(&mut self) -> Result<&mut FrequentItemsSketch<u64>> {
        if let Self::Exact(counts) = self {
            let mut sketch = Box::new(FrequentItemsSketch::new(MAX_MAP_SIZE).map_err(external)?);
            for (value, count) in counts {
                add_to(&mut sketch, *value, *count);
            }
            *self = Self::Sketch(sketch);
        }
        match self {
            Self::Sketch(sketch) => Ok(sketch),
            Self::Exact(_) => exec_err!("counts of values could not become a sketch"),
        }
    }
}

/// The sketch panics when its total overflows; beyond [`MAX_TOTAL`] nothing is added.
fn add_to(sketch: &mut FrequentItemsSketch<u64>, short: u64, count: u64) {
    if count <= MAX_TOTAL && sketch.total_weight() <= MAX_TOTAL {
        sketch.update_with_count(short, count);
    }
}

impl Digest for TopShareDigest {
    const NAME: &'static str = "top_share";

    fn add(&mut self, hash: u64) {
        // Fails only for a wrong MAX_MAP_SIZE; a test adds more than MAX_EXACT values.
        let _ = self.add_short(shorten(hash), 1);
    }

    fn merge(&mut self, bytes: &[u8]) -> Result<()> {
        match bytes.split_first() {
            None => Ok(()),
            Some((&EXACT, mut rest)) => {
                while !rest.is_empty() {
                    let Some((short, after)) = rest.split_at_checked(HASH_OCTETS) else {
                        return exec_err!("the state of top_share() is damaged: it ends within a value");
                    };
                    let Some((count, after)) = varint::read(after) else {
                        return exec_err!("the state of top_share() is damaged: it ends within a count");
                    };
                    self.add_short(read_short(short), count)?;
                    rest = after;
                }
                Ok(())
            }
            Some((&SKETCH, sketch)) => {
                let other = FrequentItemsSketch::deserialize(sketch).map_err(external)?;
                let sketch = self.sketch()?;
                if sketch.total_weight() <= MAX_TOTAL && other.total_weight() <= MAX_TOTAL {
                    sketch.merge(&other);
                }
                Ok(())
            }
            Some(_) => exec_err!("the state of top_share() is damaged: {} octets, unknown form", bytes.len()),
        }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Exact(counts) if counts.is_empty() => {}
            Self::Exact(counts) => {
                bytes.push(EXACT);
                for (value, count) in counts {
                    write_short(*value, bytes);
                    varint::write(*count, bytes);
                }
            }
            Self::Sketch(sketch) => {
                bytes.push(SKETCH);
                bytes.extend_from_slice(&sketch.serialize());
            }
        }
    }

    /// Of a sketch, the lower bound: it never says that contents are more alike than they are.
    fn value(&self) -> Option<f64> {
        let (top, total) = match self {
            Self::Exact(counts) => {
                let total = counts.iter().fold(0_u64, |total, (_, count)| total.saturating_add(*count));
                (counts.iter().map(|(_, count)| *count).max().unwrap_or(0), total)
            }
            Self::Sketch(sketch) => {
                let rows = sketch.frequent_items(ErrorType::NoFalseNegatives);
                (rows.iter().map(datasketches::frequencies::Row::lower_bound).max().unwrap_or(0), sketch.total_weight())
            }
        };
        (total > 0).then(|| top as f64 / total as f64)
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Exact(counts) => counts.capacity() * size_of::<(u64, u64)>(),
            Self::Sketch(sketch) => sketch.estimated_size(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(value: u64) -> u64 {
        twox_hash::XxHash64::oneshot(2, &value.to_le_bytes())
    }

    fn of(values: impl IntoIterator<Item = u64>) -> TopShareDigest {
        let mut digest = TopShareDigest::default();
        values.into_iter().for_each(|value| digest.add(hash(value)));
        digest
    }

    fn bytes(digest: &TopShareDigest) -> Vec<u8> {
        let mut bytes = Vec::new();
        digest.write(&mut bytes);
        bytes
    }

    #[test]
    fn few_values_are_counted_exactly() {
        assert_eq!(of([]).value(), None);
        assert_eq!(of([1, 2, 1, 1]).value(), Some(0.75));
        let mut merged = of([1, 2]);
        merged.merge(&bytes(&of([2, 3]))).unwrap();
        assert_eq!(merged.value(), Some(0.5));
        assert!(bytes(&of([1])).len() <= 8);
    }

    #[test]
    fn among_many_values_the_share_is_never_overstated_and_nearly_right() {
        for (same, different) in [(1_000_u64, 1_000_u64), (500, 9_500), (5_000, 500), (0, 5_000)] {
            let mut merged = TopShareDigest::default();
            for part in 0..10 {
                let same = (0..same / 10).map(|_| u64::MAX);
                merged.merge(&bytes(&of(same.chain((part * different / 10)..((part + 1) * different / 10))))).unwrap();
            }
            let exact = same.max(1) as f64 / (same + different) as f64;
            let share = merged.value().unwrap();
            assert!(share <= exact && share > exact - 0.03, "{share} for {exact}");
        }
        assert!(bytes(&of(0..10_000)).len() < 3_300);
    }

    #[test]
    fn damaged_states_are_errors_and_huge_counts_do_no_harm() {
        for damaged in [&[0_u8, 1][..], &[0, 1, 2, 3, 4, 5, 6], &[1], &[1, 2, 3], &[9]] {
            TopShareDigest::default().merge(damaged).unwrap_err();
        }
        let mut huge = vec![EXACT];
        write_short(1, &mut huge);
        varint::write(u64::MAX, &mut huge);
        let mut digest = of(0..70);
        (0..10).for_each(|_| digest.merge(&huge).unwrap());
        digest.merge(&bytes(&of(0..200))).unwrap();
        assert!(digest.value().is_some_and(|share| (0.0..=1.0).contains(&share)));
    }
}
