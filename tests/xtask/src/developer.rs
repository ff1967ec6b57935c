//! `kafka` and `postfix`: real parts that stay up for a developer until they are taken down.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use xtask::daemon::{Daemon, signal_group};
use xtask::dovecot::User;
use xtask::error::{Context, Error, Result};
use xtask::kafka::{self, KafkaRig};
use xtask::paths::target_dir;
use xtask::postfix::{self, PolicyStage, PostfixOptions, PostfixRig};
use xtask::progress::Progress;
use xtask::setup::{self, Purpose};
use xtask::sink::Sink;
use xtask::wait::wait_until;

use crate::cli::Arguments;

const KAFKA_PORT: u16 = 9092;
const SUBMISSION_PORT: u16 = 2587;
const DEFAULT_USER: &str = "amy@example.test:secret";
const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// `cargo xtask kafka up|down|env`.
pub fn kafka(mut arguments: Arguments, progress: &Progress) -> Result<ExitCode> {
    let command = arguments.word();
    let port = arguments.port("--port")?;
    arguments.finish()?;
    let part = Part::new("Kafka", "kafka-dev", "java");
    match command.as_deref() {
        Some("up") => {
            setup::install_missing(Purpose::Kafka, progress)?;
            if part.is_running() {
                return Err(Error::new("Kafka is up already: `cargo xtask kafka env` says where"));
            }
            let port = port.unwrap_or(KAFKA_PORT);
            must_be_free(port)?;
            progress.step("fetching Kafka, unless it is here, and starting it");
            let rig = KafkaRig::start_on(&part.dir, port)?;
            let (bootstrap, log) = (rig.bootstrap(), rig.log());
            part.remember(rig.detach()?)?;
            part.write("bootstrap", &bootstrap)?;
            progress.step(&format!("Kafka {} is up; its log: {}", kafka::VERSION, log.display()));
            println!("{bootstrap}");
        }
        Some("down") => {
            part.stop()?;
            progress.step("Kafka is down; its data stays");
        }
        Some("env") => {
            let bootstrap = part.read("bootstrap").filter(|_| part.is_running());
            let bootstrap = bootstrap.ok_or_else(|| Error::new("Kafka is not up: cargo xtask kafka up"))?;
            println!("export KAFKA_BOOTSTRAP='{bootstrap}'");
            println!("export CLASSPATH='{}/*'", kafka::fetch()?.display());
            println!("# e.g. java org.apache.kafka.tools.TopicCommand --bootstrap-server $KAFKA_BOOTSTRAP --list");
        }
        _ => return Err(Error::new("kafka up [--port N], kafka down or kafka env")),
    }
    Ok(ExitCode::SUCCESS)
}

