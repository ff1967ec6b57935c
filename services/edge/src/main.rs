//! The program `tidegate-edge`.

mod enrol_command;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use enrol_command::EnrolArguments;
use std::path::PathBuf;
use std::process::ExitCode;
use tidegate_edge::{EdgeConfig, Service};
use tidegate_runtime::config::ConfigError;
use tidegate_runtime::{config, shutdown, systemd, telemetry};

/// The agent beside a mail server: publishes submissions, and refuses the mail of locked accounts.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  tidegate-edge --config /etc/tidegate/edge.toml\n  \
                  tidegate-edge --config /etc/tidegate/edge.toml --check-config\n  \
                  tidegate-edge enrol --help"
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: ConfigArguments,
    /// Says what is wrong with the configuration, and ends: 0 when it is fine, else 2
    #[arg(long)]
    check_config: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Get this host's certificate from control with a token, or renew it
    Enrol(EnrolArguments),
}

#[derive(clap::Args)]
struct ConfigArguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "TIDEGATE_EDGE_CONFIG", default_value = "/etc/tidegate/edge.toml")]
    config: PathBuf,
    /// Name of this mail host, over the one in the configuration; e.g. a pod's
    #[arg(long, env = "TIDEGATE_EDGE_NODE")]
    node: Option<String>,
    /// Its site, over the one in the configuration
    #[arg(long, env = "TIDEGATE_EDGE_SITE")]
    site: Option<String>,
}

impl ConfigArguments {
    /// Reads the configuration, with what the command line says over it.
    fn load(&self) -> Result<EdgeConfig, ConfigError> {
        config::load_adjusted(&self.config, |config: &mut EdgeConfig| {
            for (given, place) in [(&self.node, &mut config.node), (&self.site, &mut config.site)] {
                if let Some(given) = given {
                    place.clone_from(given);
                }
            }
        })
    }
}

#[allow(clippy::print_stdout, clippy::print_stderr)] // What a person at a terminal asked for.
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Enrol(enrol)) = arguments.command {
        return enrol_command::run(enrol);
    }
    let config = match arguments.config.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("tidegate-edge: {:#}", anyhow::Error::new(error));
            return ExitCode::from(2);
        }
    };
    if arguments.check_config {
        println!("{}: configuration is fine", arguments.config.config.display());
        return ExitCode::SUCCESS;
    }
    telemetry::init(&config.telemetry);
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-edge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(config: EdgeConfig) -> anyhow::Result<()> {
    let shutdown = shutdown::on_signal().context("installing the signal handlers")?;
    let service = Service::bind(config).await?;
    systemd::tell_ready();
    service.run(shutdown).await;
    Ok(())
}
