//! A small SMTP server that takes all mail and counts it: where a test's outgoing mail ends.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{Context, Result};

/// The newest messages whose headers are kept; older ones are only counted.
const MAX_KEPT_MESSAGES: usize = 20_000;
/// The most bytes of one message's headers that are kept.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// The most bytes of one message's body that `arrived` is given.
const MAX_BODY_BYTES: usize = 1 << 20;
/// The longest line that is read, in bytes.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// A connection that says nothing for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);

/// A message that arrived.
#[derive(Debug, Clone, Default)]
pub struct SinkMessage {
    /// The envelope's sender, empty for a bounce.
    pub sender: String,
    /// The envelope's recipients of this delivery.
    pub recipients: Vec<String>,
    /// The headers as they came, unfolded lines and all, at most 16 KiB.
    pub headers: String,
    /// The body as it came, at most 1 MiB; only for `arrived`, it is not kept.
    pub body: Vec<u8>,
    /// Size of headers and body in bytes, line ends included.
    pub size_bytes: usize,
}

impl SinkMessage {
    /// The value of the first header with this name, in any case; folded lines are joined.
    pub fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.headers.lines();
        let first = lines.by_ref().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })?;
        let folded = lines.take_while(|line| line.starts_with([' ', '\t'])).map(str::trim);
        Some(std::iter::once(first).chain(folded).collect::<Vec<_>>().join(" "))
    }
}

#[derive(Debug, Default)]
struct Mailbox {
    by_sender: HashMap<String, usize>,
    by_recipient: HashMap<String, usize>,
    total: usize,
    newest: VecDeque<SinkMessage>,
}

/// The running server. Dropping it stops it from taking connections.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    mailbox: Arc<Mutex<Mailbox>>,
    stopped: Arc<AtomicBool>,
}

impl Sink {
    /// Starts on a free loopback port.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn start() -> Result<Self> {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), |_| ())
    }

    /// Starts on an address of its own; `arrived` is called for each message.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start_on(address: SocketAddr, arrived: impl Fn(&SinkMessage) + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind(address).context(|| format!("binding the mail sink to {address}"))?;
        let address = listener.local_addr().context(|| "reading the mail sink's address".into())?;
        let mailbox = Arc::new(Mutex::new(Mailbox::default()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (accepting, boxes, arrived) = (Arc::clone(&stopped), Arc::clone(&mailbox), Arc::new(arrived));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.load(Ordering::Relaxed) {
                    return;
                }
                let (boxes, arrived) = (Arc::clone(&boxes), Arc::clone(&arrived));
                thread::spawn(move || {
                    // A connection that broke is the client's to tell of.
                    let _ = serve(stream, |mut message| {
                        arrived(&message);
                        message.body = Vec::new();
                        lock(&boxes).add(message);
                    });
                });
            }
        });
        Ok(Self { address, mailbox, stopped })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many deliveries have come in.
    pub fn total(&self) -> usize {
        lock(&self.mailbox).total
    }

    /// How many deliveries came from this envelope sender.
    pub fn count_from(&self, sender: &str) -> usize {
        lock(&self.mailbox).by_sender.get(sender).copied().unwrap_or(0)
    }

    /// How many deliveries named this envelope recipient.
    pub fn count_to(&self, recipient: &str) -> usize {
        lock(&self.mailbox).by_recipient.get(recipient).copied().unwrap_or(0)
    }

    /// The newest messages, oldest first; at most 20,000.
    pub fn messages(&self) -> Vec<SinkMessage> {
        lock(&self.mailbox).newest.iter().cloned().collect()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        drop(TcpStream::connect(self.address));
    }
}

impl Mailbox {
    fn add(&mut self, message: SinkMessage) {
        self.total += 1;
        *self.by_sender.entry(message.sender.clone()).or_default() += 1;
        for recipient in &message.recipients {
            *self.by_recipient.entry(recipient.clone()).or_default() += 1;
        }
        if self.newest.len() == MAX_KEPT_MESSAGES {
            self.newest.pop_front();
        }
        self.newest.push_back(message);
    }
}

fn lock(mailbox: &Mutex<Mailbox>) -> MutexGuard<'_, Mailbox> {
    mailbox.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One SMTP session.
