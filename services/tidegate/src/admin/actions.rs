//! `tidegate accounts lock|unlock|exempt|clear`.

use super::connect::{ServerArgs, actor};
use super::{format, show};
use anyhow::Context as _;
use clap::ValueEnum;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};
use tidegate_proto::v1;

/// What every action needs.
#[derive(Debug, clap::Args)]
struct ActionArgs {
    /// The account, e.g. jo@example.org
    account: String,
    /// Why; it stands in the audit
    #[arg(long)]
    reason: String,
    /// Who asks; the user of this shell when not given, and the name in your credentials when you have some
    #[arg(long, env = "TIDEGATE_ACTOR")]
    actor: Option<String>,
    /// How long to wait until it is in force
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// End with code 1 when it is not in force by then; it is durable all the same
    #[arg(long)]
    must_apply: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, clap::Args)]
pub struct LockArgs {
    #[command(flatten)]
    action: ActionArgs,
    /// For how long, e.g. 30m; until somebody unlocks it when not given
    #[arg(long = "for", value_parser = humantime::parse_duration)]
    span: Option<Duration>,
    /// What the SMTP client is told
    #[arg(long, default_value = "")]
    reply: String,
    /// What to do with mail that is queued already
    #[arg(long, value_enum, default_value = "keep")]
    queued_mail: QueuedMail,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum QueuedMail {
    Keep,
    Hold,
    Delete,
}

#[derive(Debug, clap::Args)]
pub struct UnlockArgs {
    #[command(flatten)]
    action: ActionArgs,
    /// When the password was changed: a time like 2026-11-25T10:00:00Z, or `now`
    #[arg(long)]
    password_changed: Option<String>,
    /// Evidence in your words
    #[arg(long, default_value = "")]
    evidence: String,
    /// Tighter limits for this long after the unlock; as control is set when not given
    #[arg(long, value_parser = humantime::parse_duration)]
    probation: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub struct ExemptArgs {
    #[command(flatten)]
    action: ActionArgs,
    /// Only this rule (may be repeated); all rules when not given
    #[arg(long)]
    rule: Vec<String>,
    /// For how long, e.g. 180d; until it is taken back when not given
    #[arg(long = "for", value_parser = humantime::parse_duration)]
    span: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub struct ClearArgs {
    #[command(flatten)]
    action: ActionArgs,
    /// Take all exemptions back
    #[arg(long, required_unless_present = "windows")]
    exemptions: bool,
    /// Start a clean slate: its events so far no longer count
    #[arg(long)]
    windows: bool,
}

/// What came of an action, whichever it was.
struct Answer {
    state: Option<v1::AccountState>,
    applied: bool,
    command_id: String,
}

pub async fn lock(args: LockArgs) -> anyhow::Result<ExitCode> {
    let request = v1::LockAccountRequest {
        account: args.action.account.clone(),
        actor: actor(args.action.actor.clone(), &args.action.server)?,
        reason: args.action.reason.clone(),
        lock: Some(v1::LockCommand {
            for_ms: args.span.map(millis),
            reply: args.reply,
            queued_mail: queued_mail(args.queued_mail).into(),
        }),
        wait_ms: wait_ms(&args.action),
    };
    let answer = args.action.server.connect().await?.lock_account(request).await?.into_inner();
    tell(&args.action, &Answer { state: answer.state, applied: answer.applied, command_id: answer.command_id })
}

pub async fn unlock(args: UnlockArgs) -> anyhow::Result<ExitCode> {
    let password_changed_ms = args.password_changed.as_deref().map(parse_time).transpose()?;
    let request = v1::UnlockAccountRequest {
        account: args.action.account.clone(),
        actor: actor(args.action.actor.clone(), &args.action.server)?,
        reason: args.action.reason.clone(),
        unlock: Some(v1::UnlockCommand {
            evidence: Some(v1::UnlockEvidence { password_changed_ms, note: args.evidence }),
            probation_ms: args.probation.map(millis),
        }),
        wait_ms: wait_ms(&args.action),
    };
    let answer = args.action.server.connect().await?.unlock_account(request).await?.into_inner();
    tell(&args.action, &Answer { state: answer.state, applied: answer.applied, command_id: answer.command_id })
}

pub async fn exempt(args: ExemptArgs) -> anyhow::Result<ExitCode> {
    let request = v1::ExemptAccountRequest {
        account: args.action.account.clone(),
        actor: actor(args.action.actor.clone(), &args.action.server)?,
        reason: args.action.reason.clone(),
        exempt: Some(v1::ExemptCommand {
            rules: args.rule,
            until_ms: args.span.map(|span| format::now_ms().saturating_add(millis(span))),
        }),
        wait_ms: wait_ms(&args.action),
    };
    let answer = args.action.server.connect().await?.exempt_account(request).await?.into_inner();
    tell(&args.action, &Answer { state: answer.state, applied: answer.applied, command_id: answer.command_id })
}

pub async fn clear(args: ClearArgs) -> anyhow::Result<ExitCode> {
    let request = v1::ClearAccountRequest {
        account: args.action.account.clone(),
        actor: actor(args.action.actor.clone(), &args.action.server)?,
        reason: args.action.reason.clone(),
        clear: Some(v1::ClearCommand { exemptions: args.exemptions, windows: args.windows }),
        wait_ms: wait_ms(&args.action),
    };
    let answer = args.action.server.connect().await?.clear_account(request).await?.into_inner();
    tell(&args.action, &Answer { state: answer.state, applied: answer.applied, command_id: answer.command_id })
}

fn tell(args: &ActionArgs, answer: &Answer) -> anyhow::Result<ExitCode> {
    if args.server.json {
        let value = serde_json::json!({
            "applied": answer.applied,
            "command_id": answer.command_id,
            "state": answer.state.as_ref().map(format::state_json),
        });
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else if answer.applied {
        println!("{}", answer.state.as_ref().map_or_else(String::new, show::line));
    } else {
        println!("accepted as command {}, not yet applied: it is durable and will be", answer.command_id);
    }
    Ok(if answer.applied || !args.must_apply { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn wait_ms(args: &ActionArgs) -> u32 {
    u32::try_from(args.wait.as_millis()).unwrap_or(u32::MAX)
}

/// As the API names it.
pub fn queued_mail(queued_mail: QueuedMail) -> v1::QueuedMail {
    match queued_mail {
        QueuedMail::Keep => v1::QueuedMail::Keep,
        QueuedMail::Hold => v1::QueuedMail::Hold,
        QueuedMail::Delete => v1::QueuedMail::Delete,
    }
}

/// Milliseconds of a span.
pub fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970 UTC of a time that people write.
pub fn parse_time(text: &str) -> anyhow::Result<i64> {
    if text == "now" {
        return Ok(format::now_ms());
    }
    let time = humantime::parse_rfc3339_weak(text)
        .with_context(|| format!("{text:?} is no time; write 2026-11-25T10:00:00Z or now"))?;
    Ok(time.duration_since(UNIX_EPOCH).map_or(0, millis))
}
