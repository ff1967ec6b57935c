//! The main job from beginning to end: an account is hijacked, locked at every edge, and unlocked for good, while
//! everybody else's mail flows. It is the same on Kafka and on the embedded log.

use crate::installation::{Edge, TIMEOUT};
use crate::mail::{PASSWORD, People, THIEF, send_spam, users};
use anyhow::{Result, ensure};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use xtask::postfix::{PostfixOptions, PostfixRig};
use xtask::sink::Sink;
use xtask::smtp::{Outcome, SmtpClient, Stage};
use xtask::wait::wait_until;

/// The address that even a locked account may write to, at the third site.
pub const ADMIN: &str = "abuse@example.test";
/// How many people send beside the thief in [`play`].
pub const PEOPLE: usize = 6;
/// How many sites there are.
pub const SITES: usize = 3;
/// A thief's pace: 50 messages a second.
const PAUSE: Duration = Duration::from_millis(20);

/// Three sites, each a Postfix with its edge, and the sink that all of them relay to.
#[derive(Debug)]
pub struct Sites {
    /// Their edges. The third has an administrator's address.
    pub edges: Vec<Edge>,
    /// Their mail servers.
    pub postfixes: Vec<PostfixRig>,
    /// Where all mail goes.
    pub sink: Sink,
}

impl Sites {
    /// Starts them in `dir`, with so many people's accounts beside the thief's; `first_edge` are further lines of the
    /// first edge's configuration.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn start(dir: &Path, control: SocketAddr, first_edge: &str, people: usize) -> Result<Self> {
        Self::start_behind(dir, [control; SITES], first_edge, people)
    }

    /// The same with an address of control for each edge, e.g. those of proxies.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn start_behind(dir: &Path, controls: [SocketAddr; SITES], first_edge: &str, people: usize) -> Result<Self> {
        Self::start_over(Sink::start()?, dir, controls, first_edge, people)
    }

    /// The same with a sink that is there already.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn start_over(
        sink: Sink,
        dir: &Path,
        controls: [SocketAddr; SITES],
        first_edge: &str,
        people: usize,
    ) -> Result<Self> {
        let admin = format!("admin_addresses = [\"{ADMIN}\"]");
        let (mut edges, mut postfixes) = (Vec::new(), Vec::new());
        for ((name, more), control) in [("mx1", first_edge), ("mx2", ""), ("mx3", &admin)].into_iter().zip(controls) {
            let edge = Edge::start(dir, name, control, more)?;
            let options = PostfixOptions {
                milters: vec![edge.milter()],
                users: users(people),
                // Short ones are used again within seconds.
                more: vec!["enable_long_queue_ids = yes".to_owned()],
                ..PostfixOptions::relaying_to(sink.address())
            };
            postfixes.push(PostfixRig::start(&dir.join(format!("postfix-{name}")), &options)?);
            edges.push(edge);
        }
        Ok(Self { edges, postfixes, sink })
    }

    /// The submission servers' addresses.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.postfixes.iter().map(PostfixRig::address).collect()
    }

    /// A session of the thief at a site.
    ///
    /// # Errors
    /// When the login fails.
    pub fn thief_at(&self, site: usize) -> Result<SmtpClient> {
        Ok(SmtpClient::login(self.postfixes[site].address(), THIEF, PASSWORD)?)
    }

    /// Waits until the thief's mail is refused at a site, and gives how the next message is.
    ///
    /// # Errors
    /// When it is not.
    pub fn wait_for_refusal(&self, site: usize, number: usize) -> Result<Outcome> {
        let mut client = self.thief_at(site)?;
        wait_until("the site to refuse", TIMEOUT, || {
            send_spam(&mut client, number).is_ok_and(|outcome| !outcome.is_accepted())
        })?;
        // The lock may have come in the middle of that message: the next one is refused from its beginning.
        send_spam(&mut client, number)
    }

    /// Waits until the account's mail passes at all sites.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_until_it_flows(&self, number: usize) -> Result<()> {
        for site in 0..self.postfixes.len() {
            let mut client = self.thief_at(site)?;
            wait_until("mail to flow again", TIMEOUT, || {
                send_spam(&mut client, number + site).is_ok_and(|outcome| outcome.is_accepted())
            })?;
        }
        Ok(())
    }
}

/// Sends up to 200 messages at 50 a second at the first site, numbered from `begin`, until one is refused; gives how
/// many were accepted before, and how the next one is refused.
///
/// # Errors
/// When none is refused.
pub fn burst(sites: &Sites, begin: usize) -> Result<(usize, Outcome)> {
    let mut client = sites.thief_at(0)?;
    for number in 0..200 {
        let outcome = send_spam(&mut client, begin + number)?;
        if !outcome.is_accepted() {
            // The lock may have come in the middle of this message: the next one is refused from its beginning.
            return Ok((number, send_spam(&mut client, begin + number + 1)?));
        }
        std::thread::sleep(PAUSE);
    }
    anyhow::bail!("200 messages of similar size were let pass")
}

