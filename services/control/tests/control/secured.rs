//! A control service that asks who calls, with certificates, people and tokens of its own.

use crate::harness::{PATIENCE, open_bus, until};
use prometheus_client::registry::Registry;
use prost::Message as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tidegate_access::{
    Access, AccessConfig, Authority, CertificateName, EnrolmentConfig, FailureBounds, Issued, JwtConfig, NewToken,
    Role, TokenFile,
};
use tidegate_bus::{Bus, EmbeddedBus, ReadFrom, Topic};
use tidegate_control::{ControlConfig, Service};
use tidegate_proto::v1;
use tidegate_proto::v1::admin_service_client::AdminServiceClient;
use tidegate_runtime::Health;
use tidegate_runtime::tls::ServerTls;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

pub const TRUST_DOMAIN: &str = "example.org";
pub const DAY: Duration = Duration::from_hours(24);

/// A control service that asks who calls.
pub struct Secured {
    pub address: SocketAddr,
    pub authority: Authority,
    pub bus: Arc<EmbeddedBus>,
    registry: Registry,
    _end: DropGuard,
    folder: TempDir,
}

impl Secured {
    /// Jo, an admin, and mo, a viewer, have certificates; tokens are not limited much.
    pub async fn start() -> Self {
        Self::start_with(None, FailureBounds { max: 1_000, ..FailureBounds::default() }).await
    }

