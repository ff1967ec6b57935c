//! Takes an input apart: a few choices in front, the rest for the parser.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::Outcome;

/// An input that is being taken apart from its front. When it is used up it goes on with zeros.
#[derive(Debug, Clone)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Nothing taken yet.
    pub fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    /// The next octet.
    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// The next two octets as a number.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// The next eight octets as a number.
    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// The next eight octets as a number with a sign.
    pub fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.array())
    }

    /// The next `count` octets, or as many as there are.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }
}

/// Cuts octets into pieces whose lengths `seed` decides: single octets, some, or many.
pub fn pieces(octets: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut state) = (octets, u32::from(seed) + 1);
    std::iter::from_fn(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let longest = [1, 3, 17, 300][usize::from(seed & 3)];
        let length = (1 + (state >> 16) as usize % longest).min(rest.len());
        let (piece, after) = rest.split_at(length);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The number of what an input led to.
pub fn outcome(of: impl Hash) -> Outcome {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Choices in front of what the parser gets, as [`Input`] takes them.
pub fn seed(choices: &[u8], octets: &[u8]) -> Vec<u8> {
    [choices, octets].concat()
}
