//! The command line.

use crate::{admin, bench, demo, history, serve, sql};
use clap::{CommandFactory as _, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Catches a hijacked mail account within a second and locks it at every edge SMTP node.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show it at work: three sites, a few thousand accounts, one of them hijacked
    Demo(demo::DemoArgs),
    /// Run everything in one process, on the embedded log (or on Kafka)
    #[command(
        after_help = "Examples:\n  tidegate serve --config /etc/tidegate/tidegate.toml\n  tidegate serve --config tidegate.toml --check-config"
    )]
    Serve(ServiceArgs),
    /// Run a stream worker: windows, rules, decisions
    #[command(after_help = "Example:\n  tidegate stream --config /etc/tidegate/tidegate.toml")]
    Stream(ServiceArgs),
    /// Run a control service: pushes to edges, takes admin actions
    #[command(after_help = "Example:\n  tidegate control --config /etc/tidegate/tidegate.toml")]
    Control(ServiceArgs),
    /// Run a notifier: mail and webhooks to those who are to know
    #[command(after_help = "Example:\n  tidegate notifier --config /etc/tidegate/tidegate.toml")]
    Notifier(ServiceArgs),
    /// Run a history service: tables of all events and decisions, and SQL over them
    History(history::HistoryArgs),
    /// Ask the history in SQL, in one statement or in a shell
    Sql(sql::SqlArgs),
    /// Show and try what people are told, and list what could not be delivered
    #[command(subcommand)]
    Notify(admin::notify::NotifyCommand),
    /// List, inspect, lock, unlock and exempt accounts
    #[command(subcommand)]
    Accounts(admin::accounts::AccountsCommand),
    /// List the edges: connected or not, how far, how fast
    #[command(
        after_help = "Examples:\n  tidegate edges\n  tidegate edges --json | jq '.[] | select(.connected | not)'"
    )]
    Edges(admin::edges::EdgesArgs),
    /// List the rules in force, or check a file before it goes live
    #[command(subcommand)]
    Rules(admin::rules::RulesCommand),
    /// List or follow who asked what, and what came of it
    #[command(subcommand)]
    Audit(admin::audit::AuditCommand),
    /// List or make settings beside the files: domains exempted, other limits
    #[command(subcommand)]
    Settings(admin::settings::SettingsCommand),
    /// Tell how things are, in a few numbers
    #[command(after_help = "Examples:\n  tidegate overview\n  tidegate overview --json | jq .locked")]
    Overview(admin::overview::OverviewArgs),
    /// Tell who you are to control, and what you may do
    #[command(name = "whoami", after_help = "Example:\n  tidegate whoami")]
    WhoAmI(admin::overview::WhoAmIArgs),
    /// Look at Kafka's topics, or make them, before services run on them
    #[command(subcommand)]
    Topics(admin::topics::TopicsCommand),
    /// Make, list and revoke tokens, on the machine where control runs
    #[command(subcommand)]
    Token(admin::token::TokenCommand),
    /// Make certificates for servers, edges and users, with an authority of your own
    #[command(subcommand)]
    Certificate(admin::certificate::CertificateCommand),
    /// Measure it on this machine
    Bench(bench::BenchArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  tidegate completion bash > /etc/bash_completion.d/tidegate")]
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
pub struct ServiceArgs {
    /// Configuration file (TOML)
    #[arg(long, short, env = "TIDEGATE_CONFIG")]
    pub config: PathBuf,
    /// Check configuration, statistics and rules, say all problems, and exit (2 when there are some)
    #[arg(long)]
    pub check_config: bool,
}

/// How long calls that block may take to return at the end.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// Runs the command. Exit code 2 means that what was asked cannot be (usage, configuration), 1 that it failed.
pub fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Rules(admin::rules::RulesCommand::Check(args)) => Ok(admin::rules::check(&args)),
        Command::Token(command) => admin::token::run(command),
        Command::Certificate(command) => admin::certificate::run(command),
        other => runtime().and_then(|runtime| {
            let result = runtime.block_on(run_async(other));
            // A call into a library that never returns must not keep the process from ending.
            runtime.shutdown_timeout(LAST_CALLS);
            result
        }),
    };
    result.unwrap_or_else(|error| {
        eprintln!("tidegate: {error:#}");
        ExitCode::from(if error.is::<serve::ConfigurationError>() { 2 } else { 1 })
    })
}

async fn run_async(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::run(args).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Serve(args) => serve::run(&args, serve::Parts::ALL).await,
        Command::Stream(args) => serve::run(&args, serve::Parts::STREAM).await,
        Command::Control(args) => serve::run(&args, serve::Parts::CONTROL).await,
        Command::Notifier(args) => serve::run(&args, serve::Parts::NOTIFIER).await,
        Command::History(args) => history::run(args).await,
        Command::Sql(args) => sql::run(args).await,
        Command::Notify(command) => admin::notify::run(command).await,
        Command::Accounts(command) => admin::accounts::run(command).await,
        Command::Edges(args) => admin::edges::run(args).await,
        Command::Rules(command) => admin::rules::run(command).await,
        Command::Audit(command) => admin::audit::run(command).await,
        Command::Settings(command) => admin::settings::run(command).await,
        Command::Topics(command) => admin::topics::run(command).await,
        Command::Overview(args) => admin::overview::overview(args).await,
        Command::WhoAmI(args) => admin::overview::who_am_i(args).await,
        // Done without a runtime.
        Command::Completion { .. } | Command::Token(_) | Command::Certificate(_) => Ok(ExitCode::SUCCESS),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
