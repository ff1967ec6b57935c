//! What the tests share: a gate whose states can be set, and captures turned back into octets.
#![allow(dead_code, reason = "each test binary uses a part")]

use serde_json::Value;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tidegate_domain::Account;
use tidegate_mta::milter::client::{self, MacroStage, Reply};
use tidegate_mta::milter::{Flow, MilterError, MilterSession};
use tidegate_mta::{Gate, KeyedHash, SessionConfig, SessionEvent, SessionSettings, Submitted, Verdict};

pub const KEY: &[u8] = b"a key for tests";
pub const LOCKED: &str = "Account locked (L-7K2M9QXB), 100% sure";

/// A gate with states in memory.
#[derive(Default)]
pub struct Rig {
    pub verdicts: RefCell<HashMap<String, Verdict>>,
    pub admins: Vec<&'static str>,
}

impl Rig {
    pub fn with_admin() -> Self {
        Self { admins: vec!["postmaster@rig.test"], ..Self::default() }
    }

    pub fn lock(&self, account: &str) {
        self.verdicts.borrow_mut().insert(account.to_owned(), Verdict::Refuse { text: LOCKED.to_owned() });
    }

    pub fn throttle(&self, account: &str) {
        self.verdicts.borrow_mut().insert(account.to_owned(), Verdict::Throttle { text: "slow down".to_owned() });
    }

    pub fn unlock(&self, account: &str) {
        self.verdicts.borrow_mut().remove(account);
    }
}

impl Gate for Rig {
    fn verdict(&self, account: &Account) -> Verdict {
        self.verdicts.borrow().get(account.as_str()).cloned().unwrap_or(Verdict::Pass)
    }
    fn is_admin_address(&self, address: &str) -> bool {
        self.admins.contains(&address)
    }
    fn has_admin_addresses(&self) -> bool {
        !self.admins.is_empty()
    }
    fn is_internal_domain(&self, domain: &str) -> bool {
        domain == "rig.test"
    }
}

pub fn settings() -> Arc<SessionSettings> {
    settings_with(|_| {})
}

pub fn settings_with(change: impl FnOnce(&mut SessionConfig)) -> Arc<SessionSettings> {
    let mut config = SessionConfig::default();
    change(&mut config);
    Arc::new(SessionSettings::new(&config, KEY))
}

pub fn hash(purpose: &str, text: &str) -> u64 {
    KeyedHash::new(KEY).hash(purpose, text.as_bytes())
}

/// A milter session with a mail server on the other side that keeps to what was negotiated.
pub struct Mta<'a> {
    pub session: MilterSession,
    pub gate: &'a Rig,
    pub events: Vec<SessionEvent>,
    pub replies: Vec<Reply>,
    pub options: Option<Reply>,
}

impl<'a> Mta<'a> {
    /// Connects from `client`, after negotiation and HELO.
    pub fn connect(settings: Arc<SessionSettings>, gate: &'a Rig, client: &str) -> Self {
        let (session, events, replies) = (MilterSession::new(settings), Vec::new(), Vec::new());
        let mut mta = Self { session, gate, events, replies, options: None };
        mta.send(client::encode_option_negotiation);
        mta.options = mta.replies.pop();
        let client = SocketAddr::new(client.parse::<IpAddr>().unwrap(), 40_000);
        mta.send(|out| {
            client::encode_connect("host.test", client, out);
            client::encode_helo("client.test", out);
        });
        assert!(mta.replies.is_empty(), "connect and HELO are not answered");
        mta
    }

