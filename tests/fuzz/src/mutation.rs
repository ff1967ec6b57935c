//! A small mutation engine, for the tests: it needs no instrumented build, and its seed decides everything.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::Target;

/// Most inputs that are kept to make others from.
const MAX_KEPT: usize = 2_000;
/// Most changes of one input.
const MAX_CHANGES: u64 = 6;
/// Numbers at which programs go wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];

/// What a run was like.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Inputs that were read.
    pub inputs: u64,
    /// Different outcomes that they led to.
    pub outcomes: usize,
    /// How long it took.
    pub took: Duration,
}

/// Gives `target` its seeds and then inputs made from them, `inputs` in all. `last` gets each before it is read, so
/// that one that panics is known.
pub fn run(target: &Target, inputs: u64, seed: u64, mut last: impl FnMut(&[u8])) -> Report {
    let begun = Instant::now();
    let mut random = Random(seed);
    let mut kept = (target.seeds)();
    let mut outcomes = HashSet::new();
    for input in kept.iter().take(usize::try_from(inputs).unwrap_or(usize::MAX)) {
        last(input);
        outcomes.insert((target.run)(input));
    }
    for _ in kept.len() as u64..inputs {
        let mut input = kept[random.below(kept.len())].clone();
        for _ in 0..=random.next() % MAX_CHANGES {
            change(&mut input, &kept, target.words, &mut random);
        }
        input.truncate(target.max_octets);
        last(&input);
        if outcomes.insert((target.run)(&input)) {
            if kept.len() < MAX_KEPT {
                kept.push(input);
            } else {
                let place = random.below(kept.len());
                kept[place] = input;
            }
        }
    }
    Report { inputs: inputs.max(1), outcomes: outcomes.len(), took: begun.elapsed() }
}

fn change(input: &mut Vec<u8>, others: &[Vec<u8>], words: &[&str], random: &mut Random) {
    let place = random.below(input.len() + 1);
    let longest = 1 << random.below(8);
    let length = 1 + random.below(longest);
    let end = (place + length).min(input.len());
    match random.below(if words.is_empty() { 9 } else { 12 }) {
        0 => {
            if let Some(octet) = input.get_mut(place) {
                *octet ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(octet) = input.get_mut(place) {
                *octet = random.next() as u8;
            }
        }
        2 => drop(input.drain(place..end)),
        3 => {
            let copy = input[place..end].to_vec();
            input.splice(place..place, copy);
        }
        4 => {
            let octet = [0, b' ', b'\n', b'A', 0xff][random.below(5)];
            input.splice(place..place, std::iter::repeat_n(octet, length * 8));
        }
        5 => {
            let noise: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            input.splice(place..place, noise);
        }
        6 => {
            let width = [1, 2, 4, 8][random.below(4)];
            let number = EDGES[random.below(EDGES.len())].to_be_bytes();
            let end = (place + width).min(input.len());
            input.splice(place..end, number[8 - width..].iter().copied());
        }
        7 => {
            let other = &others[random.below(others.len())];
            let from = random.below(other.len() + 1);
            let to = (from + 1 + random.below(200)).min(other.len());
            input.splice(place..place, other[from..to].iter().copied());
        }
        8 => {
            let number = EDGES[random.below(EDGES.len())].to_string();
            let digits = input.iter().skip(place).position(u8::is_ascii_digit).map_or(place, |found| place + found);
            let end = digits + input[digits..].iter().take_while(|octet| octet.is_ascii_digit()).count();
            input.splice(digits..end, number.bytes());
        }
        _ => {
            let word = words[random.below(words.len())].bytes();
            let end = if random.below(2) == 0 { place } else { end };
            input.splice(place..end, word);
        }
    }
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}
