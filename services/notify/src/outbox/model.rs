//! The outbox against a simple model of the world: a log that keeps every record, receivers that note what arrives, a
//! process that is killed at any moment and starts again from the log.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const HOUR_MS: i64 = 3_600_000;
const CHANNELS: [&str; 2] = ["mail", "hook"];

#[derive(Debug, Clone)]
enum Act {
    /// So many decisions about an account become due for a recipient.
    Decide { channel: usize, recipient: u8, is_user: bool, account: u8, count: u8 },
    /// Time passes.
    Wait { ms: i64 },
    /// One of the messages on their way ends so.
    End { which: usize, outcome: u8 },
    /// The process is killed and starts again; messages on their way arrive or not.
    Kill { arrived: u32 },
    /// Another owner takes a partition, and gives it back.
    Lose { partition: u32 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..2_usize, 0..3_u8, any::<bool>(), 0..4_u8, 1..5_u8).prop_map(
            |(channel, recipient, is_user, account, count)| Act::Decide { channel, recipient, is_user, account, count }),
        4 => (0..200_000_i64).prop_map(|ms| Act::Wait { ms }),
        4 => (0..8_usize, 0..6_u8).prop_map(|(which, outcome)| Act::End { which, outcome }),
        1 => any::<u32>().prop_map(|arrived| Act::Kill { arrived }),
        1 => (0..3_u32).prop_map(|partition| Act::Lose { partition }),
    ]
}

struct World {
    limits: Limits,
    outbox: Outbox,
    now_ms: i64,
    versions: BTreeMap<String, u64>,
    /// Partition and record, in order.
    log: Vec<(u32, v1::Notification)>,
    on_their_way: Vec<Delivery>,
    /// What arrived: the message's id, and what it told of.
    arrived: Vec<(String, BTreeSet<String>)>,
    lost_a_partition: bool,
}

