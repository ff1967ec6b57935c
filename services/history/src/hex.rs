//! Octets as hexadecimal digits.

use std::fmt::Write as _;

/// Two digits for each octet.
pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(2 * octets.len()), |mut text, octet| {
        // A string takes whatever is written to it.
        let _ = write!(text, "{octet:02x}");
        text
    })
}