    pub fn send(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        let _ = self.send_bytes(&bytes);
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<Flow, MilterError> {
        let mut out = Vec::new();
        let flow = self.session.input(bytes, self.gate, &mut out, &mut self.events);
        self.replies.extend(decode_replies(&out));
        flow
    }

    /// The one reply to what `encode` writes.
    pub fn ask(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Reply {
        self.replies.clear();
        self.send(encode);
        assert_eq!(self.replies.len(), 1, "{:?}", self.replies);
        self.replies.remove(0)
    }

    pub fn mail(&mut self, login: &str, sender: &str) -> Reply {
        self.ask(|out| {
            client::encode_macros(MacroStage::Mail, &[("{auth_type}", "PLAIN"), ("{auth_authen}", login)], out);
            client::encode_mail(sender, out);
        })
    }

    pub fn recipient(&mut self, recipient: &str) -> Reply {
        self.ask(|out| client::encode_recipient(recipient, out))
    }

    pub fn data(&mut self, queue_id: &str) -> Reply {
        self.ask(|out| {
            client::encode_macros(MacroStage::Data, &[("i", queue_id)], out);
            client::encode_data(out);
        })
    }

    pub fn content(&mut self, headers: &[(&str, &str)], body: &str) -> Reply {
        self.ask(|out| {
            for (name, value) in headers {
                client::encode_header(name, &format!(" {value}"), out);
            }
            client::encode_body(body.as_bytes(), out);
            client::encode_end_of_message(out);
        })
    }

    /// A whole message to one recipient.
    pub fn message(&mut self, login: &str, queue_id: &str, headers: &[(&str, &str)]) -> Submitted {
        assert_eq!(self.mail(login, login), Reply::Continue);
        assert_eq!(self.recipient("a@dest.test"), Reply::Continue);
        assert_eq!(self.data(queue_id), Reply::Continue);
        assert_eq!(self.content(headers, "hi\r\n"), Reply::Continue);
        match self.events.pop() {
            Some(SessionEvent::Message(submitted)) => *submitted,
            other => panic!("{other:?}"),
        }
    }
}

pub fn locked_reply() -> Reply {
    Reply::ReplyCode(format!("550 5.7.1 {LOCKED}"))
}

pub fn decode_replies(mut out: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Some((reply, taken)) = client::decode_reply(out) {
        replies.push(reply);
        out = &out[taken..];
    }
    assert!(out.is_empty(), "half a reply");
    replies
}

/// Commands of a captured connection, in order.
pub fn captured(capture: &str, conn: u64) -> impl Iterator<Item = Value> {
    capture.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(move |line| line["conn"] == conn)
}

/// The octets of a captured connection. The captured milter had agreed to nothing; `agreed` writes what the server
/// sends when it has: no end of headers, and header values with their leading space.
pub fn milter_octets(capture: &str, conn: u64, agreed: bool) -> Vec<u8> {
    let sent = captured(capture, conn).filter(|line| !agreed || line["cmd"] != "N" && line["for_"] != "N");
    sent.flat_map(|line| milter_packet(&line, agreed)).collect()
}

fn milter_packet(line: &Value, leading_space: bool) -> Vec<u8> {
    let cmd = line["cmd"].as_str().unwrap();
    let mut data = Vec::new();
    let string = |text: &str, data: &mut Vec<u8>| {
        data.extend_from_slice(text.as_bytes());
        data.push(0);
    };
    match cmd {
        "O" => {
            for key in ["version", "actions", "protocol"] {
                data.extend_from_slice(&u32::try_from(line[key].as_u64().unwrap()).unwrap().to_be_bytes());
            }
        }
        "D" => {
            data.extend_from_slice(line["for_"].as_str().unwrap().as_bytes());
            for (name, value) in line["macros"].as_object().unwrap() {
                string(name, &mut data);
                string(value.as_str().unwrap(), &mut data);
            }
        }
        "C" => {
            string(line["host"].as_str().unwrap(), &mut data);
            data.extend_from_slice(line["family"].as_str().unwrap().as_bytes());
            data.extend_from_slice(&u16::try_from(line["port"].as_u64().unwrap()).unwrap().to_be_bytes());
            string(line["address"].as_str().unwrap(), &mut data);
        }
        "L" => {
            string(line["data"][0].as_str().unwrap(), &mut data);
            let value = line["data"][1].as_str().unwrap();
            string(&if leading_space { format!(" {value}") } else { value.to_owned() }, &mut data);
        }
        // The captures have the length of the body and its hash: these are the octets with that hash.
        "B" if line["bytes"] == 4 => data.extend_from_slice(b"hi\r\n"),
        "B" => data.resize(usize::try_from(line["bytes"].as_u64().unwrap()).unwrap(), b'x'),
        "H" | "M" | "R" => {
            for part in line["data"].as_array().unwrap() {
                string(part.as_str().unwrap(), &mut data);
            }
        }
        _ => {}
    }
    let mut packet = u32::try_from(data.len() + 1).unwrap().to_be_bytes().to_vec();
    packet.extend_from_slice(cmd.as_bytes());
    packet.extend_from_slice(&data);
    packet
}

/// How long the captured messages were on the wire, one after the other.
pub fn wire_octets(capture: &str, conn: u64) -> Vec<u64> {
    let (mut sizes, mut octets) = (Vec::new(), 0);
    for line in captured(capture, conn) {
        match line["cmd"].as_str().unwrap() {
            "L" => {
                let (name, value) = (line["data"][0].as_str().unwrap(), line["data"][1].as_str().unwrap());
                octets += format!("{name}: {}\r\n", value.replace('\n', "\r\n")).len() as u64;
            }
            "B" => octets += 2 + line["bytes"].as_u64().unwrap(),
            "E" => sizes.push(std::mem::take(&mut octets)),
            _ => {}
        }
    }
    sizes
}
