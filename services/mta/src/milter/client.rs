//! The mail server's side of the protocol, to speak to an edge in tests and traffic generators.

use super::frame::{strings, write_frame};
use super::options::VERSION;
use super::{command, reply};
use std::net::SocketAddr;

/// All actions that Postfix 3.7 offers.
const OFFERED_ACTIONS: u32 = 0x1ff;
/// All protocol steps that Postfix 3.7 offers.
const OFFERED_STEPS: u32 = 0x1f_ffff;
/// Longest body chunk (`MILTER_CHUNK_SIZE`).
pub const MAX_CHUNK_OCTETS: usize = 65_535;

/// A command that macros belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacroStage {
    /// Connect.
    Connect,
    /// `HELO`.
    Helo,
    /// `MAIL`.
    Mail,
    /// `RCPT`.
    Recipient,
    /// `DATA`.
    Data,
    /// A header.
    Header,
    /// The end of the message.
    EndOfMessage,
}

/// What a milter answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Its part of the option negotiation.
    Options {
        /// Version that it speaks.
        version: u32,
        /// Actions that it wants to take.
        actions: u32,
        /// Steps that it wants left out, and commands that it does not answer.
        protocol: u32,
    },
    /// Go on.
    Continue,
    /// Let the rest pass.
    Accept,
    /// Refuse, with the server's own text.
    Reject,
    /// Refuse for now, with the server's own text.
    TemporaryFailure,
    /// Drop the message silently.
    Discard,
    /// Refuse with this reply line, per cent signs undoubled.
    ReplyCode(String),
    /// Another reply code.
    Other(u8),
}

impl Reply {
    /// Whether the milter does not answer commands of this kind (after [`Reply::Options`]).
    pub fn is_silent_on(&self, kind: MacroStage) -> bool {
        use super::options::protocol as p;
        let flag = match kind {
            MacroStage::Connect => p::NO_REPLY_CONNECT,
            MacroStage::Helo => p::NO_REPLY_HELO,
            MacroStage::Header => p::NO_REPLY_HEADER,
            MacroStage::Mail | MacroStage::Recipient | MacroStage::Data | MacroStage::EndOfMessage => 0,
        };
        matches!(self, Self::Options { protocol, .. } if protocol & flag != 0)
    }
}

/// The option negotiation, as Postfix 3.7 sends it.
pub fn encode_option_negotiation(out: &mut Vec<u8>) {
    let words = [VERSION, OFFERED_ACTIONS, OFFERED_STEPS].map(u32::to_be_bytes);
    write_frame(command::OPTIONS, &[&words[0], &words[1], &words[2]], out);
}

/// Macros for the command that follows, e.g. `("{auth_authen}", "jo@example.org")`.
pub fn encode_macros(stage: MacroStage, macros: &[(&str, &str)], out: &mut Vec<u8>) {
    let mut data = vec![stage.command()];
    for (name, value) in macros {
        push_string(name, &mut data);
        push_string(value, &mut data);
    }
    write_frame(command::MACROS, &[&data], out);
}

/// A client's connection.
pub fn encode_connect(host: &str, client: SocketAddr, out: &mut Vec<u8>) {
    let mut data = Vec::new();
    push_string(host, &mut data);
    data.push(if client.is_ipv4() { b'4' } else { b'6' });
    data.extend_from_slice(&client.port().to_be_bytes());
    push_string(&client.ip().to_string(), &mut data);
    write_frame(command::CONNECT, &[&data], out);
}

/// `HELO` or `EHLO`.
pub fn encode_helo(name: &str, out: &mut Vec<u8>) {
    write_strings(command::HELO, &[name], out);
}

/// `MAIL FROM`, without angle brackets.
pub fn encode_mail(sender: &str, out: &mut Vec<u8>) {
    write_strings(command::MAIL, &[&format!("<{sender}>")], out);
}

/// `RCPT TO`, without angle brackets.
pub fn encode_recipient(recipient: &str, out: &mut Vec<u8>) {
    write_strings(command::RECIPIENT, &[&format!("<{recipient}>")], out);
}

/// `DATA`.
pub fn encode_data(out: &mut Vec<u8>) {
    write_frame(command::DATA, &[], out);
}

/// A header. With the leading-space extension the value begins with the space behind the colon.
pub fn encode_header(name: &str, value: &str, out: &mut Vec<u8>) {
    write_strings(command::HEADER, &[name, value], out);
}

/// The body, in as many chunks as it needs.
pub fn encode_body(body: &[u8], out: &mut Vec<u8>) {
    body.chunks(MAX_CHUNK_OCTETS).for_each(|chunk| write_frame(command::BODY, &[chunk], out));
}

/// The end of the message.
pub fn encode_end_of_message(out: &mut Vec<u8>) {
    write_frame(command::END_OF_MESSAGE, &[], out);
}

/// The message in hand is given up. Postfix sends it after every message.
pub fn encode_abort(out: &mut Vec<u8>) {
    write_frame(command::ABORT, &[], out);
}

/// The end of the connection.
pub fn encode_quit(out: &mut Vec<u8>) {
    write_frame(command::QUIT, &[], out);
}

/// Reads one reply from the front of `input`: the reply and how many octets it took; `None` when more are needed.
pub fn decode_reply(input: &[u8]) -> Option<(Reply, usize)> {
    let length = u32::from_be_bytes(input.get(..4)?.try_into().ok()?);
    let end = 4_usize.checked_add(usize::try_from(length).ok()?)?;
    let (code, data) = input.get(4..end)?.split_first()?;
    let word = |at: usize| data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    let reply = match *code {
        command::OPTIONS => Reply::Options { version: word(0), actions: word(4), protocol: word(8) },
        reply::CONTINUE => Reply::Continue,
        reply::ACCEPT => Reply::Accept,
        reply::REJECT => Reply::Reject,
        reply::TEMPORARY_FAILURE => Reply::TemporaryFailure,
        reply::DISCARD => Reply::Discard,
        reply::REPLY_CODE => {
            let line = strings(data).next().unwrap_or_default();
            Reply::ReplyCode(String::from_utf8_lossy(line).replace("%%", "%"))
        }
        other => Reply::Other(other),
    };
    Some((reply, end))
}

impl MacroStage {
    fn command(self) -> u8 {
        match self {
            Self::Connect => command::CONNECT,
            Self::Helo => command::HELO,
            Self::Mail => command::MAIL,
            Self::Recipient => command::RECIPIENT,
            Self::Data => command::DATA,
            Self::Header => command::HEADER,
            Self::EndOfMessage => command::END_OF_MESSAGE,
        }
    }
}

fn write_strings(command: u8, strings: &[&str], out: &mut Vec<u8>) {
    let mut data = Vec::new();
    for string in strings {
        push_string(string, &mut data);
    }
    write_frame(command, &[&data], out);
}

/// A NUL inside a string would end it: what follows is left out.
fn push_string(string: &str, data: &mut Vec<u8>) {
    data.extend(string.bytes().take_while(|byte| *byte != 0));
    data.push(0);
}
