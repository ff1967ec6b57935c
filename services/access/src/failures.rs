//! Slows those whose credentials are refused again and again. Pure: time is an argument.
//!
//! Whose are too many in a window is blocked for a time that doubles with each further block, and is forgotten some time
//! after the last. While an address is blocked its bearer credentials are not looked at, so that nobody learns which of
//! their guesses was right. Many can share an address, so two kinds of callers are let through even then: those with a
//! client certificate (TLS has verified it, and nobody guesses a private key: a stranger behind the same address must not
//! keep the edges of a site from their locks), and those whose bearer credential was right at this address lately. Only
//! somebody new at that address waits.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use tidegate_runtime::backoff::pause;
use tidegate_runtime::config::{Problems, Validate};

/// How long a credential that was right counts as known at its address.
const KNOWN_MS: i64 = 24 * 3_600_000;
/// How often a known credential's time is taken anew: each request would be too often.
const KNOWN_TOUCH_MS: i64 = 60_000;
/// Most credentials that are known.
const MAX_KNOWN: usize = 10_000;

/// What happens to addresses whose credentials are refused again and again. An IPv6 network of 64 bits counts as one
/// address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FailureBounds {
    /// So many refusals within the window block an address.
    pub max: usize,
    /// The window, in milliseconds.
    pub window_ms: u64,
    /// How long the first block lasts, in milliseconds; each further one twice as long.
    pub block_ms: u64,
    /// The longest block, in milliseconds; so long after the last one the address begins anew.
    pub max_block_ms: u64,
    /// Most addresses that are watched at a time; beyond, the one that would be forgotten first is.
    pub max_addresses: usize,
}

impl Default for FailureBounds {
    fn default() -> Self {
        Self { max: 10, window_ms: 60_000, block_ms: 10_000, max_block_ms: 900_000, max_addresses: 10_000 }
    }
}

impl Validate for FailureBounds {
    fn validate(&self, path: &str, problems: &mut Problems) {
        problems.check_range(path, "max", self.max, 1..=1_000);
        problems.check_range(path, "window_ms", self.window_ms, 1_000..=86_400_000);
        problems.check_range(path, "block_ms", self.block_ms, 1_000..=86_400_000);
        problems.check_range(path, "max_block_ms", self.max_block_ms, self.block_ms..=86_400_000);
        problems.check_range(path, "max_addresses", self.max_addresses, 1..=1_000_000);
    }
}

/// The addresses whose credentials were refused lately, and the credentials that were right.
#[derive(Debug)]
pub(crate) struct Failures {
    bounds: FailureBounds,
    addresses: HashMap<Network, Entry>,
    /// The same by the time at which each is forgotten.
    by_end: BTreeSet<(i64, Network)>,
    known: HashMap<(Network, Fingerprint), i64>,
    known_by_time: BTreeSet<(i64, Network, Fingerprint)>,
}

/// A hash of a bearer credential.
pub(crate) type Fingerprint = [u8; 32];

/// What a failure led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed {
    /// The address is blocked from now on, for so long.
    pub blocked_ms: Option<i64>,
    /// Another address was forgotten early to make room.
    pub evicted: bool,
}

/// One address, or a network of which one customer has all addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Network(IpAddr);

#[derive(Debug, Default)]
struct Entry {
    /// The failures in the window.
    times_ms: VecDeque<i64>,
    blocks: u32,
    blocked_until_ms: i64,
    forget_ms: i64,
}

impl Failures {
    /// None yet.
    pub fn new(bounds: FailureBounds) -> Self {
        Self {
            bounds,
            addresses: HashMap::new(),
            by_end: BTreeSet::new(),
            known: HashMap::new(),
            known_by_time: BTreeSet::new(),
        }
    }

    /// For how long `peer` is blocked still, in milliseconds.
    pub fn blocked_ms(&self, peer: IpAddr, now_ms: i64) -> Option<i64> {
        let left_ms = self.addresses.get(&Network::of(peer))?.blocked_until_ms.saturating_sub(now_ms);
        // More than the longest block is left when the clock was set back.
        (left_ms > 0 && left_ms <= ms(self.bounds.max_block_ms)).then_some(left_ms)
    }

