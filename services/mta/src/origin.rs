//! Where a message that came through webmail or another relay really came from.

use std::net::{IpAddr, Ipv6Addr};

/// The client's address in a header that a trusted relay wrote.
///
/// `X-Originating-IP` and the like: the value is the address, bare or in brackets. `Received` (RFC 5321 section
/// 4.4): the first bracketed address before the word `by`, as webmail programs write it
/// (`from client.example [203.0.113.7] by webmail.example with HTTP`). Loopback, unspecified and multicast
/// addresses name no client.
pub(crate) fn address_in_header(name: &str, value: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(value.get(..value.len().min(1000))?).ok()?;
    let address = if name.eq_ignore_ascii_case("Received") {
        let mut from = text.split_whitespace().take_while(|word| !word.eq_ignore_ascii_case("by"));
        from.find_map(|word| address(word.get(word.find('[')?..=word.find(']')?)?))
    } else {
        address(text)
    };
    address.filter(|address| !address.is_loopback() && !address.is_unspecified() && !address.is_multicast())
}

/// Reads an address as it stands in headers and connect commands: bare, in brackets, or marked `IPv6:`.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let text = text.strip_prefix('[').map_or(text, |text| text.trim_end_matches(']')).trim();
    let marked = text.get(..5).filter(|mark| mark.eq_ignore_ascii_case("IPv6:")).and_then(|_| text.get(5..));
    match marked {
        Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
    .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, value: &str) -> Option<String> {
        address_in_header(name, value.as_bytes()).map(|address| address.to_string())
    }

    #[test]
    fn reads_the_forms_that_relays_write() {
        assert_eq!(found("X-Originating-IP", "[203.0.113.7]").as_deref(), Some("203.0.113.7"));
        assert_eq!(found("x-originating-ip", " 203.0.113.7 ").as_deref(), Some("203.0.113.7"));
        assert_eq!(found("X-Originating-IP", "IPv6:2001:db8::1").as_deref(), Some("2001:db8::1"));
        let received = "from dsl7.example [IPv6:2001:db8::7]\n\tby webmail.example [192.0.2.1] with HTTP";
        assert_eq!(found("Received", received).as_deref(), Some("2001:db8::7"));
        assert_eq!(found("Received", "from x (unknown [198.51.100.9]) by y").as_deref(), Some("198.51.100.9"));
        assert_eq!(found("Received", "by webmail.example [192.0.2.1] with HTTP"), None);
        assert_eq!(found("Received", "from ]x[ [198.51.100.9] by y").as_deref(), Some("198.51.100.9"));
    }

    #[test]
    fn what_names_no_client_is_none() {
        for value in ["", "unknown", "127.0.0.1", "::1", "0.0.0.0", "[", "a.b.c.d"] {
            assert_eq!(found("X-Originating-IP", value), None, "{value}");
        }
        assert_eq!(found("Received", "from localhost by webmail.example [192.0.2.1]"), None);
        assert_eq!(address_in_header("Received", b"\xff\xfe"), None);
    }
}
