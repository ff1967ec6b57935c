//! CRC-32C (Castagnoli), the checksum of every record: RFC 3720, appendix B.4, eight bytes at a step.

/// The Castagnoli polynomial, reflected.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// `TABLES[k][b]`: the checksum of byte `b` followed by `k` zero bytes.
static TABLES: [[u32; 256]; 8] = tables();

/// What one record's checksum covers: where it lies, when it was, and what it holds.
///
/// Partition and offset are in it, so that a row that damage moved to another place is found out; the
/// key's presence and length are in it, so that no byte can wander between key and value.
pub(crate) fn record_checksum(partition: u32, offset: u64, time_ms: i64, key: Option<&[u8]>, value: &[u8]) -> u32 {
    let mut head = [0_u8; 28];
    head[..4].copy_from_slice(&partition.to_le_bytes());
    head[4..12].copy_from_slice(&offset.to_le_bytes());
    head[12..20].copy_from_slice(&time_ms.to_le_bytes());
    let key_tag = key.map_or(u64::MAX, |key| key.len() as u64);
    head[20..].copy_from_slice(&key_tag.to_le_bytes());
    let state = update(!0, &head);
    let state = update(state, key.unwrap_or_default());
    !update(state, value)
}

/// Feeds bytes into a running (inverted) CRC-32C.
fn update(mut state: u32, bytes: &[u8]) -> u32 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        let word = u64::from_le_bytes(*chunk) ^ u64::from(state);
        state = 0;
        for (position, byte) in word.to_le_bytes().into_iter().enumerate() {
            state ^= TABLES[7 - position][usize::from(byte)];
        }
    }
    for byte in rest {
        state = (state >> 8) ^ TABLES[0][(state as u8 ^ byte) as usize];
    }
    state
}

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0_u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut depth = 1;
    while depth < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[depth - 1][byte];
            tables[depth][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        depth += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crc32c(bytes: &[u8]) -> u32 {
        !update(!0, bytes)
    }

    #[test]
    fn matches_the_vectors_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xff; 32]), 0x62A8_AB43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&ascending), 0x46DD_794E);
    }

    #[test]
    fn tells_apart_what_lies_where() {
        let base = record_checksum(1, 2, 3, Some(b"ab"), b"cd");
        assert_ne!(base, record_checksum(2, 2, 3, Some(b"ab"), b"cd"));
        assert_ne!(base, record_checksum(1, 3, 3, Some(b"ab"), b"cd"));
        assert_ne!(base, record_checksum(1, 2, 4, Some(b"ab"), b"cd"));
        assert_ne!(base, record_checksum(1, 2, 3, Some(b"abc"), b"d"));
        assert_ne!(record_checksum(1, 2, 3, None, b"x"), record_checksum(1, 2, 3, Some(b""), b"x"));
    }
}
