//! The mail server's side: milter and policy clients over TCP and unix sockets.

use std::time::Duration;
use tidegate_mta::milter::client::{self, MacroStage, Reply};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// No answer takes as long as this.
const PATIENCE: Duration = Duration::from_secs(20);

pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Connects to `unix:/path` or `inet:address:port`.
pub async fn connect(address: &str) -> Box<dyn Duplex> {
    match address.split_once(':').unwrap() {
        ("unix", path) => Box::new(UnixStream::connect(path).await.unwrap()),
        ("inet", address) => Box::new(TcpStream::connect(address).await.unwrap()),
        _ => panic!("{address}"),
    }
}

/// One milter connection.
pub struct MilterClient {
    stream: Box<dyn Duplex>,
    buffer: Vec<u8>,
}

impl MilterClient {
    /// Connects, negotiates, and tells of a client.
    pub async fn open(address: &str) -> Self {
        let mut milter = Self { stream: connect(address).await, buffer: Vec::new() };
        let mut out = Vec::new();
        client::encode_option_negotiation(&mut out);
        let options = milter.ask(&out).await;
        assert!(options.is_silent_on(MacroStage::Connect) && options.is_silent_on(MacroStage::Header), "{options:?}");
        let mut out = Vec::new();
        client::encode_connect("client.example", "203.0.113.7:40000".parse().unwrap(), &mut out);
        client::encode_helo("client.example", &mut out);
        milter.stream.write_all(&out).await.unwrap();
        milter
    }

    pub async fn mail(&mut self, login: &str, sender: &str, queue_id: &str) -> Reply {
        let mut out = Vec::new();
        let macros = [("i", queue_id), ("{auth_type}", "PLAIN"), ("{auth_authen}", login)];
        client::encode_macros(MacroStage::Mail, &macros, &mut out);
        client::encode_mail(sender, &mut out);
        self.ask(&out).await
    }

    pub async fn recipient(&mut self, recipient: &str) -> Reply {
        let mut out = Vec::new();
        client::encode_recipient(recipient, &mut out);
        self.ask(&out).await
    }

    pub async fn data(&mut self) -> Reply {
        let mut out = Vec::new();
        client::encode_data(&mut out);
        self.ask(&out).await
    }

    pub async fn end(&mut self) -> Reply {
        let mut out = Vec::new();
        client::encode_header("Subject", " hello", &mut out);
        client::encode_body(b"How are you?\r\n", &mut out);
        client::encode_end_of_message(&mut out);
        let reply = self.ask(&out).await;
        self.abort().await;
        reply
    }

    /// Gives the message up.
    pub async fn abort(&mut self) {
        let mut out = Vec::new();
        client::encode_abort(&mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    /// A whole message: the first answer that is not to go on.
    pub async fn message(&mut self, login: &str, sender: &str, queue_id: &str, recipients: &[&str]) -> Reply {
        let mut replies = vec![self.mail(login, sender, queue_id).await];
        for recipient in recipients {
            if replies.last() == Some(&Reply::Continue) {
                replies.push(self.recipient(recipient).await);
            }
        }
        if replies.last() == Some(&Reply::Continue) {
            replies.push(self.data().await);
        }
        if replies.last() == Some(&Reply::Continue) {
            replies.push(self.end().await);
        }
        replies.pop().unwrap()
    }

    async fn ask(&mut self, out: &[u8]) -> Reply {
        self.stream.write_all(out).await.unwrap();
        let reading = async {
            loop {
                if let Some((reply, octets)) = client::decode_reply(&self.buffer) {
                    self.buffer.drain(..octets);
                    return reply;
                }
                assert!(self.stream.read_buf(&mut self.buffer).await.unwrap() > 0, "closed");
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("no answer")
    }
}

/// One policy request's text.
pub fn policy_request(state: &str, login: &str, sender: &str, recipient: &str, instance: &str) -> String {
    format!(
        "request=smtpd_access_policy\nprotocol_state={state}\nclient_address=203.0.113.7\nclient_port=40000\n\
         sasl_method=plain\nsasl_username={login}\nsender={sender}\nrecipient={recipient}\nrecipient_count=1\n\
         size=1234\nqueue_id=4XyZ\ninstance={instance}\n\n"
    )
}

/// Sends a policy request and reads the answer's action.
pub async fn ask_policy(stream: &mut Box<dyn Duplex>, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let reading = async {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n\n") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "closed");
        }
        String::from_utf8(answer).unwrap()
    };
    let answer = tokio::time::timeout(PATIENCE, reading).await.expect("no answer");
    answer.strip_prefix("action=").unwrap().trim_end().to_owned()
}
