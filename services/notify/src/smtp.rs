//! Sends a mail over SMTP, stage by stage: what is refused before the recipient is named is the channel's trouble, what
//! is refused after it is this mail's.

use crate::config::{SmtpConfig, SmtpTls};
use crate::mail::Mail;
use crate::outbox::Outcome;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as MailCommand, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Longest time to say goodbye: the mail was taken already.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// A mail server. Each mail has a connection of its own.
#[derive(Clone)]
pub struct Smtp {
    config: SmtpConfig,
    hello: ClientId,
    /// Made once: reading the system's authorities takes longer than sending a mail.
    tls: Arc<OnceLock<TlsParameters>>,
}

impl Smtp {
    /// The server of this configuration; nothing is connected yet.
    pub fn new(config: SmtpConfig) -> Self {
        let hello = ClientId::Domain(config.id_domain());
        Self { config, hello, tls: Arc::default() }
    }

    /// Sends one mail, within the configured time.
    pub async fn send(&self, mail: &Mail) -> Outcome {
        let limit = Duration::from_millis(self.config.timeout_ms);
        match tokio::time::timeout(limit, self.send_patiently(mail)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Unreachable(format!("no end within {} ms", self.config.timeout_ms)),
        }
    }

    async fn send_patiently(&self, mail: &Mail) -> Outcome {
        let mut connection = match self.connect().await {
            Ok(connection) => connection,
            Err(why) => return Outcome::Unreachable(why),
        };
        let outcome = transfer(&mut connection, mail).await;
        let goodbye =
            async { if outcome == Outcome::Sent { drop(connection.quit().await) } else { connection.abort().await } };
        drop(tokio::time::timeout(QUIT_TIMEOUT, goodbye).await);
        outcome
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, String> {
        let config = &self.config;
        let tls = match config.tls {
            SmtpTls::None => None,
            SmtpTls::Starttls | SmtpTls::Tls => Some(self.tls()?),
        };
        let address = (config.host.as_str(), config.port());
        let limit = Some(Duration::from_millis(config.timeout_ms));
        let (at_once, later) = if config.tls == SmtpTls::Tls { (tls, None) } else { (None, tls) };
        let connecting = AsyncSmtpConnection::connect_tokio1(address, limit, &self.hello, at_once, None);
        let doing = |what: &'static str| move |error: Error| format!("{what}: {}", chain(&error));
        let mut connection = connecting.await.map_err(doing("connecting"))?;
        if let Some(tls) = later {
            connection.starttls(tls, &self.hello).await.map_err(doing("STARTTLS"))?;
        }
        if let (Some(username), Some(file)) = (&config.username, &config.password_file) {
            let password = tokio::fs::read_to_string(file)
                .await
                .map_err(|error| format!("reading the password from {}: {error}", file.display()))?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            let credentials = Credentials::new(username.clone(), password);
            connection.auth(DEFAULT_MECHANISMS, &credentials).await.map_err(doing("logging in"))?;
        }
        Ok(connection)
    }

    fn tls(&self) -> Result<TlsParameters, String> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls.clone());
        }
        let mut builder = TlsParameters::builder(self.config.host.clone());
        if let Some(file) = &self.config.ca {
            let pem = std::fs::read(file).map_err(|error| format!("reading {}: {error}", file.display()))?;
            let certificate =
                Certificate::from_pem(&pem).map_err(|error| format!("{}: {}", file.display(), chain(&error)))?;
            builder = builder.add_root_certificate(certificate);
        }
        let tls = builder.build_rustls().map_err(|error| format!("preparing TLS: {}", chain(&error)))?;
        Ok(self.tls.get_or_init(|| tls).clone())
    }
}

async fn transfer(connection: &mut AsyncSmtpConnection, mail: &Mail) -> Outcome {
    let mut addresses = mail.envelope.to().iter().chain(mail.envelope.from());
    let is_international = addresses.any(|address| !address.to_string().is_ascii());
    if is_international && !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
        return Outcome::Refused("the address is not ASCII, and the mail server has no SMTPUTF8".to_owned());
    }
    let mut parameters = Vec::new();
    if is_international {
        parameters.push(MailParameter::SmtpUtfEight);
    }
    if !mail.octets.is_ascii() && connection.server_info().supports_feature(Extension::EightBitMime) {
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    if let Err(error) = connection.command(MailCommand::new(mail.envelope.from().cloned(), parameters)).await {
        // Whoever may not send at all says so here.
        return Outcome::Unreachable(format!("MAIL: {}", chain(&error)));
    }
    for to in mail.envelope.to() {
        if let Err(error) = connection.command(Rcpt::new(to.clone(), Vec::new())).await {
            return refused("RCPT", &error);
        }
    }
    if let Err(error) = connection.command(Data).await {
        return refused("DATA", &error);
    }
    match connection.message(&mail.octets).await {
        Ok(_) => Outcome::Sent,
        Err(error) => refused("message", &error),
    }
}

/// What a refusal of this mail means.
fn refused(stage: &str, error: &Error) -> Outcome {
    let why = format!("{stage}: {}", chain(error));
    match error.status().map(u16::from) {
        // The service goes away; 530 and 535: it wants a login after all.
        Some(421 | 530 | 535) | None => Outcome::Unreachable(why),
        Some(code) if code >= 500 => Outcome::Refused(why),
        Some(_) => Outcome::Busy(why, None),
    }
}

/// An error with its causes, on one line: like [`tidegate_runtime::error_line`], but for libraries whose errors repeat
/// their cause at their own end.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
