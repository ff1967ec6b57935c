//! How the administrator's commands reach control.

use anyhow::Context as _;
use std::path::PathBuf;
use std::time::Duration;
use tidegate_proto::v1::admin_service_client::AdminServiceClient;
use tidegate_proto::v1::audit_service_client::AuditServiceClient;
use tidegate_runtime::tls::ClientTls;
use tonic::transport::{Channel, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where control is, and how to prove who asks.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// Control's address
    #[arg(long, env = "TIDEGATE_SERVER", default_value = "http://127.0.0.1:7710")]
    pub server: String,
    /// PEM file with the authority that signs control's certificate
    #[arg(long, env = "TIDEGATE_CA", requires = "certificate")]
    pub ca: Option<PathBuf>,
    /// PEM file with your certificate
    #[arg(long, env = "TIDEGATE_CERTIFICATE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, env = "TIDEGATE_KEY", requires = "ca")]
    pub key: Option<PathBuf>,
    /// One JSON object (or one a line, when following) instead of text for people
    #[arg(long)]
    pub json: bool,
}

impl ServerArgs {
    /// Connects to control, for accounts, rules and settings.
    pub async fn connect(&self) -> anyhow::Result<AdminServiceClient<Channel>> {
        Ok(AdminServiceClient::new(self.channel().await?))
    }

    /// Connects to control, for the audit.
    pub async fn connect_audit(&self) -> anyhow::Result<AuditServiceClient<Channel>> {
        Ok(AuditServiceClient::new(self.channel().await?))
    }

    async fn channel(&self) -> anyhow::Result<Channel> {
        let mut endpoint = Endpoint::from_shared(self.server.clone())
            .with_context(|| format!("--server {:?} is not an address like http://127.0.0.1:7710", self.server))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        if let (Some(ca), Some(certificate), Some(key)) = (&self.ca, &self.certificate, &self.key) {
            let tls =
                ClientTls { ca: ca.clone(), certificate: certificate.clone(), key: key.clone(), server_name: None };
            endpoint = endpoint.tls_config(tls.load()?).context("using the certificates")?;
        }
        endpoint
            .connect()
            .await
            .with_context(|| format!("cannot reach control at {}; is it running? (--server says where)", self.server))
    }
}

/// Who asks, for the audit: what was given, or the user of this shell.
pub fn actor(given: Option<String>) -> anyhow::Result<String> {
    given
        .or_else(|| std::env::var("SUDO_USER").ok())
        .or_else(|| std::env::var("USER").ok())
        .or_else(|| std::env::var("LOGNAME").ok())
        .filter(|name| !name.is_empty())
        .context("it is not known who asks; say it with --actor NAME")
}
