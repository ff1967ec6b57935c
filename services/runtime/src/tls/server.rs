//! A server's side of TLS, made anew when its files change.
//!
//! Sessions are not resumed: a resumed one would keep a client's certificate without looking at it again, also after its
//! authority was exchanged, and connections here live long enough for a handshake not to matter.

use super::{CertificateTimes, HandshakeError, Handshaken, ServerTls, TlsError, read};
use parking_lot::{Mutex, RwLock};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What a server wants of TLS besides its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsOptions {
    /// Protocols that are spoken over it (ALPN), the preferred first, e.g. `h2`, `http/1.1`.
    pub alpn: &'static [&'static str],
    /// Whether clients need a certificate, where an authority for them is given.
    pub client_certificates: ClientCertificates,
}

/// Whether clients need a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// The handshake fails without one.
    Required,
    /// Asked for; a client can prove who it is in another way. One that shows a certificate needs a good one.
    Optional,
}

/// TLS for a server, as its files are now. It is shared by all connections.
pub struct ReloadingTls {
    files: ServerTls,
    options: TlsOptions,
    current: RwLock<Arc<ServerConfig>>,
    /// What the files held, and what was wrong when they were last looked at.
    seen: Mutex<Seen>,
    reloads: Family<ResultLabel, Counter>,
    /// When the certificate in force ends, in seconds since 1970 UTC; 0: not known.
    not_after: Gauge,
    failed: Family<FailureLabel, Counter>,
}

#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

struct Seen {
    contents: Contents,
    error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabel {
    reason: &'static str,
}

impl ReloadingTls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read, or they cannot be used.
    pub fn open(files: &ServerTls, options: TlsOptions) -> Result<Arc<Self>, TlsError> {
        let contents = Contents::read(files)?;
        let config = contents.to_config(files, options)?;
        let not_after = Gauge::default();
        not_after.set(contents.not_after_seconds());
        Ok(Arc::new(Self {
            files: files.clone(),
            options,
            current: RwLock::new(Arc::new(config)),
            seen: Mutex::new(Seen { contents, error: None }),
            reloads: Family::default(),
            not_after,
            failed: Family::default(),
        }))
    }

    /// Registers `tls_reloads`, `tls_handshakes_failed` and `tls_certificate_not_after_seconds`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("tls_reloads", "Certificate files that changed, by result", self.reloads.clone());
        for result in ["taken", "refused"] {
            // A counter that appears with its first count tells Prometheus of no increase.
            drop(self.reloads.get_or_create(&ResultLabel { result }));
        }
        let ends = "When the certificate in force ends, since 1970 UTC";
        registry.register("tls_certificate_not_after_seconds", ends, self.not_after.clone());
        registry.register("tls_handshakes_failed", "TLS handshakes that failed, by reason", self.failed.clone());
    }

    /// TLS as the files are now.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read())
    }

    /// Looks at the files again and again until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let tls = Arc::clone(&self);
            if let Err(error) = tokio::task::spawn_blocking(move || tls.look()).await {
                tracing::error!(error = error.to_string(), "looking at the certificate files failed");
            }
        }
    }

    /// Looks once. New files are in force for the next connection; those that cannot be used are told of once, and the
    /// ones in force stay: a certificate and its key are not exchanged in the same instant.
    pub fn look(&self) {
        let mut seen = self.seen.lock();
        let contents = match Contents::read(&self.files) {
            Ok(contents) if contents == seen.contents => {
                seen.error = None;
                return;
            }
            Ok(contents) => contents,
            Err(error) => return self.refused(&mut seen, &error),
        };
        match contents.to_config(&self.files, self.options) {
            Ok(config) => {
                *self.current.write() = Arc::new(config);
                self.not_after.set(contents.not_after_seconds());
                *seen = Seen { contents, error: None };
                self.reloads.get_or_create(&ResultLabel { result: "taken" }).inc();
                tracing::info!(certificate = %self.files.certificate.display(), "certificates were loaded anew");
            }
            Err(error) => self.refused(&mut seen, &error),
        }
    }

    /// Does the handshake on a connection from a client, within `wait`.
    ///
    /// # Errors
    /// When it fails: it is counted.
    pub async fn accept(&self, stream: TcpStream, wait: Duration) -> Result<Handshaken, HandshakeError> {
        let accepting = TlsAcceptor::from(self.current()).accept(stream);
        let accepted = match timeout(wait, accepting).await {
            Ok(accepted) => accepted.map_err(HandshakeError::Failed),
            Err(_) => Err(HandshakeError::TooSlow(wait)),
        };
        let stream = accepted.inspect_err(|error| {
            self.failed.get_or_create(&FailureLabel { reason: error.kind() }).inc();
        })?;
        let certificates = stream.get_ref().1.peer_certificates();
        let certificates = certificates.map(|chain| chain.iter().map(|one| one.clone().into_owned()).collect());
        Ok(Handshaken { stream, certificates })
    }

    fn refused(&self, seen: &mut Seen, error: &TlsError) {
        let text = line(error);
        if seen.error.as_ref() != Some(&text) {
            self.reloads.get_or_create(&ResultLabel { result: "refused" }).inc();
            tracing::error!(error = text, "certificate files cannot be used; those in force stay");
            seen.error = Some(text);
        }
    }
}

