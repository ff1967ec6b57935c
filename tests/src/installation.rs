//! A whole installation on this machine: servers, edges, and the administrator's commands.

use crate::command::{self, Ended};
use crate::process::{Launch, Process};
use crate::programs;
use anyhow::{Context as _, Result};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use xtask::kafka::KafkaRig;
use xtask::ports::free_port;

/// How long anything may take to start or to end.
pub const TIMEOUT: Duration = Duration::from_mins(1);

/// Where a server's topics are.
#[derive(Debug, Clone)]
pub enum Log {
    /// In the server's own folder.
    Embedded,
    /// On Kafka, in four partitions.
    Kafka {
        /// Where it is.
        bootstrap_servers: String,
        /// Further properties of librdkafka, `name = "value"` in TOML.
        properties: String,
        /// How many nodes have each record.
        replicas: usize,
    },
}

impl Log {
    /// On this Kafka, with nothing else set.
    pub fn kafka(kafka: &KafkaRig) -> Self {
        Self::at(&kafka.bootstrap())
    }

    /// On a Kafka of one node at this address, with nothing else set.
    pub fn at(bootstrap_servers: &str) -> Self {
        Self::Kafka { bootstrap_servers: bootstrap_servers.to_owned(), properties: String::new(), replicas: 1 }
    }
}

/// A `tidegate` server process and its folder.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub process: Process,
    /// Control's address, where it runs control.
    pub control: SocketAddr,
    /// Where Flight SQL is served, where it runs history.
    pub history: SocketAddr,
    /// Its configuration file.
    pub config: PathBuf,
    /// Its rules file, when it has one of its own.
    pub rules: PathBuf,
}

/// A `tidegate-edge` process and its sockets.
#[derive(Debug)]
pub struct Edge {
    /// The process.
    pub process: Process,
    /// Its milter's unix socket.
    pub milter_socket: PathBuf,
    /// Its milter's TCP address.
    pub milter_address: SocketAddr,
    /// Its policy service's unix socket.
    pub policy_socket: PathBuf,
    /// Its policy service's TCP address.
    pub policy_address: SocketAddr,
    /// Where rspamd posts.
    pub rspamd: SocketAddr,
}

impl Server {
    /// Starts `tidegate PART` in `dir/NAME` with these rules and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start(dir: &Path, name: &str, part: &str, log: &Log, rules: &str) -> Result<Self> {
        let mut server = Self::launch(dir, name, part, log, rules)?;
        server.process.wait_until_ready(TIMEOUT)?;
        Ok(server)
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(dir: &Path, name: &str, part: &str, log: &Log, rules: &str) -> Result<Self> {
        Self::launch_with(dir, name, part, log, rules, "")
    }

    /// Starts it with further sections at the end of its configuration, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_with(dir: &Path, name: &str, part: &str, log: &Log, rules: &str, sections: &str) -> Result<Self> {
        let mut server = Self::launch_with(dir, name, part, log, rules, sections)?;
        server.process.wait_until_ready(TIMEOUT)?;
        Ok(server)
    }

    /// The same as [`Server::launch`] with further sections at the end of its configuration.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_with(dir: &Path, name: &str, part: &str, log: &Log, rules: &str, sections: &str) -> Result<Self> {
        let home = dir.join(name);
        fs::create_dir_all(&home)?;
        let (config, rules_file) = (home.join("tidegate.toml"), home.join("rules.toml"));
        fs::write(&rules_file, rules)?;
        let address = || free_port().map(loopback);
        let (control, history, ops) = (address()?, address()?, address()?);
        // Workers that share partitions share the checkpoints and tables; an embedded log has its own beside it.
        let shared = |folder| match log {
            Log::Embedded => String::new(),
            Log::Kafka { .. } => format!("url = {:?}\n", dir.join(folder)),
        };
        let (checkpoints, tables) = (shared("checkpoints"), shared("history"));
        let log = match log {
            Log::Embedded => format!("kind = \"embedded\"\ndirectory = {:?}\n", home.join("log")),
            Log::Kafka { bootstrap_servers, properties, replicas } => format!(
                "kind = \"kafka\"\nbootstrap_servers = \"{bootstrap_servers}\"\npartitions = 4\n\
                 replication_factor = {replicas}\n\
                 [log.properties]\n{properties}\n"
            ),
        };
        let text = format!(
            "[log]\n{log}\n[stream]\nrules = {rules_file:?}\nreload_interval_ms = 100\ncommit_interval_ms = 100\n\n\
             [stream.checkpoints]\n{checkpoints}interval_ms = 300\n\n\
             [control]\nlisten = \"{control}\"\n\n[history]\n{tables}listen = \"{history}\"\ncommit_interval_ms = 300\nupkeep_interval_ms = 300\n\n[ops]\nlisten = \"{ops}\"\n\n{sections}"
        );
        fs::write(&config, text)?;
        let process = Launch::new(name, programs::tidegate()?)
            .arg(part)
            .args([Path::new("--config"), &config])
            .ops(ops)
            .start(&home)?;
        Ok(Self { process, control, history, config, rules: rules_file })
    }

    /// Kills it, starts it again and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn kill_and_start_again(&mut self) -> Result<()> {
        self.process.kill();
        self.process.start_again()?;
        self.process.wait_until_ready(TIMEOUT)
    }

    /// The same, and it has lost all checkpoints: its windows are rebuilt from the log.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn kill_and_rebuild(&mut self) -> Result<()> {
        self.process.kill();
        let home = self.config.parent().context("the configuration file is in no folder")?;
        for checkpoints in [home.join("log/checkpoints"), home.join("../checkpoints")] {
            if checkpoints.exists() {
                fs::remove_dir_all(&checkpoints)?;
            }
        }
        self.process.start_again()?;
        self.process.wait_until_ready(TIMEOUT)
    }

    /// How many events its stream worker read that had this result, e.g. `counted`, `duplicate` or `void`.
    ///
    /// # Errors
    /// When its metrics cannot be read.
    pub fn counted(&self, result: &str) -> Result<f64> {
        self.process.metric("tidegate_stream_events_total", &[("result", result)])
    }

    /// Runs `tidegate ARGUMENTS` against this server, as an administrator would.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn admin(&self, arguments: &[&str]) -> Result<Ended> {
        admin(self.control, arguments)
    }
}

