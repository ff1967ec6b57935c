//! Unsigned LEB128 integers, as protobuf writes them: small numbers take one octet.

/// Appends `value`.
pub(crate) fn write(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Reads one number and gives what follows it; none when `bytes` ends within it or it is too large.
#[inline]
pub(crate) fn read(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return (index < 9 || *byte <= 1).then(|| (value, &bytes[index + 1..]));
        }
    }
    None
}

/// Maps small negative numbers to small unsigned ones.
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag`].
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(value: u64, signed: i64) {
            let mut bytes = Vec::new();
            write(value, &mut bytes);
            write(zigzag(signed), &mut bytes);
            let (first, rest) = read(&bytes).unwrap();
            let (second, rest) = read(rest).unwrap();
            prop_assert_eq!((first, unzigzag(second), rest.len()), (value, signed, 0));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