/// Whether the files can be used.
pub(super) fn check(files: &ServerTls) -> Result<(), TlsError> {
    let options = TlsOptions { alpn: &[], client_certificates: ClientCertificates::Optional };
    Contents::read(files)?.to_config(files, options).map(drop)
}

impl Contents {
    fn read(files: &ServerTls) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read("the certificate", &files.certificate)?,
            key: read("the private key", &files.key)?,
            client_ca: files.client_ca.as_deref().map(|file| read("the clients' authority", file)).transpose()?,
        })
    }

    fn not_after_seconds(&self) -> i64 {
        CertificateTimes::of_pem(&self.certificate).map_or(0, |times| times.not_after_ms / 1_000)
    }

    fn to_config(&self, files: &ServerTls, options: TlsOptions) -> Result<ServerConfig, TlsError> {
        let unusable = |what, path: &Path, source: Box<dyn Error + Send + Sync>| TlsError::Unusable {
            what,
            path: path.to_owned(),
            source,
        };
        // One provider is named: another one may be linked into the process.
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("the certificate", &files.certificate, error.into()))?;
        let builder = match (&self.client_ca, &files.client_ca) {
            (Some(pem), Some(path)) => {
                let failed = |error: Box<dyn Error + Send + Sync>| unusable("the clients' authority", path, error);
                let mut roots = RootCertStore::empty();
                for certificate in certificates("authority's certificate", pem, path)? {
                    roots.add(certificate).map_err(|error| failed(error.into()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match options.client_certificates {
                    ClientCertificates::Required => verifier,
                    ClientCertificates::Optional => verifier.allow_unauthenticated(),
                };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| failed(error.into()))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let chain = certificates("certificate", &self.certificate, &files.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| TlsError::Pem { what: "private key", path: files.key.clone() })?;
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| unusable("the certificate with its key", &files.certificate, error.into()))?;
        config.alpn_protocols = options.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// All certificates of a PEM file, one at least.
fn certificates(what: &'static str, pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| TlsError::Pem { what, path: path.to_owned() })
}

fn line(error: &TlsError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection};
    use std::fs;
    use std::net::SocketAddr;
    use std::path::PathBuf;
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    const WAIT: Duration = Duration::from_secs(20);
    const REQUIRED: TlsOptions = TlsOptions { alpn: &["h2"], client_certificates: ClientCertificates::Required };
    const OPTIONAL: TlsOptions = TlsOptions { alpn: &["h2"], client_certificates: ClientCertificates::Optional };

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pem: String,
    }

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let pem = params.self_signed(&key).unwrap().pem();
            Self { issuer: Issuer::new(params, key), pem }
        }

        /// Certificate and key.
        fn issue(&self) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
        }

        fn client(&self, identity: Option<&(String, String)>) -> Arc<ClientConfig> {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
            let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
            let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
            let mut config = match identity {
                None => builder.with_no_client_auth(),
                Some((certificate, key)) => {
                    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                    builder.with_client_auth_cert(chain, key).unwrap()
                }
            };
            config.alpn_protocols = vec![b"h2".to_vec()];
            Arc::new(config)
        }
    }

    struct Lab {
        files: ServerTls,
        authority: Authority,
        folder: TempDir,
    }

    impl Lab {
        fn new() -> Self {
            let (folder, authority) = (TempDir::new().unwrap(), Authority::new());
            let file = |name: &str| folder.path().join(name);
            let files = ServerTls { certificate: file("a.pem"), key: file("a.key"), client_ca: Some(file("ca.pem")) };
            let lab = Self { files, authority, folder };
            lab.put(&lab.authority.issue());
            fs::write(lab.path("ca.pem"), &lab.authority.pem).unwrap();
            lab
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn put(&self, (certificate, key): &(String, String)) {
            fs::write(&self.files.certificate, certificate).unwrap();
            fs::write(&self.files.key, key).unwrap();
        }

        /// Connects once: what the server saw, and the certificate that the client saw.
        async fn connect(
            tls: &Arc<ReloadingTls>,
            client: Arc<ClientConfig>,
        ) -> (Result<Handshaken, HandshakeError>, Option<CertificateDer<'static>>) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let tls = Arc::clone(tls);
            let serving = tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let mut accepted = tls.accept(stream, WAIT).await;
                if let Ok(accepted) = &mut accepted {
                    accepted.stream.write_all(b"hello").await.unwrap();
                }
                accepted
            });
            let seen = Self::hear(address, client).await.ok();
            (serving.await.unwrap(), seen)
        }

        async fn hear(address: SocketAddr, client: Arc<ClientConfig>) -> std::io::Result<CertificateDer<'static>> {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = TlsConnector::from(client).connect(name, stream).await?;
            let mut heard = [0; 5];
            stream.read_exact(&mut heard).await?;
            let connection: &ClientConnection = stream.get_ref().1;
            Ok(connection.peer_certificates().unwrap()[0].clone().into_owned())
        }
    }

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn clients_are_known_by_their_certificates() {
        let lab = Lab::new();
        let identity = lab.authority.issue();
        for options in [REQUIRED, OPTIONAL] {
            let tls = ReloadingTls::open(&lab.files, options).unwrap();
            let (accepted, _) = Lab::connect(&tls, lab.authority.client(Some(&identity))).await;
            let accepted = accepted.unwrap();
            assert_eq!(accepted.certificates.as_deref(), Some(&[der(&identity.0)][..]));
            assert_eq!(accepted.stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            // A stranger's certificate is never as good as none.
            let (accepted, heard) = Lab::connect(&tls, lab.authority.client(Some(&Authority::new().issue()))).await;
            assert_eq!(accepted.err().map(|error| error.kind()), Some("certificate"));
            assert!(heard.is_none());
            let (accepted, heard) = Lab::connect(&tls, lab.authority.client(None)).await;
            if options == OPTIONAL {
                assert!(accepted.unwrap().certificates.is_none() && heard.is_some());
            } else {
                assert_eq!(accepted.err().map(|error| error.kind()), Some("no_certificate"));
                assert!(heard.is_none());
            }
        }
    }

    #[tokio::test]
    async fn without_an_authority_for_clients_none_is_asked_for_a_certificate() {
        let mut lab = Lab::new();
        lab.files.client_ca = None;
        let tls = ReloadingTls::open(&lab.files, REQUIRED).unwrap();
        let (accepted, _) = Lab::connect(&tls, lab.authority.client(Some(&lab.authority.issue()))).await;
        assert!(accepted.unwrap().certificates.is_none());
    }

    #[tokio::test]
    async fn new_files_are_served_to_the_next_connection_and_broken_ones_to_none() {
        let lab = Lab::new();
        let tls = ReloadingTls::open(&lab.files, OPTIONAL).unwrap();
        let count = |result| tls.reloads.get_or_create(&ResultLabel { result }).get();
        let seen = async || Lab::connect(&tls, lab.authority.client(None)).await.1.unwrap();
        let (first, second) = (fs::read_to_string(&lab.files.certificate).unwrap(), lab.authority.issue());
        assert_eq!(seen().await, der(&first));
        // The certificate comes before its key.
        fs::write(&lab.files.certificate, &second.0).unwrap();
        tls.look();
        tls.look();
        assert_eq!((count("refused"), seen().await), (1, der(&first)));
        fs::write(&lab.files.key, &second.1).unwrap();
        tls.look();
        assert_eq!((count("taken"), seen().await), (1, der(&second.0)));
        fs::remove_file(&lab.files.key).unwrap();
        tls.look();
        tls.look();
        assert_eq!((count("refused"), seen().await), (2, der(&second.0)));
        lab.put(&second);
        tls.look();
        assert_eq!(count("taken"), 1, "nothing is new");
        // Another authority for clients counts from the next connection on.
        let other = Authority::new();
        fs::write(lab.path("ca.pem"), &other.pem).unwrap();
        tls.look();
        let (accepted, _) = Lab::connect(&tls, lab.authority.client(Some(&second))).await;
        assert_eq!(accepted.err().map(|error| error.kind()), Some("certificate"));
        let (accepted, _) = Lab::connect(&tls, lab.authority.client(Some(&other.issue()))).await;
        assert!(accepted.is_ok());
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let lab = Lab::new();
        let error = || line(&ReloadingTls::open(&lab.files, OPTIONAL).err().unwrap());
        fs::write(lab.path("ca.pem"), "").unwrap();
        assert!(error().contains("ca.pem holds no authority's certificate"), "{}", error());
        fs::write(&lab.files.key, lab.authority.issue().1).unwrap();
        fs::write(lab.path("ca.pem"), &lab.authority.pem).unwrap();
        assert!(error().contains("cannot use the certificate with its key in "), "{}", error());
        fs::write(&lab.files.key, "no key").unwrap();
        assert!(error().contains("a.key holds no private key"), "{}", error());
        fs::remove_file(&lab.files.certificate).unwrap();
        assert!(error().contains("cannot read the certificate from "), "{}", error());
    }

    #[tokio::test]
    async fn who_is_silent_or_speaks_something_else_is_ended_and_counted() {
        let lab = Lab::new();
        let tls = ReloadingTls::open(&lab.files, OPTIONAL).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _silent = TcpStream::connect(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let error = tls.accept(stream, Duration::from_millis(1)).await.err().unwrap();
        assert_eq!((error.kind(), error.to_string().contains("longer than")), ("too_slow", true));
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(tls.accept(stream, WAIT).await.err().map(|error| error.kind()), Some("no_tls"));
        drop(TcpStream::connect(address).await.unwrap());
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(tls.accept(stream, WAIT).await.err().map(|error| error.kind()), Some("closed"));
        for reason in ["too_slow", "no_tls", "closed"] {
            assert_eq!(tls.failed.get_or_create(&FailureLabel { reason }).get(), 1, "{reason}");
        }
    }
}
