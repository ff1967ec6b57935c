//! Submissions of many accounts, the same in every run.

use std::net::{IpAddr, Ipv4Addr};
use tidegate_detect::{EventBatch, EventBatchBuilder};
use tidegate_domain::{Account, Event, EventId, EventKind, Lane, Recipients, Submission};

/// How events are spread over accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// One in a thousand accounts sends a tenth of all; those are over the limits of several rules all the time.
    Heavy,
    /// All send the same.
    Flat,
}

impl Tail {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Heavy => "heavy tail",
            Self::Flat => "flat",
        }
    }
}

/// Makes submissions (by SplitMix64).
pub struct Traffic {
    accounts: Vec<Account>,
    tail: Tail,
    random: u64,
    made: u64,
    builder: EventBatchBuilder,
}

impl Traffic {
    /// Of so many accounts.
    pub fn new(accounts: u64, tail: Tail) -> anyhow::Result<Self> {
        let account = |number| Account::parse(&format!("user{number}@example.org"));
        let accounts = (0..accounts).map(account).collect::<Result<_, _>>()?;
        Ok(Self { accounts, tail, random: 7, made: 0, builder: EventBatchBuilder::new() })
    }

    /// The next submissions as a batch, `step_us` apart, the last at `end_ms`.
    pub fn batch(&mut self, events: u64, end_ms: i64, step_us: i64) -> anyhow::Result<EventBatch> {
        for left in (0..events.cast_signed()).rev() {
            let (number, submission) = self.submission();
            self.builder.push(&self.accounts[number], self.made, end_ms - left * step_us / 1_000, &submission, true);
        }
        Ok(self.builder.finish()?)
    }

    /// The next submission as an event of a node.
    pub fn event(&mut self, node: &str, at_ms: i64) -> Event {
        let (number, submission) = self.submission();
        Event {
            id: EventId { node: node.to_owned(), lane: Lane::Live, sequence: self.made },
            site: "bench".to_owned(),
            account: self.accounts[number].clone(),
            time_ms: at_ms,
            kind: EventKind::Submission(Box::new(submission)),
        }
    }

    fn submission(&mut self) -> (usize, Submission) {
        self.made += 1;
        let share = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let place = if self.tail == Tail::Heavy { share.powi(3) } else { share };
        let number = (place * self.accounts.len() as f64) as usize;
        let count = 1 + self.next() % 2;
        let recipients = Recipients {
            count: count as u32,
            internal: 0,
            domains: vec![format!("d{}.example", self.next() % 50)],
            hashes: (0..count).map(|_| self.next() % 400).collect(),
        };
        let submission = Submission {
            client_address: Some(IpAddr::V4(Ipv4Addr::from(number as u32 * 4 + self.next() as u32 % 2))),
            sender: self.accounts[number].to_string(),
            recipients,
            size: 1_000 + self.next() % 80_000,
            fingerprint: 1 + self.next() % 1_000_000,
            ..Submission::default()
        };
        (number, submission)
    }

    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
