//! Who is signed in. In memory only: a restart signs everybody out.
//!
//! The browser holds a random id, this process only its hash: who reads this memory's dump cannot take a session over.

use crate::api::{Caller, Token};
use crate::clock::now_ms;
use crate::metrics::{EndLabel, Metrics};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;
use tidegate_proto::v1::WhoAmIResponse;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Most notes that wait for their page.
const MAX_NOTES: usize = 32;
/// Who somebody is counts so long before it is asked again: a page asks it several times.
const KNOWN_FOR: Duration = Duration::from_secs(5);

/// All sessions. A clone shares them.
#[derive(Clone)]
pub(crate) struct Sessions(Arc<Inner>);

struct Inner {
    all: Mutex<HashMap<Hash, Arc<Session>>>,
    bounds: SessionBounds,
    metrics: Metrics,
}

/// What sessions may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionBounds {
    /// Most of them; then the one that is idle longest ends.
    pub max: usize,
    /// One that asks for nothing ends after this time.
    pub idle: Duration,
    /// One ends after this time, whatever it does.
    pub max_age: Duration,
    /// Most live streams of one.
    pub max_streams: usize,
}

/// SHA-256 of a session's id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Hash([u8; 32]);

/// One session.
pub(crate) struct Session {
    /// What the sessions' list calls it: says nothing about its id.
    pub handle: String,
    /// When it began.
    pub began_ms: i64,
    /// From which address.
    pub peer: SocketAddr,
    /// Its live streams.
    pub streams: Arc<Semaphore>,
    /// Cancelled when it ends.
    pub ended: CancellationToken,
    token: Option<Token>,
    began: Instant,
    csrf: String,
    state: Mutex<State>,
}

struct State {
    used: Instant,
    used_ms: i64,
    who: Arc<WhoAmIResponse>,
    known: Instant,
    notes: VecDeque<(String, String)>,
}

impl Sessions {
    /// None yet.
    pub fn new(bounds: SessionBounds, metrics: Metrics) -> Self {
        Self(Arc::new(Inner { all: Mutex::default(), bounds, metrics }))
    }

    /// Begins one; gives the id for the browser.
    pub fn begin(&self, token: Token, who: WhoAmIResponse, peer: SocketAddr) -> String {
        let id = random();
        let session = Arc::new(Session::new(Some(token), who, peer, self.0.bounds.max_streams));
        let mut all = self.0.all.lock();
        while all.len() >= self.0.bounds.max {
            let idlest = all.iter().min_by_key(|(_, session)| session.state.lock().used).map(|(hash, _)| *hash);
            let Some(idlest) = idlest else { break };
            self.remove(&mut all, &idlest, "full");
        }
        all.insert(Hash::of(&id), session);
        self.0.metrics.sessions.set(i64::try_from(all.len()).unwrap_or(i64::MAX));
        id
    }

    /// The session with this id, if it has not ended. Counts as use.
    pub fn find(&self, id: &str) -> Option<Arc<Session>> {
        let session = self.peek(Hash::of(id))?;
        let mut state = session.state.lock();
        (state.used, state.used_ms) = (Instant::now(), now_ms());
        drop(state);
        Some(session)
    }

    fn peek(&self, hash: Hash) -> Option<Arc<Session>> {
        let mut all = self.0.all.lock();
        let session = Arc::clone(all.get(&hash)?);
        if let Some(why) = session.over(&self.0.bounds) {
            self.remove(&mut all, &hash, why);
            return None;
        }
        Some(session)
    }

    /// Ends the session with this id.
    pub fn end(&self, id: &str, why: &'static str) {
        self.remove(&mut self.0.all.lock(), &Hash::of(id), why);
    }

    /// Ends the session of `name` that the list calls `handle`; whether there was one.
    pub fn end_of(&self, name: &str, handle: &str) -> bool {
        let mut all = self.0.all.lock();
        let is_it = |session: &Session| session.handle == handle && session.who().name == name;
        let found = all.iter().find(|(_, session)| is_it(session)).map(|(hash, _)| *hash);
        found.is_some_and(|hash| self.remove(&mut all, &hash, "ended"))
    }

    /// Those of `name`, the newest first.
    pub fn of(&self, name: &str) -> Vec<Arc<Session>> {
        let mut found: Vec<_> =
            self.0.all.lock().values().filter(|session| session.who().name == name).cloned().collect();
        found.sort_by_key(|session| std::cmp::Reverse(session.began_ms));
        found
    }

    /// Ends what has had its time, so that its live streams end too.
    pub fn sweep(&self) {
        let mut all = self.0.all.lock();
        let bounds = &self.0.bounds;
        let over: Vec<_> = all.iter().filter_map(|(hash, session)| Some((*hash, session.over(bounds)?))).collect();
        for (hash, why) in over {
            self.remove(&mut all, &hash, why);
        }
    }

    fn remove(&self, all: &mut HashMap<Hash, Arc<Session>>, hash: &Hash, why: &'static str) -> bool {
        let Some(session) = all.remove(hash) else { return false };
        session.ended.cancel();
        self.0.metrics.sessions.set(i64::try_from(all.len()).unwrap_or(i64::MAX));
        self.0.metrics.sessions_ended.get_or_create(&EndLabel { why }).inc();
        true
    }
}

impl Session {
    /// The one session of everybody on a loopback address where nothing is asked for.
    pub fn on_loopback(who: WhoAmIResponse, peer: SocketAddr, max_streams: usize) -> Self {
        Self::new(None, who, peer, max_streams)
    }

