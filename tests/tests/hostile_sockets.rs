//! Octets that nobody should send, on every socket: random, cut off, oversized, endless and slow. A well-behaved client
//! of the same socket is answered all the while, memory stays bounded, and a hijacked account is locked all the same.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tidegate_tests::hostile::{PolicyClient, check_health, hijack, noise, resident_octets};
use tidegate_tests::http;
use tidegate_tests::installation::{Edge, Log, Server, TIMEOUT};
use tidegate_tests::mail::BURST_RULES;
use xtask::wait::wait_until;

const MAX_GROWTH_OCTETS: u64 = 150 << 20;
/// How long a connection is written to or read from before it is left.
const PATIENCE: Duration = Duration::from_secs(2);
/// Endless lines and bodies end here.
const ENDLESS_OCTETS: usize = 24 << 20;

/// A conversation that somebody may begin with any of the sockets.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let options =
        [&13_u32.to_be_bytes()[..], b"O", &6_u32.to_be_bytes(), &0x1ff_u32.to_be_bytes(), &[0, 0x1f, 0xff, 0xff]];
    let options = options.concat();
    let packet = |command: u8, length: u32| [&length.to_be_bytes()[..], &[command]].concat();
    let post = "POST /rspamd HTTP/1.1\r\nHost: x\r\n";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    vec![
        ("nothing", Vec::new()),
        ("random octets", noise(7, 20_000)),
        ("zeros", vec![0; 20_000]),
        ("ones", vec![0xff; 20_000]),
        ("a milter packet of 4 GiB", packet(b'O', u32::MAX)),
        ("a milter packet of nothing", packet(b'O', 0)),
        ("half a milter packet", packet(b'O', 13)),
        ("milter options, then garbage", [&options[..], &noise(8, 5_000)].concat()),
        ("a milter body of 16 MiB that ends early", [&options[..], &packet(b'B', 16 << 20), &[b'x'; 9_000]].concat()),
        ("milter macros without an end", [&options[..], &packet(b'D', 60_000), &[b'M'; 60_000]].concat()),
        ("an unknown milter command", [&options[..], &packet(b'!', 1)].concat()),
        ("a policy request without an end", b"request=smtpd_access_policy\nprotocol_state=RCPT\n".to_vec()),
        ("policy lines without a request", b"=\n==\nx\n\n\n\n\xff\xfe=\x00\n\n".repeat(500)),
        ("an HTTP request without an end", post.as_bytes().to_vec()),
        ("an HTTP body of 4 GiB", format!("{post}Content-Length: 4294967296\r\n\r\nxx").into_bytes()),
        ("an HTTP body shorter than said", format!("{post}Content-Length: 5000\r\n\r\n{{").into_bytes()),
        (
            "HTTP chunks of any length",
            format!("{post}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx").into_bytes(),
        ),
        ("a verdict in JSON without an end", {
            let body = "[".repeat(100_000);
            format!("{post}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        }),
        ("a thousand headers", format!("{post}{}\r\n", "x: y\r\n".repeat(1_000)).into_bytes()),
        ("half of HTTP/2's preface", preface[..12].to_vec()),
        ("HTTP/2, then a frame of 16 MiB", [&preface[..], &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat()),
        ("HTTP/2, then garbage", [&preface[..], &noise(9, 5_000)].concat()),
        ("HTTP/2 with headers without an end", {
            let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
            let headers = [0, 0x40, 0, 1, 0, 0, 0, 0, 1];
            [&preface[..], &settings, &headers, &[0x82; 0x4000], &[0, 0x40, 0, 9, 0, 0, 0, 0, 1], &[0x82; 0x4000]]
                .concat()
        }),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
    ]
}

/// Says `octets` and, when `half_closed`, that no more comes; then waits until the other side closes, or for a while.
fn converse(address: SocketAddr, octets: &[u8], half_closed: bool) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(if half_closed { 2_000 } else { 30 }))).unwrap();
    // It may be closed before all is written.
    let _ = stream.write_all(octets);
    if half_closed {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = [0; 4_096];
    while stream.read(&mut answer).is_ok_and(|octets| octets > 0) {}
}

/// The same octets over and over, until it is closed or has been enough. Answers are read, so that nobody waits for us.
fn endless(address: SocketAddr, begin: &[u8], pattern: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut reading = stream.try_clone().unwrap();
    let reader = thread::spawn(move || {
        let mut answer = [0; 8_192];
        while reading.read(&mut answer).is_ok_and(|octets| octets > 0) {}
    });
    let piece = pattern.repeat(65_536 / pattern.len() + 1);
    let _ = stream.write_all(begin);
    let mut written = 0;
    while written < ENDLESS_OCTETS && stream.write_all(&piece).is_ok() {
        written += piece.len();
    }
    let _ = stream.shutdown(Shutdown::Both);
    reader.join().unwrap();
}

/// Asks over and over while `work` runs; each time there has to be an answer.
fn meanwhile<T>(mut ask: impl FnMut() + Send, work: impl FnOnce() -> T) -> T {
    let (ended, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) || asked.load(Ordering::Relaxed) == 0 {
                ask();
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        let guard = EndOnDrop(&ended);
        let result = work();
        drop(guard);
        result
    })
}

