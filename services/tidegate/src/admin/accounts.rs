//! `tidegate accounts`: list, show, watch, and the actions.

use super::actions::{self, ClearArgs, ExemptArgs, LockArgs, UnlockArgs};
use super::connect::ServerArgs;
use super::{format, show};
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
    /// Show one account: state, evidence, last command, and which edges have it in force
    #[command(after_help = "Example:\n  tidegate accounts show jo@example.org")]
    Show(ShowArgs),
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

#[derive(Debug, Clone, clap::Args)]
struct FilterArgs {
    /// Only these statuses
    #[arg(long, value_enum, value_delimiter = ',')]
    status: Vec<Status>,
    /// Only accounts of this domain (may be repeated)
    #[arg(long)]
    domain: Vec<String>,
    /// Only accounts whose name contains this
    #[arg(long, default_value = "")]
    contains: String,
    /// Only accounts that this rule throttled or locked
    #[arg(long, default_value = "")]
    rule: String,
    /// Only accounts with an exemption
    #[arg(long)]
    exempted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Status {
    Active,
    Throttled,
    Locked,
    Any,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Order {
    Name,
    Changed,
}

impl FilterArgs {
    fn filter(&self, default: &[v1::AccountStatus]) -> v1::AccountFilter {
        let named = self.status.iter().filter_map(|status| match status {
            Status::Active => Some(v1::AccountStatus::Active),
            Status::Throttled => Some(v1::AccountStatus::Throttled),
            Status::Locked => Some(v1::AccountStatus::Locked),
            Status::Any => None,
        });
        let statuses: Vec<v1::AccountStatus> = if self.status.contains(&Status::Any) {
            Vec::new()
        } else if self.status.is_empty() && !self.exempted {
            default.to_vec()
        } else {
            named.collect()
        };
        v1::AccountFilter {
            statuses: statuses.into_iter().map(Into::into).collect(),
            domains: self.domain.clone(),
            contains: self.contains.clone(),
            rule: self.rule.clone(),
            exempted: self.exempted,
        }
    }
}

/// Runs one of the commands.
pub async fn run(command: AccountsCommand) -> anyhow::Result<ExitCode> {
    match command {
        AccountsCommand::List(args) => list(args).await,
        AccountsCommand::Show(args) => show_one(args).await,
        AccountsCommand::Watch(args) => watch(args).await,
        AccountsCommand::Lock(args) => actions::lock(args).await,
        AccountsCommand::Unlock(args) => actions::unlock(args).await,
        AccountsCommand::Exempt(args) => actions::exempt(args).await,
        AccountsCommand::Clear(args) => actions::clear(args).await,
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
    let answer = client.get_account(v1::GetAccountRequest { account: args.account }).await?.into_inner();
    if args.server.json {
        println!("{}", serde_json::to_string_pretty(&show::account_json(&answer))?);
    } else {
        print!("{}", show::account(&answer));
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
