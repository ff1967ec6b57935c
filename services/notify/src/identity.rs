//! Ids that stay the same on a repeat: hashes of what is told.

use sha2::{Digest as _, Sha256};

/// Octets of a hash that make an id: 128 bits never meet by chance.
const ID_OCTETS: usize = 16;

/// The id of a notification: what is told (the state's version), of which account, through which channel, to whom.
pub(crate) fn notification_id(account: &str, version: u64, channel: &str, recipient: &str) -> String {
    hashed("notification", &[account, &version.to_string(), channel, recipient])
}

/// The id of a reminder: of which exemption of which account or domain, through which channel, to whom.
pub(crate) fn reminder_id(subject: &str, until_ms: i64, rules: &[String], channel: &str, recipient: &str) -> String {
    hashed("reminder", &[subject, &until_ms.to_string(), &rules.join(","), channel, recipient])
}

/// The id of a message that tells of these notifications: of one alone, its own; of many, one that only these have.
pub(crate) fn delivery_id<'a>(notifications: impl IntoIterator<Item = &'a str>) -> String {
    let mut ids: Vec<&str> = notifications.into_iter().collect();
    ids.sort_unstable();
    match ids.as_slice() {
        [one] => (*one).to_owned(),
        many => hashed("group", many),
    }
}

fn hashed(what: &str, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in std::iter::once(&what).chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize()[..ID_OCTETS])
}

/// Octets as lower-case hexadecimal digits.
pub(crate) fn hex(octets: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    octets.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stay_the_same_for_ever() {
        // Whoever changes this makes every repeat after an upgrade look new.
        let id = notification_id("jo@example.org", 3, "mail", "jo@example.org");
        assert_eq!(id, "296c0a7ec9ba1b215d8deabda95d5953");
        assert_eq!(delivery_id([id.as_str()]), id);
        assert_eq!(delivery_id(["b", "a"]), delivery_id(["a", "b"]));
        assert_ne!(delivery_id(["ab", "c"]), delivery_id(["a", "bc"]));
    }

    #[test]
    fn whatever_differs_makes_another_id() {
        let ids = [
            notification_id("a", 1, "mail", "x"),
            notification_id("b", 1, "mail", "x"),
            notification_id("a", 2, "mail", "x"),
            notification_id("a", 1, "hook", "x"),
            notification_id("a", 1, "mail", "y"),
            reminder_id("a", 1, &[], "mail", "x"),
            reminder_id("a", 1, &["r".to_owned()], "mail", "x"),
        ];
        let different: std::collections::BTreeSet<&String> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
    }
}