    /// A credential from `peer` was refused.
    pub fn failed(&mut self, peer: IpAddr, now_ms: i64) -> Failed {
        let network = Network::of(peer);
        let (window_ms, max_block_ms) = (ms(self.bounds.window_ms), ms(self.bounds.max_block_ms));
        let mut entry = match self.addresses.remove(&network) {
            Some(entry) => {
                self.by_end.remove(&(entry.forget_ms, network));
                if entry.forget_ms <= now_ms { Entry::default() } else { entry }
            }
            None => Entry::default(),
        };
        entry.times_ms.retain(|time_ms| (0..window_ms).contains(&now_ms.saturating_sub(*time_ms)));
        entry.times_ms.push_back(now_ms);
        let mut blocked_ms = None;
        if entry.times_ms.len() >= self.bounds.max {
            let (first, longest) = (self.bounds.block_ms, self.bounds.max_block_ms);
            let block = pause(Duration::from_millis(first), Duration::from_millis(longest), entry.blocks, 1.0);
            let block_ms = ms(block.as_millis() as u64);
            entry.times_ms.clear();
            entry.blocks = entry.blocks.saturating_add(1);
            entry.blocked_until_ms = now_ms.saturating_add(block_ms);
            blocked_ms = Some(block_ms);
        }
        let quiet_ms = if entry.blocks > 0 { max_block_ms.max(window_ms) } else { window_ms };
        entry.forget_ms = now_ms.max(entry.blocked_until_ms).saturating_add(quiet_ms);
        let evicted = self.make_room(now_ms);
        self.by_end.insert((entry.forget_ms, network));
        self.addresses.insert(network, entry);
        Failed { blocked_ms, evicted }
    }

    /// A bearer credential from `peer` was right. Gives whether another one was forgotten early to make room.
    pub fn succeeded(&mut self, peer: IpAddr, credential: Fingerprint, now_ms: i64) -> bool {
        let key = (Network::of(peer), credential);
        if let Some(time_ms) = self.known.get_mut(&key) {
            if now_ms.saturating_sub(*time_ms) >= KNOWN_TOUCH_MS {
                self.known_by_time.remove(&(*time_ms, key.0, key.1));
                self.known_by_time.insert((now_ms, key.0, key.1));
                *time_ms = now_ms;
            }
            return false;
        }
        let mut evicted = false;
        if self.known.len() >= MAX_KNOWN
            && let Some((time_ms, network, credential)) = self.known_by_time.pop_first()
        {
            self.known.remove(&(network, credential));
            evicted = now_ms.saturating_sub(time_ms) < KNOWN_MS;
        }
        self.known.insert(key, now_ms);
        self.known_by_time.insert((now_ms, key.0, key.1));
        evicted
    }

    /// Whether this credential was right at `peer` lately.
    pub fn is_known(&self, peer: IpAddr, credential: &Fingerprint, now_ms: i64) -> bool {
        let time_ms = self.known.get(&(Network::of(peer), *credential));
        time_ms.is_some_and(|time_ms| now_ms.saturating_sub(*time_ms) < KNOWN_MS)
    }

    /// How many addresses are watched.
    pub fn addresses(&self) -> usize {
        self.addresses.len()
    }

    /// Forgets those whose time is over, and one more when there is no room. Gives whether that was early.
    fn make_room(&mut self, now_ms: i64) -> bool {
        while let Some((end_ms, network)) = self.by_end.first().copied() {
            let early = end_ms > now_ms;
            if early && self.addresses.len() < self.bounds.max_addresses {
                return false;
            }
            self.by_end.pop_first();
            self.addresses.remove(&network);
            if early {
                return true;
            }
        }
        false
    }
}