/// Ends the asking also when the work panics.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Plays all attacks on one socket.
fn attack(address: SocketAddr) {
    for (_, octets) in attacks() {
        converse(address, &octets, false);
        converse(address, &octets, true);
    }
    for (begin, pattern) in [
        (&b""[..], &b"x"[..]),
        (b"", b"\n"),
        (b"request=smtpd_access_policy\n", b"sender=x\n"),
        (b"GET / HTTP/1.1\r\n", b"x: y\r\n"),
        (b"POST /rspamd HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"\x00\x00\x00\x0dO\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff", b"\x00\x00\x00\x05Mxxxx"),
    ] {
        endless(address, begin, pattern);
    }
}

/// Connections that are opened and send one octet of `text` each time that they are told to, until its end.
struct Slow {
    streams: Vec<TcpStream>,
    text: Vec<u8>,
    sent: usize,
}

impl Slow {
    /// They go on with an endless line after `text`.
    fn endless(address: SocketAddr, connections: usize, text: &[u8]) -> Self {
        Self::open(address, connections, &[text, &[b'x'; 15_000]].concat())
    }

    fn open(address: SocketAddr, connections: usize, text: &[u8]) -> Self {
        let streams = (0..connections).filter_map(|_| TcpStream::connect(address).ok()).collect();
        Self { streams, text: text.to_vec(), sent: 0 }
    }

    /// Sends the next octet on each; those that were closed are dropped. Gives how many are left.
    fn drip(&mut self) -> usize {
        let octet = self.text.get(self.sent..=self.sent).unwrap_or_default();
        self.sent += 1;
        self.streams.retain_mut(|stream| {
            stream.set_nonblocking(true).unwrap();
            let closed = matches!(stream.read(&mut [0; 64]), Ok(0))
                || matches!(stream.read(&mut [0; 64]), Err(error) if error.kind() != std::io::ErrorKind::WouldBlock);
            !closed && stream.write(octet).is_ok()
        });
        self.streams.len()
    }
}

#[test]
fn on_the_edge() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "server", "serve", &Log::Embedded, BURST_RULES).unwrap();
    let mut edge = Edge::start(dir.path(), "mx1", server.control, "").unwrap();
    let (policy, milter, rspamd) = (edge.policy_address, edge.milter_address, edge.rspamd);
    let ops = edge.process.ops_address().unwrap();
    let before = resident_octets(edge.process.pid()).unwrap();

    let mut client = PolicyClient::connect(policy).unwrap();
    let mut number = 0;
    let honest = || {
        number += 1;
        let action = client.message("honest@example.test", &format!("h{number}"), "friend@elsewhere.test").unwrap();
        assert_eq!(action, "DUNNO");
        // Not so fast that it is the attack itself.
        thread::sleep(Duration::from_millis(20));
    };
    meanwhile(honest, || [policy, milter, rspamd, ops].into_iter().for_each(attack));
    check_health(&mut edge.process, before + MAX_GROWTH_OCTETS).unwrap();
    let metric = |name: &str, labels: &[(&str, &str)]| edge.process.metric(name, labels).unwrap();
    assert!(metric("tidegate_edge_protocol_errors_total", &[("protocol", "milter")]) >= 10.0);
    assert!(metric("tidegate_edge_verdicts_total", &[("reason", "unreadable")]) >= 1.0);
    assert!(metric("tidegate_edge_verdicts_total", &[("reason", "too_long")]) >= 1.0);
    assert!(metric("tidegate_edge_rspamd_http_connections_failed_total", &[("reason", "no_http")]) >= 10.0);
    assert!(metric("tidegate_ops_http_connections_failed_total", &[("reason", "no_http")]) >= 10.0);

    hijack(policy, "thief@example.test").unwrap();
}

