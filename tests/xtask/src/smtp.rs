//! A small blocking SMTP client (RFC 5321) that shows every reply, and can hold a session open between commands.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::{Context, Error, Result};

/// How long a server may take for one reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// The most bytes of one reply that are read.
const MAX_REPLY_BYTES: u64 = 64 * 1024;

/// A server's answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The three-digit code.
    pub code: u16,
    /// The text without the codes; lines are joined by a line feed. It starts with the enhanced code (`5.7.1`), if any.
    pub text: String,
}

impl Reply {
    /// Whether the command was accepted (2xx) or the server waits for more (3xx).
    pub fn is_ok(&self) -> bool {
        (200..400).contains(&self.code)
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

/// The command at which a message's fate was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// `MAIL FROM`.
    Mail,
    /// `RCPT TO`.
    Rcpt,
    /// `DATA`, before the content.
    Data,
    /// After the content.
    EndOfMessage,
}

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The last command that was answered.
    pub stage: Stage,
    /// Its answer.
    pub reply: Reply,
}

impl Outcome {
    /// Whether the server has taken the message.
    pub fn is_accepted(&self) -> bool {
        self.stage == Stage::EndOfMessage && self.reply.is_ok()
    }
}

/// One open SMTP session.
#[derive(Debug)]
pub struct SmtpClient {
    connection: BufReader<TcpStream>,
}

impl SmtpClient {
    /// Connects, reads the greeting and says EHLO.
    ///
    /// # Errors
    /// When there is no server, or it does not want to talk.
    pub fn connect(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server, REPLY_TIMEOUT)
            .and_then(|stream| {
                stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
                stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
                stream.set_nodelay(true)?;
                Ok(stream)
            })
            .context(|| format!("connecting to the SMTP server {server}"))?;
        let mut client = Self { connection: BufReader::new(stream) };
        let greeting = client.read_reply()?;
        if !greeting.is_ok() {
            return Err(Error::new(format!("SMTP server {server} greeted with {greeting}")));
        }
        client.expect("EHLO client.test")?;
        Ok(client)
    }

    /// Connects and logs in with AUTH PLAIN.
    ///
    /// # Errors
    /// When there is no server, or it refuses the login.
    pub fn login(server: SocketAddr, account: &str, password: &str) -> Result<Self> {
        let mut client = Self::connect(server)?;
        let reply = client.auth_plain(account, password)?;
        if reply.is_ok() { Ok(client) } else { Err(Error::new(format!("login of {account} at {server}: {reply}"))) }
    }

    /// Postfix's XCLIENT, which makes the session look as if it came from another address. Needs
    /// `smtpd_authorized_xclient_hosts`, and goes before the login, since it starts the session anew.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn pretend_address(&mut self, address: &str) -> Result<()> {
        self.expect(&format!("XCLIENT ADDR={address} NAME=[UNAVAILABLE]"))?;
        self.expect("EHLO client.test").map(drop)
    }

    /// AUTH PLAIN (RFC 4616).
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn auth_plain(&mut self, account: &str, password: &str) -> Result<Reply> {
        let token = base64(format!("\0{account}\0{password}").as_bytes());
        self.command(&format!("AUTH PLAIN {token}"))
    }

    /// `MAIL FROM:<sender>`.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn mail(&mut self, sender: &str) -> Result<Reply> {
        self.command(&format!("MAIL FROM:<{sender}>"))
    }

    /// `RCPT TO:<recipient>`.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn rcpt(&mut self, recipient: &str) -> Result<Reply> {
        self.command(&format!("RCPT TO:<{recipient}>"))
    }

    /// `DATA`, up to the server's 354.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn data(&mut self) -> Result<Reply> {
        self.command("DATA")
    }

    /// The message after a 354, with dots stuffed and the final dot; gives the answer to the end of message.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn content(&mut self, content: &str) -> Result<Reply> {
        let mut bytes = Vec::with_capacity(content.len() + 64);
        for line in content.lines() {
            if line.starts_with('.') {
                bytes.push(b'.');
            }
            bytes.extend_from_slice(line.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b".\r\n");
        self.connection.get_mut().write_all(&bytes).context(|| "sending a message's content".into())?;
        self.read_reply()
    }

    /// Sends one message and stops at the first refusal, after which the session is ready for the next message.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn send(&mut self, sender: &str, recipients: &[&str], content: &str) -> Result<Outcome> {
        let outcome = self.send_until_refused(sender, recipients, content)?;
        // Postfix keeps the transaction open after some refusals, also at end of message.
        if !outcome.reply.is_ok() {
            self.command("RSET")?;
        }
        Ok(outcome)
    }

    fn send_until_refused(&mut self, sender: &str, recipients: &[&str], content: &str) -> Result<Outcome> {
        let reply = self.mail(sender)?;
        if !reply.is_ok() {
            return Ok(Outcome { stage: Stage::Mail, reply });
        }
        for recipient in recipients {
            let reply = self.rcpt(recipient)?;
            if !reply.is_ok() {
                return Ok(Outcome { stage: Stage::Rcpt, reply });
            }
        }
        let reply = self.data()?;
        if !reply.is_ok() {
            return Ok(Outcome { stage: Stage::Data, reply });
        }
        Ok(Outcome { stage: Stage::EndOfMessage, reply: self.content(content)? })
    }

    /// `QUIT`.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn quit(mut self) -> Result<()> {
        self.command("QUIT").map(drop)
    }

    /// Any command, without its line end.
    ///
    /// # Errors
    /// When the connection breaks or the answer is not SMTP.
    pub fn command(&mut self, line: &str) -> Result<Reply> {
        self.connection
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())
            .context(|| format!("sending the SMTP command `{line}`"))?;
        self.read_reply().map_err(|error| Error::new(format!("after `{line}`: {error}")))
    }

    fn expect(&mut self, line: &str) -> Result<Reply> {
        let reply = self.command(line)?;
        if reply.is_ok() { Ok(reply) } else { Err(Error::new(format!("`{line}` was answered with {reply}"))) }
    }

    fn read_reply(&mut self) -> Result<Reply> {
        let mut texts = Vec::new();
        let mut bounded = (&mut self.connection).take(MAX_REPLY_BYTES);
        loop {
            let mut line = String::new();
            bounded.read_line(&mut line).context(|| "reading an SMTP reply".into())?;
            let parsed = line.get(..3).and_then(|code| code.parse().ok());
            let Some(code) = parsed.filter(|_| line.ends_with('\n')) else {
                let what =
                    if line.is_empty() { "the server closed the connection".into() } else { format!("{line:?}") };
                return Err(Error::new(format!("no SMTP reply: {what}")));
            };
            texts.push(line.get(4..).unwrap_or_default().trim_end().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, text: texts.join("\n") });
            }
        }
    }
}

/// Base64 (RFC 4648) with padding, as SASL wants it.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let sextet = (word >> (18 - 6 * position)) as usize & 63;
            text.push(if position <= chunk.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
