//! A milter session: one connection of a mail server, any number of messages.

use super::frame::{Frame, FrameReader, strings, write_frame};
use super::options::{Options, protocol};
use super::transaction::{Client, MailMacros, Transaction, text};
use super::{command, reply};
use crate::origin::address;
use crate::recipients::canonical_address;
use crate::settings::MAX_LOGIN_OCTETS;
use crate::{Gate, Refusal, SessionEvent, SessionSettings, Stage};
use std::sync::Arc;
use tidegate_domain::Account;

/// Most macros of one packet that are looked at.
const MAX_MACROS: usize = 100;

/// One connection of a mail server.
///
/// At `MAIL` it asks the [`Gate`] about the account of `{auth_authen}` and refuses there or at `RCPT`
/// ([`crate::RefuseAt`]); since a lock can come while a session is open, it asks again at `RCPT`, `DATA` and end of
/// message, where it refuses a message that has a recipient who is no administrator. Postfix gives a milter's refusal
/// at `MAIL` to the client at once, whatever `smtpd_delay_reject` says. A message without an account is accepted at
/// `MAIL`, after which the server sends nothing more of it.
#[derive(Debug)]
pub struct MilterSession {
    reader: FrameReader,
    state: State,
}

#[derive(Debug)]
struct State {
    settings: Arc<SessionSettings>,
    options: Option<Options>,
    client: Client,
    mail_macros: MailMacros,
    transaction: Option<Box<Transaction>>,
    ended: Option<Result<(), MilterError>>,
}

/// Whether the connection goes on. Replies that were written are to be sent in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// Read on.
    Open,
    /// The server is done: close.
    Close,
}

/// Why a session ended. Close the connection; the mail server then does what its `milter_default_action` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MilterError {
    /// The packet's length cannot be one.
    #[error("a milter packet claims {octets} octets; the client does not speak the milter protocol")]
    PacketLength {
        /// Length that was claimed.
        octets: u32,
    },
    /// The option negotiation was cut short.
    #[error("the option negotiation has {octets} octets; 12 are needed")]
    Options {
        /// Octets that came.
        octets: usize,
    },
    /// The protocol is too old.
    #[error(
        "the mail server offers milter protocol version {version}; 2 or newer is needed (Postfix: milter_protocol = 6)"
    )]
    Version {
        /// Version that was offered.
        version: u32,
    },
    /// The options were not negotiated first.
    #[error("milter command {command:#04x} came before the options were negotiated")]
    NotNegotiated {
        /// The command.
        command: u8,
    },
    /// No such command.
    #[error("milter command {command:#04x} is unknown")]
    UnknownCommand {
        /// The command.
        command: u8,
    },
}

impl MilterSession {
    /// A new session.
    pub fn new(settings: Arc<SessionSettings>) -> Self {
        Self {
            reader: FrameReader::default(),
            state: State {
                settings,
                options: None,
                client: Client::default(),
                mail_macros: MailMacros::default(),
                transaction: None,
                ended: None,
            },
        }
    }

    /// Takes in octets as they came, however they were cut. Appends replies to `out` and what happened to `events`.
    ///
    /// # Errors
    /// When the peer does not speak the protocol. What was appended before stays valid; further input is ignored.
    pub fn input(
        &mut self,
        mut bytes: &[u8],
        gate: &dyn Gate,
        out: &mut Vec<u8>,
        events: &mut Vec<SessionEvent>,
    ) -> Result<Flow, MilterError> {
        while !bytes.is_empty() && self.state.ended.is_none() {
            let step = match self.reader.read(bytes) {
                Ok(step) => step,
                Err(error) => {
                    self.state.ended = Some(Err(error));
                    break;
                }
            };
            bytes = &bytes[step.taken..];
            if let Some(frame) = step.frame
                && let Err(error) = self.state.on_frame(&frame, gate, out, events)
            {
                self.state.ended = Some(Err(error));
            }
        }
        match self.state.ended {
            None => Ok(Flow::Open),
            Some(Ok(())) => Ok(Flow::Close),
            Some(Err(error)) => Err(error),
        }
    }

