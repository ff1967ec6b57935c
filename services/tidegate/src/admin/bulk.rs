//! `tidegate accounts bulk`: locks or unlocks many accounts, after a look at which they are.

use super::actions::{QueuedMail, millis, parse_time, queued_mail};
use super::connect::{ServerArgs, actor};
use super::filter::FilterArgs;
use super::format;
use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::json;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tidegate_proto::v1;
use tidegate_proto::v1::act_on_many_request::Kind;

/// How many accounts of a dry run are listed.
const LISTED: usize = 20;

/// Locks or unlocks many accounts. Without `--apply` only says which.
#[derive(Debug, Subcommand)]
pub enum BulkCommand {
    /// Refuse the mail of many accounts
    #[command(
        after_help = "Examples:\n  tidegate accounts bulk lock --file leaked.txt --reason 'password leak'\n  tidegate accounts bulk lock --file leaked.txt --reason 'password leak' --apply"
    )]
    Lock(BulkLockArgs),
    /// Let the mail of many accounts flow again, e.g. of all that a wrong rule locked
    #[command(
        after_help = "Examples:\n  tidegate accounts bulk unlock --rule too-strict --reason 'wrong rule' --evidence 'locked by mistake'\n  tidegate accounts bulk unlock --rule too-strict --since 2h --reason 'wrong rule' --evidence 'locked by mistake' --apply"
    )]
    Unlock(BulkUnlockArgs),
}

#[derive(Debug, clap::Args)]
struct WhichArgs {
    /// File with one account a line (- for standard input); or say which by filter
    #[arg(long)]
    file: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Only accounts that were locked at most so long ago, e.g. 2h
    #[arg(long, value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Why; it stands in the audit
    #[arg(long)]
    reason: String,
    /// Who asks; the user of this shell when not given, and the name in your credentials when you have some
    #[arg(long, env = "TIDEGATE_ACTOR")]
    actor: Option<String>,
    /// Do it; otherwise only say which accounts are meant
    #[arg(long)]
    apply: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct BulkLockArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// For how long, e.g. 30m; until somebody unlocks them when not given
    #[arg(long = "for", value_parser = humantime::parse_duration)]
    span: Option<Duration>,
    /// What the SMTP client is told
    #[arg(long, default_value = "")]
    reply: String,
    /// What to do with mail that is queued already
    #[arg(long, value_enum, default_value = "keep")]
    queued_mail: QueuedMail,
}

#[derive(Debug, clap::Args)]
pub struct BulkUnlockArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// When the passwords were changed: a time like 2026-11-25T10:00:00Z, or `now`
    #[arg(long)]
    password_changed: Option<String>,
    /// Evidence in your words
    #[arg(long, default_value = "")]
    evidence: String,
    /// Tighter limits for this long after the unlock; as control is set when not given
    #[arg(long, value_parser = humantime::parse_duration)]
    probation: Option<Duration>,
}

/// Runs one of the commands.
pub async fn run(command: BulkCommand) -> anyhow::Result<ExitCode> {
    match command {
        BulkCommand::Lock(args) => {
            let lock = v1::LockCommand {
                for_ms: args.span.map(millis),
                reply: args.reply,
                queued_mail: queued_mail(args.queued_mail).into(),
            };
            act(args.which, Kind::Lock(lock)).await
        }
        BulkCommand::Unlock(args) => {
            let password_changed_ms = args.password_changed.as_deref().map(parse_time).transpose()?;
            let unlock = v1::UnlockCommand {
                evidence: Some(v1::UnlockEvidence { password_changed_ms, note: args.evidence }),
                probation_ms: args.probation.map(millis),
            };
            act(args.which, Kind::Unlock(unlock)).await
        }
    }
}