impl Network {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

fn ms(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn peer(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    fn bounds() -> FailureBounds {
        FailureBounds { max: 3, window_ms: 1_000, block_ms: 2_000, max_block_ms: 8_000, max_addresses: 100 }
    }

    #[test]
    fn blocks_double_up_to_a_bound_and_are_forgotten() {
        let mut failures = Failures::new(bounds());
        let mut now_ms = 1_000_000;
        for block_ms in [2_000, 4_000, 8_000, 8_000] {
            for _ in 0..2 {
                assert_eq!(failures.failed(peer(1), now_ms).blocked_ms, None);
            }
            assert_eq!(failures.failed(peer(1), now_ms).blocked_ms, Some(block_ms));
            assert_eq!(failures.blocked_ms(peer(1), now_ms), Some(block_ms));
            assert_eq!(failures.blocked_ms(peer(1), now_ms + block_ms - 1), Some(1));
            now_ms += block_ms;
            assert_eq!(failures.blocked_ms(peer(1), now_ms), None);
        }
        now_ms += 8_000;
        for blocked_ms in [None, None, Some(2_000)] {
            assert_eq!(failures.failed(peer(1), now_ms).blocked_ms, blocked_ms, "as if for the first time");
        }
        assert_eq!(failures.blocked_ms(peer(2), now_ms), None, "nobody else is blocked");
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address_and_a_mapped_ipv4_address_as_itself() {
        let mut failures = Failures::new(bounds());
        for host in 1..=3 {
            failures.failed(format!("2001:db8:0:1::{host}").parse().unwrap(), 0);
        }
        assert!(failures.blocked_ms("2001:db8:0:1:ffff::".parse().unwrap(), 0).is_some());
        assert!(failures.blocked_ms("2001:db8:0:2::1".parse().unwrap(), 0).is_none());
        for _ in 0..3 {
            failures.failed("::ffff:192.0.2.1".parse().unwrap(), 0);
        }
        assert!(failures.blocked_ms(peer(1), 0).is_some() && failures.blocked_ms(peer(2), 0).is_none());
    }

    #[test]
    fn a_clock_that_is_set_back_blocks_nobody_for_longer() {
        let mut failures = Failures::new(bounds());
        for _ in 0..3 {
            failures.failed(peer(1), 100_000_000);
        }
        assert_eq!(failures.blocked_ms(peer(1), 0), None);
    }

    #[test]
    fn known_credentials_are_known_at_their_address_for_a_day_and_bounded() {
        let mut failures = Failures::new(bounds());
        assert!(!failures.succeeded(peer(1), [1; 32], 0));
        assert!(failures.is_known(peer(1), &[1; 32], KNOWN_MS - 1));
        assert!(!failures.is_known(peer(1), &[1; 32], KNOWN_MS));
        assert!(!failures.is_known(peer(2), &[1; 32], 0) && !failures.is_known(peer(1), &[2; 32], 0));
        failures.succeeded(peer(1), [1; 32], 100_000);
        assert!(failures.is_known(peer(1), &[1; 32], KNOWN_MS), "it was used again");
        let mut evicted = 0;
        for number in 0..MAX_KNOWN as u64 {
            let mut credential = [7; 32];
            credential[..8].copy_from_slice(&number.to_be_bytes());
            evicted += u64::from(failures.succeeded(peer(2), credential, 200_000));
        }
        assert_eq!((evicted, failures.known.len(), failures.known_by_time.len()), (1, MAX_KNOWN, MAX_KNOWN));
        assert!(!failures.is_known(peer(1), &[1; 32], 200_000), "the oldest went");
    }

    /// The same in the plainest way: everything is kept, and each question answered from the start.
    fn model(bounds: &FailureBounds, failures: &[i64], now_ms: i64) -> Option<i64> {
        let (mut window, mut blocks, mut until_ms, mut last_ms) = (Vec::new(), 0, i64::MIN, i64::MIN);
        for time_ms in failures {
            let quiet_ms = if blocks > 0 { bounds.max_block_ms.max(bounds.window_ms) } else { bounds.window_ms };
            if last_ms != i64::MIN && *time_ms >= last_ms.max(until_ms) + ms(quiet_ms) {
                (window, blocks, until_ms) = (Vec::new(), 0, i64::MIN);
            }
            window.push(*time_ms);
            window.retain(|earlier| earlier + ms(bounds.window_ms) > *time_ms);
            if window.len() >= bounds.max {
                window.clear();
                until_ms = time_ms + ms((bounds.block_ms << blocks.min(20)).min(bounds.max_block_ms));
                blocks += 1;
            }
            last_ms = *time_ms;
        }
        (until_ms > now_ms).then(|| until_ms - now_ms)
    }

    proptest! {
        #[test]
        fn it_does_what_the_model_does(
            max in 1_usize..5,
            steps in proptest::collection::vec((0_u8..4, 0_i64..1_500, any::<bool>()), 1..200),
        ) {
            let bounds = FailureBounds { max, ..bounds() };
            let mut failures = Failures::new(bounds.clone());
            let mut all: BTreeMap<u8, Vec<i64>> = BTreeMap::new();
            let mut now_ms = 5_000;
            for (number, later_ms, try_while_blocked) in steps {
                now_ms += later_ms;
                let of_peer = all.entry(number).or_default();
                let expected = model(&bounds, of_peer, now_ms);
                prop_assert_eq!(failures.blocked_ms(peer(number), now_ms), expected);
                if expected.is_none() || try_while_blocked {
                    of_peer.push(now_ms);
                    let failed = failures.failed(peer(number), now_ms);
                    prop_assert!(!failed.evicted);
                    prop_assert_eq!(failures.blocked_ms(peer(number), now_ms), model(&bounds, of_peer, now_ms));
                }
            }
        }

        #[test]
        fn no_more_addresses_are_kept_than_allowed(
            steps in proptest::collection::vec((any::<u8>(), 0_i64..300), 1..300),
        ) {
            let mut failures = Failures::new(FailureBounds { max_addresses: 5, ..bounds() });
            let mut now_ms = 0;
            for (number, later_ms) in steps {
                now_ms += later_ms;
                let room = failures.addresses() < 5 || failures.addresses.contains_key(&Network(peer(number)));
                let due = failures.by_end.iter().any(|(end_ms, _)| *end_ms <= now_ms);
                let failed = failures.failed(peer(number), now_ms);
                prop_assert!(failures.addresses() <= 5 && failures.by_end.len() == failures.addresses());
                prop_assert!(failures.addresses.contains_key(&Network(peer(number))));
                prop_assert_eq!(failed.evicted, !room && !due);
            }
        }
    }
}
