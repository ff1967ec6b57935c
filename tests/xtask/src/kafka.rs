//! Apache Kafka itself: one node as broker and controller (KRaft) on loopback ports, with its data in a folder of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::daemon::Daemon;
use crate::error::{Context, Error, Result};
use crate::parts::part;
use crate::ports::free_port;

/// The version that [`fetch`] brings; the same as in `kafka/pom.xml`.
pub const VERSION: &str = "4.3.1";

const POM: &str = include_str!("../kafka/pom.xml");
/// A node formats its storage with the cluster's id: any 16 bytes in URL-safe base64.
const CLUSTER_ID: &str = "dGlkZWdhdGUtdGVzdHMtMQ";
const START_TIMEOUT: Duration = Duration::from_secs(90);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Fetches Kafka's jars from Maven Central into the target folder (54 MB, seconds) and gives their folder. Costs
/// nothing when they are there.
///
/// # Errors
/// When Maven is missing or the download fails.
pub fn fetch() -> Result<PathBuf> {
    part(&format!("kafka-{VERSION}"), |folder| {
        let pom = folder.join("pom.xml");
        fs::write(&pom, POM).context(|| format!("writing {}", pom.display()))?;
        let output = Command::new("mvn")
            .args(["-q", "-B", "-f"])
            .arg(&pom)
            .arg("dependency:copy-dependencies")
            .arg(format!("-DoutputDirectory={}", folder.display()))
            .stdin(Stdio::null())
            .output()
            .context(|| "running mvn, which fetches Kafka (`cargo xtask setup --for kafka` installs it)".into())?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::new(format!("mvn could not fetch Kafka:\n{}", String::from_utf8_lossy(&output.stdout))))
    })
}

/// A running Kafka. Dropping it kills it; its data stays until the folder is removed.
#[derive(Debug)]
pub struct KafkaRig {
    dir: PathBuf,
    port: u16,
    daemon: Option<Daemon>,
}

impl KafkaRig {
    /// Starts Kafka on a free port with its data in `dir`, and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be fetched or does not start.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::start_on(dir, free_port()?)
    }

    /// The same on a port of the caller's choice.
    ///
    /// # Errors
    /// When it cannot be fetched or does not start.
    pub fn start_on(dir: &Path, port: u16) -> Result<Self> {
        let jars = fetch()?;
        fs::create_dir_all(dir).context(|| format!("making {}", dir.display()))?;
        let dir = dir.canonicalize().context(|| format!("finding {}", dir.display()))?;
        let properties = dir.join("server.properties");
        fs::write(&properties, server_properties(&dir, port, free_port()?))
            .context(|| format!("writing {}", properties.display()))?;
        format_storage(&jars, &dir, &properties)?;
        let mut rig = Self { dir, port, daemon: None };
        rig.start_again()?;
        Ok(rig)
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), on the same port and data.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_again(&mut self) -> Result<()> {
        self.kill();
        let log = self.log();
        // The line that is waited for must come from this start.
        fs::remove_file(&log)
            .or_else(|error| if log.exists() { Err(error) } else { Ok(()) })
            .context(|| format!("removing {}", log.display()))?;
        let mut command = java(&fetch()?);
        command.arg("kafka.Kafka").arg(self.dir.join("server.properties")).current_dir(&self.dir);
        let mut daemon = Daemon::spawn("Kafka", command, &log)?;
        daemon.wait_for_line("Kafka Server started", START_TIMEOUT)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        daemon.wait_for("taking connections", START_TIMEOUT, || TcpStream::connect(address).ok())?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// The address for clients, `127.0.0.1:PORT`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kafka's log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("kafka.log")
    }

    /// Stops it in good order.
    ///
    /// # Errors
    /// When it did not stop in time and was killed.
    pub fn stop(&mut self) -> Result<()> {
        match self.daemon.take() {
            Some(mut daemon) => daemon.stop(STOP_TIMEOUT).map(drop),
            None => Ok(()),
        }
    }

    /// Stops it with SIGKILL.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Sends it a signal by name, e.g. `STOP` and `CONT`.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let daemon = self.daemon.as_ref().ok_or_else(|| Error::new("Kafka is not running"))?;
        daemon.signal(signal)
    }

    /// Lets it run on after this process, and gives its process id.
    ///
    /// # Errors
    /// When it is not running.
    pub fn detach(mut self) -> Result<u32> {
        self.daemon.take().map(Daemon::detach).ok_or_else(|| Error::new("Kafka is not running"))
    }
}

/// A small heap and a quick start rather than the last bit of speed: many of these run beside a test.
fn java(jars: &Path) -> Command {
    let mut command = Command::new("java");
    command
        .args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true"])
        .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
        .arg("-cp")
        .arg(jars.join("*"));
    command
}

fn format_storage(jars: &Path, dir: &Path, properties: &Path) -> Result<()> {
    if dir.join("data/meta.properties").is_file() {
        return Ok(());
    }
    let output = java(jars)
        .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
        .arg(properties)
        .stdin(Stdio::null())
        .output()
        .context(|| "running java, which Kafka needs (`cargo xtask setup --for kafka` installs it)".into())?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Error::new(format!("Kafka could not format {}:\n{}", dir.display(), String::from_utf8_lossy(&said))))
}

/// Replication of one, few internal partitions and no waiting for more group members, since there is one node;
/// topics are never made by accident.
fn server_properties(dir: &Path, port: u16, controller_port: u16) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={}/data
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=3000
group.consumer.min.heartbeat.interval.ms=100
group.consumer.heartbeat.interval.ms=500
group.min.session.timeout.ms=1000
",
        dir.display()
    )
}
