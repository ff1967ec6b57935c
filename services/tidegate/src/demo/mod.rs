//! `tidegate demo`: the main job, for real, on free ports of this machine.
//!
//! `serve` runs in this process on an embedded log of its own; three `tidegate-edge` processes are three sites; what
//! mail servers would send them is sent over the milter protocol. Every figure is measured in the run.

pub mod edges;
pub mod milter;
pub mod people;
mod question;
mod report;
mod run;
mod screen;
mod traffic;

pub use run::run;

use std::time::Duration;

/// Shows it at work: three sites, a few thousand accounts, one of them hijacked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate demo\n  tidegate demo --stay\n  tidegate demo --json | jq .edges")]
pub struct DemoArgs {
    /// How many ordinary accounts send
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    accounts: u32,
    /// Ordinary messages a second, on all sites together
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u32).range(3..=5_000))]
    rate: u32,
    /// Messages a second that the thief tries
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(5..=1_000))]
    thief_rate: u32,
    /// Ordinary traffic before the thief begins
    #[arg(long, default_value = "6s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// Seed of the traffic; another one each time when not given
    #[arg(long)]
    seed: Option<u64>,
    /// One JSON object at the end instead of text
    #[arg(long)]
    json: bool,
    /// Leave it running and print commands to try
    #[arg(long, conflicts_with = "json")]
    stay: bool,
}
