//! Apache Kafka itself: a node as broker and controller (KRaft) on loopback ports, with its data in a folder of its own.

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
const ALONE_HEAP_MB: u16 = 512;
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
    node: Node,
    daemon: Option<Daemon>,
}

/// A node of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub id: u16,
    /// Where it takes clients.
    pub port: u16,
    /// All nodes and the ports on which they vote, its own too.
    pub voters: Vec<(u16, u16)>,
    pub doors: Vec<Door>,
    pub login: Option<Login>,
    pub heap_mb: u16,
}

/// A further listener, for those who log in.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    port: u16,
    user: String,
    password: String,
}

/// A further listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door {
    port: u16,
    /// Where clients that came through it are told to come, e.g. a proxy's port.
    advertised: u16,
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
        Self::start_node(dir, Node::alone(port, Vec::new())?)
    }

    /// The same with one further listener for each of these ports: who comes through it is told to come back to that
    /// port of 127.0.0.1, where a proxy must forward to [`door`](Self::door).
    ///
    /// # Errors
    /// When it cannot be fetched or does not start.
    pub fn start_behind(dir: &Path, advertised: &[u16]) -> Result<Self> {
        let door = |&advertised: &u16| Ok(Door { port: free_port()?, advertised });
        let doors = advertised.iter().map(door).collect::<Result<_>>()?;
        Self::start_node(dir, Node::alone(free_port()?, doors)?)
    }

    /// The same with one further listener, at [`bootstrap_for_login`](Self::bootstrap_for_login), for this user, who logs
    /// in with SASL's mechanism PLAIN.
    ///
    /// # Errors
    /// When it cannot be fetched or does not start.
    pub fn start_with_login(dir: &Path, user: &str, password: &str) -> Result<Self> {
        let login = Login { port: free_port()?, user: user.to_owned(), password: password.to_owned() };
        Self::start_node(dir, Node { login: Some(login), ..Node::alone(free_port()?, Vec::new())? })
    }

    fn start_node(dir: &Path, node: Node) -> Result<Self> {
        let mut rig = Self::launch(dir, node)?;
        rig.wait_until_up()?;
        Ok(rig)
    }

    /// Starts a node without waiting: the first of many answers only when others vote for one of them.
    pub(crate) fn launch(dir: &Path, node: Node) -> Result<Self> {
        fs::create_dir_all(dir).context(|| format!("making {}", dir.display()))?;
        let dir = dir.canonicalize().context(|| format!("finding {}", dir.display()))?;
        let properties = dir.join("server.properties");
        fs::write(&properties, server_properties(&dir, &node))
            .context(|| format!("writing {}", properties.display()))?;
        format_storage(&fetch()?, &dir, &properties)?;
        let mut rig = Self { dir, node, daemon: None };
        rig.launch_again()?;
        Ok(rig)
    }

    fn launch_again(&mut self) -> Result<()> {
        self.kill();
        let log = self.log();
        // The line that is waited for must come from this start.
        fs::remove_file(&log)
            .or_else(|error| if log.exists() { Err(error) } else { Ok(()) })
            .context(|| format!("removing {}", log.display()))?;
        let mut command = java(&fetch()?, self.node.heap_mb);
        command.arg("kafka.Kafka").arg(self.dir.join("server.properties")).current_dir(&self.dir);
        self.daemon = Some(Daemon::spawn("Kafka", command, &log)?);
        Ok(())
    }

    /// Waits until it takes connections.
    pub(crate) fn wait_until_up(&mut self) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.node.port));
        let daemon = self.daemon.as_mut().ok_or_else(|| Error::new("Kafka is not running"))?;
        daemon.wait_for_line("Kafka Server started", START_TIMEOUT)?;
        daemon.wait_for("taking connections", START_TIMEOUT, || TcpStream::connect(address).ok())?;
        Ok(())
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), on the same port and data.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_again(&mut self) -> Result<()> {
        self.launch_again()?;
        self.wait_until_up()
    }

    /// The address for clients, `127.0.0.1:PORT`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.node.port)
    }

    /// The address for clients that log in, see [`start_with_login`](Self::start_with_login).
    pub fn bootstrap_for_login(&self) -> Option<String> {
        self.node.login.as_ref().map(|login| format!("127.0.0.1:{}", login.port))
    }

    /// Where the further listener number `index` is, see [`start_behind`](Self::start_behind).
    pub fn door(&self, index: usize) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.node.doors[index].port))
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
fn java(jars: &Path, heap_mb: u16) -> Command {
    let mut command = Command::new("java");
    command
        .arg(format!("-Xmx{heap_mb}m"))
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true"])
        .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
        .arg("-cp")
        .arg(jars.join("*"));
    command
}

fn format_storage(jars: &Path, dir: &Path, properties: &Path) -> Result<()> {
    if dir.join("data/meta.properties").is_file() {
        return Ok(());
    }
    let output = java(jars, ALONE_HEAP_MB)
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

impl Node {
    /// A cluster of one.
    fn alone(port: u16, doors: Vec<Door>) -> Result<Self> {
        Ok(Self { id: 1, port, voters: vec![(1, free_port()?)], doors, login: None, heap_mb: ALONE_HEAP_MB })
    }

    fn controller_port(&self) -> u16 {
        self.voters.iter().find(|(id, _)| *id == self.id).map_or(0, |(_, port)| *port)
    }
}

/// As many replicas as there are nodes, one of which may be away; few internal partitions and no waiting for more group
/// members; a node that is gone is missed soon; topics are never made by accident.
fn server_properties(dir: &Path, node: &Node) -> String {
    let Node { id, port, voters, doors, login, .. } = node;
    let (replicas, controller_port) = (voters.len(), node.controller_port());
    let in_sync = replicas.saturating_sub(1).max(1);
    // A node alone has nobody who could stand in for it, and may be slow.
    let session_ms = if replicas > 1 { 3_000 } else { 9_000 };
    let voters: Vec<String> = voters.iter().map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
    let voters = voters.join(",");
    let each = |text: fn(usize, &Door) -> String| -> String {
        doors.iter().enumerate().map(|(index, door)| text(index, door)).collect()
    };
    let listeners = each(|index, door| format!(",DOOR{index}://127.0.0.1:{}", door.port));
    let advertised = each(|index, door| format!(",DOOR{index}://127.0.0.1:{}", door.advertised));
    let protocols = each(|index, _| format!(",DOOR{index}:PLAINTEXT"));
    let (login, login_protocol, login_users) =
        login.as_ref().map_or_else(Default::default, |Login { port, user, password }| {
            let users = format!(
                "listener.name.login.sasl.enabled.mechanisms=PLAIN\nlistener.name.login.plain.sasl.jaas.config=\
             org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}=\"{password}\";\n"
            );
            (format!(",LOGIN://127.0.0.1:{port}"), ",LOGIN:SASL_PLAINTEXT", users)
        });
    format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{listeners}{login}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}{login}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}{login_protocol}
{login_users}log.dirs={}/data
auto.create.topics.enable=false
default.replication.factor={replicas}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
broker.session.timeout.ms={session_ms}
broker.heartbeat.interval.ms=500
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