    pub async fn start_with(jwt: Option<JwtConfig>, failures: FailureBounds) -> Self {
        let folder = TempDir::new().unwrap();
        let file = |name: &str| folder.path().join(name);
        let (authority, issued) = Authority::create("test", DAY, now_ms()).unwrap();
        fs::write(file("ca.pem"), &issued.certificate_pem).unwrap();
        fs::write(file("ca.key"), &issued.key_pem).unwrap();
        put(&folder, "server", &authority.server(&names(), DAY, now_ms()).unwrap());
        fs::write(file("people.toml"), people("")).unwrap();
        fs::write(file("tokens.toml"), "").unwrap();
        let access = Access::open(&AccessConfig {
            trust_domain: Some(TRUST_DOMAIN.into()),
            people: Some(file("people.toml")),
            tokens: Some(file("tokens.toml")),
            jwt,
            failures,
            enrolment: Some(EnrolmentConfig { certificate: file("ca.pem"), key: file("ca.key"), lifetime_days: 30 }),
        })
        .unwrap();
        let tls =
            ServerTls { certificate: file("server.pem"), key: file("server.key"), client_ca: Some(file("ca.pem")) };
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = ControlConfig { listen, tls: Some(tls), ..ControlConfig::default() };
        let bus = open_bus(&folder);
        let mut registry = Registry::default();
        access.register(&mut registry);
        let (log, health): (Arc<dyn Bus>, _) = (bus.clone(), Health::new());
        let service = Service::bind(config, log, &mut registry, health.clone(), Arc::clone(&access)).await.unwrap();
        let address = service.local_addr();
        let shutdown = CancellationToken::new();
        tokio::spawn(access.run(shutdown.clone()));
        tokio::spawn(service.run(shutdown.clone()));
        until("the replica is whole", || async { health.report().0 }).await;
        Self { address, authority, bus, registry, _end: shutdown.drop_guard(), folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Another certificate for the server.
    pub fn put_server(&self, issued: &Issued) {
        put(&self.folder, "server", issued);
    }

    /// Other people, and what is revoked.
    pub fn put_people(&self, revoked: &str) {
        fs::write(self.path("people.toml"), people(revoked)).unwrap();
    }

    /// A new token: its id, and itself.
    pub fn token(&self, role: Role) -> (String, String) {
        self.token_since(role, now_ms())
    }

    /// One that was made at another time, and counts a day.
    pub fn token_since(&self, role: Role, created_ms: i64) -> (String, String) {
        let new = NewToken { name: "tool".into(), role, domains: None, lifetime: Some(DAY) };
        let (token, _) = TokenFile::create(&self.path("tokens.toml"), new, created_ms).unwrap();
        (token.id().to_owned(), token.reveal())
    }

    /// Waits until the files are in force as they are now. They are looked at one after the other: when two changes of
    /// one of them were seen, all were looked at between.
    pub async fn settle(&self) {
        let taken = || self.metric("tidegate_access_reloads_total{what=\"people\",result=\"taken\"}");
        for revoked in ["'user/somebody'", ""] {
            let before = taken();
            self.put_people(revoked);
            until("the people are loaded", || async { taken() > before }).await;
        }
    }

    pub fn edge_certificate(&self, site: &str, node: &str) -> Issued {
        let name = CertificateName::Edge { site: site.into(), node: node.into() };
        self.authority.client(&name, TRUST_DOMAIN, DAY, now_ms()).unwrap()
    }

    pub fn user_certificate(&self, name: &str) -> Issued {
        self.authority.client(&CertificateName::User(name.into()), TRUST_DOMAIN, DAY, now_ms()).unwrap()
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("https://{}", self.address)).unwrap().connect_timeout(PATIENCE)
    }

    /// A connection that trusts the authority, with a certificate or without.
    pub async fn connect(&self, identity: Option<&Issued>) -> Result<Channel, tonic::transport::Error> {
        self.connect_from(identity, None).await
    }

    pub async fn connect_from(
        &self,
        identity: Option<&Issued>,
        from: Option<IpAddr>,
    ) -> Result<Channel, tonic::transport::Error> {
        let tls = client_tls(self.authority.certificate_pem(), identity);
        self.endpoint().local_address(from).tls_config(tls).unwrap().connect().await
    }

    /// Who the caller is, with this authorization header.
    pub async fn who(&self, channel: &Channel, authorization: Option<&str>) -> Result<v1::WhoAmIResponse, Status> {
        let mut request = Request::new(v1::WhoAmIRequest {});
        if let Some(authorization) = authorization {
            request.metadata_mut().insert("authorization", authorization.parse().unwrap());
        }
        AdminServiceClient::new(channel.clone()).who_am_i(request).await.map(tonic::Response::into_inner)
    }

    /// Who has this certificate.
    pub async fn who_has(&self, identity: &Issued) -> Result<v1::WhoAmIResponse, Status> {
        let channel = self.connect(Some(identity)).await.map_err(|error| Status::unavailable(error.to_string()))?;
        self.who(&channel, None).await
    }

    /// Waits for an audit record that denies something.
    pub async fn denied(&self, method: &str, result: &str) -> v1::AuditRecord {
        let mut found = None;
        let fits =
            |record: &v1::AuditRecord| record.method == method && record.result.contains(result) && !record.allowed;
        let looking = async {
            while found.is_none() {
                found = self.audit().await.into_iter().find(fits);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, looking).await.is_ok();
        assert!(in_time, "no {result:?} of {method} in {:#?}", self.audit().await);
        found.unwrap()
    }

    /// Waits until somebody was denied a method.
    pub async fn denied_to(&self, method: &str, actor: &str) -> v1::AuditRecord {
        let fits = |record: &v1::AuditRecord| record.method == method && record.actor == actor && !record.allowed;
        let looking = async {
            loop {
                if let Some(found) = self.audit().await.into_iter().find(fits) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, looking).await;
        found.unwrap_or_else(|_| panic!("it stands nowhere that {actor:?} was denied {method}"))
    }

    pub async fn audit(&self) -> Vec<v1::AuditRecord> {
        let mut records = Vec::new();
        for partition in 0..self.bus.partitions() {
            let bounds = self.bus.bounds(Topic::Audit, partition).await.unwrap();
            let from = ReadFrom { topic: Topic::Audit, partition, offset: bounds.first };
            let mut reader = self.bus.read(&[from]).await.unwrap();
            let mut read = bounds.first;
            while read < bounds.next {
                for record in reader.next(Duration::from_secs(1)).await.unwrap().records {
                    read = record.offset + 1;
                    records.push(v1::AuditRecord::decode(record.value.unwrap()).unwrap());
                }
            }
        }
        records
    }

    /// The value of a counter.
    pub fn counted(&self, name: &str) -> u64 {
        self.metric(name) as u64
    }

    /// The value of a metric, as it is exposed.
    pub fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}

pub fn client_tls(ca_pem: &str, identity: Option<&Issued>) -> ClientTlsConfig {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca_pem)).domain_name("localhost");
    match identity {
        Some(issued) => tls.identity(Identity::from_pem(&issued.certificate_pem, &issued.key_pem)),
        None => tls,
    }
}

pub fn names() -> Vec<String> {
    vec!["localhost".to_owned(), "127.0.0.1".to_owned()]
}

pub fn now_ms() -> i64 {
    crate::harness::now_ms()
}

fn put(folder: &TempDir, name: &str, issued: &Issued) {
    fs::write(folder.path().join(format!("{name}.pem")), &issued.certificate_pem).unwrap();
    fs::write(folder.path().join(format!("{name}.key")), &issued.key_pem).unwrap();
}

fn people(revoked: &str) -> String {
    format!(
        "revoked = [{revoked}]\n[[person]]\nname = 'jo'\nrole = 'admin'\n[[person]]\nname = 'mo'\nrole = 'viewer'\n\
         domains = ['example.org']\n"
    )
}
