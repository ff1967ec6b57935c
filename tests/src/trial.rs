//! A whole installation under load that is hit by troubles at random moments, and an oracle that says what must hold all
//! the while and after each of them:
//!
//! - nobody's mail is refused but that of accounts that have sent enough spam since their last unlock;
//! - an account that is locked stays locked, at every site, under the id it was locked with;
//! - one that was hijacked meanwhile is found and locked, once;
//! - an unlock stands, and old mail does not count after it;
//! - every message counts once: the windows' own counts, asked for by a rule, equal what was sent.

mod oracle;
mod rollout;
mod setup;

pub use rollout::Rollout;
pub use setup::Setup;

use crate::census::Census;
use crate::correspondence::Correspondence;
use crate::faults::{Line, Trouble, Victim, Weather};
use crate::hijack::{SITES, Sites};
use crate::installation::{Server, TIMEOUT};
use crate::ledger::{Kind, Ledger};
use crate::mail::person;
use crate::process::Process;
use crate::proxy::Proxy;
use crate::random::Random;
use anyhow::{Context as _, Result, anyhow, ensure};
use oracle::{Oracle, unlock};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use xtask::kafka::KafkaRig;
use xtask::wait::wait_until;

/// People who write all the time. The numbers after theirs are hijacked.
const PEOPLE: usize = 6;
/// Accounts that are hijacked, one after the other. So many that none is again within the rule's 15 minutes: letters
/// that it wrote meanwhile differ in size.
const HIJACKED: usize = 600;
/// Accounts that write letters after their unlock: the last ones.
const RECENT: usize = 3;
/// Locked accounts from which on one is unlocked in each round.
const KEEP_LOCKED: usize = 3;
/// How often each person writes.
const PAUSE: Duration = Duration::from_millis(250);
/// Messages of an account that the rule lets pass, at least.
const RULE_MINIMUM: usize = 40;
/// Messages of a burst at full speed; then what is away is waited for.
const MAX_BURST: usize = 300;
/// In how many steps of a round its troubles begin.
const STEPS: usize = 60;
/// Longest trouble, in steps: most are over soon, one of four may last longer than others wait.
const LONGEST: [usize; 4] = [40, 40, 40, 400];

/// The installation, its load, and the oracle.
pub struct Trial {
    correspondence: Arc<Correspondence>,
    servers: BTreeMap<Victim, Server>,
    /// Where administrators and edges ask.
    control: SocketAddr,
    /// Stands before the controls, where there are several.
    _balancer: Option<Proxy>,
    /// What a restarted process becomes; none: what it was.
    rollout: Option<Rollout>,
    sites: Sites,
    /// Kafka's nodes; none: the log is the embedded one.
    kafka: Vec<KafkaRig>,
    lines: BTreeMap<Line, Proxy>,
    ledger: Arc<Ledger>,
    /// Where random moments come from.
    pub random: Random,
    round: usize,
    sent: usize,
    census: Census,
    oracle: Oracle,
    /// An account that is never unlocked.
    for_good: String,
    /// Accounts that can be hijacked, the next one first.
    idle: VecDeque<String>,
    /// Those that were unlocked last.
    recent: VecDeque<String>,
    /// What went wrong so far, by kind.
    pub troubles: BTreeMap<String, usize>,
    dir: tempfile::TempDir,
}

/// A trouble's place in a round.
#[derive(Debug, Clone, Copy)]
struct Planned {
    trouble: Trouble,
    begin: usize,
    end: usize,
}

impl Trial {
    /// The processes that can be killed.
    pub fn victims(&self) -> Vec<Victim> {
        let nodes = (0..self.kafka.len()).map(Victim::Kafka);
        nodes.chain(self.servers.keys().copied()).chain((0..SITES).map(Victim::Edge)).collect()
    }

    /// The lines that can fail.
    pub fn lines(&self) -> Vec<Line> {
        self.lines.keys().copied().collect()
    }

    /// An account is hijacked and one is unlocked while all of these happen at random moments of their own; then the
    /// oracle is asked.
    ///
    /// # Errors
    /// What is not as the oracle says.
    pub fn round(&mut self, troubles: &[Trouble]) -> Result<()> {
        let plan: Vec<Planned> = troubles.iter().map(|trouble| self.plan(*trouble)).collect();
        let said = plan.iter().map(|one| format!("{:?} at {}..{}", one.trouble, one.begin, one.end));
        let said = said.collect::<Vec<_>>().join(", ");
        let began = Instant::now();
        let hijack = self.play(&plan).with_context(|| format!("round {}: {said}", self.round))?;
        #[allow(clippy::print_stdout, reason = "a long run tells how it gets on")]
        {
            println!("round {}: {said}; {hijack}; settled after {:.1} s", self.round, began.elapsed().as_secs_f64());
        }
        self.round += 1;
        Ok(())
    }

