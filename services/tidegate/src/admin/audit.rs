//! `tidegate audit`: who asked what, and what came of it.

use super::actions::parse_time;
use super::connect::ServerArgs;
use super::format;
use clap::Subcommand;
use serde_json::{Value, json};
use std::process::ExitCode;
use tidegate_proto::v1;

/// Lists or follows the audit.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List records, the newest first
    #[command(
        after_help = "Examples:\n  tidegate audit list --account jo@example.org\n  tidegate audit list --denied --since 2026-11-25T00:00:00Z --json"
    )]
    List(ListArgs),
    /// Follow records as they come
    #[command(after_help = "Example:\n  tidegate audit follow --actions --json")]
    Follow(FollowArgs),
}

#[derive(Debug, clap::Args)]
struct FilterArgs {
    /// Only of this actor
    #[arg(long, default_value = "")]
    actor: String,
    /// Only about this account
    #[arg(long, default_value = "")]
    account: String,
    /// Only of methods whose name contains this, e.g. unlock
    #[arg(long, default_value = "")]
    method: String,
    /// Only what was denied
    #[arg(long)]
    denied: bool,
    /// Only what changed something or was to
    #[arg(long)]
    actions: bool,
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Only from then on: a time like 2026-11-25T10:00:00Z
    #[arg(long)]
    since: Option<String>,
    /// Only before then
    #[arg(long)]
    until: Option<String>,
    /// Stop after so many
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct FollowArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    server: ServerArgs,
}

impl FilterArgs {
    fn filter(&self) -> v1::AuditFilter {
        v1::AuditFilter {
            actor: self.actor.clone(),
            account: self.account.clone(),
            method: self.method.clone(),
            denied: self.denied,
            since_ms: None,
            until_ms: None,
            actions: self.actions,
        }
    }
}

/// Runs one of the commands.
pub async fn run(command: AuditCommand) -> anyhow::Result<ExitCode> {
    match command {
        AuditCommand::List(args) => list(args).await,
        AuditCommand::Follow(args) => follow(args).await,
    }
}

async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let filter = v1::AuditFilter {
        since_ms: args.since.as_deref().map(parse_time).transpose()?,
        until_ms: args.until.as_deref().map(parse_time).transpose()?,
        ..args.filter.filter()
    };
    let page_size = args.limit.clamp(1, 1_000) as u32;
    let mut request = v1::ListAuditRequest { filter: Some(filter), page_size, page_token: String::new() };
    let mut client = args.server.connect_audit().await?;
    let mut records = Vec::new();
    loop {
        let page = client.list_audit(request.clone()).await?.into_inner();
        records.extend(page.records);
        if page.next_page_token.is_empty() || records.len() >= args.limit {
            break;
        }
        request.page_token = page.next_page_token;
    }
    records.truncate(args.limit);
    if args.server.json {
        let values: Vec<_> = records.iter().map(record_json).collect();
        println!("{}", serde_json::to_string_pretty(&values)?);
    } else if records.is_empty() {
        println!("no such records at hand; older ones are in the history");
    } else {
        for record in &records {
            println!("{}", line(record));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn follow(args: FollowArgs) -> anyhow::Result<ExitCode> {
    let request = v1::WatchAuditRequest { filter: Some(args.filter.filter()) };
    let mut records = args.server.connect_audit().await?.watch_audit(request).await?.into_inner();
    while let Some(answer) = records.message().await? {
        let Some(record) = answer.record else { continue };
        if args.server.json {
            println!("{}", record_json(&record));
        } else {
            println!("{}", line(&record));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One line: when, who, from where, what, about whom, why, and what came of it.
fn line(record: &v1::AuditRecord) -> String {
    let method = record.method.rsplit('/').next().unwrap_or_default();
    let mut parts = vec![
        format::time(record.time_ms),
        format!("{} ({})", or_dash(&record.actor), or_dash(&record.role)),
        or_dash(&record.peer).to_owned(),
        method.to_owned(),
    ];
    parts.extend(
        [&record.account, &record.request, &record.reason].into_iter().filter(|part| !part.is_empty()).cloned(),
    );
    parts.push(match (record.allowed, record.result.is_empty()) {
        (false, _) => format!("DENIED: {}", record.result),
        (true, true) => "done".to_owned(),
        (true, false) => record.result.clone(),
    });
    // A record is one line, whatever somebody asked.
    parts.join("  ").replace(char::is_control, " ")
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn record_json(record: &v1::AuditRecord) -> Value {
    json!({
        "id": record.id,
        "time": format::time(record.time_ms),
        "actor": record.actor,
        "role": record.role,
        "peer": record.peer,
        "method": record.method,
        "account": record.account,
        "request": record.request,
        "reason": record.reason,
        "allowed": record.allowed,
        "result": record.result,
        "command_id": record.command_id,
        "before": record.before.as_ref().map(format::state_json),
        "after": record.after.as_ref().map(format::state_json),
    })
}