/// `cargo xtask postfix up|down`.
pub fn postfix(mut arguments: Arguments, progress: &Progress) -> Result<ExitCode> {
    let dir = target_dir().join("postfix-dev");
    let sink = Part::new("the mail sink", "postfix-dev/sink", "xtask");
    match arguments.word().as_deref() {
        Some("up") => {
            let mut users = arguments.values("--user")?;
            if users.is_empty() {
                users.push(DEFAULT_USER.into());
            }
            let users = users.iter().map(|user| parse_user(user)).collect::<Result<Vec<_>>>()?;
            let policies = arguments.values("--policy")?;
            let port = arguments.port("--port")?.unwrap_or(SUBMISSION_PORT);
            let milters = arguments.values("--milter")?;
            arguments.finish()?;
            let policies = policies.iter().map(|policy| parse_policy(policy)).collect::<Result<Vec<_>>>()?;
            setup::install_missing(Purpose::Postfix, progress)?;
            if sink.is_running() {
                return Err(Error::new("Postfix is up already: `cargo xtask postfix down` stops it"));
            }
            let relay_to = SocketAddr::from((Ipv4Addr::LOCALHOST, port.checked_add(1).unwrap_or(port - 1)));
            must_be_free(port)?;
            must_be_free(relay_to.port())?;
            let relay = PostfixOptions::relaying_to(relay_to);
            let options = PostfixOptions { milters, policies, users, port: Some(port), ..relay };
            bring_up(&dir, &sink, &options, progress)?;
        }
        Some("down") => {
            arguments.finish()?;
            let stopped = postfix::stop_detached(&dir);
            sink.stop().and(stopped)?;
            progress.step("Postfix, Dovecot and the sink are down");
        }
        _ => {
            return Err(Error::new(
                "postfix up [--milter A] [--policy STAGE=A] [--user N:P] [--port N], or postfix down",
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn bring_up(dir: &Path, sink: &Part, options: &PostfixOptions, progress: &Progress) -> Result<()> {
    let program = std::env::current_exe().context(|| "finding this program".into())?;
    let mut command = Command::new(program);
    command.arg("sink").arg(options.relay_to.to_string());
    let log = sink.dir.join("sink.log");
    fs::create_dir_all(&sink.dir).context(|| format!("making {}", sink.dir.display()))?;
    let mut daemon = Daemon::spawn("the sink", command, &log)?;
    daemon.wait_for_line("waiting for mail", START_TIMEOUT)?;
    let rig = PostfixRig::start(dir, options)?;
    let (address, postfix_log) = (rig.address(), rig.log());
    rig.detach()?;
    sink.remember(daemon.detach())?;
    progress.step(&format!("Postfix takes submissions on {address}; its log: {}", postfix_log.display()));
    progress.step(&format!("what it sends on arrives at {}; a line each in {}", options.relay_to, log.display()));
    if let Some(user) = options.users.first() {
        println!(
            "swaks --server {address} --auth PLAIN --auth-user {name} --auth-password {password} --from {name} --to \
             bob@elsewhere.test",
            name = user.name,
            password = user.password,
        );
    }
    Ok(())
}

/// `cargo xtask sink ADDRESS`, which `postfix up` starts: prints a line for each message, until it is killed.
pub fn sink(mut arguments: Arguments) -> Result<ExitCode> {
    let address = arguments.word().and_then(|text| text.parse().ok()).ok_or_else(|| Error::new("sink ADDRESS:PORT"))?;
    arguments.finish()?;
    let sink = Sink::start_on(address, |message| {
        let subject = message.header("Subject").unwrap_or_default();
        println!(
            "from=<{}> to=<{}> bytes={} subject={subject:?}",
            message.sender,
            message.recipients.join(">,<"),
            message.size_bytes
        );
    })?;
    println!("waiting for mail on {}", sink.address());
    loop {
        std::thread::park();
    }
}

fn parse_user(text: &str) -> Result<User> {
    let parts = text.rsplit_once(':').filter(|(name, password)| !name.is_empty() && !password.is_empty());
    let (name, password) = parts.ok_or_else(|| Error::new(format!("--user {text}: NAME:PASSWORD")))?;
    Ok(User::new(name, password))
}

fn parse_policy(text: &str) -> Result<(PolicyStage, String)> {
    let stage = |name| match name {
        "sender" => Some(PolicyStage::Sender),
        "recipient" => Some(PolicyStage::Recipient),
        "data" => Some(PolicyStage::Data),
        "end-of-data" => Some(PolicyStage::EndOfData),
        _ => None,
    };
    let parsed = text.split_once('=').and_then(|(name, address)| Some((stage(name)?, address.to_owned())));
    parsed.ok_or_else(|| {
        Error::new(format!("--policy {text}: STAGE=ADDRESS, STAGE is sender, recipient, data or end-of-data"))
    })
}

fn must_be_free(port: u16) -> Result<()> {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map(drop)
        .context(|| format!("port {port} is taken, `--port` chooses another"))
}

/// A process that was let go, remembered by a pid file in a folder of the target folder.
struct Part {
    name: &'static str,
    dir: PathBuf,
    program: &'static str,
}

impl Part {
    fn new(name: &'static str, folder: &str, program: &'static str) -> Self {
        Self { name, dir: target_dir().join(folder), program }
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.dir.join(name);
        fs::write(&file, text).context(|| format!("writing {}", file.display()))
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(name)).ok()
    }

    fn remember(&self, pid: u32) -> Result<()> {
        self.write("pid", &pid.to_string())
    }

    /// The process, if it still runs. After a reboot its number may be another program's.
    fn pid(&self) -> Option<u32> {
        let pid: u32 = self.read("pid")?.trim().parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        String::from_utf8_lossy(&command).split('\0').next()?.ends_with(self.program).then_some(pid)
    }

    fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    fn stop(&self) -> Result<()> {
        let pid = self.pid().ok_or_else(|| Error::new(format!("{} is not up", self.name)))?;
        signal_group("TERM", pid)?;
        wait_until(&format!("the end of {}", self.name), STOP_TIMEOUT, || !self.is_running())
    }
}
