//! What mail servers accepted, to be compared with what was counted: messages by queue id.

use crate::mail::PASSWORD;
use crate::topics::Events;
use anyhow::{Context as _, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use xtask::smtp::{Outcome, SmtpClient};

/// Messages that mail servers accepted, from all threads.
#[derive(Debug)]
pub struct Ledger {
    servers: Vec<SocketAddr>,
    accepted: Mutex<Vec<Accepted>>,
}

/// A message that a mail server accepted.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Where.
    pub site: usize,
    /// Whose.
    pub account: String,
    /// As what. Sites have long queue ids, which never come twice.
    pub queue_id: String,
    /// Whether it has an event.
    pub event: Event,
}

/// Whether a message has an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It must have one.
    Certain,
    /// It may have none: its edge was killed.
    InDoubt,
    /// It has none.
    Lost,
}

/// What a message is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Letters differ in size and go to a friend.
    Letter,
    /// Spam is of one size and goes to many domains.
    Spam,
}

/// How events and messages do not fit together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Misfit {
    /// Messages without an event: site and queue id. Those in doubt are left out.
    pub without_event: Vec<(usize, String)>,
    /// Messages with two events of different numbers, which count twice.
    pub with_two: Vec<(usize, String)>,
    /// Events of messages that nobody sent.
    pub of_nobody: Vec<(usize, String)>,
}

impl Ledger {
    /// For sites with these mail servers.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, accepted: Mutex::default() }
    }

    /// Sends a message of an account at a site, and notes it if it is accepted.
    ///
    /// # Errors
    /// When the session breaks.
    pub fn send(&self, site: usize, account: &str, number: usize, kind: Kind) -> Result<Outcome> {
        let (recipient, length) = match kind {
            Kind::Letter => ("friend@elsewhere.test".to_owned(), 1 + number * 7 % 90),
            Kind::Spam => (format!("victim{number}@domain{}.example", number % 60), 1),
        };
        let text = format!("Subject: Note {number:06}\n\n{}\n", "Your note is here. ".repeat(length));
        let mut client = SmtpClient::login(self.servers[site], account, PASSWORD)?;
        let outcome = client.send(account, &[&recipient], &text)?;
        if outcome.is_accepted() {
            let (_, id) = outcome.reply.text.split_once("queued as ").context("a message without a queue id")?;
            let (account, queue_id) = (account.to_owned(), id.trim().to_owned());
            self.lock().push(Accepted { site, account, queue_id, event: Event::Certain });
        }
        Ok(outcome)
    }

    /// How many messages it holds; also the place of the next one.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// How many messages of an account it holds from a place on: those that have an event, and those in doubt.
    pub fn count_of(&self, account: &str, from: usize) -> (usize, usize) {
        let accepted = self.lock();
        let count = |event| accepted[from..].iter().filter(|one| one.account == account && one.event == event).count();
        (count(Event::Certain), count(Event::InDoubt))
    }

    /// How many messages must have an event.
    pub fn certain(&self) -> usize {
        self.lock().iter().filter(|one| one.event == Event::Certain).count()
    }

    /// A site's messages from a place on are in doubt.
    pub fn doubt(&self, site: usize, from: usize) {
        self.lock()[from..].iter_mut().filter(|one| one.site == site).for_each(|one| one.event = Event::InDoubt);
    }

    /// These are all events there are: ends the doubt.
    pub fn resolve(&self, events: &Events) {
        let seen: BTreeSet<_> = events.messages().collect();
        for one in self.lock().iter_mut().filter(|one| one.event == Event::InDoubt) {
            let has_event = seen.contains(&(one.site, one.queue_id.clone()));
            one.event = if has_event { Event::Certain } else { Event::Lost };
        }
    }

    /// Compares it with all events.
    pub fn compare(&self, events: &Events) -> Misfit {
        let mut seen: BTreeMap<(usize, String), usize> = BTreeMap::new();
        for (site, queue_id) in events.messages() {
            *seen.entry((site, queue_id)).or_default() += 1;
        }
        let accepted = self.lock();
        let name = |one: &Accepted| (one.site, one.queue_id.clone());
        let sent: BTreeSet<_> = accepted.iter().map(name).collect();
        Misfit {
            without_event: accepted
                .iter()
                .filter(|one| one.event == Event::Certain)
                .map(name)
                .filter(|one| !seen.contains_key(one))
                .collect(),
            with_two: seen.iter().filter(|(_, count)| **count > 1).map(|(one, _)| one.clone()).collect(),
            of_nobody: seen.keys().filter(|one| !sent.contains(*one)).cloned().collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Accepted>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_proto::v1;

    fn event(node: &str, queue_id: &str) -> v1::Event {
        let submission = v1::Submission { queue_id: queue_id.to_owned(), ..v1::Submission::default() };
        let id = v1::EventId { node: node.to_owned(), lane: 1, sequence: 1 };
        v1::Event { id: Some(id), kind: Some(v1::event::Kind::Submission(submission)), ..v1::Event::default() }
    }

    #[test]
    fn it_finds_what_is_lost_doubled_or_made_up() {
        let ledger = Ledger::new(Vec::new());
        let accept = |site, queue_id: &str| {
            let (account, queue_id) = ("a".to_owned(), queue_id.to_owned());
            ledger.lock().push(Accepted { site, account, queue_id, event: Event::Certain });
        };
        for (site, queue_id) in [(0, "A"), (0, "B"), (1, "A"), (1, "C")] {
            accept(site, queue_id);
        }
        let mut events = Events::default();
        for (number, (node, queue_id)) in [("mx1", "A"), ("mx1", "A"), ("mx2", "A"), ("mx1", "X")].iter().enumerate() {
            events.by_number.insert(((*node).to_owned(), 1, number as u64), event(node, queue_id));
        }
        let named = |site, queue_id: &str| vec![(site, queue_id.to_owned())];
        let misfit = ledger.compare(&events);
        assert_eq!(misfit.without_event, [named(0, "B"), named(1, "C")].concat());
        assert_eq!((misfit.with_two, misfit.of_nobody), (named(0, "A"), named(0, "X")));
        ledger.doubt(1, 1);
        assert_eq!(ledger.compare(&events).without_event, named(0, "B"));
        assert_eq!(
            (ledger.count_of("a", 0), ledger.count_of("a", 1), ledger.count_of("b", 0)),
            ((2, 2), (1, 2), (0, 0))
        );
        ledger.resolve(&events);
        assert_eq!((ledger.count_of("a", 0), ledger.count(), ledger.certain()), ((3, 0), 4, 3), "C was lost");
    }
}