/// Runs `tidegate ARGUMENTS` against the control at `server`.
///
/// # Errors
/// When it cannot be run.
pub fn admin(server: SocketAddr, arguments: &[&str]) -> Result<Ended> {
    let mut command = Command::new(programs::tidegate()?);
    command.args(arguments).env("TIDEGATE_SERVER", format!("http://{server}")).env("TIDEGATE_ACTOR", "amy");
    command::run(command, TIMEOUT)
}

impl Edge {
    /// Starts an edge in `dir/NAME` with all its sockets; `more` are further lines at the top of its configuration.
    ///
    /// # Errors
    /// When its sockets do not answer.
    pub fn start(dir: &Path, name: &str, control: SocketAddr, more: &str) -> Result<Self> {
        Self::start_patient(dir, name, control, more, 500)
    }

    /// The same with a longest pause between two attempts to connect to control.
    ///
    /// # Errors
    /// When its sockets do not answer.
    pub fn start_patient(dir: &Path, name: &str, control: SocketAddr, more: &str, max_backoff_ms: u64) -> Result<Self> {
        let home = dir.join(name);
        fs::create_dir_all(&home)?;
        let (config, hash_key) = (home.join("edge.toml"), dir.join("hash.key"));
        // The same for all edges, as an administrator is told to.
        fs::write(&hash_key, "the secret of this installation")?;
        let address = || free_port().map(loopback);
        let (milter_address, policy_address) = (address()?, address()?);
        let (rspamd, ops) = (address()?, address()?);
        let (milter_socket, policy_socket) = (home.join("milter.sock"), home.join("policy.sock"));
        let text = format!(
            "node = \"{name}\"\nsite = \"site-of-{name}\"\nstate_directory = {home:?}\nhash_key_file = {hash_key:?}\n\
             internal_domains = [\"example.test\"]\n{more}\n\n\
             [milter]\nlisten = [\"unix:{}\", \"inet:{milter_address}\"]\nconnections = {{ socket_mode = \"0666\" }}\n\n\
             [policy]\nlisten = [\"unix:{}\", \"inet:{policy_address}\"]\nconnections = {{ socket_mode = \"0666\" }}\n\n\
             [rspamd]\nlisten = \"{rspamd}\"\n\n\
             [control]\nendpoint = \"http://{control}\"\nmax_backoff_ms = {max_backoff_ms}\n\n\
             [ops]\nlisten = \"{ops}\"\n",
            milter_socket.display(),
            policy_socket.display(),
        );
        fs::write(&config, text)?;
        let process = Launch::new(name, programs::tidegate_edge()?)
            .args([Path::new("--config"), &config])
            .ops(ops)
            .start(&home)
            .with_context(|| format!("starting the edge {name}"))?;
        let mut edge = Self { process, milter_socket, milter_address, policy_socket, policy_address, rspamd };
        edge.wait_until_it_listens()?;
        Ok(edge)
    }

    /// Waits until its milter takes connections: it checks mail from then on, whether control is there or not.
    ///
    /// # Errors
    /// When it does not within the timeout.
    pub fn wait_until_it_listens(&mut self) -> Result<()> {
        let socket = self.milter_socket.clone();
        xtask::wait::wait_until("the edge's milter", TIMEOUT, || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok() || !self.process.is_running()
        })?;
        anyhow::ensure!(
            self.process.is_running(),
            "the edge ended at its start:\n{}",
            fs::read_to_string(self.process.log()).unwrap_or_default()
        );
        Ok(())
    }

    /// Its milter, as `smtpd_milters` has it, over its unix socket.
    pub fn milter(&self) -> String {
        format!("unix:{}", self.milter_socket.display())
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
