//! A network between two services that can be made to fail: a TCP proxy that cuts, resets, refuses and delays.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use xtask::ports::free_port;

/// Octets that are taken at a time.
const CHUNK_OCTETS: usize = 16 << 10;
/// Chunks of a direction that are under way; more wait in the sender's socket.
const CHUNKS_UNDER_WAY: usize = 64;

/// Forwards connections from one port of 127.0.0.1 to another, as well as it was told to. Dropping it ends them.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: Arc<Line>,
    runtime: Option<Runtime>,
}

/// What a network can do to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing arrives any more, and nobody is told: connections stay open, new ones seem to be taken. What was under
    /// way arrives when it is healed, as TCP sends it again.
    Cut,
    /// Connections are reset, open ones and new ones.
    Refuse,
}

/// What the connections of a proxy share.
#[derive(Debug)]
struct Line {
    /// The first that takes a connection has it, beginning with another one each time.
    targets: Vec<SocketAddr>,
    turn: AtomicUsize,
    state: watch::Sender<State>,
    /// When each connection was begun.
    begun: Mutex<Vec<Instant>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    fault: Option<Fault>,
    /// Octets that still pass in both directions together, and what happens then.
    then: Option<(u64, Fault)>,
    /// For octets to the target, and for those from it.
    delays: [Duration; 2],
    /// How often open connections were reset.
    resets: u64,
}

/// Why a connection ended before its two ends closed it.
struct Broken;