    /// Each service is restarted, one after the other, in an order by chance: whichever is first, older and newer ones must
    /// understand each other. The oracle is asked after each.
    ///
    /// # Errors
    /// What is not as the oracle says.
    pub fn restart_each(&mut self) -> Result<()> {
        let mut services = self.victims();
        services.retain(|victim| !matches!(victim, Victim::Kafka(_)));
        for index in (1..services.len()).rev() {
            let other = self.random.within(0..index + 1);
            services.swap(index, other);
        }
        services.into_iter().try_for_each(|service| self.round(&[Trouble::Restart(service)]))
    }

    /// Lines fail until every edge knows that it is cut off and has events on disk. An account is hijacked meanwhile,
    /// whose mail passes; known locks hold. Then all are healed, and the oracle is asked.
    ///
    /// # Errors
    /// What is not as the oracle says.
    pub fn cut_off(&mut self, lines: &[(Line, Weather)]) -> Result<()> {
        let known: Vec<String> = self.oracle.locked.keys().cloned().collect();
        let thief = self.idle.pop_front().context("no account is left to be hijacked")?;
        let all = lines.iter().map(|(line, weather)| Trouble::Network(*line, *weather)).collect::<Vec<_>>();
        let mut down = BTreeSet::new();
        for trouble in &all {
            *self.troubles.entry(trouble.to_string()).or_default() += 1;
            self.begin(*trouble, &mut down)?;
        }
        for _ in 0..2 * RULE_MINIMUM {
            ensure!(self.send(0, &thief, Kind::Spam)?, "{thief} is not known to be hijacked");
        }
        for site in 0..SITES {
            let noticed = wait_until(&format!("the edge of site {site} to notice"), TIMEOUT, || {
                let edge = &self.sites.edges[site].process;
                let is = |name, value: f64| edge.metric(name, &[]).is_ok_and(|now| (now - value).abs() < 0.5);
                is("tidegate_edge_control_connected", 0.0) && is("tidegate_edge_live_blocked", 1.0)
            });
            noticed?;
            for _ in 0..10 {
                self.probe(&known, &down)?;
            }
        }
        for trouble in &all {
            self.end(*trouble, &mut down)?;
        }
        for site in 0..SITES {
            self.wait_until_refused(site, &thief, Kind::Spam)?;
        }
        self.ask_the_oracle(Some(&thief))
    }

    fn plan(&mut self, trouble: Trouble) -> Planned {
        *self.troubles.entry(trouble.to_string()).or_default() += 1;
        let (begin, longest) = (self.random.within(0..STEPS), self.random.of(&LONGEST));
        Planned { trouble, begin, end: begin + 1 + self.random.within(0..longest) }
    }

    fn play(&mut self, plan: &[Planned]) -> Result<String> {
        let from = self.ledger.count();
        let thief = self.idle.pop_front().context("no account is left to be hijacked")?;
        let mut known: Vec<String> = self.oracle.locked.keys().cloned().collect();
        let mut unlocking = None;
        let unlocks = self.choose_to_unlock(&mut known);
        let (unlock_at, burst_at) = (self.random.within(0..STEPS), self.random.within(0..STEPS / 2));
        let site = self.round % SITES;
        let mut down = BTreeSet::new();
        let (mut is_stopped, mut told_to_end) = (false, None);
        for step in 0.. {
            for one in plan {
                if step == one.begin {
                    if matches!(one.trouble, Trouble::Restart(Victim::Edge(_))) {
                        told_to_end = Some(self.ledger.count());
                    }
                    self.begin(one.trouble, &mut down)?;
                }
                if step == one.end {
                    self.end(one.trouble, &mut down)?;
                }
            }
            if step == unlock_at
                && let Some(account) = unlocks.clone()
            {
                let control = self.control;
                unlocking = Some(thread::spawn(move || unlock(control, &account)));
            }
            let bursts = step >= burst_at && step < burst_at + MAX_BURST && !is_stopped;
            if bursts {
                is_stopped = !self.send(site, &thief, Kind::Spam)?;
            } else {
                self.probe(&known, &down)?;
            }
            if !bursts && step > unlock_at && step > burst_at && plan.iter().all(|one| step > one.end) {
                break;
            }
        }
        let began = Instant::now();
        for site in 0..SITES {
            self.wait_until_refused(site, &thief, Kind::Spam)?;
        }
        let waited = began.elapsed().as_secs_f64();
        for server in self.servers.values_mut() {
            server.process.wait_until_ready(TIMEOUT)?;
        }
        for one in plan {
            match one.trouble {
                Trouble::Kill(Victim::Edge(site)) => self.ledger.doubt(site, from),
                // What was accepted before it was told to end is certain; while it was away mail was let pass unchecked.
                Trouble::Restart(Victim::Edge(site)) => self.ledger.doubt(site, told_to_end.unwrap_or(from)),
                Trouble::Kill(_) | Trouble::Restart(_) | Trouble::Network(..) => {}
            }
        }
        let (certain, doubtful) = self.ledger.count_of(&thief, self.oracle.counts_from(&thief));
        let sent = certain + doubtful;
        ensure!(sent >= RULE_MINIMUM, "{thief} was refused after {sent} messages");
        if let (Some(unlocking), Some(account)) = (unlocking, unlocks) {
            unlocking.join().map_err(|_| anyhow!("the thread that unlocks panicked"))??;
            self.oracle.unlock(&account, self.ledger.count());
            for site in 0..SITES {
                wait_until(&format!("mail of {account} to flow again"), TIMEOUT, || {
                    self.send(site, &account, Kind::Letter).unwrap_or(false)
                })?;
            }
            self.idle.push_back(account.clone());
            self.recent.push_back(account);
            self.recent.drain(..self.recent.len().saturating_sub(RECENT));
        }
        self.ask_the_oracle(Some(&thief))?;
        Ok(format!("{thief} was locked after {sent} messages, everywhere {waited:.1} s after the last"))
    }

