//! How the administrator's commands reach control, and the analyst's reach the history.

use anyhow::{Context as _, bail};
use std::path::PathBuf;
use std::time::Duration;
use tidegate_proto::v1::admin_service_client::AdminServiceClient;
use tidegate_proto::v1::audit_service_client::AuditServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where control is, and how to prove who asks.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// Control's address
    #[arg(long, env = "TIDEGATE_SERVER", default_value = "http://127.0.0.1:7710")]
    pub server: String,
    #[command(flatten)]
    credentials: Credentials,
    /// One JSON object (or one a line, when following) instead of text for people
    #[arg(long)]
    pub json: bool,
}

/// Where the history is, and how to prove who asks.
#[derive(Debug, Clone, clap::Args)]
pub struct HistoryArgs {
    /// The history's address (Arrow Flight SQL)
    #[arg(long, env = "TIDEGATE_HISTORY", default_value = "http://127.0.0.1:7730")]
    pub server: String,
    #[command(flatten)]
    credentials: Credentials,
}

/// How to know the server, and to prove who asks.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Credentials {
    /// PEM file with the authority that signs the server's certificate
    #[arg(long, env = "TIDEGATE_CA")]
    pub ca: Option<PathBuf>,
    /// PEM file with your certificate
    #[arg(long, env = "TIDEGATE_CERTIFICATE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, env = "TIDEGATE_KEY", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// File with your token; or the token itself in TIDEGATE_TOKEN. It counts before a certificate
    #[arg(long, env = "TIDEGATE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

/// A connection on which every call bears the token, if there is one.
pub type Connection = InterceptedService<Channel, Bearer>;

/// Puts the token into a call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// A service that commands ask.
struct Service {
    name: &'static str,
    /// An address of it, for who wrote it wrong.
    example: &'static str,
}

const CONTROL: Service = Service { name: "control", example: "http://127.0.0.1:7710" };
const HISTORY: Service = Service { name: "the history", example: "http://127.0.0.1:7730" };

impl ServerArgs {
    /// Connects to control, for accounts, rules and settings.
    pub async fn connect(&self) -> anyhow::Result<AdminServiceClient<Connection>> {
        Ok(AdminServiceClient::new(self.connection().await?))
    }

    /// Connects to control, for the audit.
    pub async fn connect_audit(&self) -> anyhow::Result<AuditServiceClient<Connection>> {
        Ok(AuditServiceClient::new(self.connection().await?))
    }

    async fn connection(&self) -> anyhow::Result<Connection> {
        self.credentials.connect(&CONTROL, &self.server).await
    }
}

impl HistoryArgs {
    /// A history that asks nobody who they are.
    pub fn without_credentials(server: String) -> Self {
        Self { server, credentials: Credentials::default() }
    }

    /// Connects to the history.
    pub async fn connection(&self) -> anyhow::Result<Connection> {
        self.credentials.connect(&HISTORY, &self.server).await
    }
}

impl Credentials {
    /// Whether the caller can prove who they are.
    fn are_given(&self) -> bool {
        self.token_file.is_some() || self.certificate.is_some() || std::env::var_os("TIDEGATE_TOKEN").is_some()
    }

    async fn connect(&self, service: &Service, address: &str) -> anyhow::Result<Connection> {
        let bearer = self.bearer()?;
        let mut endpoint = Endpoint::from_shared(address.to_owned())
            .with_context(|| format!("--server {address:?} is not an address like {}", service.example))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        if endpoint.uri().scheme_str() == Some("https") {
            endpoint = endpoint.tls_config(self.tls()?).context("using the certificates")?;
        } else if bearer.0.is_some() && !is_loopback(endpoint.uri().host().unwrap_or_default()) {
            bail!("a token is not sent to {address} without TLS, where others could read it; use https://");
        }
        let channel = endpoint.connect().await.with_context(|| {
            format!("cannot reach {} at {address}; is it running? (--server says where)", service.name)
        })?;
        Ok(InterceptedService::new(channel, bearer))
    }

    fn tls(&self) -> anyhow::Result<ClientTlsConfig> {
        let read = |what: &str, file: &PathBuf| {
            std::fs::read(file).with_context(|| format!("reading {what} from {}", file.display()))
        };
        let ca = self
            .ca
            .as_ref()
            .context("an https:// address needs --ca FILE, the authority that signed its certificate")?;
        let ca = Certificate::from_pem(read("the authority", ca)?);
        let tls = ClientTlsConfig::new().ca_certificate(ca);
        Ok(match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                tls.identity(Identity::from_pem(read("the certificate", certificate)?, read("the private key", key)?))
            }
            _ => tls,
        })
    }

    /// From the file, or from the environment. There is no flag for the token itself: every user of the machine can read
    /// the command lines of its processes.
    fn bearer(&self) -> anyhow::Result<Bearer> {
        let token = match &self.token_file {
            Some(file) => Some(
                std::fs::read_to_string(file).with_context(|| format!("reading the token from {}", file.display()))?,
            ),
            None => std::env::var("TIDEGATE_TOKEN").ok(),
        };
        let Some(token) = token.as_deref().map(str::trim).filter(|token| !token.is_empty()) else {
            return Ok(Bearer(None));
        };
        // The error would show the token.
        let Ok(mut value) = format!("Bearer {token}").parse::<MetadataValue<Ascii>>() else {
            bail!("the token has characters that no token has");
        };
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Who asks, for the audit: what was given, or the user of this shell. With credentials control knows better.
pub fn actor(given: Option<String>, server: &ServerArgs) -> anyhow::Result<String> {
    let named = given
        .or_else(|| std::env::var("SUDO_USER").ok())
        .or_else(|| std::env::var("USER").ok())
        .or_else(|| std::env::var("LOGNAME").ok())
        .filter(|name| !name.is_empty());
    match named {
        None if server.credentials.are_given() => Ok(String::new()),
        named => named.context("it is not known who asks; say it with --actor NAME"),
    }
}
