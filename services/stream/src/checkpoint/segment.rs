//! A file of windows: blocks of accounts as the engine writes them, compressed.
//!
//! | octets | what |
//! |---|---|
//! | 8 | `TGSEGM01` |
//! | 4 | length of the header, little-endian |
//! | | the header: JSON, the layout of the aggregates' states |
//! | 4, 4 | of each block: its length as it stands here, and before compression |
//! | | the block: one Zstandard frame |
//! | 8 | XXH64 of all before, little-endian |

use super::manifest::DamagedError;
use serde::{Deserialize, Serialize};
use tidegate_detect::AggregateState;
use twox_hash::XxHash64;

const MAGIC: &[u8; 8] = b"TGSEGM01";
/// Octets of one block before compression, at most.
const MAX_BLOCK: usize = 256 << 20;
/// The fastest of Zstandard's levels that is not negative.
const LEVEL: i32 = 1;

#[derive(Serialize, Deserialize)]
struct Header {
    layout: Vec<StateText>,
}

#[derive(Serialize, Deserialize)]
struct StateText {
    aggregate: String,
    state: String,
}

/// A segment that is being made.
#[derive(Debug)]
pub struct SegmentWriter {
    octets: Vec<u8>,
    raw_octets: u64,
}

/// A segment that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The file.
    pub octets: Vec<u8>,
    /// Octets before compression.
    pub raw_octets: u64,
    /// In 16 hexadecimal digits.
    pub checksum: String,
}

impl SegmentWriter {
    /// A segment of accounts whose panes have states of this layout.
    pub fn new(layout: &[AggregateState]) -> Self {
        let text = |one: &AggregateState| StateText { aggregate: one.name.clone(), state: one.state.clone() };
        let header = Header { layout: layout.iter().map(text).collect() };
        // Text in vectors can always be written.
        let header = serde_json::to_vec(&header).unwrap_or_default();
        let mut octets = MAGIC.to_vec();
        octets.extend_from_slice(&(header.len() as u32).to_le_bytes());
        octets.extend_from_slice(&header);
        Self { octets, raw_octets: 0 }
    }

    /// Adds accounts as an engine gave them.
    ///
    /// # Errors
    /// When they cannot be compressed.
    pub fn add(&mut self, accounts: &[u8]) -> std::io::Result<()> {
        if accounts.is_empty() {
            return Ok(());
        }
        let block = zstd::bulk::compress(accounts, LEVEL)?;
        self.octets.extend_from_slice(&(block.len() as u32).to_le_bytes());
        self.octets.extend_from_slice(&(accounts.len() as u32).to_le_bytes());
        self.octets.extend_from_slice(&block);
        self.raw_octets += accounts.len() as u64;
        Ok(())
    }

    /// The file.
    pub fn finish(mut self) -> Segment {
        let sum = XxHash64::oneshot(0, &self.octets);
        self.octets.extend_from_slice(&sum.to_le_bytes());
        Segment { octets: self.octets, raw_octets: self.raw_octets, checksum: format!("{sum:016x}") }
    }
}

/// The blocks of a segment.
#[derive(Debug)]
pub struct SegmentReader<'a> {
    layout: Vec<AggregateState>,
    rest: &'a [u8],
    checksum: String,
}

