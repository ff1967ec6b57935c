//! What must be, and whether it is.

use super::setup::NOTIFIER;
use super::{PEOPLE, Trial};
use crate::analyst::Analyst;
use crate::census::{Counted, states};
use crate::faults::Victim;
use crate::hijack::SITES;
use crate::installation::{Server, TIMEOUT, admin};
use crate::ledger::{Kind, Misfit};
use crate::mail::person;
use crate::topics::{Events, read_events, read_locks};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use xtask::wait::wait_until;

/// What must be.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// Who is locked, under which id.
    pub locked: BTreeMap<String, String>,
    /// Who was unlocked last, and from which place in the ledger on its messages count.
    pub unlocked: BTreeMap<String, usize>,
    /// Every lock there ever was.
    ever: BTreeSet<(String, String)>,
}

impl Oracle {
    pub fn lock(&mut self, account: &str, id: &str) {
        self.locked.insert(account.to_owned(), id.to_owned());
        self.ever.insert((account.to_owned(), id.to_owned()));
    }

    pub fn unlock(&mut self, account: &str, counts_from: usize) {
        self.locked.remove(account);
        self.unlocked.insert(account.to_owned(), counts_from);
    }

    /// From which place in the ledger on an account's messages count.
    pub fn counts_from(&self, account: &str) -> usize {
        self.unlocked.get(account).copied().unwrap_or(0)
    }
}

impl Trial {
    /// Compares states and counts with what must be; `thief` was locked since the last time. Nobody sends meanwhile.
    pub(super) fn ask_the_oracle(&mut self, thief: Option<&str>) -> Result<()> {
        let correspondence = std::sync::Arc::clone(&self.correspondence);
        let _quiet = correspondence.quiet();
        let refused = correspondence.refused();
        ensure!(refused.is_empty(), "mail was refused that must pass: {refused:?}");
        let now = self.locked_now()?;
        if let Some(thief) = thief {
            let id = now.get(thief).with_context(|| format!("{thief} is not locked, but {now:?}"))?;
            self.oracle.lock(thief, id);
        }
        ensure!(now == self.oracle.locked, "locked are {now:?}, but must be {:?}", self.oracle.locked);
        self.count_everybody()
    }

    /// Stops the load and compares all records with all that was sent; then once more with a worker that starts anew.
    ///
    /// # Errors
    /// What does not fit.
    pub fn settle(mut self) -> Result<()> {
        let correspondence = std::sync::Arc::clone(&self.correspondence);
        let quiet = correspondence.quiet();
        for edge in &self.sites.edges {
            let left = || edge.process.metric("tidegate_edge_spool_events", &[]).unwrap_or(1.0);
            wait_until("the spool to empty", TIMEOUT, || left() < 1.0)?;
        }
        // What was accepted last is on its way, and in no spool, until the windows know of it.
        self.count_everybody()?;
        let workers = self.workers();
        for worker in &workers {
            self.server(*worker)?.process.kill();
        }
        let events = read_events(&self.log(), self.ledger.certain())?;
        let accepted = self.ledger.count();
        ensure!(self.ledger.compare(&events) == Misfit::default(), "{:?}", self.ledger.compare(&events));
        self.ledger.resolve(&events);
        let (locks, ever) = (read_locks(&self.log())?, &self.oracle.ever);
        // The embedded log compacts soon: the newest of each account is there.
        let fits = if self.kafka.is_empty() { locks.is_subset(ever) } else { locks == *ever };
        ensure!(fits, "locks that were published: {locks:?}, but must be {ever:?}");
        self.check_history(&events)?;
        self.check_mails()?;
        for worker in &workers {
            self.server(*worker)?.process.start_again()?;
        }
        for worker in &workers {
            self.server(*worker)?.process.wait_until_ready(TIMEOUT)?;
        }
        drop(quiet);
        self.ask_the_oracle(None)?;
        #[allow(clippy::print_stdout, reason = "a long run tells what it did")]
        {
            println!("{} rounds: {:?}", self.round, self.troubles);
            println!(
                "{} messages accepted, {} events in {} records, {} locks in all, {} in force",
                accepted,
                events.by_number.len(),
                events.records,
                self.oracle.ever.len(),
                self.oracle.locked.len()
            );
        }
        Ok(())
    }