fn serve(stream: TcpStream, mut deliver: impl FnMut(SinkMessage)) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut connection = BufReader::new(stream);
    let mut message = SinkMessage::default();
    let mut reply = "220 sink.test ESMTP".to_owned();
    loop {
        connection.get_mut().write_all(format!("{reply}\r\n").as_bytes())?;
        let Some(line) = read_line(&mut connection)? else { return Ok(()) };
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        reply = match verb.as_str() {
            "EHLO" => "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8".into(),
            "HELO" | "NOOP" => "250 sink.test".into(),
            "MAIL" => {
                message = SinkMessage { sender: path(&line), ..SinkMessage::default() };
                "250 2.1.0 Ok".into()
            }
            "RCPT" => {
                message.recipients.push(path(&line));
                "250 2.1.5 Ok".into()
            }
            "DATA" => {
                connection.get_mut().write_all(b"354 go on\r\n")?;
                if !read_content(&mut connection, &mut message)? {
                    return Ok(());
                }
                deliver(std::mem::take(&mut message));
                "250 2.0.0 Ok".into()
            }
            "RSET" => {
                message = SinkMessage::default();
                "250 2.0.0 Ok".into()
            }
            "QUIT" => return connection.get_mut().write_all(b"221 2.0.0 Bye\r\n"),
            _ => "500 5.5.1 unknown command".into(),
        };
    }
}

/// Reads up to the lone dot; false when the client went away before it.
fn read_content(connection: &mut impl BufRead, message: &mut SinkMessage) -> std::io::Result<bool> {
    let mut in_headers = true;
    while let Some(line) = read_line(connection)? {
        if line == b".\r\n" {
            return Ok(true);
        }
        message.size_bytes += line.len();
        in_headers &= line != b"\r\n";
        if in_headers && message.headers.len() + line.len() <= MAX_HEADER_BYTES {
            message.headers.push_str(&String::from_utf8_lossy(&line));
        }
        if !in_headers && message.body.len() + line.len() <= MAX_BODY_BYTES {
            // The empty line between headers and body belongs to neither; a dot at a line's beginning was doubled.
            let is_border = message.body.is_empty() && line == b"\r\n";
            message.body.extend_from_slice(if is_border { b"" } else { line.strip_prefix(b".").unwrap_or(&line) });
        }
    }
    Ok(false)
}

fn read_line(connection: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    connection.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    Ok((!line.is_empty()).then_some(line))
}

/// The address between the angle brackets of MAIL or RCPT.
fn path(line: &str) -> String {
    let after = line.split_once('<').map_or("", |(_, after)| after);
    after.split_once('>').map_or(after, |(address, _)| address).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::SmtpClient;

    #[test]
    fn counts_by_sender_and_recipient_and_keeps_headers() {
        let sink = Sink::start().unwrap();
        let mut client = SmtpClient::connect(sink.address()).unwrap();
        let content = "Subject: one\n two\nX-Spam: Yes\n\n.dot\n";
        for _ in 0..2 {
            assert!(client.send("a@b.test", &["c@d.test", "e@f.test"], content).unwrap().is_accepted());
        }
        client.quit().unwrap();
        assert_eq!((sink.total(), sink.count_from("a@b.test"), sink.count_to("e@f.test")), (2, 2, 2));
        assert_eq!(sink.count_from("c@d.test"), 0);
        let message = &sink.messages()[0];
        assert_eq!(message.header("subject").as_deref(), Some("one two"));
        assert_eq!(message.header("X-Spam").as_deref(), Some("Yes"));
        assert_eq!(message.header("X-Other"), None);
    }

    #[test]
    fn whoever_listens_is_given_the_body_as_it_was_written() {
        let (tell, told) = std::sync::mpsc::channel();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let tell = Mutex::new(tell);
        let sink =
            Sink::start_on(address, move |message| drop(tell.lock().unwrap().send(message.body.clone()))).unwrap();
        let mut client = SmtpClient::connect(sink.address()).unwrap();
        assert!(client.send("a@b.test", &["c@d.test"], "Subject: x\n\n.dot\n\nend\n").unwrap().is_accepted());
        assert_eq!(told.recv_timeout(Duration::from_secs(30)).unwrap(), b".dot\r\n\r\nend\r\n");
        assert!(sink.messages()[0].body.is_empty());
    }

    #[test]
    fn a_message_that_was_cut_off_does_not_count() {
        let sink = Sink::start().unwrap();
        let mut client = SmtpClient::connect(sink.address()).unwrap();
        client.mail("a@b.test").unwrap();
        client.rcpt("c@d.test").unwrap();
        client.data().unwrap();
        drop(client);
        let mut client = SmtpClient::connect(sink.address()).unwrap();
        assert!(client.send("x@b.test", &["c@d.test"], "Subject: whole\n\n").unwrap().is_accepted());
        assert_eq!((sink.count_from("a@b.test"), sink.count_from("x@b.test")), (0, 1));
    }
}
