//! Reads policy requests from a stream of octets.

use crate::origin::address;
use crate::recipients::truncate;
use crate::settings::MAX_LOGIN_OCTETS;
use std::net::IpAddr;

/// Octets of a line that are kept. Longer values are cut, so that a client cannot break its own check with one.
const MAX_LINE_OCTETS: usize = 4096;
/// Lines of a request that are looked at; Postfix sends about 35.
const MAX_LINES: u32 = 200;
/// Longest value that is kept, but for the login.
const MAX_VALUE_OCTETS: usize = 512;

/// One policy request, as far as it is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyRequest {
    /// Whether it is a `smtpd_access_policy` request.
    pub is_access_policy: bool,
    /// The SMTP command.
    pub state: PolicyState,
    /// Which list of restrictions asks; Exim's configuration says `exim`.
    pub context: String,
    /// Address of the client.
    pub client_address: Option<IpAddr>,
    /// Its TCP port, 0 when unknown.
    pub client_port: u16,
    /// What it said in HELO.
    pub helo: String,
    /// Envelope sender, empty for the null sender.
    pub sender: String,
    /// Envelope recipient; at `DATA` and later only when there is one.
    pub recipient: String,
    /// Recipients accepted so far; only right from `DATA` on.
    pub recipient_count: u32,
    /// Queue id, once there is one.
    pub queue_id: String,
    /// The same for all requests about one message.
    pub instance: String,
    /// Size in octets: declared before the end of the message, measured there.
    pub size: u64,
    /// Login method.
    pub sasl_method: String,
    /// Login.
    pub sasl_username: String,
    /// TLS version.
    pub tls: String,
}

/// `protocol_state` of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum PolicyState {
    /// `MAIL`.
    Mail,
    /// `RCPT`.
    Recipient,
    /// `DATA`.
    Data,
    /// `END-OF-MESSAGE`.
    EndOfMessage,
    /// `CONNECT`, `EHLO`, `VRFY`, `ETRN` and what is unknown: nothing is decided there.
    #[default]
    Other,
}

/// Reads requests from pieces of a stream. Holds one line and one request.
#[derive(Debug, Default)]
pub(super) struct RequestReader {
    line: Vec<u8>,
    lines: u32,
    request: PolicyRequest,
}

impl RequestReader {
    /// Octets that are held.
    pub fn buffered_octets(&self) -> usize {
        self.line.len()
    }

    /// Takes octets from the front of `input`, up to the end of a request: how many, and the request.
    pub fn read(&mut self, input: &[u8]) -> (usize, Option<PolicyRequest>) {
        let mut taken = 0;
        while taken < input.len() {
            let rest = &input[taken..];
            let newline = rest.iter().position(|byte| *byte == b'\n');
            let part = &rest[..newline.unwrap_or(rest.len())];
            let room = MAX_LINE_OCTETS - self.line.len();
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            taken += part.len();
            if newline.is_none() {
                break;
            }
            taken += 1;
            if let Some(request) = self.end_line() {
                return (taken, Some(request));
            }
        }
        (taken, None)
    }

    fn end_line(&mut self) -> Option<PolicyRequest> {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        if line.is_empty() {
            self.line.clear();
            // An empty line without a request is no request.
            return (std::mem::take(&mut self.lines) > 0).then(|| std::mem::take(&mut self.request));
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines <= MAX_LINES
            && let Some(equals) = line.iter().position(|byte| *byte == b'=')
            && let Ok(name) = std::str::from_utf8(&line[..equals])
        {
            self.request.set(name, &String::from_utf8_lossy(&line[equals + 1..]));
        }
        self.line.clear();
        None
    }
}

impl PolicyRequest {
    fn set(&mut self, name: &str, value: &str) {
        let text = || {
            let mut value: String = value.chars().filter(|c| !c.is_control()).collect();
            truncate(&mut value, MAX_VALUE_OCTETS);
            value
        };
        match name {
            "request" => self.is_access_policy = value == "smtpd_access_policy",
            "protocol_state" => {
                self.state = match value {
                    "MAIL" => PolicyState::Mail,
                    "RCPT" => PolicyState::Recipient,
                    "DATA" => PolicyState::Data,
                    "END-OF-MESSAGE" => PolicyState::EndOfMessage,
                    _ => PolicyState::Other,
                }
            }
            "policy_context" => self.context = text(),
            "client_address" => self.client_address = address(value),
            "client_port" => self.client_port = value.parse().unwrap_or(0),
            "helo_name" => self.helo = text(),
            "sender" => self.sender = text(),
            "recipient" => self.recipient = text(),
            "recipient_count" => self.recipient_count = value.parse().unwrap_or(0),
            "queue_id" => self.queue_id = text(),
            "instance" => self.instance = text(),
            // Exim says -1 for unknown.
            "size" => self.size = value.parse().unwrap_or(0),
            "sasl_method" => self.sasl_method = text(),
            "sasl_username" => {
                value.clone_into(&mut self.sasl_username);
                truncate(&mut self.sasl_username, MAX_LOGIN_OCTETS + 1);
            }
            "encryption_protocol" => self.tls = text(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<PolicyRequest> {
        let (mut reader, mut requests) = (RequestReader::default(), Vec::new());
        for piece in pieces {
            let mut rest = piece.as_slice();
            while !rest.is_empty() {
                let (taken, request) = reader.read(rest);
                requests.extend(request);
                rest = &rest[taken..];
            }
        }
        requests
    }

    #[test]
    fn reads_requests_and_survives_nonsense() {
        let long = format!("helo_name={}\n", "h".repeat(100_000));
        let bytes = format!(
            "\n\nrequest=smtpd_access_policy\r\nprotocol_state=RCPT\nno equals sign\nclient_address=2001:db8::1\n{long}\
             size=-1\nrecipient=a=b@dest.test\n\nrequest=other\n\n"
        );
        let requests = read_all(std::iter::once(bytes.into_bytes()));
        assert_eq!(requests.len(), 2);
        let first = &requests[0];
        assert!(first.is_access_policy && first.state == PolicyState::Recipient);
        assert_eq!((first.recipient.as_str(), first.size, first.helo.len()), ("a=b@dest.test", 0, MAX_VALUE_OCTETS));
        assert_eq!(requests[1], PolicyRequest::default());
    }

    proptest! {
        #[test]
        fn where_it_is_cut_does_not_matter(
            lines in proptest::collection::vec("(|request=smtpd_access_policy|sender=[a-c]{0,3}|size=[0-9]|.{0,9})", 0..40),
            size in 1_usize..50,
        ) {
            let bytes = lines.join("\n").into_bytes();
            let whole = read_all(std::iter::once(bytes.clone()));
            prop_assert_eq!(read_all(bytes.chunks(size).map(<[u8]>::to_vec)), whole);
        }

        #[test]
        fn any_octets_are_survived_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..3000), times in 1..5) {
            let mut reader = RequestReader::default();
            for _ in 0..times {
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    rest = &rest[reader.read(rest).0..];
                }
                prop_assert!(reader.line.len() <= MAX_LINE_OCTETS);
            }
        }
    }
}