    fn new(token: Option<Token>, who: WhoAmIResponse, peer: SocketAddr, max_streams: usize) -> Self {
        let (now, now_ms) = (Instant::now(), now_ms());
        let state = State { used: now, used_ms: now_ms, who: Arc::new(who), known: now, notes: VecDeque::new() };
        Self {
            handle: random()[..12].to_owned(),
            began_ms: now_ms,
            peer,
            streams: Arc::new(Semaphore::new(max_streams)),
            ended: CancellationToken::new(),
            token,
            began: now,
            csrf: random(),
            state: Mutex::new(state),
        }
    }

    /// For whom the API is called, from the browser's address.
    pub fn caller(&self, peer: SocketAddr) -> Caller {
        Caller { token: self.token.clone(), peer }
    }

    /// Who it is, as the API last said.
    pub fn who(&self) -> Arc<WhoAmIResponse> {
        Arc::clone(&self.state.lock().who)
    }

    /// Whether that was said long ago.
    pub fn is_who_old(&self) -> bool {
        self.state.lock().known.elapsed() >= KNOWN_FOR
    }

    /// Takes what the API says now.
    pub fn know(&self, who: WhoAmIResponse) {
        let mut state = self.state.lock();
        (state.who, state.known) = (Arc::new(who), Instant::now());
    }

    /// When it last asked for something.
    pub fn used_ms(&self) -> i64 {
        self.state.lock().used_ms
    }

    /// What every form carries.
    pub fn csrf(&self) -> &str {
        &self.csrf
    }

    /// Whether `given` is what every form carries. Takes the same time for every wrong one.
    pub fn is_csrf(&self, given: &str) -> bool {
        self.csrf.as_bytes().ct_eq(given.as_bytes()).into()
    }

    /// Keeps a note for the next page; gives its name.
    pub fn note(&self, text: String) -> String {
        let name = random()[..8].to_owned();
        let mut state = self.state.lock();
        if state.notes.len() >= MAX_NOTES {
            state.notes.pop_front();
        }
        state.notes.push_back((name.clone(), text));
        name
    }

    /// Takes the note called `name`.
    pub fn take_note(&self, name: &str) -> Option<String> {
        let mut state = self.state.lock();
        let index = state.notes.iter().position(|(other, _)| other == name)?;
        state.notes.remove(index).map(|(_, text)| text)
    }

    /// Why it is over, if it is.
    fn over(&self, bounds: &SessionBounds) -> Option<&'static str> {
        let idle = self.state.lock().used.elapsed();
        match () {
            () if idle > bounds.idle => Some("idle"),
            () if self.began.elapsed() > bounds.max_age => Some("old"),
            () => None,
        }
    }
}

impl Hash {
    fn of(id: &str) -> Self {
        Self(Sha256::digest(id.as_bytes()).into())
    }
}

/// 256 random bits as text that a cookie and a field can carry.
pub(crate) fn random() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: SessionBounds =
        SessionBounds { max: 2, idle: Duration::from_mins(1), max_age: Duration::from_hours(1), max_streams: 1 };

    fn begin(sessions: &Sessions, name: &str) -> String {
        let who = WhoAmIResponse { name: name.into(), ..WhoAmIResponse::default() };
        sessions.begin(Token::parse("secret").unwrap(), who, "192.0.2.1:1".parse().unwrap())
    }

    #[test]
    fn ids_are_random_and_only_their_hash_is_kept() {
        let sessions = Sessions::new(BOUNDS, Metrics::default());
        let (one, other) = (begin(&sessions, "amy"), begin(&sessions, "amy"));
        assert_eq!((one.len(), other.len()), (43, 43));
        assert_ne!(one, other);
        let (a, b) = (sessions.find(&one).unwrap(), sessions.find(&other).unwrap());
        assert_ne!(a.csrf(), b.csrf());
        assert!(a.is_csrf(a.csrf()) && !a.is_csrf(b.csrf()) && !a.is_csrf(""));
        assert!(sessions.find("").is_none() && sessions.find(&a.handle).is_none());
    }

    #[test]
    fn the_one_that_is_idle_longest_gives_way() {
        let sessions = Sessions::new(BOUNDS, Metrics::default());
        let (one, other) = (begin(&sessions, "amy"), begin(&sessions, "bob"));
        let ended = sessions.find(&other).unwrap().ended.clone();
        assert!(sessions.find(&one).is_some());
        let third = begin(&sessions, "amy");
        assert!(sessions.find(&other).is_none() && ended.is_cancelled());
        assert_eq!(sessions.of("amy").len(), 2);
        let handle = sessions.find(&third).unwrap().handle.clone();
        assert!(!sessions.end_of("bob", &handle), "it is not his");
        assert!(sessions.end_of("amy", &handle) && sessions.find(&third).is_none());
        sessions.end(&one, "signed_out");
        assert!(sessions.find(&one).is_none());
    }

    #[test]
    fn one_that_is_idle_or_old_is_over() {
        let idle = SessionBounds { idle: Duration::ZERO, ..BOUNDS };
        let old = SessionBounds { max_age: Duration::ZERO, ..BOUNDS };
        for bounds in [idle, old] {
            let sessions = Sessions::new(bounds, Metrics::default());
            let id = begin(&sessions, "amy");
            let ended = sessions.of("amy")[0].ended.clone();
            sessions.sweep();
            assert!(ended.is_cancelled());
            assert!(sessions.find(&id).is_none());
        }
    }

    #[test]
    fn a_note_is_told_once() {
        let session = Session::on_loopback(WhoAmIResponse::default(), "127.0.0.1:1".parse().unwrap(), 1);
        let name = session.note("done".into());
        assert_eq!(session.take_note("other"), None);
        assert_eq!(session.take_note(&name).as_deref(), Some("done"));
        assert_eq!(session.take_note(&name), None);
        (0..100).for_each(|_| drop(session.note(String::new())));
        assert_eq!(session.state.lock().notes.len(), MAX_NOTES);
    }
}
