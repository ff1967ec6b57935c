//! The windows' own counts: a rule that notices everybody is put in force, everybody sends a letter, and the rule's
//! evidence says how many messages of each account count. Unlike a metric it also tells the truth after a partition was
//! taken over anew.

use crate::installation::{Server, TIMEOUT, admin};
use crate::ledger::{Kind, Ledger};
use crate::mail::BURST_RULES;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Instant;
use xtask::wait::{wait_for, wait_until};

/// Takes censuses of one installation, each under a name of its own: a notice is not repeated by the same rule.
#[derive(Debug, Default)]
pub struct Census {
    taken: usize,
}

/// Somebody who is counted.
#[derive(Debug, Clone)]
pub struct Counted {
    /// Whose letter is sent. It must not be locked.
    pub account: String,
    /// Where it is sent.
    pub site: usize,
    /// From which place in the ledger on messages count.
    pub from: usize,
}

impl Census {
    /// Waits until each account's messages count as often as the ledger says; nobody else may send meanwhile. What is
    /// still under way is waited for; a message that counts twice is never forgiven. `workers` are the
    /// servers with a stream worker, `control` answers administrators.
    ///
    /// # Errors
    /// When a count is too high, or stays too low.
    pub fn compare(
        &mut self,
        workers: &[&Server],
        control: SocketAddr,
        ledger: &Ledger,
        all: &[Counted],
    ) -> Result<()> {
        let began = Instant::now();
        loop {
            let counts = self.take(workers, control, ledger, all)?;
            let mut behind = Vec::new();
            for Counted { account, from, .. } in all {
                let (certain, doubtful) = ledger.count_of(account, *from);
                let count = counts.get(account).copied().unwrap_or(0);
                let said = format!("{account} counts {count} times, of {certain} messages and {doubtful} in doubt");
                ensure!(count <= certain + doubtful, "{said}");
                if count < certain {
                    behind.push(said);
                }
            }
            if behind.is_empty() {
                return Ok(());
            }
            ensure!(began.elapsed() < TIMEOUT, "{}", behind.join("; "));
        }
    }

    fn take(
        &mut self,
        workers: &[&Server],
        control: SocketAddr,
        ledger: &Ledger,
        all: &[Counted],
    ) -> Result<BTreeMap<String, usize>> {
        self.taken += 1;
        let name = format!("census-{}", self.taken);
        for worker in workers {
            put_in_force(worker, &name)?;
        }
        for Counted { account, site, .. } in all {
            let outcome = ledger.send(*site, account, self.taken, Kind::Letter)?;
            ensure!(outcome.is_accepted(), "{account} was refused at site {site}: {outcome:?}");
        }
        let mut last = Ok(BTreeMap::new());
        let found = wait_for("everybody to be counted", TIMEOUT, || {
            last = counted_by(control, &name);
            let counts = last.as_ref().ok()?;
            all.iter().all(|one| counts.contains_key(&one.account)).then(|| counts.clone())
        });
        found.with_context(|| format!("{name} saw {last:?} of {all:?}"))
    }
}

/// Adds the census to the rules of the tests, and waits until the worker has taken them.
fn put_in_force(worker: &Server, name: &str) -> Result<()> {
    let taken =
        || worker.process.metric("tidegate_stream_rule_reloads_total", &[("result", "taken")]).unwrap_or(f64::MAX);
    let before = worker.process.metric("tidegate_stream_rule_reloads_total", &[("result", "taken")])?;
    let rules = format!(
        "{BURST_RULES}\n[[rule]]\nname = \"{name}\"\nwhen = \"messages_24h >= 1\"\naction = \"notify\"\n\
         reason = \"Everybody is counted.\"\nsource = \"end-to-end tests\"\n"
    );
    // As a whole, for it is read all the time.
    let new = worker.rules.with_extension("new");
    fs::write(&new, rules)?;
    fs::rename(&new, &worker.rules)?;
    Ok(wait_until("the census to be in force", TIMEOUT, || (before + 0.5..f64::MAX).contains(&taken()))?)
}

/// How many messages the rule `name` saw of each account.
fn counted_by(control: SocketAddr, name: &str) -> Result<BTreeMap<String, usize>> {
    let mut counted = BTreeMap::new();
    for state in states(control, &["--status", "active"])? {
        let notice = &state["notice"];
        if notice["rule"] == name {
            let count = notice["evidence"]["messages_24h"].as_f64().context("no evidence")?;
            counted.insert(state["account"].as_str().unwrap_or_default().to_owned(), count as usize);
        }
    }
    Ok(counted)
}

/// What `tidegate accounts list` gives.
///
/// # Errors
/// When control does not answer.
pub fn states(control: SocketAddr, which: &[&str]) -> Result<Vec<Value>> {
    let list = [&["accounts", "list", "--json"], which].concat();
    let listed = admin(control, &list)?.succeeded()?;
    Ok(serde_json::from_str(&listed.stdout)?)
}
