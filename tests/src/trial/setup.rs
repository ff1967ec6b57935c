//! Starting the whole installation of a trial.

use super::{HIJACKED, Oracle, PAUSE, PEOPLE, Trial};
use crate::census::Census;
use crate::correspondence::Correspondence;
use crate::faults::{Line, Victim};
use crate::hijack::{SITES, Sites};
use crate::installation::{Log, Server};
use crate::ledger::Ledger;
use crate::mail::{BURST_RULES, person};
use crate::proxy::Proxy;
use crate::random::Random;
use anyhow::{Context as _, Result};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tidegate_bus::{BusConfig, EmbeddedConfig, KafkaConfig};
use xtask::kafka::KafkaRig;
use xtask::kafka_cluster;
use xtask::ports::free_port;
use xtask::sink::Sink;

/// Partitions of the log.
const PARTITIONS: u32 = 4;

/// From whom people are told of their locks.
pub(super) const NOTIFIER: &str = "no-reply@example.net";

/// Where the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// One process with the embedded log.
    AllInOne,
    /// Services of their own on a Kafka of one node.
    OnKafka,
    /// The same on one of three nodes, each of which has every record.
    OnThreeNodes,
    /// On a Kafka of one node: every service, and two of each that can share its work.
    Replicated,
}

impl Trial {
    /// Starts everything; `with_network` puts a proxy on each line, but not before one of many nodes.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start(setup: Setup, with_network: bool, random: Random) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut lines = BTreeMap::new();
        let kafka = match setup {
            Setup::AllInOne => Vec::new(),
            Setup::OnKafka | Setup::Replicated => vec![start_kafka(dir.path(), with_network, &mut lines)?],
            Setup::OnThreeNodes => kafka_cluster::start(&dir.path().join("kafka"), 3)?,
        };
        let brokers = |line| match lines.get(&line).map(Proxy::address) {
            Some(address) => Some(address.to_string()),
            None => (!kafka.is_empty()).then(|| bootstrap(&kafka)),
        };
        let parts: &[_] = match setup {
            Setup::AllInOne => &[(Victim::AllInOne, "serve", Line::StreamToKafka)],
            Setup::OnKafka | Setup::OnThreeNodes => &[
                (Victim::Control(0), "control", Line::ControlToKafka),
                (Victim::Stream(0), "stream", Line::StreamToKafka),
            ],
            Setup::Replicated => &[
                (Victim::Control(0), "control", Line::ControlToKafka),
                (Victim::Control(1), "control", Line::ControlToKafka),
                (Victim::Stream(0), "stream", Line::StreamToKafka),
                (Victim::Stream(1), "stream", Line::StreamToKafka),
                (Victim::Notifier, "notifier", Line::StreamToKafka),
                (Victim::History(0), "history", Line::StreamToKafka),
                (Victim::History(1), "history", Line::StreamToKafka),
            ],
        };
        let sink = Sink::start()?;
        let told = format!(
            "[notify]\nuser_changes = [\"lock\"]\ngroup_window_ms = 500\nretry_first_ms = 50\nretry_longest_ms = 500\n\
             [notify.smtp]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nfrom = \"{NOTIFIER}\"\n",
            sink.address().port()
        );
        let mut servers = BTreeMap::new();
        for (victim, part, line) in parts {
            let log = match brokers(*line) {
                Some(bootstrap_servers) => {
                    Log::Kafka { bootstrap_servers, properties: String::new(), replicas: kafka.len() }
                }
                None => Log::Embedded,
            };
            let name = match victim {
                Victim::Control(number @ 1..) | Victim::Stream(number @ 1..) | Victim::History(number @ 1..) => {
                    format!("{part}-{number}")
                }
                _ => (*part).to_owned(),
            };
            let sections = if *victim == Victim::Notifier { &told } else { "" };
            servers.insert(*victim, Server::start_with(dir.path(), &name, part, &log, BURST_RULES, sections)?);
        }
        // The first edge publishes straight to Kafka, the others through control.
        let straight = brokers(Line::EdgeToKafka).map_or_else(String::new, |brokers| {
            format!(
                "publish = {{ kind = \"kafka\", \
                 kafka = {{ bootstrap_servers = \"{brokers}\", partitions = {PARTITIONS} }} }}"
            )
        });
        let is_control = |(victim, _): &(&Victim, &Server)| matches!(victim, Victim::AllInOne | Victim::Control(_));
        let all: Vec<SocketAddr> = servers.iter().filter(is_control).map(|(_, server)| server.control).collect();
        let balancer = (all.len() > 1).then(|| Proxy::start_before(all.clone())).transpose()?;
        let control = match &balancer {
            Some(balancer) => balancer.address(),
            None => *all.first().context("no control")?,
        };
        let mut controls = [control; SITES];
        if with_network {
            for (site, address) in controls.iter_mut().enumerate() {
                let proxy = Proxy::start(control)?;
                *address = proxy.address();
                lines.insert(Line::EdgeToControl(site), proxy);
            }
        }
        let sites = Sites::start_over(sink, dir.path(), controls, &straight, PEOPLE + HIJACKED)?;
        let ledger = Arc::new(Ledger::new(sites.addresses()));
        let mut trial = Self {
            correspondence: Arc::new(Correspondence::start(&ledger, PEOPLE, SITES, PAUSE)),
            kafka,
            servers,
            control,
            _balancer: balancer,
            rollout: None,
            lines,
            sites,
            ledger,
            random,
            round: 0,
            sent: 0,
            census: Census::default(),
            oracle: Oracle::default(),
            for_good: String::new(),
            idle: (PEOPLE..PEOPLE + HIJACKED).map(person).collect(),
            recent: VecDeque::new(),
            troubles: BTreeMap::new(),
            dir,
        };
        trial.lock_one_for_good()?;
        Ok(trial)
    }

    /// The log, as who reads it past all services opens it.
    pub(super) fn log(&self) -> BusConfig {
        if self.kafka.is_empty() {
            let directory = self.dir.path().join("serve/log");
            return BusConfig::Embedded(EmbeddedConfig { directory, ..EmbeddedConfig::default() });
        }
        let bootstrap_servers = bootstrap(&self.kafka);
        BusConfig::Kafka(KafkaConfig { bootstrap_servers, partitions: PARTITIONS, ..KafkaConfig::default() })
    }
}

fn bootstrap(kafka: &[KafkaRig]) -> String {
    kafka.iter().map(KafkaRig::bootstrap).collect::<Vec<_>>().join(",")
}

/// Kafka, with a proxy of its own for each of its clients if that is wanted.
fn start_kafka(dir: &Path, with_network: bool, lines: &mut BTreeMap<Line, Proxy>) -> Result<KafkaRig> {
    let through = [Line::ControlToKafka, Line::StreamToKafka, Line::EdgeToKafka];
    let through = if with_network { &through[..] } else { &[] };
    let ports = through.iter().map(|_| free_port()).collect::<Result<Vec<_>, _>>()?;
    let kafka = KafkaRig::start_behind(&dir.join("kafka"), &ports)?;
    for (index, (line, port)) in through.iter().zip(ports).enumerate() {
        lines.insert(*line, Proxy::start_on(port, kafka.door(index))?);
    }
    Ok(kafka)
}