impl Proxy {
    /// Forwards a free port to `target`, which need not be there yet.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(target: SocketAddr) -> Result<Self> {
        Self::start_on(free_port()?, target)
    }

    /// The same to whichever of `targets` takes a connection, in turn.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start_before(targets: Vec<SocketAddr>) -> Result<Self> {
        Self::begin(free_port()?, targets)
    }

    /// The same from a port of the caller's choice, e.g. one that the target tells its clients to come to.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub fn start_on(port: u16, target: SocketAddr) -> Result<Self> {
        Self::begin(port, vec![target])
    }

    fn begin(port: u16, targets: Vec<SocketAddr>) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listening = runtime.block_on(TcpListener::bind(address));
        let listener = listening.with_context(|| format!("listening on {address} for {targets:?}"))?;
        let (state, turn) = (watch::Sender::new(State::default()), AtomicUsize::new(0));
        let line = Arc::new(Line { targets, turn, state, begun: Mutex::default() });
        runtime.spawn(accept(listener, Arc::clone(&line)));
        Ok(Self { address, line, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins a fault; it lasts until [`heal`](Self::heal).
    pub fn break_with(&self, fault: Fault) {
        self.change(|state| state.begin(fault));
    }

    /// Begins a fault when so many more octets have passed, in both directions together: in the middle of a message.
    pub fn break_after(&self, octets: u64, fault: Fault) {
        self.change(|state| state.then = Some((octets, fault)));
    }

    /// Resets the connections that are open. New ones are taken.
    pub fn reset(&self) {
        self.change(|state| state.resets += 1);
    }

    /// Delays octets to the target, and those from it.
    pub fn delay(&self, to_target: Duration, from_target: Duration) {
        self.change(|state| state.delays = [to_target, from_target]);
    }

    /// Ends all faults and delays.
    pub fn heal(&self) {
        self.change(|state| *state = State { resets: state.resets, ..State::default() });
    }

    /// Whether a fault is on, also one that began after some octets.
    pub fn is_broken(&self) -> bool {
        self.line.state.borrow().fault.is_some()
    }

    /// When each connection was begun so far, also those that were refused.
    pub fn connections(&self) -> Vec<Instant> {
        self.line.begun().clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.line.state.send_modify(change);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl State {
    fn begin(&mut self, fault: Fault) {
        self.fault = Some(fault);
        self.then = None;
        self.resets += u64::from(fault == Fault::Refuse);
    }
}

impl Line {
    fn begun(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to the first target that takes one.
    async fn connect(&self) -> Option<TcpStream> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        for step in 0..self.targets.len() {
            let target = self.targets[(turn + step) % self.targets.len()];
            if let Ok(stream) = TcpStream::connect(target).await {
                return Some(stream);
            }
        }
        None
    }

    /// How many of `octets` pass now. The rest waits for what [`Proxy::break_after`] has begun.
    fn pass(&self, octets: usize) -> usize {
        let mut passes = octets;
        self.state.send_if_modified(|state| {
            let Some((left, fault)) = state.then else { return false };
            if octets as u64 <= left {
                state.then = Some((left - octets as u64, fault));
                return false;
            }
            passes = left as usize;
            state.begin(fault);
            true
        });
        passes
    }
}

async fn accept(listener: TcpListener, line: Arc<Line>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                line.begun().push(Instant::now());
                tokio::spawn(carry(client, Arc::clone(&line)));
            }
            // E.g. no more file descriptors.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// One connection from its beginning to its end.
async fn carry(mut client: TcpStream, line: Arc<Line>) {
    let mut state = line.state.subscribe();
    let State { fault, resets, .. } = *state.borrow_and_update();
    if fault == Some(Fault::Refuse) {
        return reset(client);
    }
    let mut server = None;
    let carried = tokio::select! {
        biased;
        _ = state.wait_for(|state| state.resets != resets) => Err(Broken),
        carried = join(&mut client, &mut server, &line) => carried,
    };
    if carried.is_err() {
        reset(client);
        server.into_iter().for_each(reset);
    }
}

/// Connects to the target, once nothing is cut, and carries until both ends have closed.
async fn join(client: &mut TcpStream, server: &mut Option<TcpStream>, line: &Line) -> Result<(), Broken> {
    whole(line).await;
    let server = server.insert(line.connect().await.ok_or(Broken)?);
    for stream in [&*client, &*server] {
        stream.set_nodelay(true).map_err(|_| Broken)?;
    }
    let (client_reads, client_writes) = client.split();
    let (server_reads, server_writes) = server.split();
    let there = pump(client_reads, server_writes, line, 0);
    let back = pump(server_reads, client_writes, line, 1);
    tokio::try_join!(there, back).map(drop)
}

/// One direction of a connection: octets leave in their order, each after its delay, and only while nothing is cut.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, line: &Line, direction: usize) -> Result<(), Broken> {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_UNDER_WAY);
    let take = async move {
        loop {
            let mut chunk = vec![0; CHUNK_OCTETS];
            let count = from.read(&mut chunk).await.map_err(|_| Broken)?;
            if count == 0 {
                return Ok(());
            }
            chunk.truncate(count);
            let due = Instant::now() + line.state.borrow().delays[direction];
            sender.send((due, chunk)).await.map_err(|_| Broken)?;
        }
    };
    let give = async {
        while let Some((due, chunk)) = chunks.recv().await {
            tokio::time::sleep_until(due.into()).await;
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                whole(line).await;
                let (now, later) = rest.split_at(line.pass(rest.len()));
                to.write_all(now).await.map_err(|_| Broken)?;
                rest = later;
            }
        }
        // That an end has closed arrives like everything else.
        whole(line).await;
        to.shutdown().await.map_err(|_| Broken)
    };
    tokio::try_join!(take, give).map(drop)
}

/// Waits until nothing is cut.
async fn whole(line: &Line) {
    // The sender lives in the line.
    let _ = line.state.subscribe().wait_for(|state| state.fault.is_none()).await;
}

/// Closes with a reset (RST) instead of an orderly end.
fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net;
    use std::thread;
    use xtask::wait::wait_until;

    const TIMEOUT: Duration = Duration::from_secs(30);
    /// To see that something does not come.
    const A_WHILE: Duration = Duration::from_millis(100);

    /// Sends back what it gets, and a proxy before it.
    fn echo() -> Proxy {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut from = stream.try_clone().unwrap();
                    let mut to = stream;
                    drop(std::io::copy(&mut from, &mut to));
                });
            }
        });
        Proxy::start(address).unwrap()
    }

    fn connect(proxy: &Proxy) -> net::TcpStream {
        let stream = net::TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    fn answer(stream: &mut net::TcpStream, count: usize) -> String {
        let mut answer = vec![0; count];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn is_silent(stream: &mut net::TcpStream) -> bool {
        stream.set_read_timeout(Some(A_WHILE)).unwrap();
        let error = stream.read(&mut [0]).map_err(|error| error.kind());
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        matches!(error, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    fn is_reset(stream: &mut net::TcpStream) -> bool {
        stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    }

    #[test]
    fn carries_both_ways_and_tells_of_the_end() {
        let proxy = echo();
        let mut stream = connect(&proxy);
        stream.write_all(b"hello").unwrap();
        assert_eq!(answer(&mut stream, 5), "hello");
        stream.shutdown(net::Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the other end closes, too");
        assert_eq!(proxy.connections().len(), 1);
    }

    #[test]
    fn what_is_cut_is_silent_until_it_is_healed_and_loses_nothing() {
        let proxy = echo();
        let mut open = connect(&proxy);
        open.write_all(b"a").unwrap();
        assert_eq!(answer(&mut open, 1), "a");
        proxy.break_with(Fault::Cut);
        let mut new = connect(&proxy);
        for stream in [&mut open, &mut new] {
            stream.write_all(b"b").unwrap();
            assert!(is_silent(stream));
        }
        proxy.heal();
        for mut stream in [open, new] {
            assert_eq!(answer(&mut stream, 1), "b");
        }
    }

    #[test]
    fn a_cut_in_the_middle_lets_so_many_octets_pass() {
        let proxy = echo();
        let mut stream = connect(&proxy);
        // Six there, four of them back.
        proxy.break_after(10, Fault::Cut);
        stream.write_all(b"abcdef").unwrap();
        assert_eq!(answer(&mut stream, 4), "abcd");
        wait_until("the fault", TIMEOUT, || proxy.is_broken()).unwrap();
        assert!(is_silent(&mut stream));
        proxy.heal();
        assert_eq!(answer(&mut stream, 2), "ef");
        proxy.break_after(1, Fault::Refuse);
        stream.write_all(b"gh").unwrap();
        assert!(is_reset(&mut stream));
    }

    #[test]
    fn resets_reach_the_client() {
        let proxy = echo();
        let mut stream = connect(&proxy);
        stream.write_all(b"a").unwrap();
        assert_eq!(answer(&mut stream, 1), "a");
        proxy.reset();
        assert!(is_reset(&mut stream));
        let mut stream = connect(&proxy);
        stream.write_all(b"b").unwrap();
        assert_eq!(answer(&mut stream, 1), "b");
        proxy.break_with(Fault::Refuse);
        assert!(is_reset(&mut stream));
        // The new one is reset before or after it is told that it is connected.
        assert!(net::TcpStream::connect(proxy.address()).map_or(true, |mut new| is_reset(&mut new)));
        // One that waited while it was cut is reset, too.
        proxy.heal();
        proxy.break_with(Fault::Cut);
        let mut waiting = connect(&proxy);
        assert!(is_silent(&mut waiting));
        proxy.break_with(Fault::Refuse);
        proxy.heal();
        assert!(is_reset(&mut waiting));
        assert_eq!(proxy.connections().len(), 4);
    }

    #[test]
    fn a_target_that_is_not_there_resets() {
        let nobody = net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let proxy = Proxy::start(nobody).unwrap();
        assert!(is_reset(&mut connect(&proxy)));
    }

    #[test]
    fn what_is_delayed_comes_later_in_its_order() {
        let proxy = echo();
        proxy.delay(Duration::ZERO, Duration::from_hours(1));
        let mut stream = connect(&proxy);
        stream.write_all(b"late").unwrap();
        assert!(is_silent(&mut stream));
        proxy.delay(A_WHILE, A_WHILE);
        let mut stream = connect(&proxy);
        for letter in [b"a", b"b", b"c"] {
            stream.write_all(letter).unwrap();
        }
        assert_eq!(answer(&mut stream, 3), "abc");
    }
}
