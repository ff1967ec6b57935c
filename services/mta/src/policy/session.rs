//! A policy session: one connection, any number of requests.

use super::joiner::PolicyJoiner;
use super::request::{PolicyRequest, PolicyState, RequestReader};
use crate::recipients::canonical_address;
use crate::{Gate, Refusal, SessionEvent, SessionSettings, Stage};
use std::sync::Arc;
use tidegate_domain::Account;

/// One connection of a policy client.
///
/// Postfix keeps it open for many requests. Exim opens one for each, half-closes it and reads to its end: at end of
/// file send what was answered, then close.
///
/// A locked account is refused at `MAIL` or `RCPT` ([`crate::RefuseAt`]), and at `DATA` and end of message when one of
/// the message's recipients is no administrator, or they are not known. With Postfix's `smtpd_delay_reject = yes`
/// (the default) sender restrictions, too, ask and refuse at `RCPT`.
#[derive(Debug)]
pub struct PolicySession {
    settings: Arc<SessionSettings>,
    reader: RequestReader,
}

impl PolicySession {
    /// A new session.
    pub fn new(settings: Arc<SessionSettings>) -> Self {
        Self { settings, reader: RequestReader::default() }
    }

    /// Takes in octets as they came, however they were cut. Appends answers to `out` and what happened to `events`.
    /// There is no input that it cannot go on from: what is not a request is answered `DUNNO`.
    pub fn input(
        &mut self,
        mut bytes: &[u8],
        gate: &dyn Gate,
        joiner: &mut PolicyJoiner,
        now_ms: i64,
        out: &mut Vec<u8>,
        events: &mut Vec<SessionEvent>,
    ) {
        while !bytes.is_empty() {
            let (taken, request) = self.reader.read(bytes);
            bytes = &bytes[taken..];
            if let Some(request) = request {
                let refusal = self.decide(&request, gate, joiner, now_ms, events);
                out.extend_from_slice(b"action=");
                out.extend_from_slice(refusal.as_ref().map_or("DUNNO", Refusal::as_str).as_bytes());
                out.extend_from_slice(b"\n\n");
            }
        }
    }

    /// Octets that are held of a line that has not come whole; at most the longest line that is kept.
    pub fn buffered_octets(&self) -> usize {
        self.reader.buffered_octets()
    }

    fn decide(
        &self,
        request: &PolicyRequest,
        gate: &dyn Gate,
        joiner: &mut PolicyJoiner,
        now_ms: i64,
        events: &mut Vec<SessionEvent>,
    ) -> Option<Refusal> {
        let stage = match request.state {
            PolicyState::Mail => Stage::Mail,
            PolicyState::Recipient => Stage::Recipient,
            PolicyState::Data => Stage::Data,
            PolicyState::EndOfMessage => Stage::EndOfMessage,
            PolicyState::Other => return None,
        };
        if !request.is_access_policy {
            return None;
        }
        let account = match self.settings.account_of(&request.sasl_username, request.client_address) {
            Ok(account) => account,
            Err(ignored) => {
                events.push(SessionEvent::Ignored(ignored));
                return None;
            }
        };
        if let Some(refusal) = Refusal::of(&gate.verdict(&account))
            && self.refuses(request, stage, &account, gate, joiner)
        {
            if matches!(stage, Stage::Data | Stage::EndOfMessage) {
                joiner.forget(request, &account, now_ms);
            }
            events.push(SessionEvent::Refused { account, stage, throttled: refusal.is_throttle() });
            return Some(refusal);
        }
        let submitted = joiner.observe(request, account, gate, now_ms);
        events.extend(submitted.map(|submitted| SessionEvent::Message(Box::new(submitted))));
        None
    }

    fn refuses(
        &self,
        request: &PolicyRequest,
        stage: Stage,
        account: &Account,
        gate: &dyn Gate,
        joiner: &PolicyJoiner,
    ) -> bool {
        let to_admin = || gate.is_admin_address(&canonical_address(&request.recipient));
        match stage {
            Stage::Mail => self.settings.refuses_at_mail(gate),
            Stage::Recipient => !to_admin(),
            Stage::Data | Stage::EndOfMessage => match joiner.ordinary_recipients(request, account) {
                Some(ordinary) => ordinary > 0,
                None => request.recipient.is_empty() || !to_admin(),
            },
        }
    }
}
