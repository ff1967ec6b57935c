//! What a checkpoint is made of: one small file, for programs and for people.
//!
//! `tidegate-checkpoint`, a space, the XXH64 of what follows in 16 hexadecimal digits, a line feed, then JSON.

use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

/// The form of manifests and segments that this version writes; it reads all up to it.
pub const FORMAT: u32 = 1;
const MAGIC: &str = "tidegate-checkpoint ";
/// Octets of a manifest at most: a hundred thousand lanes.
pub(super) const MAX_OCTETS: u64 = 64 << 20;

/// A checkpoint of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its form: [`FORMAT`].
    pub format: u32,
    /// The program that wrote it.
    pub program: String,
    /// The partition.
    pub partition: u32,
    /// How many partitions there were: with another number accounts are in other partitions.
    pub partitions: u32,
    /// Rises with each owner of the partition.
    pub epoch: u64,
    /// Tells two owners with one epoch apart.
    pub writer: String,
    /// Rises with each checkpoint of the partition.
    pub sequence: u64,
    /// When it was written, in milliseconds since 1970.
    pub written_ms: i64,
    /// Version of the statistics, for people.
    pub statistics: String,
    /// What it covers.
    pub covered: Covered,
    /// The windows: segments, to be read in this order.
    pub segments: Vec<SegmentRef>,
}

/// What of the log went into the windows, and what else has to be known to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covered {
    /// Events before this offset are in the windows, and were decided upon.
    pub events_next: u64,
    /// The last event that was read, to recognise the log by.
    pub last_event: Option<EventPlace>,
    /// Locks that ended up to this time, in milliseconds since 1970, had ended.
    pub ticked_ms: i64,
    /// The highest number seen of each lane of each node.
    pub lanes: Vec<LaneMark>,
}

/// An event in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPlace {
    /// Its offset.
    pub offset: u64,
    /// The log's time for it, in milliseconds since 1970.
    pub time_ms: i64,
}

/// The highest number of a lane.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LaneMark {
    /// The node.
    pub node: String,
    /// Whether it is the spooled lane; else the live one.
    pub spooled: bool,
    /// The number.
    pub sequence: u64,
}

/// One file of windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRef {
    /// Its name, in the partition's folder.
    pub name: String,
    /// Its size.
    pub octets: u64,
    /// Its size before compression.
    pub raw_octets: u64,
    /// The checksum at its end, in 16 hexadecimal digits.
    pub checksum: String,
}

/// Why a file of a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DamagedError {
    /// Its checksum is another, or it does not begin as it should.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// A newer program wrote it.
    #[error("its form is {0}; this version reads forms up to {FORMAT}")]
    Newer(u32),
}

impl Manifest {
    /// The file.
    ///
    /// # Errors
    /// Never, for what can be written as JSON.
    pub fn to_octets(&self) -> Result<Vec<u8>, serde_json::Error> {
        let body = serde_json::to_string_pretty(self)?;
        Ok(format!("{MAGIC}{}\n{body}", checksum(body.as_bytes())).into_bytes())
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When it is damaged, or of a newer form.
    pub fn parse(octets: &[u8]) -> Result<Self, DamagedError> {
        let damaged = |what: &str| DamagedError::Damaged(what.to_owned());
        let text = std::str::from_utf8(octets).map_err(|_| damaged("it is no text"))?;
        let rest = text.strip_prefix(MAGIC).ok_or_else(|| damaged("it begins with something else"))?;
        let (sum, body) = rest.split_once('\n').ok_or_else(|| damaged("it ends in its first line"))?;
        if sum != checksum(body.as_bytes()) {
            return Err(damaged("its checksum is another"));
        }
        #[derive(Deserialize)]
        struct Form {
            format: u32,
        }
        let unknown = |error: serde_json::Error| DamagedError::Damaged(error.to_string());
        let Form { format } = serde_json::from_str(body).map_err(unknown)?;
        if format > FORMAT {
            return Err(DamagedError::Newer(format));
        }
        serde_json::from_str(body).map_err(unknown)
    }
}

pub(super) fn checksum(octets: &[u8]) -> String {
    format!("{:016x}", XxHash64::oneshot(0, octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            program: "tidegate 0.1.0".into(),
            partition: 3,
            partitions: 4,
            epoch: 7,
            writer: "ab".into(),
            sequence: 12,
            written_ms: 5,
            statistics: "v".into(),
            covered: Covered {
                events_next: 100,
                last_event: Some(EventPlace { offset: 99, time_ms: 4 }),
                ticked_ms: 3,
                lanes: vec![LaneMark { node: "mx1".into(), spooled: true, sequence: 8 }],
            },
            segments: vec![SegmentRef { name: "s-1".into(), octets: 1, raw_octets: 2, checksum: "00".into() }],
        }
    }

    #[test]
    fn what_is_written_is_read_and_every_damage_is_seen() {
        let octets = manifest().to_octets().unwrap();
        assert_eq!(Manifest::parse(&octets).unwrap(), manifest());
        for place in 0..octets.len() {
            let mut damaged = octets.clone();
            damaged[place] ^= 1;
            assert!(matches!(Manifest::parse(&damaged), Err(DamagedError::Damaged(_))), "octet {place}");
            assert!(Manifest::parse(&octets[..place]).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn a_newer_form_is_told_from_damage() {
        let newer = Manifest { format: FORMAT + 1, ..manifest() };
        let error = Manifest::parse(&newer.to_octets().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "its form is 2; this version reads forms up to 1");
    }
}
