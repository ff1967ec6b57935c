//! Sending: ordinary traffic and the thief's, each paced, each counted.

use super::milter::{Mail, Outcome, Session};
use super::people::{self, People};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_runtime::shutdown::CancellationToken;
use tokio::time::MissedTickBehavior;

/// Sessions that ordinary traffic uses at each site.
const SESSIONS: u32 = 8;

/// What ordinary traffic came to.
#[derive(Debug, Default)]
pub struct Ordinary {
    /// Messages that were let pass.
    pub accepted: AtomicU64,
    /// Messages that were refused, and must not have been.
    pub refused: AtomicU64,
    /// Sessions that broke; their traffic goes on in a new one.
    pub broken: AtomicU64,
}

/// One try of the thief.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Index of the site.
    pub site: usize,
    /// When the answer came: milliseconds since 1970 UTC.
    pub at_ms: f64,
    /// The answer.
    pub outcome: Outcome,
}

/// All tries of the thief, in the order of their answers. A clone shares it.
#[derive(Debug, Clone, Default)]
pub struct Attempts(Arc<Mutex<Vec<Attempt>>>);

impl Attempts {
    /// A copy of all of them.
    pub fn all(&self) -> Vec<Attempt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, attempt: Attempt) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
    }
}

/// Sends `rate` ordinary messages a second over all `sockets` until `stop`.
pub fn start_ordinary(
    sockets: &[PathBuf],
    accounts: u32,
    rate: u32,
    seed: u64,
    stop: &CancellationToken,
) -> Arc<Ordinary> {
    let counts = Arc::new(Ordinary::default());
    let senders = SESSIONS * sockets.len() as u32;
    let pause = Duration::from_secs_f64(f64::from(senders) / f64::from(rate));
    for sender in 0..senders {
        let socket = sockets[sender as usize % sockets.len()].clone();
        let people = People::new(accounts, seed.wrapping_add(u64::from(sender)));
        tokio::spawn(send_ordinary(socket, people, pause, Arc::clone(&counts), stop.clone()));
    }
    counts
}

async fn send_ordinary(
    socket: PathBuf,
    mut people: People,
    pause: Duration,
    counts: Arc<Ordinary>,
    stop: CancellationToken,
) {
    let mut ticks = paced(pause);
    let mut session = None;
    while next_tick(&mut ticks, &stop).await {
        match submit(&mut session, &socket, &people.next()).await {
            Ok(Outcome::Accepted) => counts.accepted.fetch_add(1, Ordering::Relaxed),
            Ok(Outcome::Refused(reply)) => {
                tracing::warn!(%reply, "ordinary mail was refused");
                counts.refused.fetch_add(1, Ordering::Relaxed)
            }
            Err(error) => {
                tracing::warn!("{error:#}");
                counts.broken.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

/// The thief: `rate` messages a second, spread over all sites, going on after refusals as thieves' programs do.
pub fn start_thief(sockets: &[PathBuf], rate: u32, attempts: &Attempts, stop: &CancellationToken) {
    let pause = Duration::from_secs_f64(sockets.len() as f64 / f64::from(rate));
    let numbers = Arc::new(AtomicU64::new(0));
    for (site, socket) in sockets.iter().cloned().enumerate() {
        let (attempts, numbers, stop) = (attempts.clone(), Arc::clone(&numbers), stop.clone());
        tokio::spawn(async move {
            let mut ticks = paced(pause);
            let mut session = None;
            while next_tick(&mut ticks, &stop).await {
                let mail = people::spam(numbers.fetch_add(1, Ordering::Relaxed));
                match submit(&mut session, &socket, &mail).await {
                    Ok(outcome) => attempts.add(Attempt { site, at_ms: now_ms(), outcome }),
                    Err(error) => tracing::warn!("{error:#}"),
                }
            }
        });
    }
}

/// Submits over a session that is opened when there is none, and dropped when it breaks.
pub async fn submit(session: &mut Option<Session>, socket: &Path, mail: &Mail) -> anyhow::Result<Outcome> {
    let open = match session {
        Some(open) => open,
        None => session.insert(Session::open(socket).await?),
    };
    let outcome = open.submit(mail).await;
    if outcome.is_err() {
        *session = None;
    }
    outcome
}

/// Milliseconds since 1970 UTC.
pub fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1000.0)
}

fn paced(pause: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn next_tick(ticks: &mut tokio::time::Interval, stop: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        _ = ticks.tick() => true,
    }
}
