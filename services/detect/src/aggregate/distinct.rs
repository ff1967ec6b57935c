//! `distinct(x)`: exact up to [`MAX_EXACT`] values, then a HyperLogLog sketch.

use super::Digest;
use datafusion::common::{DataFusionError, Result, exec_err};
use datasketches::hll::{HllSketch, HllType, HllUnion};

/// Most values that are kept one by one.
const MAX_EXACT: usize = 64;
/// Octets kept of a hash. 48 bits are enough to tell 64 values apart (they collide once in 10^11 sets).
pub(super) const HASH_OCTETS: usize = 6;
/// 2^11 registers: a standard error of 2.3 % (0.83 / sqrt(2048) for the estimator in order, 1.04 after merges).
const LG_K: u8 = 11;
const EXACT: u8 = 0;
const SKETCH: u8 = 1;

/// How many different values a group has.
///
/// State: nothing when empty; `0` and 6 octets a value; or `1` and an HLL sketch in DataSketches' portable format
/// (`HLL_4`, lg k 11), whose items are the little-endian `u64` of the hash shifted right by 16 bits.
#[derive(Debug)]
pub(crate) enum DistinctDigest {
    Exact(Vec<u64>),
    Sketch(Box<HllUnion>),
}

impl Default for DistinctDigest {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

impl DistinctDigest {
    fn add_short(&mut self, short: u64) -> Result<()> {
        match self {
            Self::Exact(values) => {
                if values.contains(&short) {
                    return Ok(());
                }
                if values.len() < MAX_EXACT {
                    values.push(short);
                    return Ok(());
                }
                self.sketch()?.update_value(short);
            }
            Self::Sketch(sketch) => sketch.update_value(short),
        }
        Ok(())
    }

    /// Turns it into a sketch, if it is not one yet.
    fn sketch(&mut self) -> Result<&mut HllUnion> {
        if let Self::Exact(values) = self {
            let mut sketch = Box::new(HllUnion::new(LG_K).map_err(external)?);
            for value in values {
                sketch.update_value(value);
            }
            *self = Self::Sketch(sketch);
        }
        match self {
            Self::Sketch(sketch) => Ok(sketch),
            Self::Exact(_) => exec_err!("a set of distinct values could not become a sketch"),
        }
    }
}

impl Digest for DistinctDigest {
    const NAME: &'static str = "distinct";

    fn add(&mut self, hash: u64) {
        // Fails only for a wrong LG_K; a test adds more than MAX_EXACT values.
        let _ = self.add_short(shorten(hash));
    }

    fn merge(&mut self, bytes: &[u8]) -> Result<()> {
        match bytes.split_first() {
            None => Ok(()),
            Some((&EXACT, values)) if values.len() % HASH_OCTETS == 0 => {
                values.chunks_exact(HASH_OCTETS).try_for_each(|value| self.add_short(read_short(value)))
            }
            Some((&SKETCH, sketch)) => {
                let other = HllSketch::deserialize(sketch).map_err(external)?;
                self.sketch()?.update(&other);
                Ok(())
            }
            Some(_) => exec_err!("the state of distinct() is damaged: {} octets, unknown form", bytes.len()),
        }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Exact(values) if values.is_empty() => {}
            Self::Exact(values) => {
                bytes.push(EXACT);
                for value in values {
                    write_short(*value, bytes);
                }
            }
            Self::Sketch(sketch) => {
                bytes.push(SKETCH);
                bytes.extend_from_slice(&sketch.to_sketch(HllType::Hll4).serialize());
            }
        }
    }

    fn value(&self) -> Option<f64> {
        match self {
            Self::Exact(values) => Some(values.len() as f64),
            Self::Sketch(sketch) => Some(sketch.estimate()),
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Exact(values) => values.capacity() * size_of::<u64>(),
            Self::Sketch(sketch) => sketch.estimated_size(),
        }
    }
}

/// The part of a hash that digests keep.
pub(super) fn shorten(hash: u64) -> u64 {
    hash >> (64 - 8 * HASH_OCTETS)
}

pub(super) fn write_short(short: u64, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&short.to_le_bytes()[..HASH_OCTETS]);
}

/// Reads what [`write_short`] wrote, from the beginning of `bytes`.
pub(super) fn read_short(bytes: &[u8]) -> u64 {
    bytes.iter().take(HASH_OCTETS).rev().fold(0, |short, octet| short << 8 | u64::from(*octet))
}

pub(super) fn external(error: datasketches::error::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(value: u64) -> u64 {
        twox_hash::XxHash64::oneshot(1, &value.to_le_bytes())
    }

    fn of(values: impl IntoIterator<Item = u64>) -> DistinctDigest {
        let mut digest = DistinctDigest::default();
        values.into_iter().for_each(|value| digest.add(hash(value)));
        digest
    }

    fn bytes(digest: &DistinctDigest) -> Vec<u8> {
        let mut bytes = Vec::new();
        digest.write(&mut bytes);
        bytes
    }

    #[test]
    fn small_sets_are_exact_and_small() {
        assert_eq!(of([]).value(), Some(0.0));
        assert!(bytes(&of([])).is_empty());
        let set = of((0..64).chain(0..64));
        assert_eq!(set.value(), Some(64.0));
        assert_eq!(bytes(&of([1, 1])).len(), 7);
    }

    #[test]
    fn large_sets_are_within_a_few_percent_also_when_merged_from_parts() {
        for count in [65_u64, 200, 5_000, 100_000] {
            let mut merged = DistinctDigest::default();
            for part in 0..7 {
                // Parts overlap, and some are small enough to be exact.
                let (from, to) = (count * part / 8, count * (part + 2) / 8);
                merged.merge(&bytes(&of(from..to))).unwrap();
            }
            let (whole, merged) = (of(0..count).value().unwrap(), merged.value().unwrap());
            for estimate in [whole, merged] {
                let error = (estimate - count as f64).abs() / count as f64;
                assert!(error < 0.07, "{estimate} for {count}");
            }
        }
        assert!(bytes(&of(0..100_000)).len() < 1_400);
    }

    #[test]
    fn damaged_states_are_errors() {
        for damaged in [&[0_u8, 1][..], &[1], &[1, 2, 3, 4, 5, 6, 7, 8, 9], &[7, 7]] {
            DistinctDigest::default().merge(damaged).unwrap_err();
        }
    }
}