    /// The windows' own counts equal what was sent.
    fn count_everybody(&mut self) -> Result<()> {
        let people = (0..PEOPLE).map(|number| (person(number), number % SITES));
        let all = people.chain(self.recent.iter().map(|account| (account.clone(), 0))).map(|(account, site)| {
            let from = self.oracle.counts_from(&account);
            Counted { account, site, from }
        });
        let (all, control, workers) = (all.collect::<Vec<_>>(), self.control, self.workers());
        let workers: Vec<&Server> = workers.iter().filter_map(|worker| self.servers.get(worker)).collect();
        self.census.compare(&workers, control, &self.ledger, &all)
    }

    /// The servers with a stream worker.
    fn workers(&self) -> Vec<Victim> {
        let is_worker = |victim: &&Victim| matches!(victim, Victim::AllInOne | Victim::Stream(_));
        self.servers.keys().filter(is_worker).copied().collect()
    }

    /// Where there is a history, it has each event of the log once.
    fn check_history(&self, events: &Events) -> Result<()> {
        let Some(history) = self.servers.get(&Victim::History(0)) else { return Ok(()) };
        let analyst = Analyst::new(history.history)?;
        let sent: BTreeSet<String> =
            events.by_number.keys().map(|(node, lane, sequence)| format!("{node} {lane} {sequence}")).collect();
        let all = "SELECT node, CASE lane WHEN 'live' THEN 1 ELSE 2 END, sequence FROM events";
        let mut rows = Vec::new();
        wait_until("the history to have all events", TIMEOUT, || {
            rows = analyst.ask(all).unwrap_or_default();
            rows.len() >= sent.len()
        })?;
        let held: BTreeSet<String> = rows.iter().map(|row| row.join(" ")).collect();
        ensure!(rows.len() == held.len(), "{} events stand twice in the history", rows.len() - held.len());
        ensure!(held == sent, "the history has {} events, the log {}", held.len(), sent.len());
        Ok(())
    }

    /// Where somebody is told, each lock was told to its account once: mails that came again have the same id.
    fn check_mails(&self) -> Result<()> {
        if !self.servers.contains_key(&Victim::Notifier) {
            return Ok(());
        }
        let mut locks: BTreeMap<&str, usize> = BTreeMap::new();
        for (account, _) in &self.oracle.ever {
            *locks.entry(account).or_default() += 1;
        }
        for (account, count) in locks {
            let told = || -> BTreeSet<String> {
                let messages = self.sites.sink.messages();
                let mails = messages.iter().filter(|mail| mail.recipients == [account] && mail.sender == NOTIFIER);
                mails.filter_map(|mail| mail.header("Message-ID")).collect()
            };
            wait_until(&format!("{account} to be told of {count} locks"), TIMEOUT, || told().len() >= count)?;
            ensure!(told().len() == count, "{account} was told of {:?}, {count} locks", told());
        }
        Ok(())
    }

    pub(super) fn locked_now(&self) -> Result<BTreeMap<String, String>> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let listed = states(self.control, &["--status", "locked"])?;
        Ok(listed.iter().map(|one| (text(&one["account"]), text(&one["lock"]["id"]))).collect())
    }

    /// A lock that nobody ever takes back.
    pub(super) fn lock_one_for_good(&mut self) -> Result<()> {
        let account = self.idle.pop_front().context("nobody to lock")?;
        let lock = ["accounts", "lock", &account, "--reason", "reported", "--reply", "Locked."];
        admin(self.control, &lock)?.succeeded()?;
        let id = self.locked_now()?.remove(&account).context("it is not locked")?;
        self.oracle.lock(&account, &id);
        self.for_good = account;
        for site in 0..SITES {
            self.wait_until_refused(site, &self.for_good.clone(), Kind::Letter)?;
        }
        Ok(())
    }
}

/// Unlocks an account, whatever becomes of control meanwhile. Blocks until it is unlocked.
pub(super) fn unlock(control: SocketAddr, account: &str) -> Result<()> {
    let unlock = ["accounts", "unlock", account, "--reason", "called back", "--evidence", "by phone", "--wait", "1s"];
    let mut said = String::new();
    let is_active = || -> Result<bool> {
        let shown = admin(control, &["accounts", "show", account, "--json"])?.succeeded()?;
        Ok(serde_json::from_str::<Value>(&shown.stdout)?["status"] == "active")
    };
    wait_until("an unlock", 2 * TIMEOUT, || {
        match admin(control, &unlock).and_then(crate::command::Ended::succeeded) {
            Ok(_) => {}
            Err(error) => said = format!("{error:#}"),
        }
        is_active().unwrap_or(false)
    })
    .with_context(|| format!("the last attempt said: {said}"))
}
