//! Cuts a stream of octets into milter packets.

use super::MilterError;

/// Octets of a packet's data that are kept. Body chunks have at most 65,535 (`MILTER_CHUNK_SIZE`); of anything
/// longer the rest is skipped.
const MAX_KEPT_OCTETS: usize = 66 * 1024;
/// Longest packet. Sendmail's own limit is 1 MiB of data; more is not the milter protocol.
const MAX_FRAME_OCTETS: u32 = 16 * 1024 * 1024;
/// A buffer that has grown larger than this is given back after use.
const MAX_IDLE_BUFFER_OCTETS: usize = 8 * 1024;

/// A packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub command: u8,
    /// The data, or the beginning of it.
    pub data: &'a [u8],
    /// How many octets of data there were.
    pub data_octets: u64,
}

/// Reads packets from pieces of a stream. Holds at most one packet's beginning.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    head: Vec<u8>,
    data: Vec<u8>,
    /// Octets of the packet's data that are still to come.
    missing: u64,
    octets: u64,
}

/// How far [`FrameReader::read`] came.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub taken: usize,
    pub frame: Option<Frame<'a>>,
}

const HEAD_OCTETS: usize = 5;

impl FrameReader {
    /// Octets that are held.
    pub fn buffered_octets(&self) -> usize {
        self.head.len() + self.data.len()
    }

    /// Takes octets from the front of `input`, up to the end of a packet.
    ///
    /// # Errors
    /// When what comes cannot be a packet.
    pub fn read<'a>(&'a mut self, input: &'a [u8]) -> Result<Step<'a>, MilterError> {
        if self.head.len() == HEAD_OCTETS && self.missing == 0 {
            self.head.clear();
            self.data.clear();
            if self.data.capacity() > MAX_IDLE_BUFFER_OCTETS {
                self.data = Vec::new();
            }
        }
        let mut taken = 0;
        if self.head.len() < HEAD_OCTETS {
            taken = (HEAD_OCTETS - self.head.len()).min(input.len());
            self.head.extend_from_slice(&input[..taken]);
            let &[a, b, c, d, _] = self.head.as_slice() else { return Ok(Step { taken, frame: None }) };
            let length = u32::from_be_bytes([a, b, c, d]);
            if length == 0 || length > MAX_FRAME_OCTETS {
                return Err(MilterError::PacketLength { octets: length });
            }
            self.octets = u64::from(length) - 1;
            self.missing = self.octets;
        }
        let command = self.head[HEAD_OCTETS - 1];
        let rest = &input[taken..];
        let part = usize::try_from(self.missing).unwrap_or(usize::MAX).min(rest.len());
        let whole = self.missing == self.octets && part as u64 == self.missing;
        if !whole {
            let kept = part.min(MAX_KEPT_OCTETS.saturating_sub(self.data.len()));
            self.data.extend_from_slice(&rest[..kept]);
        }
        self.missing -= part as u64;
        taken += part;
        if self.missing > 0 {
            return Ok(Step { taken, frame: None });
        }
        // A packet that lies in the input as a whole is not copied.
        let data = if whole { &rest[..part.min(MAX_KEPT_OCTETS)] } else { self.data.as_slice() };
        Ok(Step { taken, frame: Some(Frame { command, data, data_octets: self.octets }) })
    }
}

/// Writes a packet.
pub(super) fn write_frame(command: u8, data: &[&[u8]], out: &mut Vec<u8>) {
    let octets = 1 + data.iter().map(|part| part.len()).sum::<usize>();
    // Packets are written from bounded parts, far below 4 GiB.
    out.extend_from_slice(&u32::try_from(octets).unwrap_or(u32::MAX).to_be_bytes());
    out.push(command);
    for part in data {
        out.extend_from_slice(part);
    }
}

/// Splits NUL-terminated strings. What follows the last NUL is one more, unless it is empty.
pub(super) fn strings(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.strip_suffix(&[0]).unwrap_or(data).split(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(reader: &mut FrameReader, mut input: &[u8]) -> Result<Vec<(u8, Vec<u8>, u64)>, MilterError> {
        let mut frames = Vec::new();
        while !input.is_empty() {
            let step = reader.read(input)?;
            let taken = step.taken;
            if let Some(frame) = step.frame {
                frames.push((frame.command, frame.data.to_vec(), frame.data_octets));
            }
            input = &input[taken..];
        }
        Ok(frames)
    }

    #[test]
    fn keeps_the_beginning_of_a_long_packet() {
        let mut bytes = Vec::new();
        write_frame(b'L', &[&vec![b'x'; 300_000]], &mut bytes);
        write_frame(b'Q', &[], &mut bytes);
        for pieces in [bytes.len(), 7777] {
            let mut reader = FrameReader::default();
            let frames: Vec<_> = bytes.chunks(pieces).flat_map(|piece| read_all(&mut reader, piece).unwrap()).collect();
            assert_eq!(frames[0], (b'L', vec![b'x'; MAX_KEPT_OCTETS], 300_000));
            assert_eq!(frames[1], (b'Q', vec![], 0));
            assert!(reader.data.capacity() <= MAX_IDLE_BUFFER_OCTETS || reader.missing == 0);
        }
    }

    #[test]
    fn what_is_no_packet_is_an_error() {
        for head in [[0, 0, 0, 0, b'C'], [0xff, 0, 0, 0, b'C']] {
            assert!(matches!(read_all(&mut FrameReader::default(), &head), Err(MilterError::PacketLength { .. })));
        }
    }

    proptest! {
        #[test]
        fn where_it_is_cut_does_not_matter(
            packets in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..50)), 0..20),
            size in 1_usize..60,
        ) {
            let mut bytes = Vec::new();
            for (command, data) in &packets {
                write_frame(*command, &[data], &mut bytes);
            }
            let mut reader = FrameReader::default();
            let frames: Vec<_> = bytes.chunks(size).flat_map(|piece| read_all(&mut reader, piece).unwrap()).collect();
            let expected: Vec<_> = packets.into_iter().map(|(command, data)| { let n = data.len() as u64; (command, data, n) }).collect();
            prop_assert_eq!(frames, expected);
        }
    }
}
