//! The history as its users reach it: its service, the account's timeline, and forgetting an account.

pub mod cells;
pub mod client;
mod entries;
mod erase;
mod line;
pub mod timeline;

use crate::cli::ServiceArgs;
use crate::serve::{self, Parts};
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// Runs the history service, or has an account forgotten.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  tidegate history --config /etc/tidegate/tidegate.toml\n  tidegate history erase --account jo@example.org --reason 'request of 2026-11-20'\n\nQuestions to the history: tidegate sql; one account: tidegate accounts history."
)]
pub struct HistoryArgs {
    #[command(flatten)]
    service: Option<ServiceArgs>,
    #[command(subcommand)]
    command: Option<HistoryCommand>,
}

#[derive(Debug, Subcommand)]
enum HistoryCommand {
    /// Forget an account in all tables, for good; the audit tells that, and not whom
    #[command(
        after_help = "Examples:\n  tidegate history erase --account jo@example.org --reason 'request of 2026-11-20'\n  tidegate history erase --account jo@example.org --reason 'request of 2026-11-20' --yes --json\n\nIts events and decisions go, and the audit no longer names it. It needs the role admin for all domains. The files that named it are deleted with the next vacuum (history.vacuum_after_s)."
    )]
    Erase(erase::EraseArgs),
}

/// Runs the command.
pub async fn run(args: HistoryArgs) -> anyhow::Result<ExitCode> {
    match (args.command, args.service) {
        (Some(HistoryCommand::Erase(args)), _) => erase::run(args).await,
        (None, Some(service)) => serve::run(&service, Parts::HISTORY).await,
        // clap demands --config when there is no subcommand.
        (None, None) => anyhow::bail!("--config FILE must be given"),
    }
}