    /// Octets that are held of a packet that has not come whole; at most the longest packet that is kept.
    pub fn buffered_octets(&self) -> usize {
        self.reader.buffered_octets()
    }

    /// The connection was closed without a good-bye. A message that had begun is given up.
    pub fn closed(&mut self, events: &mut Vec<SessionEvent>) {
        self.state.abort(events);
        self.state.ended.get_or_insert(Ok(()));
    }
}

impl State {
    fn on_frame(
        &mut self,
        frame: &Frame<'_>,
        gate: &dyn Gate,
        out: &mut Vec<u8>,
        events: &mut Vec<SessionEvent>,
    ) -> Result<(), MilterError> {
        if frame.command == command::OPTIONS {
            self.options = Some(Options::negotiate(frame.data, out)?);
            return Ok(());
        }
        let Some(options) = self.options else {
            return Err(MilterError::NotNegotiated { command: frame.command });
        };
        let mut go_on_unless = |silent: u32| {
            if !options.has(silent) {
                write_frame(reply::CONTINUE, &[], out);
            }
        };
        match frame.command {
            command::MACROS => self.on_macros(frame.data),
            command::CONNECT => {
                self.abort(events);
                self.on_connect(frame.data);
                go_on_unless(protocol::NO_REPLY_CONNECT);
            }
            command::HELO => {
                self.client.helo = strings(frame.data).next().map(text).unwrap_or_default();
                go_on_unless(protocol::NO_REPLY_HELO);
            }
            command::MAIL => self.on_mail(frame, gate, out, events),
            command::RECIPIENT => self.on_recipient(frame, gate, out, events),
            command::DATA => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.data_seen = true;
                }
                if !self.refuse_message(Stage::Data, gate, out, events) {
                    write_frame(reply::CONTINUE, &[], out);
                }
            }
            command::HEADER => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.header(frame, options.has(protocol::LEADING_SPACE), &self.settings);
                }
                go_on_unless(protocol::NO_REPLY_HEADER);
            }
            command::END_OF_HEADERS | command::UNKNOWN => go_on_unless(0),
            command::BODY => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.body(frame);
                }
                go_on_unless(protocol::NO_REPLY_BODY);
            }
            command::END_OF_MESSAGE => {
                if let Some(transaction) = &mut self.transaction {
                    // Sendmail's last body chunk can come with it.
                    transaction.body(frame);
                }
                if !self.refuse_message(Stage::EndOfMessage, gate, out, events) {
                    write_frame(reply::CONTINUE, &[], out);
                    if let Some(transaction) = self.transaction.take() {
                        let submitted = transaction.finish(&self.client, &self.settings);
                        events.push(SessionEvent::Message(Box::new(submitted)));
                    }
                }
            }
            command::ABORT => self.abort(events),
            command::QUIT => {
                self.abort(events);
                self.ended = Some(Ok(()));
            }
            command::QUIT_NEW_CONNECTION => {
                // The next client comes over the same connection; the options stay.
                self.abort(events);
                self.client = Client::default();
            }
            unknown => return Err(MilterError::UnknownCommand { command: unknown }),
        }
        Ok(())
    }

    /// Macros: the command that they are for, then names and values. Only those that are needed are kept.
    fn on_macros(&mut self, data: &[u8]) {
        let Some((stage, pairs)) = data.split_first() else { return };
        match *stage {
            command::MAIL => self.mail_macros = MailMacros::default(),
            command::HELO => self.client.tls.clear(),
            _ => {}
        }
        let mut pairs = strings(pairs).take(2 * MAX_MACROS);
        while let (Some(name), Some(value)) = (pairs.next(), pairs.next()) {
            match (name, *stage) {
                (b"i" | b"{i}", command::MAIL) => self.mail_macros.queue_id = text(value),
                (b"i" | b"{i}", _) => {
                    if let Some(transaction) = &mut self.transaction {
                        transaction.queue_id = text(value);
                    }
                }
                (b"{auth_type}", command::MAIL) => self.mail_macros.auth_type = text(value),
                (b"{auth_authen}", command::MAIL) => {
                    // Cut only where it can be no account any more.
                    let value = &value[..value.len().min(MAX_LOGIN_OCTETS + 1)];
                    self.mail_macros.auth_authen = String::from_utf8_lossy(value).into_owned();
                }
                (b"{tls_version}", command::MAIL) => self.mail_macros.tls_version = text(value),
                (b"{tls_version}", command::HELO) => self.client.tls = text(value),
                _ => {}
            }
        }
    }

    /// Connect: host name, NUL, family (`4`, `6`, `L` for a unix socket, `U` for unknown), port, address, NUL.
    fn on_connect(&mut self, data: &[u8]) {
        self.client = Client::default();
        let family = data.iter().position(|byte| *byte == 0).and_then(|end| data.get(end + 1..));
        if let Some([b'4' | b'6', high, low, host @ ..]) = family {
            self.client.port = u16::from_be_bytes([*high, *low]);
            self.client.address = strings(host).next().and_then(|host| address(&text(host)));
        }
    }

    fn on_mail(&mut self, frame: &Frame<'_>, gate: &dyn Gate, out: &mut Vec<u8>, events: &mut Vec<SessionEvent>) {
        self.abort(events);
        let macros = std::mem::take(&mut self.mail_macros);
        let account = match self.settings.account_of(&macros.auth_authen, self.client.address) {
            Ok(account) => account,
            Err(ignored) => {
                events.push(SessionEvent::Ignored(ignored));
                return write_frame(reply::ACCEPT, &[], out);
            }
        };
        if let Some(refusal) = Refusal::of(&gate.verdict(&account))
            && self.settings.refuses_at_mail(gate)
        {
            return refuse(account, Stage::Mail, &refusal, out, events);
        }
        self.transaction = Some(Box::new(Transaction::new(account, frame, macros, &self.settings)));
        write_frame(reply::CONTINUE, &[], out);
    }

    fn on_recipient(&mut self, frame: &Frame<'_>, gate: &dyn Gate, out: &mut Vec<u8>, events: &mut Vec<SessionEvent>) {
        if let Some(transaction) = &mut self.transaction {
            let recipient = strings(frame.data).next().map(text).unwrap_or_default();
            if let Some(refusal) = Refusal::of(&gate.verdict(&transaction.account))
                && !gate.is_admin_address(&canonical_address(&recipient))
            {
                return refuse(transaction.account.clone(), Stage::Recipient, &refusal, out, events);
            }
            transaction.recipient(&recipient, gate, &self.settings);
        }
        write_frame(reply::CONTINUE, &[], out);
    }

    /// Refuses the message in hand if its account may not send, and one of its recipients is no administrator.
    fn refuse_message(
        &mut self,
        stage: Stage,
        gate: &dyn Gate,
        out: &mut Vec<u8>,
        events: &mut Vec<SessionEvent>,
    ) -> bool {
        let refused = |transaction: &mut Box<Transaction>| {
            let refusal = Refusal::of(&gate.verdict(&transaction.account))?;
            (transaction.recipients.ordinary() > 0).then_some(refusal)
        };
        let Some(refusal) = self.transaction.as_mut().and_then(refused) else { return false };
        if let Some(transaction) = self.transaction.take() {
            refuse(transaction.account, stage, &refusal, out, events);
        }
        true
    }

    /// Gives up the message in hand. It is told of only when an earlier filter can have seen its content.
    fn abort(&mut self, events: &mut Vec<SessionEvent>) {
        let Some(transaction) = self.transaction.take() else { return };
        if transaction.data_seen && transaction.recipients.len() > 0 && !transaction.queue_id.is_empty() {
            events.push(SessionEvent::Aborted(Box::new(transaction.finish(&self.client, &self.settings))));
        }
    }
}

/// Refuses a command. Sendmail takes the text as a format, so that a per cent sign is doubled; Postfix undoes that.
fn refuse(account: Account, stage: Stage, refusal: &Refusal, out: &mut Vec<u8>, events: &mut Vec<SessionEvent>) {
    let line = refusal.as_str().replace('%', "%%");
    write_frame(reply::REPLY_CODE, &[line.as_bytes(), &[0]], out);
    events.push(SessionEvent::Refused { account, stage, throttled: refusal.is_throttle() });
}