async fn act(args: WhichArgs, kind: Kind) -> anyhow::Result<ExitCode> {
    let accounts = args.file.as_deref().map(read_accounts).transpose()?;
    let locked_since_ms = args.since.map(|since| format::now_ms().saturating_sub(millis(since)));
    let filter = args.filter.filter(&[]);
    if accounts.is_none() && locked_since_ms.is_none() && filter == v1::AccountFilter::default() {
        bail!("it is not said which accounts are meant; give --file, or a filter such as --rule or --domain");
    }
    if accounts.as_ref().is_some_and(Vec::is_empty) {
        bail!("{} names no account", args.file.as_deref().unwrap_or(Path::new("-")).display());
    }
    let request = v1::ActOnManyRequest {
        filter: accounts.is_none().then_some(filter),
        accounts: accounts.unwrap_or_default(),
        locked_since_ms,
        dry_run: true,
        expected_count: None,
        actor: actor(args.actor, &args.server)?,
        reason: args.reason,
        kind: Some(kind),
    };
    let mut client = args.server.connect().await?;
    let mut answers = client.act_on_many(request.clone()).await?.into_inner();
    let mut planned = v1::ActOnManyResponse::default();
    while let Some(answer) = answers.message().await? {
        planned.outcomes.extend(answer.outcomes.iter().cloned());
        planned = v1::ActOnManyResponse { outcomes: planned.outcomes, ..answer };
    }
    if !args.apply {
        tell_plan(&planned, args.server.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let request = v1::ActOnManyRequest { dry_run: false, expected_count: Some(planned.total), ..request };
    let mut answers = client.act_on_many(request).await?.into_inner();
    let progress = !args.server.json && std::io::stderr().is_terminal();
    let mut last = v1::ActOnManyResponse::default();
    let mut refused = Vec::new();
    while let Some(answer) = answers.message().await? {
        refused.extend(answer.outcomes.iter().filter(|outcome| !outcome.refused.is_empty()).cloned());
        if progress {
            eprint!("\r{} of {} accounts", answer.done + answer.refused, answer.total);
            std::io::stderr().flush()?;
        }
        last = answer;
    }
    if progress {
        eprintln!();
    }
    if args.server.json {
        println!("{}", outcome_json(&last, &refused, true)?);
    } else {
        for outcome in refused.iter().take(LISTED) {
            println!("{}: {}", outcome.account, outcome.refused);
        }
        if refused.len() > LISTED {
            println!("... and {} more", refused.len() - LISTED);
        }
        println!("{} of {} accounts changed, {} not", last.done, last.total, last.refused);
    }
    Ok(if last.finished { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell_plan(planned: &v1::ActOnManyResponse, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        println!("{}", outcome_json(planned, &planned.outcomes, false)?);
        return Ok(());
    }
    let mut table = format::table(&["ACCOUNT", "NOW", "THEN", "BUT"]);
    for outcome in planned.outcomes.iter().take(LISTED) {
        table.add_row([
            outcome.account.as_str(),
            format::status_name(outcome.before()),
            format::status_name(outcome.after()),
            &outcome.refused,
        ]);
    }
    println!("{table}");
    if planned.outcomes.len() > LISTED {
        println!("... and {} more", planned.outcomes.len() - LISTED);
    }
    println!(
        "{} of {} accounts would be changed, {} not; nothing was done: add --apply to do it",
        planned.done, planned.total, planned.refused
    );
    Ok(())
}

fn outcome_json(last: &v1::ActOnManyResponse, outcomes: &[v1::ManyOutcome], applied: bool) -> anyhow::Result<String> {
    let outcomes: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            json!({
                "account": outcome.account,
                "before": format::status_name(outcome.before()),
                "after": format::status_name(outcome.after()),
                "refused": (!outcome.refused.is_empty()).then_some(&outcome.refused),
            })
        })
        .collect();
    let value = json!({
        "applied": applied,
        "total": last.total,
        "changed": last.done,
        "refused": last.refused,
        "accounts": outcomes,
    });
    Ok(serde_json::to_string_pretty(&value)?)
}

/// One account a line; empty lines and comments are passed over.
fn read_accounts(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading accounts from standard input")?;
        text
    } else {
        std::fs::read_to_string(path).with_context(|| format!("reading accounts from {}", path.display()))?
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}
