//! Sockets that mail servers connect to: TCP and unix, bounded.
//!
//! Postfix writes a milter command in pieces and waits; with Nagle's algorithm on its side and delayed acknowledgements
//! on ours that costs 43 ms a message over TCP. It goes away when ours acknowledge at once, which Linux forgets after
//! each read: `TCP_QUICKACK` is set anew every time.

use crate::error::EdgeError;
use crate::metrics::{Metrics, Protocol};
use socket2::SockRef;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long accepting pauses when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a mail server may take to read an answer, which always fits its socket's buffer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Where mail servers connect: `unix:/path` or `inet:address:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Inet(SocketAddr),
}

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct Listener {
    kind: Kind,
    address: String,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    /// The file is removed with the listener.
    Unix {
        listener: UnixListener,
        _file: SocketFile,
    },
}

/// A connection of a mail server.
#[derive(Debug)]
pub(crate) enum Connection {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

/// What one protocol's listeners share.
#[derive(Debug, Clone)]
pub(crate) struct Accepting {
    /// Which protocol.
    pub protocol: Protocol,
    /// One permit for each connection that may be open.
    pub permits: Arc<Semaphore>,
    /// What is counted.
    pub metrics: Metrics,
    /// Ends accepting and the sessions.
    pub shutdown: CancellationToken,
    /// Knows the sessions that are open.
    pub sessions: TaskTracker,
}

impl Accepting {
    /// Accepts until shutdown; each connection becomes a task that runs `session`. Over the bound a connection is
    /// closed at once, so that the mail server goes on without us.
    pub async fn run<F>(self, listener: Listener, session: impl Fn(Connection) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let label = self.protocol.label();
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let connection = match accepted {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::warn!(address = listener.address(), error = error.to_string(), "accepting failed");
                    self.metrics.accept_failures.get_or_create(&label).inc();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
                self.metrics.connections_shed.get_or_create(&label).inc();
                continue;
            };
            self.metrics.connections.get_or_create(&label).inc();
            let open = self.metrics.connections_open.get_or_create_owned(&label);
            open.inc();
            let (running, shutdown) = (session(connection), self.shutdown.clone());
            self.sessions.spawn(async move {
                tokio::select! {
                    () = running => {}
                    () = shutdown.cancelled() => {}
                }
                open.dec();
                drop(permit);
            });
        }
    }
}

impl Listener {
    /// Listens. A unix socket gets the permissions `mode`, and takes the place of one that nobody listens on.
    pub async fn bind(address: &ListenAddress, mode: u32) -> Result<Self, EdgeError> {
        let failed = |source| EdgeError::Listen { address: address.to_string(), source };
        let kind = match address {
            ListenAddress::Inet(address) => Kind::Tcp(TcpListener::bind(address).await.map_err(failed)?),
            ListenAddress::Unix(path) => {
                let (listener, file) = bind_unix(path, mode).await.map_err(failed)?;
                Kind::Unix { listener, _file: file }
            }
        };
        let address = match &kind {
            Kind::Tcp(listener) => ListenAddress::Inet(listener.local_addr().map_err(failed)?).to_string(),
            Kind::Unix { .. } => address.to_string(),
        };
        Ok(Self { kind, address })
    }

    /// Where it listens, with the port that it was given.
    pub fn address(&self) -> &str {
        &self.address
    }

    async fn accept(&self) -> io::Result<Connection> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // An answer is one write; it must not wait for the acknowledgement of the one before.
                stream.set_nodelay(true)?;
                acknowledge_at_once(&stream);
                Ok(Connection::Tcp(stream))
            }
            Kind::Unix { listener, .. } => Ok(Connection::Unix(listener.accept().await?.0)),
        }
    }
}

impl Connection {
    /// Reads what is there; 0 at the end.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => {
                let octets = stream.read(buffer).await?;
                acknowledge_at_once(stream);
                Ok(octets)
            }
            Self::Unix(stream) => stream.read(buffer).await,
        }
    }

    /// Sends an answer.
    pub async fn write(&mut self, answer: &[u8]) -> io::Result<()> {
        let writing = async {
            match self {
                Self::Tcp(stream) => stream.write_all(answer).await,
                Self::Unix(stream) => stream.write_all(answer).await,
            }
        };
        tokio::time::timeout(WRITE_TIMEOUT, writing).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Where it cannot be set, mail is slower, and that is all.
#[cfg(target_os = "linux")]
fn acknowledge_at_once(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_tcp_quickack(true);
}

#[cfg(not(target_os = "linux"))]
fn acknowledge_at_once(_: &TcpStream) {}

/// The file of a unix socket, removed at the end unless another process has put its own there.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The socket is made under another name and moved into place, so that it is never there with wrong permissions, and
/// mail servers find either the old or the new one.
async fn bind_unix(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    if let Ok(file) = std::fs::symlink_metadata(path) {
        if !file.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        if UnixStream::connect(path).await.is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
        }
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    if std::fs::symlink_metadata(&new).is_ok_and(|file| file.file_type().is_socket()) {
        std::fs::remove_file(&new)?;
    }
    let listener = UnixListener::bind(&new)?;
    let placed = std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode))
        .and_then(|()| std::fs::symlink_metadata(&new))
        .and_then(|file| std::fs::rename(&new, path).map(|()| file.ino()));
    match placed {
        Ok(inode) => Ok((listener, SocketFile { path: path.to_owned(), inode })),
        Err(error) => {
            let _ = std::fs::remove_file(&new);
            Err(error)
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("is {text:?}; allowed: unix:/path or inet:address:port, e.g. inet:127.0.0.1:7722");
        match text.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') && !path.contains('\0') => Ok(Self::Unix(path.into())),
            Some(("inet", address)) => address.parse().map(Self::Inet).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Inet(address) => write!(f, "inet:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_postfix_writes_them() {
        for text in ["unix:/run/tidegate/milter.sock", "inet:127.0.0.1:7722", "inet:[::1]:0"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["", "7722", "unix:relative", "inet:localhost", "tcp:127.0.0.1:1", "inet:127.0.0.1"] {
            assert!(text.parse::<ListenAddress>().unwrap_err().contains("allowed: unix:/path"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        // What a killed process leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let address = ListenAddress::Unix(path.clone());
        let listener = Listener::bind(&address, 0o600).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).await.unwrap();
        let error = Listener::bind(&address, 0o600).await.unwrap_err();
        assert!(tidegate_runtime::error_line(&error).contains("another process listens there"), "{error}");
        drop(listener);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::bind(&address, 0o600).await.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