/// Plays it all. `control` answers the administrator; `kill_worker` kills the stream worker with SIGKILL and starts it
/// again; `counted` reads how many of its events had a result.
///
/// # Errors
/// What did not go as it must.
pub fn play(
    sites: &Sites,
    control: SocketAddr,
    kill_worker: &mut dyn FnMut() -> Result<()>,
    counted: &dyn Fn(&str) -> Result<f64>,
) -> Result<()> {
    let admin = |arguments: &[&str]| -> Result<Value> {
        let ended = crate::installation::admin(control, arguments)?.succeeded()?;
        Ok(serde_json::from_str(&ended.stdout)?)
    };
    let people = People::start(&sites.addresses(), 0..PEOPLE, Duration::from_millis(150));
    let mut open = sites.thief_at(0)?;
    ensure!(open.mail(THIEF)?.is_ok() && open.rcpt("early@elsewhere.test")?.is_ok(), "it is not locked yet");

    let (accepted, refusal) = burst(sites, 0)?;
    ensure!(accepted >= 40, "locked after {accepted}");
    check_refusal(&refusal, Stage::Mail)?;
    // The session that was open before is refused at its next command that matters.
    let stopped = open.data()?;
    ensure!(stopped.code == 550, "{stopped:?}");
    // The other sites refuse too, but the third takes what goes to the administrator, so it refuses at RCPT.
    check_refusal(&sites.wait_for_refusal(1, 9_001)?, Stage::Mail)?;
    check_refusal(&sites.wait_for_refusal(2, 9_002)?, Stage::Rcpt)?;
    let to_admin = sites.thief_at(2)?.send(THIEF, &[ADMIN], "Subject: help\n\nWhat happened?\n")?;
    ensure!(to_admin.is_accepted(), "{to_admin:?}");
    wait_until("the administrator's mail", TIMEOUT, || sites.sink.count_to(ADMIN) == 1)?;

    let shown = admin(&["accounts", "show", THIEF, "--json"])?;
    ensure!(shown["status"] == "locked" && shown["lock"]["rule"] == "burst", "{shown}");
    ensure!(shown["lock"]["evidence"]["messages_1m"].as_f64() >= Some(40.0), "{shown}");
    let in_force = shown["edges"].as_array().map(|edges| edges.iter().filter(|edge| edge["in_force"] == true).count());
    ensure!(in_force == Some(sites.edges.len()), "{shown}");

    // Unlocked, it sends again at all sites.
    let unlock = ["accounts", "unlock", THIEF, "--reason", "called back", "--password-changed", "now", "--json"];
    let unlocked = admin(&unlock)?;
    ensure!(unlocked["applied"] == true && unlocked["state"]["status"] == "active", "{unlocked}");
    sites.wait_until_it_flows(10_000)?;

    // A killed and restarted worker reads the same old messages, and does not lock it for them.
    kill_worker()?;
    // On Kafka the group waits for the killed one before it gives all partitions to its successor.
    wait_until("old messages to be left out", TIMEOUT, || counted("void").is_ok_and(|void| void >= 40.0))?;
    let before = counted("counted")?;
    let mut client = sites.thief_at(0)?;
    for number in 0..5 {
        let outcome = send_spam(&mut client, 12_000 + number)?;
        ensure!(outcome.is_accepted(), "{outcome:?}");
    }
    wait_until("new messages to be counted", TIMEOUT, || counted("counted").is_ok_and(|now| now >= before + 5.0))?;
    let shown = admin(&["accounts", "show", THIEF, "--json"])?;
    ensure!(shown["status"] == "active", "{shown}");

    // The others lost nothing.
    let (sent, refused) = people.finish();
    ensure!(refused.is_empty(), "{refused:?}");
    ensure!(sent > 20, "the others sent only {sent} messages");
    wait_until("the others' mail at the sink", TIMEOUT, || sites.sink.count_to("friend@elsewhere.test") == sent)?;
    Ok(())
}

fn check_refusal(refusal: &Outcome, stage: Stage) -> Result<()> {
    let text = &refusal.reply.text;
    ensure!(refusal.stage == stage && refusal.reply.code == 550, "{refusal:?}");
    ensure!(text.starts_with("5.7.1 This account is locked. Call the help desk at extension 42."), "{text}");
    ensure!(text.contains("(L-"), "the lock's id is missing: {text}");
    Ok(())
}
