//! `tidegate accounts`: list, show, watch, and the actions.

use super::actions::{self, ClearArgs, ExemptArgs, LockArgs, UnlockArgs};
use super::bulk::{self, BulkCommand};
use super::connect::ServerArgs;
use super::filter::FilterArgs;
use super::{format, show};
use crate::history::timeline::{self, HistoryOfArgs};
use clap::{Subcommand, ValueEnum};
use std::process::ExitCode;
use tidegate_proto::v1;

/// Lists, inspects and changes accounts.
#[derive(Debug, Subcommand)]
pub enum AccountsCommand {
    /// List accounts that are locked or throttled (or others, by filter)
    #[command(
        after_help = "Examples:\n  tidegate accounts list\n  tidegate accounts list --status locked --domain example.org --order changed\n  tidegate accounts list --status any --json | jq -r '.[].account'"
    )]
    List(ListArgs),
    /// Show one account: state, evidence, timeline, who was told, and which edges have it in force
    #[command(
        after_help = "Examples:\n  tidegate accounts show jo@example.org\n  tidegate accounts show jo@example.org --statistics"
    )]
    Show(ShowArgs),
    /// Tell what an account did, hour by hour, what was decided about it, and who asked for what
    #[command(
        after_help = "Examples:\n  tidegate accounts history jo@example.org\n  tidegate accounts history jo@example.org --since 7d\n  tidegate accounts history jo@example.org --since 2026-11-20 --until 2026-11-25 --json | jq '.entries[]'\n\nIt is answered by the history, which keeps more than `accounts show` knows of (TIDEGATE_HISTORY says where it is)."
    )]
    History(HistoryOfArgs),
    /// Follow changes as they come
    #[command(
        after_help = "Examples:\n  tidegate accounts watch\n  tidegate accounts watch --domain example.org --json"
    )]
    Watch(WatchArgs),
    /// Refuse an account's mail at every edge
    #[command(
        after_help = "Examples:\n  tidegate accounts lock jo@example.org --reason 'reported by the user'\n  tidegate accounts lock jo@example.org --reason test --for 30m"
    )]
    Lock(LockArgs),
    /// Let an account's mail flow again, with a clean slate
    #[command(
        after_help = "Example:\n  tidegate accounts unlock jo@example.org --reason 'called back on the known number' --password-changed '2026-11-25T10:00:00Z'"
    )]
    Unlock(UnlockArgs),
    /// Let rules pass an account by for a time
    #[command(
        after_help = "Example:\n  tidegate accounts exempt news@example.org --rule same-size-burst --for 180d --reason newsletter"
    )]
    Exempt(ExemptArgs),
    /// Take an account's exemptions back, or start a clean slate without an unlock
    #[command(
        after_help = "Example:\n  tidegate accounts clear news@example.org --exemptions --reason 'contract ended'"
    )]
    Clear(ClearArgs),
    /// Lock or unlock many accounts, from a file or by filter; without --apply only say which
    #[command(subcommand)]
    Bulk(BulkCommand),
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// In which order
    #[arg(long, value_enum, default_value = "name")]
    order: Order,
    /// Stop after so many
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The account, e.g. jo@example.org
    account: String,
    /// Also ask for its statistics, and the limits that they are compared with
    #[arg(long)]
    statistics: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Tell first what matches now
    #[arg(long)]
    initial: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Order {
    Name,
    Changed,
}

/// Runs one of the commands.
pub async fn run(command: AccountsCommand) -> anyhow::Result<ExitCode> {
    match command {
        AccountsCommand::List(args) => list(args).await,
        AccountsCommand::Show(args) => show_one(args).await,
        AccountsCommand::History(args) => timeline::run(args).await,
        AccountsCommand::Watch(args) => watch(args).await,
        AccountsCommand::Lock(args) => actions::lock(args).await,
        AccountsCommand::Unlock(args) => actions::unlock(args).await,
        AccountsCommand::Exempt(args) => actions::exempt(args).await,
        AccountsCommand::Clear(args) => actions::clear(args).await,
        AccountsCommand::Bulk(command) => bulk::run(command).await,
    }
}

async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let mut client = args.server.connect().await?;
    let order = match args.order {
        Order::Name => v1::AccountOrder::Name,
        Order::Changed => v1::AccountOrder::Changed,
    };
    let mut request = v1::ListAccountsRequest {
        filter: Some(args.filter.filter(&[v1::AccountStatus::Locked, v1::AccountStatus::Throttled])),
        order: order.into(),
        page_size: 1000,
        page_token: String::new(),
    };
    let mut accounts = Vec::new();
    let total = loop {
        let page = client.list_accounts(request.clone()).await?.into_inner();
        accounts.extend(page.accounts);
        if page.next_page_token.is_empty() || accounts.len() >= args.limit {
            break page.total;
        }
        request.page_token = page.next_page_token;
    };
    accounts.truncate(args.limit);
    if args.server.json {
        let values: Vec<_> = accounts.iter().map(format::state_json).collect();
        println!("{}", serde_json::to_string_pretty(&values)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = format::table(&["ACCOUNT", "STATUS", "SINCE", "UNTIL", "WHY", "LOCK"]);
    for state in &accounts {
        let lock = state.lock.as_ref();
        table.add_row([
            state.account.clone(),
            format::status(state).to_owned(),
            format::ago(lock.map_or(state.changed_ms, |lock| lock.since_ms)),
            lock.and_then(|lock| lock.until_ms).map_or_else(|| "-".to_owned(), format::ago),
            lock.map_or_else(|| "-".to_owned(), format::cause),
            lock.map_or_else(|| "-".to_owned(), |lock| lock.id.clone()),
        ]);
    }
    if accounts.is_empty() {
        println!("no such accounts");
    } else {
        println!("{table}");
        if (accounts.len() as u64) < total {
            println!("({} of {total}; more with --limit)", accounts.len());
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn show_one(args: ShowArgs) -> anyhow::Result<ExitCode> {
    let mut client = args.server.connect().await?;
    let request = v1::GetAccountRequest { account: args.account.clone() };
    let answer = client.get_account(request).await?.into_inner();
    let request = v1::ListNotificationsRequest { account: args.account.clone(), ..Default::default() };
    let notifications = client.list_notifications(request).await?.into_inner().notifications;
    let inspection = if args.statistics {
        let request = v1::InspectAccountRequest { account: args.account, ..Default::default() };
        client.inspect_account(request).await?.into_inner().inspection
    } else {
        None
    };
    if args.server.json {
        let value = show::account_json(&answer, &notifications, inspection.as_ref());
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else {
        print!("{}", show::account(&answer, &notifications, inspection.as_ref()));
    }
    Ok(ExitCode::SUCCESS)
}

async fn watch(args: WatchArgs) -> anyhow::Result<ExitCode> {
    let mut client = args.server.connect().await?;
    let request = v1::WatchAccountsRequest { filter: Some(args.filter.filter(&[])), initial: args.initial };
    let mut changes = client.watch_accounts(request).await?.into_inner();
    while let Some(change) = changes.message().await? {
        let Some(v1::watch_accounts_response::Kind::State(state)) = change.kind else { continue };
        if args.server.json {
            println!("{}", format::state_json(&state));
        } else {
            println!("{}", show::line(&state));
        }
    }
    Ok(ExitCode::SUCCESS)
}
