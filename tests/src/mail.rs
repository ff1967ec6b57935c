//! Mail for tests: people who keep sending, a thief, and the rules that catch him.

use anyhow::Result;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use xtask::dovecot::User;
use xtask::smtp::{Outcome, SmtpClient};

/// Everybody's password.
pub const PASSWORD: &str = "secret";
/// The account that is hijacked.
pub const THIEF: &str = "thief@example.test";

/// The burst rule as a provider would switch it on: frequency, minimum and sameness, with a second sign.
pub const BURST_RULES: &str = r#"
mode = "enforce"

[limits]
minimum = 40
sameness = 0.10

[[rule]]
name = "burst"
when = "messages_1m >= $minimum AND size_cv_15m <= $sameness AND recipient_domains_15m >= 10"
action = "lock"
queued_mail = "hold"
reason = "Many messages of one size to many domains within a minute."
reply = "This account is locked. Call the help desk at extension 42."
source = "end-to-end tests"
"#;

/// Accounts that can log in: the thief and `people` others.
pub fn users(people: usize) -> Vec<User> {
    let others = (0..people).map(|number| User::new(person(number), PASSWORD));
    std::iter::once(User::new(THIEF, PASSWORD)).chain(others).collect()
}

/// One of the others.
pub fn person(number: usize) -> String {
    format!("person{number}@example.test")
}

/// Sends the thief's message number `number`.
///
/// # Errors
/// When the session breaks.
pub fn send_spam(client: &mut SmtpClient, number: usize) -> Result<Outcome> {
    let recipient = format!("victim{number}@domain{number}.example");
    let text = format!(
        "Subject: Parcel {number:05}\n\nYour parcel {number:05} waits. Pay at https://pay.example/{number:05}\n"
    );
    Ok(client.send(THIEF, &[&recipient], &text)?)
}

/// People who send one message after another until they are told to stop.
pub struct People {
    stop: Arc<AtomicBool>,
    /// Messages that a server took.
    pub accepted: Arc<AtomicUsize>,
    /// What was refused.
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl People {
    /// Person `number` of `numbers` sends through `servers[number % servers.len()]`, a message every `pause`.
    pub fn start(servers: &[SocketAddr], numbers: std::ops::Range<usize>, pause: Duration) -> Self {
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = numbers.map(|number| {
            let (stop, accepted) = (Arc::clone(&stop), Arc::clone(&accepted));
            let server = servers[number % servers.len()];
            thread::spawn(move || {
                let mut refused = Vec::new();
                let mut message = 0;
                while !stop.load(Ordering::Relaxed) {
                    message += 1;
                    match send_letter(server, number, message) {
                        Ok(outcome) if outcome.is_accepted() => {
                            accepted.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(outcome) => refused.push(format!("{}: {outcome:?}", person(number))),
                        Err(error) => refused.push(format!("{}: {error:#}", person(number))),
                    }
                    thread::sleep(pause);
                }
                refused
            })
        });
        let threads = threads.collect();
        Self { stop, accepted, threads }
    }

    /// Ends them; gives how many messages were accepted, and everything that was not.
    pub fn finish(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let refused = self
            .threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|_| vec!["a person's thread panicked".to_owned()]));
        let refused = refused.collect();
        (self.accepted.load(Ordering::Relaxed), refused)
    }
}

fn send_letter(server: SocketAddr, number: usize, message: usize) -> Result<Outcome> {
    let from = person(number);
    let mut client = SmtpClient::login(server, &from, PASSWORD)?;
    let text =
        format!("Subject: Letter {message}\n\n{}\n", "Dear friend, all is well here. ".repeat(1 + message * 7 % 90));
    let outcome = client.send(&from, &["friend@elsewhere.test"], &text)?;
    client.quit()?;
    Ok(outcome)
}