    /// One that is locked, and will not be probed any more.
    fn choose_to_unlock(&mut self, known: &mut Vec<String>) -> Option<String> {
        let others: Vec<String> = known.iter().filter(|account| **account != self.for_good).cloned().collect();
        let chosen = (known.len() >= KEEP_LOCKED).then(|| self.random.of(&others))?;
        known.retain(|account| *account != chosen);
        Some(chosen)
    }

    fn begin(&mut self, trouble: Trouble, down: &mut BTreeSet<usize>) -> Result<()> {
        match trouble {
            Trouble::Network(line, weather) => weather.begin(&self.lines[&line]),
            Trouble::Kill(Victim::Kafka(node)) => self.kafka[node].kill(),
            Trouble::Kill(Victim::Edge(site)) => {
                down.insert(site);
                self.sites.edges[site].process.kill();
            }
            Trouble::Kill(victim) => self.server(victim)?.process.kill(),
            Trouble::Restart(victim) => {
                if let Victim::Edge(site) = victim {
                    down.insert(site);
                }
                let status = self.process(victim)?.stop(TIMEOUT)?;
                ensure!(status.success(), "{victim:?} was told to end, and ended with {status}");
            }
        }
        Ok(())
    }

    fn end(&mut self, trouble: Trouble, down: &mut BTreeSet<usize>) -> Result<()> {
        match trouble {
            Trouble::Network(line, _) => self.lines[&line].heal(),
            Trouble::Kill(Victim::Kafka(node)) => self.kafka[node].start_again()?,
            Trouble::Kill(victim) => self.start_again(victim, down)?,
            Trouble::Restart(victim) => {
                if let Some(rollout) = self.rollout.clone() {
                    rollout.reach(victim, self.process(victim)?)?;
                }
                self.start_again(victim, down)?;
            }
        }
        Ok(())
    }

    fn start_again(&mut self, victim: Victim, down: &mut BTreeSet<usize>) -> Result<()> {
        self.process(victim)?.start_again()?;
        if let Victim::Edge(site) = victim {
            self.sites.edges[site].wait_until_it_listens()?;
            down.remove(&site);
        }
        Ok(())
    }

    /// Tries at random that locks hold, wherever an edge is there to hold them, and that everybody else's mail passes.
    fn probe(&mut self, known: &[String], down: &BTreeSet<usize>) -> Result<()> {
        let site = self.random.within(0..SITES);
        let mut passes: Vec<String> = self.recent.iter().cloned().collect();
        passes.push(person(self.random.within(0..PEOPLE)));
        if down.contains(&site) || self.random.within(0..2) == 0 {
            let account = self.random.of(&passes);
            ensure!(self.send(site, &account, Kind::Letter)?, "{account} was refused at site {site}");
        } else {
            let account = self.random.of(known);
            ensure!(!self.send(site, &account, Kind::Letter)?, "{account} is locked, but not at site {site}");
        }
        Ok(())
    }

    /// Sends a message, and gives whether it was accepted.
    fn send(&mut self, site: usize, account: &str, kind: Kind) -> Result<bool> {
        self.sent += 1;
        Ok(self.ledger.send(site, account, self.sent, kind)?.is_accepted())
    }

    fn wait_until_refused(&mut self, site: usize, account: &str, kind: Kind) -> Result<()> {
        let what = format!("{account} to be refused at site {site}");
        Ok(wait_until(&what, TIMEOUT, || self.send(site, account, kind).is_ok_and(|accepted| !accepted))?)
    }

    fn server(&mut self, victim: Victim) -> Result<&mut Server> {
        self.servers.get_mut(&victim).with_context(|| format!("no server for {victim:?}"))
    }

    /// A server or an edge.
    fn process(&mut self, victim: Victim) -> Result<&mut Process> {
        match victim {
            Victim::Edge(site) => Ok(&mut self.sites.edges[site].process),
            victim => Ok(&mut self.server(victim)?.process),
        }
    }

    /// From now on a process that is restarted becomes what `rollout` says.
    pub fn roll_out(&mut self, rollout: Rollout) {
        self.rollout = Some(rollout);
    }
}
