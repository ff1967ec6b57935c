//! What was sent and what was counted, to be compared: messages by queue id, events by number.

use crate::hijack::Sites;
use crate::mail::PASSWORD;
use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate_bus::{BusConfig, ReadFrom, Topic};
use tidegate_proto::v1;
use xtask::smtp::{Outcome, SmtpClient};

/// Messages that mail servers accepted: their queue ids, for each site.
#[derive(Debug, Default)]
pub struct Ledger(BTreeMap<usize, BTreeSet<String>>);

/// What a message is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Letters differ in size and go to a friend.
    Letter,
    /// Spam is of one size and goes to many domains.
    Spam,
}

/// What is in the topic `events`.
#[derive(Debug, Default)]
pub struct Events {
    /// Each once, by node, lane and sequence.
    pub by_number: BTreeMap<(String, i32, u64), v1::Event>,
    /// All records, repeats too.
    pub records: usize,
}

impl Ledger {
    /// Sends a message of an account at a site, and notes it if it is accepted.
    ///
    /// # Errors
    /// When the session breaks, or a queue id comes twice.
    pub fn send(&mut self, sites: &Sites, site: usize, account: &str, number: usize, kind: Kind) -> Result<Outcome> {
        let mut client = SmtpClient::login(sites.postfixes[site].address(), account, PASSWORD)?;
        let (recipient, length) = match kind {
            Kind::Letter => ("friend@elsewhere.test".to_owned(), 1 + number * 7 % 90),
            Kind::Spam => (format!("victim{number}@domain{}.example", number % 60), 1),
        };
        let text = format!("Subject: Note {number:06}\n\n{}\n", "Your note is here. ".repeat(length));
        let outcome = client.send(account, &[&recipient], &text)?;
        if let Some((_, id)) = outcome.reply.text.split_once("queued as ").filter(|_| outcome.is_accepted()) {
            let is_new = self.0.entry(site).or_default().insert(id.trim().to_owned());
            ensure!(is_new, "queue id {id} came twice");
        }
        Ok(outcome)
    }

    /// How many messages it holds.
    pub fn count(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    /// Forgets a site's messages: of an edge that was killed some may be lost on purpose.
    pub fn forget(&mut self, site: usize) {
        self.0.remove(&site);
    }

    /// Messages without an event: site and queue id.
    pub fn without_event(&self, events: &Events) -> Vec<(usize, String)> {
        let mut seen: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for ((node, ..), event) in &events.by_number {
            if let Some(v1::event::Kind::Submission(submission)) = &event.kind {
                seen.entry(node).or_default().insert(&submission.queue_id);
            }
        }
        let has_event =
            |site: usize, id: &str| seen.get(format!("mx{}", site + 1).as_str()).is_some_and(|ids| ids.contains(id));
        let all = self.0.iter().flat_map(|(site, ids)| ids.iter().map(|id| (*site, id.clone())));
        all.filter(|(site, id)| !has_event(*site, id)).collect()
    }
}

/// Reads all events of a log, once `at_least` different ones are there.
///
/// # Errors
/// When the log cannot be read, holds what is no event, or too few come.
pub fn read_events(log: &BusConfig, at_least: usize) -> Result<Events> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let bus = log.connect().await.context("opening the log")?;
        let from = |partition| ReadFrom { topic: Topic::Events, partition, offset: 0 };
        let mut reader = bus.read(&(0..bus.partitions()).map(from).collect::<Vec<_>>()).await?;
        let mut events = Events::default();
        let mut idle = 0;
        // A little longer than needed: more than expected would be seen, too.
        while events.by_number.len() < at_least || idle < 3 {
            let batch = reader.next(Duration::from_millis(300)).await?;
            idle = if batch.records.is_empty() { idle + 1 } else { 0 };
            ensure!(idle < 100, "only {} of {at_least} events are in the topic", events.by_number.len());
            for record in batch.records {
                let event = v1::Event::decode(record.value.context("an event without a value")?)?;
                let id = event.id.clone().context("an event without a number")?;
                events.by_number.insert((id.node, id.lane, id.sequence), event);
                events.records += 1;
            }
        }
        Ok(events)
    })
}
