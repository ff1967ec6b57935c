//! What can be set. `tidegate-edge.toml` beside this crate says every key.

mod check;

use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use tidegate_bus::KafkaConfig;
use tidegate_bus::publisher::GrpcPublisherConfig;
use tidegate_mta::policy::PolicyJoinerConfig;
use tidegate_mta::{SessionConfig, VerdictJoinerConfig};
use tidegate_runtime::telemetry::LogConfig;
use tidegate_runtime::tls::ClientTls;
use tidegate_runtime::traces::TracesConfig;

/// The edge's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeConfig {
    /// Name of this mail host. No other edge of the installation may have it: events are numbered by it.
    pub node: String,
    /// Its site (location).
    pub site: String,
    /// Directory for what outlives a restart: account states, the spool, event numbers.
    pub state_directory: PathBuf,
    /// The provider's own domains. Mail to them counts as internal.
    pub internal_domains: Vec<String>,
    /// Addresses that even a locked account may write to.
    pub admin_addresses: Vec<String>,
    /// File with the installation's secret for hashes, the same on all its edges. None: one is made in the state
    /// directory, and hashes of two edges cannot be compared.
    pub hash_key_file: Option<PathBuf>,
    /// Milter sockets.
    pub milter: MilterConfig,
    /// Policy delegation sockets.
    pub policy: PolicyConfig,
    /// Where rspamd posts its verdicts.
    pub rspamd: RspamdConfig,
    /// How messages and verdicts are joined.
    pub verdicts: VerdictJoinerConfig,
    /// Where account states come from.
    pub control: ControlConfig,
    /// Where events go.
    pub publish: PublishConfig,
    /// Events that could not be published yet.
    pub spool: SpoolConfig,
    /// How logins, relays and spam headers are read.
    pub session: SessionConfig,
    /// A limit for each account while cut off from control; none: no limit.
    pub local_cap: Option<LocalCapConfig>,
    /// Health and metrics.
    pub ops: OpsConfig,
    /// Logs.
    pub telemetry: LogConfig,
    /// Traces.
    pub traces: TracesConfig,
}

/// Milter sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MilterConfig {
    /// `unix:/path` or `inet:address:port`. Empty: no milter.
    pub listen: Vec<String>,
    /// Bounds of its connections.
    pub connections: ConnectionConfig,
}

/// Policy delegation sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// `unix:/path` or `inet:address:port`. Empty: no policy delegation.
    pub listen: Vec<String>,
    /// Bounds of its connections.
    pub connections: ConnectionConfig,
    /// How requests are joined to messages.
    pub joiner: PolicyJoinerConfig,
}

/// Bounds of the connections of one protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionConfig {
    /// Most connections at a time. More are closed at once, so that mail passes unchecked rather than waits.
    pub max: usize,
    /// A connection that says nothing for so long is closed, in milliseconds.
    pub idle_ms: u64,
    /// Permissions of unix sockets, in octal digits.
    pub socket_mode: String,
    /// Whether `inet` addresses other than loopback are allowed. These protocols know no authentication: whoever
    /// reaches such a socket can report mail for any account.
    pub allow_remote: bool,
}

/// Where rspamd's metadata exporter posts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RspamdConfig {
    /// Loopback address for `http://ADDRESS/rspamd`; none: not served.
    pub listen: Option<SocketAddr>,
}

/// Where account states come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// `http://host:port`, or `https://host:port` with `tls`.
    pub endpoint: String,
    /// This edge's certificate, and control's authority.
    pub tls: Option<ClientTls>,
    /// Longest time for a connection to be made and greeted, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Longest pause between two attempts to connect, in milliseconds.
    pub max_backoff_ms: u64,
}

/// Where events go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublishConfig {
    /// By which way.
    pub kind: PublishKind,
    /// For `kind = "grpc"`.
    pub grpc: GrpcConfig,
    /// For `kind = "kafka"`. An edge does not make topics, whatever `create_topics` says.
    pub kafka: KafkaConfig,
    /// A batch that is not durable after this time is sent again, and newer events go to the spool, in milliseconds.
    pub timeout_ms: u64,
    /// Longest pause between two attempts, in milliseconds.
    pub max_backoff_ms: u64,
    /// Most events in memory; more go to the spool.
    pub queue_max_events: usize,
}