impl World {
    fn new() -> Self {
        let channel = |concurrency, window_ms, max_per_hour| ChannelLimits { concurrency, window_ms, max_per_hour };
        let limits = Limits {
            max_age_ms: 24 * HOUR_MS,
            max_attempts: 4,
            retry_first_ms: 1_000,
            retry_longest_ms: 60_000,
            max_per_account_hour: 3,
            channels: [("mail".to_owned(), channel(2, 60_000, 5)), ("hook".to_owned(), channel(1, 0, 8))].into(),
        };
        Self {
            outbox: Outbox::new(limits.clone()),
            limits,
            now_ms: 1_790_000_000_000,
            versions: BTreeMap::new(),
            log: Vec::new(),
            on_their_way: Vec::new(),
            arrived: Vec::new(),
            lost_a_partition: false,
        }
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Decide { channel, recipient, is_user, account, count } => {
                let name = format!("account{account}");
                for _ in 0..count {
                    let version = self.versions.entry(name.clone()).or_default();
                    *version += 1;
                    let audience = if is_user { v1::Audience::User } else { v1::Audience::Provider };
                    let (channel, recipient) = (CHANNELS[channel], format!("r{recipient}{is_user}"));
                    let pending = v1::Notification {
                        id: crate::identity::notification_id(&name, *version, channel, &recipient),
                        account: name.clone(),
                        version: *version,
                        channel: channel.to_owned(),
                        recipient,
                        audience: audience.into(),
                        status: Status::Pending.into(),
                        due_ms: self.now_ms,
                        time_ms: self.now_ms,
                        ..Default::default()
                    };
                    let partition = u32::from(account) % 3;
                    self.log.push((partition, pending.clone()));
                    self.outbox.take(partition, pending, self.now_ms);
                }
            }
            Act::Wait { ms } => {
                self.now_ms += ms;
                self.poll();
            }
            Act::End { which, outcome } if !self.on_their_way.is_empty() => {
                let which = which % self.on_their_way.len();
                self.end(
                    which,
                    match outcome {
                        0 | 1 => Outcome::Sent,
                        2 => Outcome::Refused("no".into()),
                        3 => Outcome::Busy("later".into(), Some(Duration::from_secs(30))),
                        4 => Outcome::Busy("later".into(), None),
                        _ => Outcome::Unreachable("gone".into()),
                    },
                );
            }
            Act::End { .. } => {}
            Act::Kill { arrived } => {
                for (bit, delivery) in std::mem::take(&mut self.on_their_way).into_iter().enumerate() {
                    if arrived >> (bit % 32) & 1 == 1 {
                        self.note(&delivery);
                    }
                }
                self.outbox = Outbox::new(self.limits.clone());
                for (partition, record) in self.log.clone() {
                    self.outbox.restore(partition, record, self.now_ms);
                }
            }
            Act::Lose { partition } => {
                self.lost_a_partition = true;
                self.outbox.forget(partition, self.now_ms);
                for (_, record) in self.log.clone().into_iter().filter(|(owned, _)| *owned == partition) {
                    self.outbox.restore(partition, record, self.now_ms);
                }
            }
        }
    }

    fn poll(&mut self) {
        let step = self.outbox.poll(self.now_ms);
        self.log.extend(step.records);
        self.on_their_way.extend(step.deliveries);
        for name in CHANNELS {
            let flying = self.on_their_way.iter().filter(|one| one.channel == name);
            assert!(flying.count() <= self.limits.channels[name].concurrency, "{name} has too many on their way");
        }
    }

    fn end(&mut self, which: usize, outcome: Outcome) {
        let delivery = self.on_their_way.remove(which);
        if outcome == Outcome::Sent {
            self.note(&delivery);
        }
        let records = self.outbox.finish(&delivery.id, outcome, self.now_ms, 0.5);
        self.log.extend(records);
    }

    fn note(&mut self, delivery: &Delivery) {
        let told = delivery.notifications.iter().map(|one| one.id.clone()).collect();
        self.arrived.push((delivery.id.clone(), told));
    }

    /// Everything is delivered from now on, until nothing is left.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            while !self.on_their_way.is_empty() {
                self.end(0, Outcome::Sent);
            }
            self.poll();
            if self.on_their_way.is_empty() {
                let Some(next_ms) = self.outbox.next_ms() else { break };
                self.now_ms = self.now_ms.max(next_ms);
            }
        }
        assert_eq!(self.outbox.pending(), 0, "something never goes");
    }

    fn check(&self) {
        let mut last: BTreeMap<&str, &v1::Notification> = BTreeMap::new();
        for (_, record) in &self.log {
            let before = last.insert(&record.id, record);
            // What has ended never begins again by itself.
            let ended = before.filter(|before| before.status() != Status::Pending);
            assert!(ended.is_none() || self.lost_a_partition, "{ended:?} became {record:?}");
        }
        let arrived: BTreeSet<&String> = self.arrived.iter().flat_map(|(_, told)| told).collect();
        for record in last.values() {
            match record.status() {
                Status::Sent => assert!(arrived.contains(&record.id), "{record:?} did not arrive"),
                Status::Dead => {}
                Status::Suppressed => {
                    let newer = |other: &&&v1::Notification| {
                        (&other.account, &other.channel, &other.recipient)
                            == (&record.account, &record.channel, &record.recipient)
                            && other.version > record.version
                    };
                    assert!(last.values().any(|other| newer(&other)), "{record:?} has no newer one");
                }
                Status::Pending | Status::Unspecified => panic!("{record:?} is lost"),
            }
        }
        if self.lost_a_partition {
            return;
        }
        // A repeat is the same message: what arrived more than once came under one id, with the same others.
        let mut messages: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
        for (message, told) in &self.arrived {
            for id in told {
                messages.entry(id).or_default().insert(message);
            }
        }
        let changed = messages.iter().find(|(_, ids)| ids.len() > 1);
        assert!(changed.is_none(), "{changed:?} came under different ids");
        self.check_limits();
    }

    fn check_limits(&self) {
        /// By channel and recipient, then by group: when it was sent, and about whom.
        type Lanes<'a> = BTreeMap<(&'a str, &'a str), BTreeMap<&'a str, (i64, BTreeSet<&'a str>)>>;
        let mut by_lane = Lanes::new();
        for (_, record) in self.log.iter().filter(|(_, record)| record.status() == Status::Sent) {
            let lane = by_lane.entry((&record.channel, &record.recipient)).or_default();
            let message = lane.entry(&record.group_id).or_insert((record.time_ms, BTreeSet::new()));
            message.1.insert(&record.account);
        }
        for ((channel, _), messages) in by_lane {
            let most = self.limits.channels[channel].max_per_hour;
            let mut times: Vec<i64> = messages.values().map(|(at_ms, _)| *at_ms).collect();
            check_rate(&mut times, most);
            for account in (0..4).map(|number| format!("account{number}")) {
                let about = messages.values().filter(|(_, accounts)| accounts.contains(account.as_str()));
                check_rate(&mut about.map(|(at_ms, _)| *at_ms).collect::<Vec<_>>(), self.limits.max_per_account_hour);
            }
        }
    }
}

