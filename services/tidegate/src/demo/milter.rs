//! A mail server's side of a milter connection.

use anyhow::{Context as _, bail};
use std::net::SocketAddr;
use std::path::Path;
use tidegate_mta::milter::client::{self, MacroStage, Reply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// One message, as a client submits it.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The authenticated login.
    pub login: String,
    /// Where the client connects from.
    pub client: SocketAddr,
    /// Envelope recipients.
    pub recipients: Vec<String>,
    /// Names and values.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The edge let it pass.
    Accepted,
    /// The edge refused it with this reply line.
    Refused(String),
}

/// One mail session at a time over one connection, as Postfix does for each SMTP session.
pub struct Session {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    queue_ids: u64,
}

impl Session {
    /// Connects to an edge's milter socket and negotiates.
    pub async fn open(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket)
            .await
            .with_context(|| format!("connecting to the edge's milter at {}", socket.display()))?;
        let mut session = Self { stream, input: Vec::new(), output: Vec::new(), queue_ids: 0 };
        client::encode_option_negotiation(&mut session.output);
        match session.ask().await? {
            Reply::Options { .. } => Ok(session),
            other => bail!("the edge answered the option negotiation with {other:?}"),
        }
    }

    /// Submits one message: a client's connection, its message, and its end.
    pub async fn submit(&mut self, mail: &Mail) -> anyhow::Result<Outcome> {
        let outcome = self.transaction(mail).await;
        client::encode_abort(&mut self.output);
        outcome
    }

    /// Begins a message and leaves it at that: what the edge answers to MAIL.
    pub async fn try_mail(&mut self, mail: &Mail) -> anyhow::Result<Outcome> {
        let outcome = self.begin(mail).await;
        client::encode_abort(&mut self.output);
        Ok(outcome?.unwrap_or(Outcome::Accepted))
    }

    async fn begin(&mut self, mail: &Mail) -> anyhow::Result<Option<Outcome>> {
        client::encode_connect("client.example", mail.client, &mut self.output);
        client::encode_helo("client.example", &mut self.output);
        let login = [("{auth_type}", "PLAIN"), ("{auth_authen}", mail.login.as_str())];
        client::encode_macros(MacroStage::Mail, &login, &mut self.output);
        client::encode_mail(&mail.login, &mut self.output);
        refusal(self.ask().await?)
    }

    async fn transaction(&mut self, mail: &Mail) -> anyhow::Result<Outcome> {
        if let Some(refused) = self.begin(mail).await? {
            return Ok(refused);
        }
        self.queue_ids += 1;
        let queue_id = format!("4D{:x}{:x}", std::process::id(), self.queue_ids);
        for recipient in &mail.recipients {
            client::encode_macros(
                MacroStage::Recipient,
                &[("i", &queue_id), ("{rcpt_addr}", recipient)],
                &mut self.output,
            );
            client::encode_recipient(recipient, &mut self.output);
            if let Some(refused) = refusal(self.ask().await?)? {
                return Ok(refused);
            }
        }
        client::encode_macros(MacroStage::Data, &[("i", &queue_id)], &mut self.output);
        client::encode_data(&mut self.output);
        if let Some(refused) = refusal(self.ask().await?)? {
            return Ok(refused);
        }
        for (name, value) in &mail.headers {
            client::encode_header(name, &format!(" {value}"), &mut self.output);
        }
        client::encode_body(mail.body.as_bytes(), &mut self.output);
        client::encode_macros(MacroStage::EndOfMessage, &[("i", &queue_id)], &mut self.output);
        client::encode_end_of_message(&mut self.output);
        Ok(refusal(self.ask().await?)?.unwrap_or(Outcome::Accepted))
    }

    /// Sends what has gathered and reads one reply.
    async fn ask(&mut self) -> anyhow::Result<Reply> {
        self.stream.write_all(&self.output).await.context("writing to the edge")?;
        self.output.clear();
        loop {
            if let Some((reply, taken)) = client::decode_reply(&self.input) {
                self.input.drain(..taken);
                return Ok(reply);
            }
            let read = self.stream.read_buf(&mut self.input).await.context("reading from the edge")?;
            if read == 0 {
                bail!("the edge closed the connection");
            }
        }
    }
}

fn refusal(reply: Reply) -> anyhow::Result<Option<Outcome>> {
    match reply {
        Reply::Continue | Reply::Accept => Ok(None),
        Reply::ReplyCode(line) => Ok(Some(Outcome::Refused(line))),
        other => bail!("the edge answered {other:?}"),
    }
}