/// By which way events go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublishKind {
    /// Over gRPC to whoever owns the log, or to control.
    #[default]
    Grpc,
    /// Straight to Kafka.
    Kafka,
}

/// Publishing over gRPC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcConfig {
    /// `http://host:port` or `https://host:port`; none: that of `control`.
    pub endpoint: Option<String>,
    /// Certificates; none: those of `control`.
    pub tls: Option<ClientTls>,
}

/// Events that could not be published yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// Most octets of events on disk; beyond it the oldest are dropped and counted.
    pub max_bytes: u64,
    /// Events older than this are dropped and counted, in hours.
    pub max_age_hours: u32,
}

/// A limit for each account while cut off from control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalCapConfig {
    /// It holds when control has not been heard for so long, in seconds.
    pub after_s: u32,
    /// Most messages of an account in a minute; 0: any number.
    pub messages_per_minute: u32,
    /// Most recipients of an account in a minute; 0: any number.
    pub recipients_per_minute: u32,
    /// What the SMTP client is told with `450 4.7.1`.
    pub reply: String,
}

/// Health and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpsConfig {
    /// Address of `/healthz`, `/readyz` and `/metrics`; they name no account, so any address may be given.
    pub listen: SocketAddr,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            node: String::new(),
            site: String::new(),
            state_directory: PathBuf::from("/var/lib/tidegate-edge"),
            internal_domains: Vec::new(),
            admin_addresses: Vec::new(),
            hash_key_file: None,
            milter: MilterConfig::default(),
            policy: PolicyConfig::default(),
            rspamd: RspamdConfig::default(),
            verdicts: VerdictJoinerConfig::default(),
            control: ControlConfig::default(),
            publish: PublishConfig::default(),
            spool: SpoolConfig::default(),
            session: SessionConfig::default(),
            local_cap: None,
            ops: OpsConfig::default(),
            telemetry: LogConfig::default(),
            traces: TracesConfig::default(),
        }
    }
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self { max: 2_000, idle_ms: 15 * 60 * 1_000, socket_mode: "0660".to_owned(), allow_remote: false }
    }
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            endpoint: "http://127.0.0.1:7710".to_owned(),
            tls: None,
            connect_timeout_ms: 5_000,
            max_backoff_ms: 15_000,
        }
    }
}

impl Default for PublishConfig {
    fn default() -> Self {
        Self {
            kind: PublishKind::Grpc,
            grpc: GrpcConfig::default(),
            kafka: KafkaConfig::default(),
            timeout_ms: 2_000,
            max_backoff_ms: 10_000,
            queue_max_events: 10_000,
        }
    }
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, max_age_hours: 7 * 24 }
    }
}

impl Default for LocalCapConfig {
    fn default() -> Self {
        Self {
            after_s: 60,
            messages_per_minute: 60,
            recipients_per_minute: 300,
            reply: "Too much mail in a minute, please try again later".to_owned(),
        }
    }
}

impl Default for OpsConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7790)) }
    }
}

impl ConnectionConfig {
    /// The permissions as the system takes them.
    pub(crate) fn mode(&self) -> Option<u32> {
        u32::from_str_radix(&self.socket_mode, 8).ok().filter(|mode| *mode <= 0o777 && !self.socket_mode.is_empty())
    }
}

impl PublishConfig {
    /// Where gRPC goes to, and with which certificates: those of control unless set.
    pub(crate) fn grpc_publisher(&self, control: &ControlConfig) -> GrpcPublisherConfig {
        let (endpoint, tls) = match &self.grpc.endpoint {
            Some(endpoint) => (endpoint, &self.grpc.tls),
            None => (&control.endpoint, &control.tls),
        };
        GrpcPublisherConfig { endpoint: endpoint.clone(), tls: tls.clone(), request_timeout_ms: self.timeout_ms }
    }
}