impl<'a> SegmentReader<'a> {
    /// Opens a segment and checks its checksum.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn open(octets: &'a [u8]) -> Result<Self, DamagedError> {
        let (body, sum) = octets.split_last_chunk::<8>().ok_or_else(|| damaged("it ends early"))?;
        let found = XxHash64::oneshot(0, body);
        if found != u64::from_le_bytes(*sum) {
            return Err(damaged("its checksum is another"));
        }
        let rest = body.strip_prefix(MAGIC).ok_or_else(|| damaged("it begins with something else"))?;
        let (length, rest) = number(rest)?;
        let (header, rest) = rest.split_at_checked(length).ok_or_else(|| damaged("its header ends early"))?;
        let header: Header =
            serde_json::from_slice(header).map_err(|error| damaged(&format!("its header: {error}")))?;
        let text = |one: StateText| AggregateState { name: one.aggregate, state: one.state };
        let layout = header.layout.into_iter().map(text).collect();
        Ok(Self { layout, rest, checksum: format!("{found:016x}") })
    }

    /// The layout of the states in it.
    pub fn layout(&self) -> &[AggregateState] {
        &self.layout
    }

    /// Its checksum, in 16 hexadecimal digits.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    /// The next block of accounts; none after the last.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn next_block(&mut self) -> Result<Option<Vec<u8>>, DamagedError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (stored, rest) = number(self.rest)?;
        let (raw, rest) = number(rest)?;
        let (block, rest) = rest.split_at_checked(stored).ok_or_else(|| damaged("a block ends early"))?;
        if raw > MAX_BLOCK {
            return Err(damaged("a block is too large"));
        }
        // What the frame says of its size is checked first, so that nothing is reserved for a lie.
        let known = zstd::zstd_safe::get_frame_content_size(block).ok().flatten();
        if known != Some(raw as u64) {
            return Err(damaged("a block has another size than it says"));
        }
        let accounts = zstd::bulk::decompress(block, raw).map_err(|error| damaged(&format!("a block: {error}")))?;
        self.rest = rest;
        Ok(Some(accounts))
    }
}

fn number(octets: &[u8]) -> Result<(usize, &[u8]), DamagedError> {
    let (number, rest) = octets.split_first_chunk::<4>().ok_or_else(|| damaged("it ends early"))?;
    Ok((u32::from_le_bytes(*number) as usize, rest))
}

fn damaged(what: &str) -> DamagedError {
    DamagedError::Damaged(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout() -> Vec<AggregateState> {
        vec![AggregateState { name: "count(*)".into(), state: "int".into() }]
    }

    fn segment(blocks: &[Vec<u8>]) -> Segment {
        let mut writer = SegmentWriter::new(&layout());
        for block in blocks {
            writer.add(block).unwrap();
        }
        writer.finish()
    }

    /// The same with a right checksum: damage that only the structure shows.
    fn summed(mut octets: Vec<u8>) -> Vec<u8> {
        let body = octets.len() - 8;
        let sum = XxHash64::oneshot(0, &octets[..body]).to_le_bytes();
        octets[body..].copy_from_slice(&sum);
        octets
    }

    fn read(octets: &[u8]) -> Result<Vec<Vec<u8>>, DamagedError> {
        let mut reader = SegmentReader::open(octets)?;
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block()? {
            blocks.push(block);
        }
        Ok(blocks)
    }

    #[test]
    fn what_is_written_is_read_and_every_damage_is_seen() {
        let blocks = vec![vec![1_u8; 10_000], b"abc".to_vec()];
        let Segment { octets, raw_octets, checksum } = segment(&blocks);
        assert_eq!((read(&octets).unwrap(), raw_octets), (blocks, 10_003));
        let reader = SegmentReader::open(&octets).unwrap();
        assert_eq!((reader.layout(), reader.checksum()), (&layout()[..], checksum.as_str()));
        assert!(octets.len() < 200, "{}", octets.len());
        for place in 0..octets.len() {
            let mut damaged = octets.clone();
            damaged[place] ^= 0x10;
            assert!(read(&damaged).is_err(), "octet {place}");
            assert!(read(&octets[..place]).is_err(), "cut at {place}");
        }
    }

    proptest! {
        #[test]
        fn damage_under_a_right_checksum_is_told_or_harmless(place: prop::sample::Index, octet: u8, bytes: Vec<u8>) {
            let mut octets = segment(&[vec![7; 300], b"abc".to_vec()]).octets;
            let place = place.index(octets.len() - 8);
            octets[place] = octet;
            let _ = read(&summed(octets));
            let _ = read(&bytes);
        }
    }
}
