//! Collects a message's recipients as counts, domains and keyed hashes; addresses are not kept.

use crate::{Gate, KeyedHash};
use std::collections::HashSet;
use tidegate_domain::Recipients;

/// Most recipient hashes kept of one message, the customary `smtpd_recipient_limit`. More are only counted.
const MAX_HASHES: usize = 1000;
/// Most recipient domains kept of one message.
const MAX_DOMAINS: usize = 100;
/// Longest address that is looked at; RFC 5321 allows 256 octets.
const MAX_ADDRESS_OCTETS: usize = 512;

/// The recipients of a message in the making.
#[derive(Debug, Default, Clone)]
pub(crate) struct RecipientCollector {
    recipients: Recipients,
    seen: HashSet<u64>,
    seen_domains: HashSet<String>,
    ordinary: u32,
}

impl RecipientCollector {
    /// Adds a recipient as the client wrote it, with or without angle brackets. A repeated one counts again.
    pub fn add(&mut self, raw: &str, gate: &dyn Gate, hashes: &KeyedHash) {
        let address = canonical_address(raw);
        let hash = hash_of(&address, hashes);
        self.count(&address, hash, gate);
    }

    /// Adds a recipient unless it is there already. Past the bound on hashes nothing new is added.
    pub fn add_once(&mut self, raw: &str, gate: &dyn Gate, hashes: &KeyedHash) {
        let address = canonical_address(raw);
        let hash = hash_of(&address, hashes);
        if self.seen.len() < MAX_HASHES && self.seen.insert(hash) {
            self.count(&address, hash, gate);
        }
    }

    /// How many recipients there are to whom a locked account may not write.
    pub fn ordinary(&self) -> u32 {
        self.ordinary
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.recipients.count
    }

    /// What was collected.
    pub fn finish(self) -> Recipients {
        self.recipients
    }

    fn count(&mut self, address: &str, hash: u64, gate: &dyn Gate) {
        let found = &mut self.recipients;
        found.count = found.count.saturating_add(1);
        if !gate.is_admin_address(address) {
            self.ordinary = self.ordinary.saturating_add(1);
        }
        if found.hashes.len() < MAX_HASHES {
            found.hashes.push(hash);
        }
        match domain_of(address) {
            None => found.internal = found.internal.saturating_add(1),
            Some(domain) => {
                if gate.is_internal_domain(domain) {
                    found.internal = found.internal.saturating_add(1);
                }
                if found.domains.len() < MAX_DOMAINS && self.seen_domains.insert(domain.to_owned()) {
                    found.domains.push(domain.to_owned());
                }
            }
        }
    }
}

/// An address in lower case, without angle brackets, bounded.
pub(crate) fn canonical_address(raw: &str) -> String {
    let mut address = bare_address(raw).to_lowercase();
    truncate(&mut address, MAX_ADDRESS_OCTETS);
    address
}

/// An address without angle brackets and white space around it.
pub(crate) fn bare_address(raw: &str) -> &str {
    let raw = raw.trim();
    raw.strip_prefix('<').and_then(|raw| raw.strip_suffix('>')).unwrap_or(raw).trim()
}

/// Cuts a string to at most `octets`, between two characters.
pub(crate) fn truncate(text: &mut String, octets: usize) {
    text.truncate(text.floor_char_boundary(octets));
}

/// The domain of an address; an address without one is local, since mail servers append their own.
fn domain_of(address: &str) -> Option<&str> {
    address.rsplit_once('@').map(|(_, domain)| domain.trim_end_matches('.')).filter(|domain| !domain.is_empty())
}

fn hash_of(address: &str, hashes: &KeyedHash) -> u64 {
    hashes.hash("recipient", address.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;
    use tidegate_domain::Account;

    struct Rig;

    impl Gate for Rig {
        fn verdict(&self, _: &Account) -> Verdict {
            Verdict::Pass
        }
        fn is_admin_address(&self, address: &str) -> bool {
            address == "postmaster@rig.test"
        }
        fn has_admin_addresses(&self) -> bool {
            true
        }
        fn is_internal_domain(&self, domain: &str) -> bool {
            domain == "rig.test"
        }
    }

    #[test]
    fn counts_domains_and_hashes_without_addresses() {
        let mut collector = RecipientCollector::default();
        let hashes = KeyedHash::new(b"k");
        for raw in ["<A@Dest.test>", "b@dest.TEST.", "<postmaster@rig.test>", "root", "<a@dest.test>"] {
            collector.add(raw, &Rig, &hashes);
        }
        assert_eq!((collector.len(), collector.ordinary()), (5, 4));
        let found = collector.finish();
        assert_eq!((found.count, found.internal), (5, 2));
        assert_eq!(found.domains, ["dest.test", "rig.test"]);
        assert_eq!(found.hashes[0], found.hashes[4]);
    }

    #[test]
    fn the_same_recipient_in_two_contexts_is_one() {
        let mut collector = RecipientCollector::default();
        for raw in ["a@dest.test", "a@dest.test", "<A@DEST.test>", "b@dest.test"] {
            collector.add_once(raw, &Rig, &KeyedHash::new(b"k"));
        }
        assert_eq!(collector.finish().count, 2);
    }

    #[test]
    fn stays_within_its_bounds() {
        let mut collector = RecipientCollector::default();
        for n in 0..3000 {
            collector.add(&format!("u{n}@d{n}.test"), &Rig, &KeyedHash::new(b"k"));
        }
        let found = collector.finish();
        assert_eq!((found.count, found.hashes.len(), found.domains.len()), (3000, MAX_HASHES, MAX_DOMAINS));
        assert_eq!(canonical_address(&"\u{e4}".repeat(1000)).len(), MAX_ADDRESS_OCTETS);
    }
}