fn check_rate(times: &mut [i64], most: usize) {
    times.sort_unstable();
    for window in times.windows(most + 1) {
        assert!(window[most] - window[0] >= HOUR_MS, "more than {most} within an hour: {window:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_nothing_storms_and_repeats_are_the_same(acts in proptest::collection::vec(act(), 1..80)) {
        let mut world = World::new();
        for act in acts {
            world.act(&act);
        }
        world.settle();
        world.check();
    }
}

fn pending(account: &str, recipient: &str, due_ms: i64) -> v1::Notification {
    v1::Notification {
        id: format!("{account}-{recipient}"),
        account: account.into(),
        channel: "mail".into(),
        recipient: recipient.into(),
        status: Status::Pending.into(),
        due_ms,
        ..Default::default()
    }
}

#[test]
fn five_hundred_locks_are_one_message_to_an_administrator() {
    let mut world = World::new();
    for number in 0..500_i64 {
        let one = pending(&format!("a{number}"), "admin", world.now_ms + number);
        world.outbox.take(0, one, world.now_ms + number);
    }
    assert!(world.outbox.poll(world.now_ms + 59_999).deliveries.is_empty());
    let step = world.outbox.poll(world.now_ms + 60_000);
    assert_eq!((step.deliveries.len(), step.records.len()), (1, 500));
    assert_eq!(step.deliveries[0].notifications.len(), 500);
}

#[test]
fn a_channel_that_is_down_is_tried_with_one_message_after_longer_and_longer_pauses() {
    let mut world = World::new();
    for number in 0..50 {
        world.outbox.take(0, pending("a", &format!("r{number}"), world.now_ms - 60_000), world.now_ms);
    }
    let mut tries = 0;
    let end_ms = world.now_ms + 10 * 60_000;
    loop {
        let step = world.outbox.poll(world.now_ms);
        assert!(step.deliveries.len() <= if tries == 0 { 2 } else { 1 });
        for delivery in step.deliveries {
            tries += 1;
            world.outbox.finish(&delivery.id, Outcome::Unreachable("down".into()), world.now_ms, 1.0);
        }
        world.now_ms = world.outbox.next_ms().unwrap().max(world.now_ms);
        if world.now_ms > end_ms {
            break;
        }
    }
    // Pauses of 1, 2, 4, ..., 60, 60 s.
    assert!((10..20).contains(&tries), "{tries} tries in ten minutes");
    // It is back: all go, a few at a time, each once.
    let (mut sent, mut flying) = (0, Vec::new());
    while world.outbox.pending() > 0 {
        flying.extend(world.outbox.poll(world.now_ms).deliveries);
        assert!(flying.len() <= 2);
        match flying.pop() {
            Some(delivery) => {
                sent += 1;
                world.outbox.finish(&delivery.id, Outcome::Sent, world.now_ms, 0.5);
            }
            None => world.now_ms = world.outbox.next_ms().unwrap(),
        }
    }
    assert_eq!(sent, 50);
}

#[test]
fn what_is_refused_too_often_or_too_old_or_without_a_channel_is_dead() {
    let mut world = World::new();
    world.outbox.take(0, pending("a", "r", world.now_ms - 60_000), world.now_ms);
    let mut last = Vec::new();
    while world.outbox.pending() > 0 {
        for delivery in world.outbox.poll(world.now_ms).deliveries {
            last = world.outbox.finish(&delivery.id, Outcome::Busy("greylisted".into(), None), world.now_ms, 0.5);
        }
        world.now_ms = world.outbox.next_ms().unwrap_or(world.now_ms);
    }
    let (_, record) = &last[0];
    assert_eq!((record.status(), record.attempts, record.error.as_str()), (Status::Dead, 4, "greylisted"));

    world.outbox.take(1, pending("b", "r", world.now_ms), world.now_ms);
    assert!(world.outbox.expire(world.now_ms + 24 * HOUR_MS - 1).is_empty());
    let expired = world.outbox.expire(world.now_ms + 24 * HOUR_MS);
    assert_eq!((expired[0].0, expired[0].1.status(), world.outbox.pending()), (1, Status::Dead, 0));

    let stray = v1::Notification { channel: "gone".into(), ..pending("c", "r", world.now_ms) };
    world.outbox.take(2, stray, world.now_ms);
    let step = world.outbox.poll(world.now_ms);
    assert_eq!(step.records[0].1.error, "no channel \"gone\" is configured");
    assert_eq!(world.outbox.pending(), 0);
}