#[test]
fn slow_clients_on_the_edge_do_not_keep_others_out() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "server", "serve", &Log::Embedded, BURST_RULES).unwrap();
    let mut edge = Edge::start(dir.path(), "mx1", server.control, "").unwrap();
    let ops = edge.process.ops_address().unwrap();
    let before = resident_octets(edge.process.pid()).unwrap();
    // More than the HTTP servers bear; mail servers' sockets bear all of them.
    let mut slow = [
        Slow::endless(edge.rspamd, 40, b"POST /rspamd HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{"),
        Slow::endless(edge.rspamd, 300, b"POST /rspamd HTTP/1.1\r\nHost: x"),
        Slow::endless(ops, 100, b"GET /healthz HTTP/1.1\r\nx: "),
        Slow::endless(edge.milter_address, 300, b"\x00\x10\x00\x00O\x00"),
        Slow::endless(edge.policy_address, 300, b"request=smtpd_access_policy\nsender="),
    ];
    let mut client = PolicyClient::connect(edge.policy_address).unwrap();
    let mut drip = || {
        let left: Vec<usize> = slow.iter_mut().map(Slow::drip).collect();
        assert_eq!(client.message("honest@example.test", "h", "friend@elsewhere.test").unwrap(), "DUNNO");
        left
    };
    // Whoever does not say all of a request's head in time is sent away, whoever keeps dripping.
    wait_until("slow HTTP clients to be sent away", TIMEOUT, || matches!(drip()[..], [0, 0, 0, ..])).unwrap();
    assert!(http::get(ops, "/healthz").unwrap().status == 200);
    assert!(http::get(edge.rspamd, "/nothing").unwrap().status == 404);
    let metric = |name: &str, labels: &[(&str, &str)]| edge.process.metric(name, labels).unwrap();
    for server in ["tidegate_edge_rspamd", "tidegate_ops"] {
        assert!(metric(&format!("{server}_http_connections_shed_total"), &[]) >= 30.0, "{server}");
        assert!(metric(&format!("{server}_http_connections_failed_total"), &[("reason", "too_slow")]) >= 60.0);
    }
    assert!(metric("tidegate_edge_verdicts_total", &[("reason", "too_slow")]) >= 30.0);
    assert!(metric("tidegate_edge_connections_open", &[]) >= 600.0);
    check_health(&mut edge.process, before + MAX_GROWTH_OCTETS).unwrap();
    hijack(edge.policy_address, "thief@example.test").unwrap();
}

#[test]
fn on_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "server", "serve", &Log::Embedded, BURST_RULES).unwrap();
    let edge = Edge::start(dir.path(), "mx1", server.control, "").unwrap();
    let (control, ops) = (server.control, server.process.ops_address().unwrap());
    let before = resident_octets(server.process.pid()).unwrap();
    let listed = || server.admin(&["accounts", "list", "--json"]).unwrap().succeeded().unwrap();
    meanwhile(
        || {
            listed();
        },
        || [control, ops].into_iter().for_each(attack),
    );
    let mut slow = [
        Slow::open(control, 100, b""),
        Slow::open(control, 300, b"PRI * HTTP/2.0\r\n"),
        // A whole preface, and nothing after it.
        Slow::open(control, 100, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        Slow::endless(ops, 100, b"GET /healthz HTTP/1.1\r\nx: "),
    ];
    wait_until("slow clients to be sent away", TIMEOUT, || {
        let left: Vec<usize> = slow.iter_mut().map(Slow::drip).collect();
        listed();
        left.iter().all(|left| *left == 0)
    })
    .unwrap();
    assert!(server.process.metric("tidegate_control_connections_silent_total", &[]).unwrap() >= 400.0);
    assert!(server.process.metric("tidegate_ops_http_connections_failed_total", &[]).unwrap() >= 60.0);
    hijack(edge.policy_address, "thief@example.test").unwrap();
    check_health(&mut server.process, before + MAX_GROWTH_OCTETS).unwrap();
}
